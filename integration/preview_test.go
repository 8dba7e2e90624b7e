package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPreview: a device that is new to a space with a history, over a line on which that takes long, shows the root and what is below at once by
// its peer's preview, read-only, and the history's own tree when that is there.
func TestPreview(t *testing.T) {
	l := NewLAN(t, 2)
	d := NewLANDevices(t, l, nil)
	a, b := d.All[0], d.All[1]
	d.Connected()
	// The second device is as good as new to a space that is made while it is away.
	b.Unmount()
	work := filepath.Join(a.Mnt, "Work")
	check(t, os.Mkdir(work, 0o755))
	const dirs, files = 30, 40
	for round := range 2 {
		for i := range dirs {
			dir := filepath.Join(work, fmt.Sprintf("dir-%02d", i))
			if round == 0 {
				check(t, os.Mkdir(dir, 0o755))
			}
			for j := range files {
				text := strings.Repeat(fmt.Sprintf("file %d of %d, round %d\n", j, i, round), 40)
				check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%02d", j)), []byte(text), 0o644))
			}
		}
		a.Must("status", "--wait", "--here", "--timeout", "5m")
	}
	check(t, os.WriteFile(filepath.Join(work, "big"), []byte(strings.Repeat("sixteen bytes..\n", 4096)), 0o644))
	for i := range dirs / 2 { // what was and is no more shows at no time
		check(t, os.Rename(filepath.Join(work, fmt.Sprintf("dir-%02d", i)), filepath.Join(work, fmt.Sprintf("moved-%02d", i))))
	}
	a.Must("status", "--wait", "--here", "--timeout", "5m")
	time.Sleep(15 * time.Second) // it makes a preview when it has been idle for 5 to 10 s

	const rate = 150_000 // the history has some 3 MB
	l.SetAll(Cable{Rate: rate})
	defer l.SetAll(Cable{})
	b.Mount()
	there := filepath.Join(b.Mnt, "Work")
	began := time.Now()
	for {
		if _, err := os.Lstat(there); err == nil {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("the space does not come")
		}
		time.Sleep(20 * time.Millisecond)
	}
	space := time.Now()
	whole := func() bool {
		names, err := os.ReadDir(there)
		return err == nil && len(names) == dirs+1
	}
	for !whole() {
		names, _ := os.ReadDir(there)
		for _, n := range names {
			if n.Name() < "dir-15" && strings.HasPrefix(n.Name(), "dir-") {
				t.Errorf("%s is shown, which is no more", n.Name())
			}
		}
		if time.Since(space) > time.Minute {
			t.Fatalf("the root has %d names a minute after the space came", len(names))
		}
		time.Sleep(20 * time.Millisecond)
	}
	root := time.Since(space)
	st := b.Must("status")
	if !strings.Contains(st, "preview") {
		t.Fatalf("the root is whole after %v, and no preview is told of:\n%s", root, st)
	}
	if err := os.WriteFile(filepath.Join(there, "new"), nil, 0o644); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a file is made in the preview: %v", err)
	}
	names, err := os.ReadDir(filepath.Join(there, "moved-03"))
	if err != nil || len(names) != files {
		t.Errorf("a directory of the preview has %d names, %v", len(names), err)
	}
	if i, err := os.Stat(filepath.Join(there, "dir-20", "file-07")); err != nil || i.Size() == 0 {
		t.Errorf("a file of the preview: %v, %v", i, err)
	}
	if p, err := os.ReadFile(filepath.Join(there, "big")); err != nil || len(p) != 65536 {
		t.Errorf("a file with blocks has %d bytes, %v", len(p), err)
	}
	for strings.Contains(b.Must("status"), "preview") {
		if time.Since(space) > 5*time.Minute {
			t.Fatalf("the preview stays:\n%s", b.Must("status"))
		}
		time.Sleep(200 * time.Millisecond)
	}
	history := time.Since(space)
	t.Logf("over a line of %d bytes a second the root was whole after %v, and the history after %v", rate, root.Round(10*time.Millisecond), history.Round(10*time.Millisecond))
	if root > history/2 {
		t.Error("the preview gained nothing")
	}
	l.SetAll(Cable{})
	check(t, os.WriteFile(filepath.Join(there, "new"), []byte("new\n"), 0o644))
	d.Same()
	here, err := readTree(work, TreeOptions{})
	check(t, err)
	got, err := readTree(there, TreeOptions{})
	check(t, err)
	if diff := DiffTrees(here, got); len(diff) > 0 {
		t.Errorf("%d differences, as %s", len(diff), strings.Join(diff[:min(len(diff), 8)], "\n"))
	}
	if s := b.Must("status"); strings.Contains(s, "differs") {
		t.Errorf("an honest preview is reported:\n%s", s)
	}
}
