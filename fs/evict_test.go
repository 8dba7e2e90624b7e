package fs

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
)

// onDemand makes a home hold content of Personal on demand.
func (th *testHome) onDemand(limit int64) {
	th.t.Helper()
	th.must(th.SetPolicy(PersonalName, ContentPolicy{OnDemand: true, CacheLimit: limit}))
}

func (th *testHome) evict(path string) EvictResult {
	th.t.Helper()
	res, err := th.Evict(context.Background(), path)
	th.must(err)
	return res
}

func (th *testHome) content(path string) ContentInfo {
	th.t.Helper()
	return must2(th.Content(context.Background(), must2(th.PathIno(path))))
}

// mirror lets a home fetch what is to come by itself.
func (th *testHome) mirror() {
	s, _ := th.personal()
	places := make(chan struct{}, mirrorBlocks)
	for _, w := range s.toFetch(context.Background(), true, true) {
		if c := s.beginFetch(w); c != nil {
			s.endFetch(w, s.fetchContent(context.Background(), c, places) == nil)
		}
	}
}

// TestEvict: content goes only under a receipt, stays where it is dirty or pinned, and comes back when it is read.
func TestEvict(t *testing.T) {
	d := newDevices(t, 2)
	net := d.connect()
	a, b := d.all[0], d.all[1]
	dir := b.mkdir(b.root, "dir")
	want := map[string][]byte{}
	for i, name := range []string{"one", "two", "pinned", "dirty"} {
		want[name] = random(uint64(i), 900<<10)
		b.create(dir, name, want[name])
	}
	b.create(dir, "small", []byte("in its change"))
	if _, err := b.Evict(context.Background(), "Personal/dir"); !errors.Is(err, ErrMirrored) {
		t.Fatalf("evict in a mirror: %v", err)
	}
	b.onDemand(0)
	// Nobody has it: nothing goes.
	net[1].leave(a, true)
	b.flush()
	if _, err := b.Evict(context.Background(), "Personal/dir"); !errors.Is(err, errAway) {
		t.Fatalf("evict alone: %v", err)
	}
	net[1].leave(a, false)
	if res := b.evict("Personal/dir"); res.Blocks != 0 || res.Kept == 0 {
		t.Fatalf("evicted what nobody has: %+v", res)
	}
	d.settle()
	a.mirror()
	if state, err := b.Pin("Personal/dir/pinned", true); err != nil || state != Pinned {
		t.Fatal(state, err)
	}
	before := b.stored()
	s, _ := b.personal()
	// Written after the publication that evict begins with.
	local := uint64(must2(b.PathIno("Personal/dir/dirty"))) & localMask
	s.mu.Lock()
	n, err := s.ix.Change(local)
	b.must(err)
	n.DirtyContent = s.last
	s.markDirty(n)
	s.mu.Unlock()
	e := evicter{s: s, want: 1 << 60, found: map[block.ID]int64{}}
	b.must(e.ofAge(context.Background(), oldest))
	b.must(e.round(context.Background()))
	s.mu.Lock()
	n.DirtyContent = 0
	s.undirty(n.Ino)
	s.mu.Unlock()
	if e.sum.Pinned != 1 || e.sum.Dirty != 1 || e.sum.Bytes < 1800<<10 || e.sum.Bytes > 1900<<10 {
		t.Fatalf("evicted: %+v", e.sum)
	}
	b.must(s.blocks.Compact(context.Background()))
	if now := b.stored(); before-now < 1700<<10 {
		t.Fatalf("%d bytes stored before, %d after", before, now)
	}
	for name, state := range map[string]string{"one": "absent", "two": "absent", "pinned": "here", "dirty": "here", "small": "here"} {
		if got := b.content("Personal/dir/" + name); got.State != state {
			t.Errorf("%s is %+v", name, got)
		}
	}
	if got := b.content("Personal/dir/one"); !slices.Equal(got.HeldBy, []string{"test"}) {
		t.Errorf("held by %q", got.HeldBy)
	}
	b.verify()
	b.kill()
	net[1].plug()
	b.verify()

	// Absent and nobody there: an error, and everything else works.
	net[1].leave(a, true)
	buf := make([]byte, 10)
	one := b.at("Personal/dir/one")
	if _, err := b.Read(context.Background(), one, buf, 0); !errors.Is(err, ErrIO) {
		t.Fatalf("read of what nobody gives: %v", err)
	}
	if at := must2(b.Getattr(one)); at.Size != 900<<10 || at.Blocks < 1700 {
		t.Errorf("attributes: %+v", at)
	}
	if at, err := b.Seek(one, 0, SeekHole); err != nil || at != 900<<10 {
		t.Errorf("seek: %d, %v", at, err)
	}
	// A write to it is published when what it needs has come, and keeps nothing else from it.
	// Of each chunk less than half is left, which is to be stored anew.
	for off := 0; off <= 890<<10; off += 16 << 10 {
		b.write(one, bytes.Repeat([]byte("x"), 10<<10), int64(off))
		copy(want["one"][off:], bytes.Repeat([]byte("x"), 10<<10))
	}
	b.create(b.at("Personal/dir"), "new", []byte("new"))
	if err := b.Flush(context.Background()); err == nil {
		t.Error("what is not here was published")
	}
	if n := b.dirtyCount(); n != 1 {
		t.Errorf("%d files wait", n)
	}
	net[1].leave(a, false)
	b.Mirror()
	b.runAhead()
	b.flush()
	for name, w := range want {
		b.wantContent(b.at("Personal/dir"), name, w)
	}
	if got := b.content("Personal/dir/two"); got.State != "here" {
		t.Errorf("two is %+v", got)
	}
	// Again: the receipts count, without asking.
	net[1].leave(a, true)
	if res := b.evict("Personal/dir/two"); res.Blocks == 0 || res.Kept != 0 {
		t.Errorf("evicted again: %+v", res)
	}
	net[1].leave(a, false)
	b.Mirror()
	b.wantContent(b.at("Personal/dir"), "two", want["two"])
	d.settle()
	d.same()
}

