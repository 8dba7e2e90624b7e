package fs

import (
	"testing"
	"testing/fstest"
)

func TestIOFS(t *testing.T) {
	// The suite reads byte by byte: the files are small.
	th := newTestHome(t)
	d, err := th.Mkdir(th.root, "dir", 0755, Cred{1000, 1000})
	th.must(err)
	th.create(d.Ino, "inline", random(1, 300))
	th.create(d.Ino, "blocks", random(2, 8<<10+1))
	th.create(th.root, "empty", nil)
	_, err = th.Symlink(d.Ino, "link", "inline", Cred{1000, 1000})
	th.must(err)
	if err := fstest.TestFS(th.FS(th.root), "dir/inline", "dir/blocks", "empty"); err != nil {
		t.Fatal(err)
	}
	th.must(th.Flush(t.Context()))
	if err := fstest.TestFS(th.FS(RootIno), PersonalName+"/dir/blocks"); err != nil {
		t.Fatal(err)
	}
}
