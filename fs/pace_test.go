package fs

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
)

// batchOf gives the batch that brought the last change of a file.
func (th *testHome) batchOf(path string) dag.ID {
	th.t.Helper()
	w, err := th.where(path)
	th.must(err)
	var id dag.ID
	err = w.s.graph.ChangesBack(w.object, func(e dag.Entry) error {
		id = e.Batch.ID()
		return errStop
	})
	if err != errStop {
		th.t.Fatal(err)
	}
	return id
}

// ready publishes what is ready, and says how many inodes that were and when to look again.
func (th *testHome) ready() (int, time.Duration) {
	th.t.Helper()
	return th.spaceOf(th.root).publishReady(context.Background())
}

func (th *testHome) wantReady(what string, n int) {
	th.t.Helper()
	if got, next := th.ready(); got != n {
		th.t.Fatalf("%s: %d inodes were published, not %d; the next look is in %v", what, got, n, next)
	}
}

// wantTogether checks that files have content of one batch, and of one time.
func (th *testHome) wantTogether(paths ...string) {
	th.t.Helper()
	for _, p := range paths[1:] {
		if a, b := th.batchOf(paths[0]), th.batchOf(p); a != b {
			th.t.Fatalf("%s and %s were published in different batches", paths[0], p)
		}
		if a, b := th.log(paths[0])[0].Time, th.log(p)[0].Time; !a.Equal(b) {
			th.t.Fatalf("%s is of %v, %s of %v", paths[0], a, p, b)
		}
	}
}

func TestDatabasesArePublishedTogether(t *testing.T) {
	th := newTestHome(t)
	ctx := context.Background()
	db, wal := th.create(th.root, "x.db", random(1, 3<<20)), th.create(th.root, "x.db-wal", random(2, 20_000))
	th.must(th.SyncAll(ctx)) // ends what is a stream, and takes its time
	th.write(wal, random(2, 20_000), 0)
	th.tick(50 * time.Millisecond)
	th.wantReady("new files that are being written", 0)
	th.tick(100 * time.Millisecond)
	th.wantReady("quiet new files", 2)
	th.wantTogether("Personal/x.db", "Personal/x.db-wal")

	// Written one after the other, never both quiet for long enough.
	write := func() {
		th.write(db, random(3, 4096), 4096)
		th.tick(60 * time.Millisecond)
		th.write(wal, random(4, 4096), 0)
		th.tick(60 * time.Millisecond)
	}
	for range 10 {
		write()
		th.wantReady("files that are being written", 0)
	}
	th.tick(60 * time.Millisecond)
	th.wantReady("quiet files", 2)
	th.wantTogether("Personal/x.db", "Personal/x.db-wal")
	read, want := th.read(db), random(3, 4096)
	if v := th.versionBytes("Personal/x.db", ""); string(v) != string(read) || string(v[4096:8192]) != string(want) {
		t.Fatal("the published content is not what the file holds")
	}

	// Without a pause the next fsync is the moment, once it is late.
	for range 81 {
		write()
	}
	th.must(th.Fsync(ctx, wal))
	th.wantReady("an fsync before it is late", 0)
	for range 10 {
		write()
	}
	th.wantReady("late, and being written", 0)
	th.must(th.Fsync(ctx, wal))
	th.write(db, []byte("after the fsync"), 0)
	th.wantReady("late, written after an fsync", 0)
	th.must(th.Fsync(ctx, db))
	th.wantReady("late, right after an fsync", 2)
	th.wantTogether("Personal/x.db", "Personal/x.db-wal")

	// And without that it is any moment, after a minute.
	for range 510 {
		write()
		if n, _ := th.ready(); n > 0 && th.spaceOf(th.root) != nil {
			th.wantTogether("Personal/x.db", "Personal/x.db-wal")
			goto forced
		}
	}
	t.Fatal("a database that never rests was not published in a minute")
forced:

	// A removal of one is published with the rest.
	th.tick(time.Second)
	th.flush()
	th.write(db, random(9, 100), 0)
	th.tick(99 * time.Millisecond)
	th.must(th.Unlink(th.root, "x.db-wal"))
	th.tick(20 * time.Millisecond)
	th.wantReady("a sibling that was just removed", 0)
	th.tick(100 * time.Millisecond)
	th.wantReady("quiet after the removal", 2)
	was, err := th.where("Personal/x.db")
	th.must(err)
	var removals int
	th.must(was.s.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if b.ID() == th.batchOf("Personal/x.db") {
			removals = len(bodies) - 1
		}
		return nil
	}))
	if removals != 1 {
		t.Fatalf("%d other changes in the batch of the database, not the removal", removals)
	}

	// A file of such a name without the other is a database too, and a plain file is none.
	th.create(th.root, "plain", random(5, 100))
	th.tick(6 * time.Millisecond)
	th.wantReady("a plain new file", 1)
}

