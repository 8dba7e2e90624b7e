package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestRestoreBesideWork restores versions of files that are written, renamed and deleted all the time. Nothing else may
// happen to a file than one of these, and every content that was published stays in its history.
func TestRestoreBesideWork(t *testing.T) {
	th := newTestHome(t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- th.Run(ctx) }()
	d := th.mkdir(th.root, "d")
	known := map[string]bool{}
	content := func(i int) []byte { return bytes.Repeat(fmt.Append(nil, "content ", i, ". "), 1+i%2000) }
	for i := range 3 {
		th.create(d, fmt.Sprint("f", i), content(i))
		known[string(content(i))] = true
	}
	th.flush()
	var mu sync.Mutex
	end := time.Now().Add(2 * time.Second)
	var wg sync.WaitGroup
	restores, busy := 0, 0
	for w := range 2 {
		wg.Go(func() {
			for i := w; time.Now().Before(end); i++ {
				path := fmt.Sprint("Personal/d/f", i%3)
				vs, err := th.Log(path)
				if err != nil {
					if !errors.Is(err, ErrNotExist) {
						t.Errorf("log: %v", err)
					}
					continue
				}
				version := ""
				for _, v := range vs {
					if v.Content {
						version = v.ID
					}
				}
				_, err = th.Restore(context.Background(), path, version, "")
				mu.Lock()
				switch {
				case err == nil:
					restores++
				case errors.Is(err, syscall.EBUSY), errors.Is(err, ErrNotExist), errors.Is(err, ErrExist), errors.Is(err, ErrInvalid):
					busy++
				default:
					t.Errorf("restore: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	for i := 10; time.Now().Before(end); i++ {
		name := fmt.Sprint("f", i%3)
		data := content(i)
		known[string(data)] = true
		switch _, err := th.Lookup(d, name); {
		case err != nil:
			if a, err := th.Mknod(d, name, 0100644, 0, Cred{1000, 1000}); err == nil {
				_, _ = th.Write(ctx, a.Ino, data, 0, WriteFlags{})
			}
		case i%7 == 0:
			_ = th.Unlink(d, name)
		case i%5 == 0:
			if x, err := th.Mknod(d, ".tmp", 0100644, 0, Cred{1000, 1000}); err == nil {
				_, _ = th.Write(ctx, x.Ino, data, 0, WriteFlags{})
				th.must(th.Rename(d, ".tmp", d, name, 0))
			}
		default:
			// A save in place: the file is replaced as a whole or not, since half of it may be published by the log.
			x, err := th.Tmpfile(d, 0644, Cred{1000, 1000})
			th.must(err)
			_, err = th.Write(ctx, x.Ino, data, 0, WriteFlags{})
			th.must(err)
			th.Ref(x.Ino)
			if _, err := th.Link(x.Ino, d, ".tmp"); err != nil {
				t.Error(err)
			}
			th.must(th.Rename(d, ".tmp", d, name, 0))
			th.Unref(x.Ino)
		}
		time.Sleep(time.Millisecond)
	}
	wg.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d restores, %d could not be", restores, busy)
	if restores == 0 {
		t.Fatal("nothing was restored")
	}

	th.verify()
	for _, name := range th.list(d) {
		if got := th.read(th.look(d, name)); len(got) > 0 && !known[string(got)] {
			t.Errorf("%s holds %d bytes that nobody wrote", name, len(got))
		}
		for _, v := range th.contents("Personal/d/" + name) {
			th.versionBytes("Personal/d/"+name, v.ID)
		}
	}
	th.kill()
	th.verify()
}

// TestSavedOverFormerLink: a removed hard link does not come back when the file was saved by rename since, and goes.
func TestSavedOverFormerLink(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "a", []byte("one"))
	_, err := th.Link(ino, th.root, "b")
	th.must(err)
	th.flush()
	th.must(th.Unlink(th.root, "b"))
	th.flush()
	th.create(th.root, ".tmp", []byte("two"))
	th.must(th.Rename(th.root, ".tmp", th.root, "a", 0))
	th.flush()
	th.must(th.Unlink(th.root, "a"))
	th.flush()
	th.verify()
	if l := th.deleted("Personal"); len(l) != 2 {
		t.Fatalf("%+v", l)
	}
}