func (th *testHome) stored() int64 {
	s, _ := th.personal()
	_, n := s.blocks.Bytes()
	return n
}

func (th *testHome) dirtyCount() int {
	s, _ := th.personal()
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty)
}

// runAhead fetches what is to be fetched ahead.
func (th *testHome) runAhead() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); th.fetcher(ctx) }()
	for {
		th.coming.mu.Lock()
		n := len(th.coming.ids)
		th.coming.mu.Unlock()
		if n == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
}

// TestOnDemand: content that comes from others is fetched when it is read, a little ahead, and what is pinned by itself.
func TestOnDemand(t *testing.T) {
	d := newDevices(t, 2)
	net := d.connect()
	a, b := d.all[0], d.all[1]
	b.onDemand(0)
	want := random(1, 12<<20)
	dir := a.mkdir(a.root, "dir")
	a.create(a.root, "large", want)
	a.create(dir, "in", random(2, 100<<10))
	d.settle()
	b.mirror()
	if n := net[1].count(); n != 0 {
		t.Fatalf("%d blocks came by themselves", n)
	}
	large := b.look(b.root, "large")
	if at := must2(b.Getattr(large)); at.Size != int64(len(want)) {
		t.Fatalf("size %d", at.Size)
	}
	if got := b.content("Personal/large"); got.State != "absent" || !slices.Equal(got.HeldBy, []string{"test"}) {
		t.Errorf("%+v", got)
	}
	buf := make([]byte, 4096)
	must2(b.Read(context.Background(), large, buf, 6<<20))
	if !bytes.Equal(buf, want[6<<20:6<<20+4096]) {
		t.Fatal("other bytes")
	}
	b.runAhead()
	if n := net[1].count(); n < 2 || n > 4 { // nodes, and one leaf
		t.Errorf("%d blocks for a read in the middle", n)
	}
	if got := b.content("Personal/large"); got.State != "part" {
		t.Errorf("%+v", got)
	}
	// In order: ahead.
	before := net[1].count()
	must2(b.Read(context.Background(), large, buf, 0))
	b.runAhead()
	if n := net[1].count() - before; n != 2 {
		t.Errorf("%d blocks for a read at the start", n)
	}
	b.wantContent(b.root, "large", want)
	b.verify()
	// Pinned: it comes by itself, with what comes into the directory later, from here and from there.
	if state := must2(b.Pin("Personal/dir", true)); state != Pinned {
		t.Error(state)
	}
	b.mirror()
	if got := b.content("Personal/dir/in"); got.State != "here" || got.Pin != PinnedAbove {
		t.Errorf("%+v", got)
	}
	a.create(dir, "late", random(3, 100<<10))
	a.create(a.root, "moved", random(4, 100<<10))
	a.create(a.root, "elsewhere", random(5, 100<<10))
	d.settle()
	b.mirror()
	b.must(b.Rename(b.root, "moved", b.at("Personal/dir"), "moved", 0))
	b.mirror()
	for path, state := range map[string]string{"dir/late": "here", "dir/moved": "here", "elsewhere": "absent"} {
		if got := b.content("Personal/" + path); got.State != state {
			t.Errorf("%s is %+v", path, got)
		}
	}
	b.kill()
	net[1].plug()
	x := b.at("Personal/dir")
	if v := must2(b.Getxattr(x, "user.anyfs.pin")); string(v) != "1" {
		t.Errorf("pin: %q after a kill", v)
	}
	if v := must2(b.Getxattr(b.at("Personal/dir/in"), "user.anyfs.pin")); string(v) != "above" {
		t.Errorf("pin: %q", v)
	}
	b.must(b.Setxattr(x, "user.anyfs.pin", []byte("0"), 0))
	if v := must2(b.Getxattr(x, "user.anyfs.pin")); string(v) != "0" {
		t.Errorf("pin: %q", v)
	}
	if err := b.Setxattr(x, "user.anyfs.pin", []byte("maybe"), 0); !errors.Is(err, ErrInvalid) {
		t.Errorf("pin maybe: %v", err)
	}
	if list := must2(b.Listxattr(x)); len(list) != 0 {
		t.Errorf("attributes: %q", list)
	}
	// A mirror again: all comes.
	b.must(b.SetPolicy(PersonalName, ContentPolicy{}))
	b.mirror()
	if got := b.content("Personal/elsewhere"); got.State != "here" {
		t.Errorf("%+v", got)
	}
	d.settle()
	d.same()
}