func TestPace(t *testing.T) {
	th := newTestHome(t)
	s := th.spaceOf(th.root)
	ino := th.create(th.root, "f", random(1, 5<<20))
	th.flush()
	th.flush()
	local := uint64(ino) & localMask
	s.mu.Lock()
	s.paced[local] = pace{debt: paceFree + 10*sealedRatio, last: th.clock().UnixNano()}
	s.mu.Unlock()
	th.write(ino, []byte("12345"), 100)
	th.tick(time.Second)
	th.wantReady("a file that has cost too much", 0)
	th.tick(58 * time.Second)
	th.wantReady("and soon again", 0)
	th.tick(2 * time.Second)
	th.wantReady("after a minute", 1)
	th.write(ino, []byte("12345"), 200)
	th.tick(time.Second)
	th.wantReady("soon after that", 0)
	th.write(ino, random(2, 5000), 300)
	th.tick(time.Second)
	th.wantReady("when enough was written", 1)
}

// TestPublicationsStayPaced rewrites a little of a large file for two minutes, and compares what that seals with what was written.
func TestPublicationsStayPaced(t *testing.T) {
	for _, size := range []int{4 << 10, 300 << 10} {
		th := newTestHome(t)
		s := th.spaceOf(th.root)
		ino := th.create(th.root, "f", random(1, 12<<20))
		th.flush()
		before, _ := s.blocks.Bytes()
		log := int64(s.log.Mark())
		var written int64
		for i := range 240 {
			th.write(ino, random(uint64(i), size), int64(i*7919*4096%(11<<20)))
			written += int64(size)
			th.tick(500 * time.Millisecond)
			th.ready()
		}
		after, _ := s.blocks.Bytes()
		sealed := after - before + int64(s.log.Mark()) - log
		if sealed > sealedRatio*written+paceFree+12<<20 {
			t.Errorf("%d bytes written %d at a time: %d were sealed", written, size, sealed)
		}
		t.Logf("%d bytes at a time: %.2f sealed for each, %d versions", size, float64(sealed)/float64(written), len(th.contents("Personal/f")))
		th.leave()
	}
}

func TestIdlePatchesAreFolded(t *testing.T) {
	th := newTestHome(t)
	m := &contentModel{th: th}
	data := random(1, 5<<20)
	ino := th.create(th.root, "f", data)
	th.flush()
	for i := range 20 {
		p := random(uint64(i), 7000)
		th.write(ino, p, int64(i)*100_000)
		copy(data[i*100_000:], p)
		th.tick(time.Second)
		th.wantReady("a patch", 1)
	}
	if n := m.inode("f"); n.Patched.Count != 20 || n.Patched.Bytes != 140_000 {
		t.Fatalf("%+v, not 20 patches", n.Patched)
	}
	th.reopen()
	th.wantReady("after a restart", 0)
	th.tick(9 * time.Second)
	th.wantReady("not idle for long enough", 0)
	th.tick(time.Second)
	_, next := th.ready()
	if next > idleContent {
		t.Fatalf("idle, and the next look is in %v", next)
	}
	th.tick(next)
	th.wantReady("idle", 1)
	if n := m.inode("f"); n.Patched.Count != 0 || n.Ext != nil {
		t.Fatalf("%+v, not folded", n.Patched)
	}
	th.wantContent(th.root, "f", data)
	th.tick(time.Hour)
	th.wantReady("folded", 0)
	th.verify()
}

