package acl

import (
	"fmt"
	"strings"

	"github.com/anyfs/anyfs/acl/list"
)

// fingerprint is all that a list's state shows, as text.
func fingerprint(l *list.List) string {
	var b strings.Builder
	s := l.State()
	fmt.Fprintln(&b, "heads", l.Heads(), "unknown", s.Unknown)
	for _, m := range s.Members() {
		fmt.Fprintf(&b, "%x %s since %s\n", m.Account, m.Role, m.Since)
		for _, d := range m.Devices {
			fmt.Fprintf(&b, "  %x serial %d record %s name %x\n", d.Device, d.Serial, d.Record, d.Name)
		}
	}
	for _, e := range s.Epochs() {
		fmt.Fprintf(&b, "epoch %s %x wraps %d\n", e.ID, e.Commitment, len(e.Wraps))
	}
	for _, o := range []string{"merge", "a", "b", "c"} {
		v, ok := s.Option(o)
		fmt.Fprintln(&b, o, v, ok)
	}
	return b.String()
}