// TestCacheLimit: what was read least recently goes first, down to the limit; what others do not keep stays.
func TestCacheLimit(t *testing.T) {
	d := newDevices(t, 2)
	net := d.connect()
	a, b := d.all[0], d.all[1]
	b.onDemand(3 << 20)
	names := []string{"a", "b", "c", "d", "e", "f"}
	for i, name := range names {
		a.create(a.root, name, random(uint64(i), 900<<10))
	}
	d.settle()
	s, _ := b.personal()
	for _, name := range names {
		b.read(b.look(b.root, name))
	}
	need := s.tooMuch()
	if need < 2<<20 {
		t.Fatalf("%d bytes too much", need)
	}
	// Another generation: e and f are read again.
	s.reads.turn()
	b.read(b.look(b.root, "e"))
	b.read(b.look(b.root, "a"))
	if res := must2(s.evictLeast(context.Background(), need)); res.Bytes < need {
		t.Fatalf("evicted: %+v of %d", res, need)
	}
	if s.tooMuch() > 0 {
		t.Errorf("%d bytes too much still", s.tooMuch())
	}
	for _, name := range []string{"a", "e"} {
		if got := b.content("Personal/" + name); got.State != "here" {
			t.Errorf("%s, read lately, is %+v", name, got)
		}
	}
	b.verify()
	// What was never sent to the other stays, whatever the limit says.
	net[1].leave(a, true)
	for i := range 4 {
		b.create(b.root, "own "+names[i], random(uint64(100+i), 900<<10))
	}
	b.flush()
	res, _ := s.evictLeast(context.Background(), 100<<20)
	for i := range 4 {
		if got := b.content("Personal/own " + names[i]); got.State != "here" {
			t.Fatalf("what nobody else has is %+v; %+v", got, res)
		}
	}
	// A full disk asks for the same.
	b.must(b.SetPolicy(PersonalName, ContentPolicy{OnDemand: true}))
	if n := s.tooMuch(); n != 0 {
		t.Errorf("%d bytes too much without a limit", n)
	}
	free, total, _ := b.sim.Free()
	b.sim.SetCapacity((total - free) + (total-free)/40) // 2.4% are free
	b.forgetRoom()
	if n := s.tooMuch(); n <= 0 {
		t.Error("a disk that is nearly full asks for nothing")
	}
	if b.roomAhead() {
		t.Error("content is fetched ahead onto a full disk")
	}
}

