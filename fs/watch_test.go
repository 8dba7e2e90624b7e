package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// watching collects what a watcher of a home is told.
type watching struct {
	changes chan Change
	stop    func() error
}

func (h *testHome) watching(path string) *watching {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watching{changes: make(chan Change, 1000)}
	done, ready := make(chan error, 1), make(chan struct{})
	begun := func() error { close(ready); return nil }
	go func() {
		done <- h.Watch(ctx, path, begun, func(c Change) error { w.changes <- c; return nil })
	}()
	<-ready
	w.stop = func() error { cancel(); return <-done }
	return w
}

// got waits until n changes were told, and gives them as text.
func (w *watching) got(t *testing.T, n int) (out []string) {
	t.Helper()
	for len(out) < n {
		select {
		case c := <-w.changes:
			s := c.Event + " " + c.Path
			if c.From != "" {
				s += " from " + c.From
			}
			if c.Device == "" || c.Time.IsZero() {
				t.Errorf("%+v has no device or time", c)
			}
			if !c.Local {
				s += " elsewhere"
			}
			out = append(out, s)
		case <-time.After(time.Minute):
			t.Fatalf("only %q", out)
		}
	}
	select {
	case c := <-w.changes:
		t.Fatalf("after %q there is %+v", out, c)
	case <-time.After(20 * time.Millisecond):
	}
	return out
}

// TestWatch: what one device does is told there, and where it arrives with the device that did it.
func TestWatch(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	sub := a.dir0(a.root, "sub")
	a.create(sub, "old", []byte("old"))
	d.settle()
	here, there, part := a.watching(""), b.watching("Personal"), b.watching("Personal/sub")
	step := func(do func(), local, remote []string) {
		t.Helper()
		do()
		d.settle()
		if got := here.got(t, len(local)); !slices.Equal(got, local) {
			t.Errorf("here it is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(local, "\n"))
		}
		for i := range remote {
			remote[i] += " elsewhere"
		}
		if got := there.got(t, len(remote)); !slices.Equal(got, remote) {
			t.Errorf("there it is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(remote, "\n"))
		}
	}
	step(func() { a.create(a.root, "f", []byte("x")) },
		[]string{"created Personal/f", "changed Personal/f"}, []string{"created Personal/f"})
	step(func() { a.write(a.in("f"), []byte("again"), 0) }, []string{"changed Personal/f"}, []string{"changed Personal/f"})
	step(func() { a.must(a.Rename(a.root, "f", a.in("sub"), "g", 0)) },
		[]string{"renamed Personal/sub/g from Personal/f"}, []string{"renamed Personal/sub/g from Personal/f"})
	step(func() { a.must(a.Setxattr(a.in("sub/g"), "user.x", []byte("1"), 0)) },
		[]string{"changed Personal/sub/g"}, []string{"changed Personal/sub/g"})
	step(func() { a.must(a.Rename(a.root, "sub", a.root, "dir", 0)) },
		[]string{"renamed Personal/dir from Personal/sub"}, []string{"renamed Personal/dir from Personal/sub"})
	step(func() { a.must(a.Unlink(a.in("dir"), "g")) }, []string{"removed Personal/dir/g"}, []string{"removed Personal/dir/g"})
	step(func() {
		a.must(a.Unlink(a.in("dir"), "old"))
		a.must(a.Rmdir(a.root, "dir"))
	}, []string{"removed Personal/dir/old", "removed Personal/dir"}, []string{"removed Personal/dir/old", "removed Personal/dir"})
	step(func() {
		a.create(a.root, "doc", []byte("1"))
	}, []string{"created Personal/doc", "changed Personal/doc"}, []string{"created Personal/doc"})
	step(func() {
		a.create(a.root, ".tmp", []byte("2"))
		a.must(a.Rename(a.root, ".tmp", a.root, "doc", 0))
	}, []string{"created Personal/.tmp", "renamed Personal/doc from Personal/.tmp", "changed Personal/doc"}, []string{"changed Personal/doc"})
	step(func() { must2(a.CreateSpace("New")) }, []string{"created New"}, nil)
	step(func() { a.must(a.RenameSpace("New", "Newer")) }, []string{"renamed Newer from New"}, nil)
	step(func() { a.must(a.DeleteSpace("Newer")) }, []string{"removed Newer"}, nil)
	if got := part.got(t, 3); !strings.HasPrefix(got[0], "renamed Personal/sub/g from Personal/f") ||
		!strings.HasPrefix(got[2], "renamed Personal/dir from Personal/sub") {
		t.Errorf("of a part: %q", got)
	}
	for _, w := range []*watching{here, there, part} {
		if err := w.stop(); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	}
	if n := a.Home.watch.count.Load(); n != 0 {
		t.Errorf("%d watch still", n)
	}
}

// TestWatchOverflow: a watcher that does not read holds nobody up, and is told that changes are missing.
func TestWatchOverflow(t *testing.T) {
	h := newTestHome(t)
	must2(h.CreatePersonal())
	h.find()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begun, first, goOn := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var events []string
	done := make(chan error, 1)
	enough := errors.New("enough")
	go func() {
		done <- h.Watch(ctx, "", func() error { close(begun); return nil }, func(c Change) error {
			if len(events) == 0 {
				close(first)
				<-goOn
			}
			if events = append(events, c.Event); c.Path == "Personal/last" {
				return enough
			}
			return nil
		})
	}()
	<-begun
	h.create(h.root, "first", nil)
	<-first
	for i := range maxWatched/2 + 10 {
		h.create(h.root, "f", nil)
		h.must(h.Rename(h.root, "f", h.root, fmt.Sprint("g", i%5), 0))
	}
	close(goOn)
	for h.overflowing() {
		time.Sleep(time.Millisecond)
	}
	h.create(h.root, "last", nil)
	if err := <-done; !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if n := len(events); n != maxWatched+3 || events[n-2] != EventOverflow {
		t.Errorf("%d events, the last %q", n, events[n-3:])
	}
}

func (h *testHome) overflowing() bool {
	h.Home.watch.mu.Lock()
	defer h.Home.watch.mu.Unlock()
	for w := range h.Home.watch.all {
		if w.lost.Load() || len(w.queue) > 0 {
			return true
		}
	}
	return false
}
