package integration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTwoDevices: a second device that knows the phrase has every space, and what one does shows on the other.
func TestTwoDevices(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	big := make([]byte, 9<<20)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range big {
		big[i] = byte(rnd.Uint32())
	}
	work := filepath.Join(a.Mnt, "Work")
	check(t,
		os.WriteFile(a.Personal("small"), []byte("small"), 0o640),
		os.WriteFile(a.Personal("big"), big, 0o644),
		os.Mkdir(work, 0o755),
		os.MkdirAll(filepath.Join(work, "a", "b", "c"), 0o755),
		os.WriteFile(filepath.Join(work, "a", "b", "c", "deep"), []byte("deep"), 0o600),
		os.Symlink("a/b", filepath.Join(work, "link")),
		os.Link(a.Personal("small"), a.Personal("small too")),
		unix.Setxattr(a.Personal("small"), "user.colour", []byte("red"), 0))
	d.Same()
	// And the other way round, into what the first one made.
	check(t,
		os.WriteFile(filepath.Join(b.Mnt, "Work", "a", "b", "answer"), []byte("answer"), 0o644),
		os.Rename(filepath.Join(b.Mnt, "Work", "a", "b", "c"), filepath.Join(b.Mnt, "Work", "moved")),
		os.Remove(b.Personal("small too")),
		os.WriteFile(b.Personal("new.tmp"), []byte("a save"), 0o644),
		os.Rename(b.Personal("new.tmp"), b.Personal("small")),
		os.Mkdir(filepath.Join(b.Mnt, "Of b"), 0o755),
		os.WriteFile(filepath.Join(b.Mnt, "Of b", "x"), []byte("x"), 0o644))
	b.Settle()
	d.Same()
	if got, err := os.ReadFile(a.Personal("small")); err != nil || string(got) != "a save" {
		t.Errorf("small: %q, %v", got, err)
	}
	if a.ID(a.Personal("small")) != b.ID(b.Personal("small")) {
		t.Error("the file is another object on each device")
	}
	// A space that goes, goes everywhere; one that is renamed is so everywhere.
	check(t,
		os.Remove(filepath.Join(a.Mnt, "Of b", "x")),
		os.Remove(filepath.Join(a.Mnt, "Of b")),
		os.Rename(filepath.Join(a.Mnt, "Work"), filepath.Join(a.Mnt, "Werk")))
	d.Eventually("the space is gone", func() error {
		if _, err := os.Lstat(filepath.Join(b.Mnt, "Of b")); !os.IsNotExist(err) {
			return fmt.Errorf("lstat: %v", err)
		}
		return nil
	})
	d.Same()
	for _, h := range d.All {
		h.Must("verify")
		h.Remount()
	}
	d.Connect(a, b)
	check(t, os.WriteFile(a.Personal("after"), []byte("after"), 0o644))
	d.Same()
}

// TestDevicesApart: what two devices did while they were apart is merged, or both is kept, and what was open shows what it opened.
func TestDevicesApart(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	text := "one\ntwo\nthree\nfour\nfive\n"
	check(t,
		os.WriteFile(a.Personal("merged.txt"), []byte(text), 0o644),
		os.WriteFile(a.Personal("conflict.txt"), []byte(text), 0o644),
		os.WriteFile(a.Personal("kept"), []byte("kept by an edit"), 0o644),
		os.WriteFile(a.Personal("open"), []byte("first"), 0o644))
	d.Same()
	open, err := os.Open(b.Personal("open"))
	check(t, err)
	defer open.Close()
	check(t, os.WriteFile(a.Personal("open"), []byte("second"), 0o644))
	d.Eventually("the new version shows", func() error {
		if got, err := os.ReadFile(b.Personal("open")); err != nil || string(got) != "second" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
	p := make([]byte, 10)
	if n, err := open.ReadAt(p, 0); string(p[:n]) != "first" {
		t.Errorf("the open file shows %q, %v", p[:n], err)
	}
	open.Close()

	b.Unmount()
	check(t,
		os.WriteFile(a.Personal("merged.txt"), []byte(strings.Replace(text, "one", "ONE", 1)), 0o644),
		os.WriteFile(a.Personal("conflict.txt"), []byte("by a\n"), 0o644),
		os.Remove(a.Personal("kept")))
	for i := range 300 {
		check(t, os.WriteFile(a.Personal(fmt.Sprintf("of a %d", i)), fmt.Appendf(nil, "%d", i), 0o644))
	}
	a.Unmount()
	b.Mount("--no-discovery")
	check(t,
		os.WriteFile(b.Personal("merged.txt"), []byte(strings.Replace(text, "five", "FIVE", 1)), 0o644),
		os.WriteFile(b.Personal("conflict.txt"), []byte("by b\n"), 0o644),
		os.WriteFile(b.Personal("kept"), []byte("edited"), 0o644))
	for i := range 300 {
		check(t, os.WriteFile(b.Personal(fmt.Sprintf("of b %d", i)), fmt.Appendf(nil, "%d", i), 0o644))
	}
	a.Mount("--no-discovery")
	d.Connect(a, b)
	a.Settle()
	b.Settle()
	tree := d.Same()
	if got, _ := os.ReadFile(a.Personal("merged.txt")); string(got) != "ONE\ntwo\nthree\nfour\nFIVE\n" {
		t.Errorf("merged: %q", got)
	}
	if got, _ := os.ReadFile(a.Personal("kept")); string(got) != "edited" {
		t.Errorf("an edit does not beat a removal: %q", got)
	}
	var kept []string
	for path := range tree {
		if strings.HasPrefix(path, "Personal/conflict") {
			b, _ := os.ReadFile(filepath.Join(a.Mnt, path))
			kept = append(kept, string(b))
		}
	}
	if len(kept) != 2 || !strings.Contains(strings.Join(kept, ""), "by a") || !strings.Contains(strings.Join(kept, ""), "by b") {
		t.Errorf("of a conflict is kept: %q", kept)
	}
	for _, h := range d.All {
		h.Must("verify")
	}
}

// TestKilledWhileItReceives: a device that is killed in the middle of a transfer goes on where it was.
func TestKilledWhileItReceives(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	d.Same()
	for i := range 40 {
		check(t, os.WriteFile(a.Personal(fmt.Sprintf("big %d", i)), bytes.Repeat(fmt.Appendf(nil, "%08d", i), 1<<17), 0o644))
		check(t, os.MkdirAll(a.Personal(fmt.Sprintf("d%d", i)), 0o755))
		for k := range 20 {
			check(t, os.WriteFile(a.Personal(fmt.Sprintf("d%d/%d", i, k)), fmt.Appendf(nil, "%d %d", i, k), 0o644))
		}
		if i%8 == 7 {
			b.Kill()
			b.Mount("--no-discovery")
		}
	}
	d.Same()
	b.Must("verify")
}
