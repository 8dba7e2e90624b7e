package fs

import (
	"context"
	"math"
	"testing"
	"time"
)

// TestChangesOfTimes holds which operations change mtime and ctime where that is easily missed.
func TestChangesOfTimes(t *testing.T) {
	th := newTestHome(t)
	ctx := context.Background()
	file := th.create(th.root, "f", []byte("content"))
	a, err := th.Mkdir(th.root, "d", 0755, Cred{1000, 1000})
	th.must(err)
	dir := a.Ino
	future := int64(math.MaxInt64)
	for _, c := range []struct {
		what         string
		ino          Ino
		do           func() error
		mtime, ctime bool
	}{
		{"setting no attribute", file, func() error { _, err := th.Setattr(ctx, file, SetAttr{}); return err }, false, true},
		{"setting none, of a directory", dir, func() error { _, err := th.Setattr(ctx, dir, SetAttr{}); return err }, false, true},
		{"setting the atime", file, func() error { _, err := th.Setattr(ctx, file, SetAttr{Atime: new(int64)}); return err }, false, true},
		{"an attribute", file, func() error { return th.Setxattr(file, "user.a", []byte("b"), 0) }, false, true},
		{"the same attribute", file, func() error { return th.Setxattr(file, "user.a", []byte("b"), 0) }, false, false},
		{"a hole behind the end", file, func() error {
			return th.Fallocate(ctx, file, FallocPunchHole|FallocKeepSize, 1<<20, 10)
		}, true, true},
		{"an entry", dir, func() error { th.create(dir, "x", nil); return nil }, true, true},
		{"a time in the future", dir, func() error { _, err := th.Setattr(ctx, dir, SetAttr{Mtime: &future}); return err }, true, true},
		{"an entry after that", dir, func() error { th.create(dir, "y", nil); return nil }, true, true},
	} {
		before, err := th.Getattr(c.ino)
		th.must(err)
		th.must(c.do())
		after, err := th.Getattr(c.ino)
		th.must(err)
		if (before.Mtime != after.Mtime) != c.mtime || (before.Ctime != after.Ctime) != c.ctime {
			t.Errorf("%s: mtime from %d to %d, ctime from %d to %d", c.what, before.Mtime, after.Mtime, before.Ctime, after.Ctime)
		}
		if after.Ctime == future || c.what == "an entry after that" && after.Mtime == future {
			t.Errorf("%s leaves a time in the future", c.what)
		}
	}
}

// TestPastAndAClockThatWasSetBack: what was in a directory at a moment comes back though it was removed, by a clock that was set back
// since, before that moment; also where the trash was made anew.
func TestPastAndAClockThatWasSetBack(t *testing.T) {
	for _, how := range []string{"removed", "moved", "removed and imported"} {
		t.Run(how, func(t *testing.T) {
			th := newTestHome(t)
			d := th.mkdir(th.root, "d")
			th.tick(time.Hour)
			ino := th.create(d, "f", []byte("one"))
			th.flush()
			th.tick(time.Minute)
			m := th.clock().UTC().Format("2006-01-02T15:04:05Z")
			th.tick(4 * time.Minute)
			th.write(ino, []byte("two"), 0)
			th.flush()
			th.tick(-55 * time.Minute)
			if how == "moved" {
				th.must(th.Rename(d, "f", th.root, "f", 0))
			} else {
				th.must(th.Unlink(d, "f"))
			}
			th.flush()
			if how == "removed and imported" {
				th.reimport()
				d = th.look(th.root, "d")
			}
			th.tick(2 * time.Hour)
			res, err := th.Restore(context.Background(), "Personal/d", m, "")
			if err != nil || res.Files != 1 || len(res.Skipped) > 0 {
				t.Fatalf("%+v, %v", res, err)
			}
			th.wantContent(d, "f", []byte("one"))
		})
	}
}
