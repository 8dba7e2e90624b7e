package fs

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs/index"
)

// tend does what the publisher does.
func (th *testHome) tend() {
	th.t.Helper()
	s, _ := th.personal()
	s.tendIgnored(context.Background())
	th.flush()
}

func (th *testHome) wantSync(path, want string) {
	th.t.Helper()
	if v := must2(th.Getxattr(th.at(path), "user.anyfs.sync")); string(v) != want {
		th.t.Errorf("%s is %s, not %s", path, v, want)
	}
}

// shown lists what a device shows in Personal, names alone.
func (d *devices) shown(h *testHome) (out []string) {
	for _, line := range d.tree(h) {
		name, _, _ := strings.Cut(line, " ")
		out = append(out, name)
	}
	return out
}

func (d *devices) wantShown(h *testHome, want ...string) {
	d.t.Helper()
	slices.Sort(want)
	if got := d.shown(h); !slices.Equal(got, want) {
		d.t.Fatalf("it shows %q, not %q", got, want)
	}
}

// TestIgnored: what is named stays here, through kills, recovery, verify and pruning, and is published when the pattern goes.
func TestIgnored(t *testing.T) {
	d := newDevices(t, 2)
	d.connect()
	a, b := d.all[0], d.all[1]
	big := random(1, 700<<10)
	a.create(a.root, IgnoreName, []byte("*.o\n/build/\n!keep.o\n"))
	a.create(a.root, "x.o", []byte("an object"))
	a.create(a.root, "keep.o", []byte("kept"))
	a.create(a.root, "x.c", []byte("source"))
	build := a.mkdir(a.root, "build")
	a.create(build, "out", big)
	deep := a.mkdir(build, "deep")
	a.create(deep, "in", []byte("deep"))
	other := a.mkdir(a.root, "other")
	a.create(a.mkdir(other, "build"), "seen", []byte("not at the root"))
	inner := a.create(other, IgnoreName, []byte("!x.o\nseen.txt\n"))
	a.create(other, "x.o", []byte("let in again"))
	a.create(other, "seen.txt", []byte("ignored below"))
	must2(a.Symlink(a.root, "l.o", "x.o", Cred{1000, 1000}))
	d.settle()
	here := []string{".anyfsignore", "build", "build/deep", "build/deep/in", "build/out", "keep.o", "l.o", "other", "other/.anyfsignore",
		"other/build", "other/build/seen", "other/seen.txt", "other/x.o", "x.c", "x.o"}
	there := []string{".anyfsignore", "keep.o", "other", "other/.anyfsignore", "other/build", "other/build/seen", "other/x.o", "x.c"}
	d.wantShown(a, here...)
	d.wantShown(b, there...)
	a.wantSync("Personal/x.o", "ignored")
	a.wantSync("Personal/build/out", "ignored")
	a.wantSync("Personal/x.c", "local")
	if n := a.dirtyCount(); n != 0 {
		t.Errorf("%d files are to be published still", n)
	}
	check := func() {
		t.Helper()
		d.wantShown(a, here...)
		a.wantContent(a.at("Personal/build"), "out", big)
		a.wantContent(a.root, "x.o", []byte("an object"))
		a.verify()
	}
	power := func() {
		t.Helper()
		a.must(a.SyncAll(context.Background()))
		for _, r := range a.Replicas() {
			a.must(r.Durable())
		}
		a.Home.abandon()
		a.sim = a.sim.Crash(func() disk.Keep { return disk.Drop })
		a.open()
	}
	check()
	a.kill()
	check()
	power()
	check()
	a.must(a.checkpoint(context.Background()))
	a.kill() // the checkpoint alone
	check()
	a.tick(2 * sealIgnoredAfter)
	a.tend()
	a.must(a.checkpoint(context.Background()))
	// Its data lies in blocks now, and pins nothing of the journal.
	s, _ := a.personal()
	s.mu.Lock()
	need := s.need
	s.mu.Unlock()
	if need != 0 {
		t.Errorf("record %d is needed still", need)
	}
	power()
	check()
	a.prune(KeepPolicy{}, false)
	a.reopen()
	check()
	a.tend()
	if n := a.dirtyCount(); n != 0 {
		t.Errorf("%d files are to be published after a start", n)
	}
	d.settle()
	d.wantShown(b, there...)
	// Written to, moved, removed: it stays here.
	a.write(a.at("Personal/build/out"), []byte("new"), 0)
	a.must(a.Rename(a.root, "x.o", a.root, "y.o", 0))
	a.must(a.Unlink(a.root, "l.o"))
	d.settle()
	d.wantShown(b, there...)
	copy(big, "new")
	a.kill()
	a.wantContent(a.at("Personal/build"), "out", big)
	// Out of the pattern's reach it is published; what was published stays so under any name.
	a.must(a.Rename(a.root, "y.o", a.root, "y.txt", 0))
	a.must(a.Rename(a.root, "x.c", a.root, "x.c.o", 0))
	d.settle()
	there = slices.DeleteFunc(append(there, "y.txt", "x.c.o"), func(n string) bool { return n == "x.c" })
	d.wantShown(b, there...)
	b.write(b.look(b.root, "x.c.o"), []byte("SOURCE"), 0)
	d.settle()
	a.wantContent(a.root, "x.c.o", []byte("SOURCE"))
	// The patterns change, here and there.
	a.must(a.Unlink(other, IgnoreName))
	d.settle()
	there = append(slices.DeleteFunc(there, func(n string) bool { return n == "other/.anyfsignore" }), "other/seen.txt")
	d.wantShown(b, there...)
	_ = inner
	b.save(b.look(b.root, IgnoreName), []byte("*.o\n"))
	b.tend()
	d.settle()
	a.tend() // it has come
	d.settle()
	there = append(there, "build", "build/out", "build/deep", "build/deep/in")
	d.wantShown(b, there...)
	d.same()
	a.verify()
	// And a new one of the root is no reason to forget what is there.
	a.save(a.look(a.root, IgnoreName), []byte("other/\nbuild/\n"))
	a.create(a.at("Personal/other"), "late", []byte("stays"))
	d.settle()
	d.wantShown(b, there...)
	b.write(b.at("Personal/other/x.o"), []byte("LET"), 0)
	d.settle()
	a.wantContent(a.at("Personal/other"), "x.o", []byte("LET in again"))
}

