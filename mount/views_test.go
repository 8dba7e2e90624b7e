package mount

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestViews holds that the views of history can be walked, cannot be written, are in no listing, and follow what happens.
func TestViews(t *testing.T) {
	dir := mountOn(t, newRealHome(t)).dir + "/Personal"
	must(t, os.WriteFile(dir+"/f", []byte("one"), 0o644))
	versions := dir + "/.anyfs/versions/f"
	count := func(want int) func() bool {
		return func() bool {
			entries, err := os.ReadDir(versions)
			return err == nil && len(entries) == want
		}
	}
	eventually(t, "a version", count(1))
	must(t, os.WriteFile(dir+"/f", []byte("two, longer"), 0o644))
	eventually(t, "a second version", count(2))
	contents := map[string]bool{}
	entries, err := os.ReadDir(versions)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(versions, e.Name()))
		must(t, err)
		contents[string(b)] = true
		st := stat(t, filepath.Join(versions, e.Name()))
		if st.Size != int64(len(b)) || st.Mode&0o222 != 0 {
			t.Errorf("%s: size %d, mode %o", e.Name(), st.Size, st.Mode)
		}
	}
	if !contents["one"] || !contents["two, longer"] {
		t.Errorf("the versions hold %v", contents)
	}
	list(t, dir, 1)
	if err := os.WriteFile(versions+"/new", nil, 0o644); err == nil {
		t.Error("history can be written")
	}
	if err := unix.Rmdir(dir + "/.anyfs"); err == nil {
		t.Error("history can be removed")
	}
	must(t, os.Remove(dir+"/f"))
	eventually(t, "it lies in the trash", func() bool {
		entries, err := os.ReadDir(dir + "/.anyfs/trash")
		return err == nil && len(entries) == 1
	})
}

// TestSpacesAtTheRoot holds that the spaces are the folders of the root, made, renamed and removed as such.
func TestSpacesAtTheRoot(t *testing.T) {
	dir := mountOn(t, newRealHome(t)).dir
	list(t, dir, 1)
	must(t, os.Mkdir(dir+"/Work", 0o755))
	newFile(t, dir+"/Work/f", "x")
	list(t, dir, 2)
	if err := unix.Rmdir(dir + "/Work"); err != unix.ENOTEMPTY {
		t.Errorf("removing a space with a file: %v", err)
	}
	if err := unix.Rename(dir+"/Work/f", dir+"/Personal/f"); err != unix.EXDEV {
		t.Errorf("renaming from space to space: %v", err)
	}
	if err := unix.Link(dir+"/Work/f", dir+"/Personal/f"); err != unix.EXDEV {
		t.Errorf("linking from space to space: %v", err)
	}
	if fd, err := unix.Open(dir+"/file", unix.O_CREAT|unix.O_WRONLY, 0o644); err == nil {
		unix.Close(fd)
		t.Error("a file beside the spaces")
	}
	must(t, os.Rename(dir+"/Work", dir+"/Play"))
	contains(t, dir+"/Play/f", "x")
	absent(t, dir+"/Work")
	must(t, os.Remove(dir+"/Play/f"))
	must(t, os.Remove(dir+"/Play"))
	list(t, dir, 1)
}