func TestJournalIsRelieved(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "f", make([]byte, 40<<20))
	other := th.create(th.root, "g", random(1, 1<<20))
	th.flush()
	if n := th.logged.Load(); n != 0 {
		t.Fatalf("%d bytes are in the journal alone, after everything was published", n)
	}
	p := random(2, dataPiece)
	for i := range maxLogged/dataPiece + 20 {
		th.write(ino, p, int64(i*dataPiece*3%(39<<20)))
	}
	th.write(other, p, 0)
	// Much of it was written over: less is in the journal than was counted.
	th.relieve(context.Background())
	if len(th.contents("Personal/f")) != 2 { // looking publishes
		t.Fatal("it was published, though little enough is in the journal alone")
	}
	th.flush()
	for i := range maxLogged/dataPiece + 20 {
		th.write(ino, p, int64(i*dataPiece))
	}
	th.write(other, p, 0)
	if n := th.logged.Load(); n <= maxLogged {
		t.Fatalf("%d bytes are in the journal alone", n)
	}
	th.relieve(context.Background())
	if n := th.logged.Load(); n != dataPiece {
		t.Fatalf("%d bytes are left in the journal alone, not those of the smaller file", n)
	}
	th.must(th.Unlink(th.root, "g"))
	th.flush()
	if n := th.logged.Load(); n != 0 {
		t.Fatalf("%d bytes are in the journal alone, and nothing is there", n)
	}
}

// TestCheckpointsWaitForFsyncs: none comes while someone waits for a sync, for some seconds.
func TestCheckpointsWaitForFsyncs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes three seconds")
	}
	th := newTestHome(t)
	th.create(th.root, "f", []byte("content"))
	s := th.spaceOf(th.root)
	loaded := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.loaded == s.last
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	th.fsyncs.begin()
	go func() { done <- th.Run(ctx) }()
	time.Sleep(checkpointEvery + 2*flushEvery)
	if loaded() {
		t.Error("a checkpoint came while someone waited for a sync")
	}
	th.fsyncs.end()
	for end := time.Now().Add(time.Minute); !loaded(); time.Sleep(flushEvery) {
		if time.Now().After(end) {
			t.Fatal("no checkpoint came after the last sync")
		}
	}
	stop()
	th.must(<-done)
}

// TestHeldBackAndAClockThatWasSetBack: what could not be published once does not wait for a clock to come back to where it was.
func TestHeldBackAndAClockThatWasSetBack(t *testing.T) {
	th := newTestHome(t)
	s := th.spaceOf(th.root)
	f, db := th.create(th.root, "f", []byte("f")), th.create(th.root, "x.db", []byte("x"))
	th.create(th.root, "x.db-wal", []byte("w"))
	th.tick(time.Second)
	s.holdBack(uint64(f)&localMask, ErrIO)
	s.holdBack(uint64(db)&localMask, ErrIO)
	th.wantReady("what is held back", 0)
	th.tick(-24 * time.Hour)
	for range 4 {
		th.ready()
		th.tick(3 * time.Second)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dirty) > 0 {
		t.Fatalf("%d inodes wait still", len(s.dirty))
	}
}

// TestNoDatabaseIsCutByAFullBatch: where more is ready than one batch takes, a database is in one of the batches as a whole.
func TestNoDatabaseIsCutByAFullBatch(t *testing.T) {
	th := newTestHome(t)
	s := th.spaceOf(th.root)
	const n = maxItems/3 + 50 // of three files each, so that no number of them fills a batch
	for i := range n {
		for _, x := range []string{"", mateSuffixes[0], mateSuffixes[1]} {
			th.create(th.root, fmt.Sprint(i, x), []byte{byte(i)})
		}
	}
	for left := 3 * n; left > 0; {
		items, _, _, err := s.capture(func(uint64, dirtyState, *index.Inode) bool { return true })
		th.must(err)
		parts := map[database]int{}
		for i := range items {
			if items[i].db == (database{}) {
				t.Fatalf("inode %d belongs to no database", items[i].n.Ino)
			}
			parts[items[i].db]++
		}
		for db, k := range parts {
			if k != 3 {
				t.Fatalf("%d of 3 files of %s are in a batch of %d", k, db.name, len(items))
			}
		}
		s.settle(items)
		n, _, err := s.publish(context.Background(), func(uint64, dirtyState, *index.Inode) bool { return true })
		th.must(err)
		if left -= n; n == 0 {
			t.Fatalf("%d are left", left)
		}
	}
}

