package fs

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
)

// TestMembersText: the attribute of a space's members holds what an attribute can, and says what is missing.
func TestMembersText(t *testing.T) {
	for _, n := range []int{1, 900, 1200, 10_000} {
		members := make([]acl.Member, n)
		for i := range members {
			members[i] = acl.Member{Account: dag.PublicKey(bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16)), Role: acl.RoleWriter}
		}
		text := membersText(members)
		lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
		last, shown := lines[len(lines)-1], len(lines)
		if strings.HasPrefix(last, "and ") {
			shown--
			if last != fmt.Sprintf("and %d more, which 'anyfs members' lists", n-shown) {
				t.Errorf("of %d members %d are shown, and %q", n, shown, last)
			}
		} else if shown != n {
			t.Errorf("%d lines of %d members", shown, n)
		}
		if len(text) > MaxXattr || n > 1000 && len(text) < MaxXattr-200 {
			t.Errorf("%d bytes for %d members", len(text), n)
		}
	}
}