// TestIgnoredBlocks: what another device publishes under a name that is ignored here gets the name; what was there stays, beside it.
func TestIgnoredBlocks(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.create(a.root, IgnoreName, []byte("secret\nbuild/\nmixed\n"))
	a.create(a.root, "secret", []byte("of a"))
	a.create(a.mkdir(a.root, "build"), "a.out", []byte("of a"))
	a.create(a.mkdir(a.root, "mixed"), "in", []byte("of a"))
	a.flush()
	// b made these before it knew of the patterns.
	b.create(b.root, "secret", []byte("of b"))
	b.create(b.mkdir(b.root, "build"), "b.out", []byte("of b"))
	b.create(b.root, "mixed", []byte("of b"))
	b.flush()
	for range 4 {
		d.send(b, a)
		a.flush()
	}
	d.settle()
	d.wantShown(a, ".anyfsignore", "build", "build/a.out", "build/b.out", "mixed", "mixed.anyfs-local", "mixed.anyfs-local/in", "secret", "secret.anyfs-local")
	d.wantShown(b, ".anyfsignore", "build", "build/b.out", "mixed", "secret")
	a.wantContent(a.root, "secret", []byte("of b"))
	a.wantContent(a.root, "secret.anyfs-local", []byte("of a"))
	a.wantContent(a.at("Personal/build"), "a.out", []byte("of a"))
	a.kill()
	a.wantContent(a.root, "secret.anyfs-local", []byte("of a"))
	a.verify()
	d.settle()
	d.wantShown(b, ".anyfsignore", "build", "build/b.out", "mixed", "secret")
	// A directory that another device removes stays as long as something is in it that only this one has.
	b.must(b.Unlink(b.look(b.root, "build"), "b.out"))
	b.must(b.Rmdir(b.root, "build"))
	d.settle()
	a.wantContent(a.at("Personal/build"), "a.out", []byte("of a"))
	a.verify()
	a.must(a.Unlink(a.at("Personal/build"), "a.out"))
	d.settle()
	d.wantShown(a, ".anyfsignore", "mixed", "mixed.anyfs-local", "mixed.anyfs-local/in", "secret", "secret.anyfs-local")
}

// TestIgnoredUnreadable: as long as the patterns cannot be read, nothing is published that they may name.
func TestIgnoredUnreadable(t *testing.T) {
	d := newDevices(t, 2)
	net := d.connect()
	a, b := d.all[0], d.all[1]
	a.create(a.root, IgnoreName, []byte(strings.Repeat("# a long comment\n", 2000)+"secret\n"))
	a.create(a.root, "public", []byte("published before"))
	a.flush()
	net[1].leave(a, true)
	d.settle()
	b.create(b.root, "secret", []byte("of b"))
	b.create(b.root, "plain", []byte("of b"))
	b.write(b.look(b.root, "public"), []byte("PUBLISHED"), 0)
	d.settle()
	d.wantShown(a, ".anyfsignore", "public")
	a.wantContent(a.root, "public", []byte("PUBLISHED before"))
	net[1].leave(a, false)
	b.Mirror()
	b.mirror()
	b.tend()
	d.settle()
	d.wantShown(a, ".anyfsignore", "plain", "public")
	d.wantShown(b, ".anyfsignore", "plain", "public", "secret")
}

// TestIgnoredLinks: an open file without a name, and one that many names lead to, are treated by their names.
func TestIgnoredLinks(t *testing.T) {
	th := newTestHome(t)
	th.create(th.root, IgnoreName, []byte("*.o\n"))
	f := th.create(th.root, "f.o", []byte("one"))
	must2(th.Link(f, th.root, "g.o"))
	th.flush()
	th.wantSync("Personal/g.o", "ignored")
	p := th.create(th.root, "p", []byte("published"))
	th.flush()
	if _, err := th.Link(f, th.root, "across"); !errors.Is(err, ErrCrossSpace) {
		t.Errorf("a link out of the pattern's reach: %v", err)
	}
	if _, err := th.Link(p, th.root, "p.o"); !errors.Is(err, ErrCrossSpace) {
		t.Errorf("a link into it: %v", err)
	}
	th.must(th.Unlink(th.root, "f.o"))
	th.flush()
	th.kill()
	th.wantContent(th.root, "g.o", []byte("one"))
	th.must(th.Unlink(th.root, "g.o"))
	th.flush()
	s, _ := th.personal()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ign.inos)+len(s.ign.logged) > 0 {
		t.Errorf("%d inodes are ignored that are gone", len(s.ign.inos))
	}
	if err := s.ix.Inodes(func(n *index.Inode) bool {
		if n.IsRegular() && len(n.Links) == 0 {
			t.Errorf("inode %d stays", n.Ino)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}