// TestLargeWritesAreNoSlower: what was written in pieces that are kept for chunks is published as soon as what was not.
func TestLargeWritesAreNoSlower(t *testing.T) {
	th := newTestHome(t)
	for name, c := range map[string]struct {
		size int
		idle time.Duration
	}{"document": {200_000, idleSmall}, "picture": {5 << 20, idleContent}} {
		ino := th.create(th.root, name, random(1, c.size))
		s, local, err := th.space(ino)
		th.must(err)
		s.mu.Lock()
		streams := s.streams[local] != nil
		s.mu.Unlock()
		if !streams {
			t.Fatalf("%s: its writes are kept for no chunk", name)
		}
		th.tick(c.idle + time.Millisecond)
		th.wantReady(name, 1)
		th.tick(time.Hour)
		th.write(ino, random(2, 100_000), int64(c.size))
		th.tick(flushEvery + time.Millisecond)
		th.wantReady("more of the "+name, 1)
	}
}

// TestWrittenWhilePublished: what is written to a file while its publication is under way is published too, with nothing else to wake
// the publisher.
func TestWrittenWhilePublished(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "f", []byte("first"))
	s, local, err := th.space(ino)
	th.must(err)
	between, deadline := 0, time.Now().Add(time.Minute) // on a machine that does much else few fall together
	for i := 0; i < 300 || between == 0 && time.Now().Before(deadline); i++ {
		th.tick(time.Hour)
		for len(th.kick) > 0 {
			<-th.kick
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Duration(i%300) * 3 * time.Microsecond)
			th.write(ino, fmt.Appendf(nil, "%d", i), 0)
		})
		n, next := s.publishReady(t.Context())
		wg.Wait()
		s.mu.Lock()
		_, dirty := s.dirty[local]
		s.mu.Unlock()
		if n > 0 && dirty && len(th.kick) == 0 {
			between++
			if next > latest {
				t.Fatalf("round %d: the file is to be published, and the next look is in %v", i, next)
			}
		}
	}
	if between == 0 {
		t.Error("no write fell into a publication: nothing was tried")
	}
}

// TestPublishedInOrder: of more files than a batch takes those that were made together are published together, in the order of their
// numbers; and one that changes again before each publication keeps no other from it.
func TestPublishedInOrder(t *testing.T) {
	th := newTestHome(t)
	s := th.spaceOf(th.root)
	const n = 2*maxItems + maxItems/2
	var first Ino
	for i := range n {
		if ino := th.create(th.root, fmt.Sprint(i), []byte{byte(i)}); i == 0 {
			first = ino
		}
	}
	all := func(uint64, dirtyState, *index.Inode) bool { return true }
	var got []uint64
	for range 2 {
		items, _, left, err := s.capture(all)
		th.must(err)
		s.settle(items)
		if !left {
			t.Fatal("nothing is left")
		}
		for _, it := range items {
			if it.n.Ino != rootDir {
				got = append(got, it.n.Ino)
			}
			s.mu.Lock()
			s.undirty(it.n.Ino)
			s.mu.Unlock()
		}
		th.write(first, []byte("again"), 0) // it has the lowest number
	}
	if !slices.IsSorted(got) || got[len(got)-1]-got[0] > uint64(len(got)) {
		t.Errorf("%d files with the numbers %d to %d are published, in another order than that", len(got), got[0], got[len(got)-1])
	}
	items, _, left, err := s.capture(all)
	th.must(err)
	s.settle(items)
	if left || len(items) != n-len(got)+1 {
		t.Errorf("%d of %d files are published at last", len(items), n-len(got)+1)
	}
}
