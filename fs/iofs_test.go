package fs

import (
	"testing"
	"testing/fstest"
)

func TestIOFS(t *testing.T) {
	th := newTestHome(t)
	th.fill()
	if err := fstest.TestFS(th.FS(th.root), "dir", "dir/hard", "moved/a", "moved/d"); err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(th.FS(RootIno), PersonalName+"/moved/c"); err != nil {
		t.Fatal(err)
	}
}