// TestHistoryEvicted: old versions go under a receipt too, and are read from who keeps them; a prune gives the receipts back.
func TestHistoryEvicted(t *testing.T) {
	d := newDevices(t, 2)
	net := d.connect()
	a, b := d.all[0], d.all[1]
	old := random(1, 900<<10)
	f := b.create(b.root, "f", old)
	b.flush()
	ids := b.leaves("Personal/f")
	d.settle()
	a.mirror()
	b.save(f, random(2, 900<<10))
	b.flush()
	b.onDemand(0)
	s, _ := b.personal()
	must2(s.evictLeast(context.Background(), 100<<20))
	if s.blocks.Has(ids[0]) {
		t.Fatal("the old version is here")
	}
	vs := b.contents("Personal/f")
	if got := b.versionBytes("Personal/f", vs[len(vs)-1].ID); !bytes.Equal(got, old) {
		t.Fatal("the old version reads otherwise")
	}
	must2(s.evictLeast(context.Background(), 100<<20))
	sa, _ := a.personal()
	d.settle()
	a.mirror()
	a.prune(KeepPolicy{}, false)
	if !sa.blocks.Has(ids[0]) {
		t.Fatal("what another device relies on was pruned")
	}
	b.prune(KeepPolicy{}, false)
	if len(s.listed(bucketReceipts, ids[0])) != 0 || len(s.listed(bucketReleases, ids[0])) != 1 {
		t.Fatal("the receipt of what was pruned stays")
	}
	b.must(s.sendReleases(context.Background()))
	a.prune(KeepPolicy{}, false)
	if sa.blocks.Has(ids[0]) {
		t.Fatal("what nobody relies on stays")
	}
	a.verify()
	b.verify()
	_ = net
}

// TestGiverEvicts: a device that gave receipts and then is on demand lets go only of what the other takes back.
func TestGiverEvicts(t *testing.T) {
	d := newDevices(t, 3)
	net := d.connect()
	a, b, c := d.all[0], d.all[1], d.all[2]
	want := random(1, 900<<10)
	b.create(b.root, "f", want)
	d.settle()
	a.mirror()
	b.onDemand(0)
	net[1].leave(c, true)
	if res := b.evict("Personal/f"); res.Blocks == 0 {
		t.Fatalf("%+v", res)
	}
	net[1].leave(c, false)
	// c mirrors too. a may go only when b has another receipt.
	c.mirror()
	a.onDemand(0)
	if res := a.evict("Personal/f"); res.Blocks != 0 || res.Kept == 0 {
		t.Fatalf("what another relies on went: %+v", res)
	}
	b.runAhead() // b was asked, and fetches it
	if res := a.evict("Personal/f"); res.Blocks == 0 {
		t.Fatalf("what b took back stays: %+v", res)
	}
	if res := b.evict("Personal/f"); res.Blocks == 0 {
		t.Fatalf("b has no receipt of c: %+v", res)
	}
	for _, h := range d.all {
		h.wantContent(h.root, "f", want)
		h.verify()
	}
}

// TestEvictPowerLoss: whatever a power loss takes on either side, what was let go of is kept by the other.
func TestEvictPowerLoss(t *testing.T) {
	for _, keep := range []disk.Keep{disk.Drop, disk.Whole} {
		d := newDevices(t, 2)
		net := d.connect()
		a, b := d.all[0], d.all[1]
		want := random(1, 900<<10)
		b.create(b.root, "f", want)
		d.settle()
		a.mirror()
		b.onDemand(0)
		if res := b.evict("Personal/f"); res.Blocks == 0 {
			t.Fatalf("%+v", res)
		}
		for _, h := range d.all {
			for _, r := range h.Replicas() {
				h.must(r.Durable()) // as before a device tells what it holds
			}
			h.Home.abandon()
			h.sim = h.sim.Crash(func() disk.Keep { return keep })
			h.open()
		}
		for _, n := range net {
			n.plug()
		}
		if p, _ := b.personal(); p.policy().mirrors() {
			t.Error("the policy is lost")
		}
		for _, id := range b.leaves("Personal/f") {
			sa, _ := a.personal()
			if !sa.blocks.Has(id) || len(sa.listed(bucketPromises, id)) != 1 {
				t.Errorf("keep %v: the giver does not keep what it promised", keep)
			}
		}
		b.wantContent(b.root, "f", want)
		for _, h := range d.all {
			h.verify()
		}
	}
}
