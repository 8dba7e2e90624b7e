package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestSpacesOfOneName: two devices of an account each make a space by one name while they are apart. Both are there in the end, on both, with all that is in them.
func TestSpacesOfOneName(t *testing.T) {
	d := NewDevices(t, 2)
	for _, h := range d.All {
		h.Must("pause")
	}
	for i, h := range d.All {
		h.Must("space", "create", "Work")
		check(t, os.WriteFile(filepath.Join(h.Mnt, "Work", fmt.Sprintf("by %d", i)), []byte("x"), 0o644))
		h.Must("status", "--wait", "--here")
	}
	for _, h := range d.All {
		h.Must("resume")
	}
	for _, h := range d.All {
		d.Eventually("both spaces are there", func() error {
			found, err := filepath.Glob(filepath.Join(h.Mnt, "Work*", "by *"))
			if len(found) != 2 || filepath.Dir(found[0]) == filepath.Dir(found[1]) {
				return fmt.Errorf("%v, %v, and %s", found, err, h.Run("space", "list").Stdout)
			}
			return nil
		})
	}
	d.WaitEqual()
}
