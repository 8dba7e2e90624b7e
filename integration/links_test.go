package integration

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLinksElsewhere: how many names a file has is seen to change when another device makes and removes one, also where it is open and has none left.
func TestLinksElsewhere(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	check(t, os.WriteFile(a.Personal("f"), []byte("f"), 0o644))
	links := func(want uint64) {
		t.Helper()
		d.Eventually("the links are counted", func() error {
			var st unix.Stat_t
			if err := unix.Stat(b.Personal("f"), &st); err != nil || uint64(st.Nlink) != want {
				return fmt.Errorf("%d links, not %d (%v)", st.Nlink, want, err)
			}
			return nil
		})
	}
	links(1)
	check(t, os.Link(a.Personal("f"), a.Personal("g")))
	links(2)
	check(t, os.Remove(a.Personal("g")))
	links(1)
	check(t, os.Link(a.Personal("f"), a.Personal("g")))
	links(2)
	check(t, os.WriteFile(a.Personal("g.tmp"), []byte("another"), 0o644), os.Rename(a.Personal("g.tmp"), a.Personal("g")))
	links(1)
	f, err := os.Open(b.Personal("f"))
	check(t, err)
	defer f.Close()
	check(t, os.Remove(a.Personal("f")))
	d.Eventually("it has no name", func() error {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 {
			return fmt.Errorf("%d links (%v)", st.Nlink, err)
		}
		return nil
	})
	for _, h := range d.All {
		h.Must("verify")
	}
}
