package spaces_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
)

// What a full or broken disk does not keep is not counted: after it has room again, the quota is what it was.
func TestBlockThatIsNotKeptIsNotCounted(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, dir, spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return 10 << 20, 0 }})
	d := newDevice(t, n)
	d.equal(t)
	r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
	found, err := filepath.Glob(filepath.Join(dir, "spaces", "*", "*", "blocks"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	// No segment can be made where its folder is a file.
	must(t, os.Rename(found[0], found[0]+".away"))
	must(t, os.WriteFile(found[0], nil, 0o600))
	before := n.set.Usages()[d.space.ID()]
	data := bytes.Repeat([]byte{1}, 1<<20)
	for range 20 {
		if err := r.Upload(d.keys.Identity, block.Sum(data), data); err == nil || errors.Is(err, exchange.ErrRefused) {
			t.Fatalf("a block on a broken disk: %v", err)
		}
	}
	if now := n.set.Usages()[d.space.ID()]; now.Blocks != before.Blocks {
		t.Errorf("%d bytes of blocks are counted, before %d", now.Blocks, before.Blocks)
	}
	must(t, os.Remove(found[0]))
	must(t, os.Rename(found[0]+".away", found[0]))
	must(t, r.Upload(d.keys.Identity, block.Sum(data), data))
}

// A space that was given to another counts to that one's quota, also what it held before, and no more to who made it.
func TestQuotaAfterTransfer(t *testing.T) {
	var mu sync.Mutex
	quota := map[dag.PublicKey]int64{}
	dir := t.TempDir()
	n := newNode(t, dir, spaces.Options{Quota: func(owner dag.PublicKey, _ dag.ID) (int64, int64) {
		mu.Lock()
		defer mu.Unlock()
		return quota[owner], 0
	}})
	d := newDevice(t, n)
	d.equal(t)
	r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
	first, more := bytes.Repeat([]byte{1}, 100<<10), bytes.Repeat([]byte{2}, 100<<10)
	must(t, r.Upload(d.keys.Identity, block.Sum(first), first))

	// Bob comes by an open invitation, and is given the space.
	bob := newKeys(t)
	link, err := d.space.Invite(acl.Terms{Role: acl.RoleWriter, Open: true}, time.Unix(1<<30, 0), nil)
	must(t, err)
	guest, err := acl.NewGuest(bob, link, "Bob", nil)
	must(t, err)
	var frames [][]byte
	must(t, d.space.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
	must(t, guest.Take(frames, true, time.Unix(1<<30, 0)))
	for _, f := range guest.Answer() {
		_, err := d.space.List().Graph().Ingest(f)
		must(t, err)
	}
	must(t, d.space.Transfer(bob.Identity))
	mu.Lock()
	quota[d.keys.Identity], quota[bob.Identity] = 1, 150<<10
	mu.Unlock()
	d.e.Announce()
	eventually(t, "the node knows the new owner", func() bool { return n.set.Space(t.Context(), d.space.ID(), bob.Identity) != nil })
	if err := r.Upload(d.keys.Identity, block.Sum(more), more); err == nil {
		t.Fatal("taken beyond both quotas")
	}
	mu.Lock()
	quota[bob.Identity] = 250 << 10
	mu.Unlock()
	eventually(t, "what the new owner has room for is taken", func() bool { return r.Upload(d.keys.Identity, block.Sum(more), more) == nil })
	n.stop()
	n = newNode(t, dir, spaces.Options{})
	if u := n.set.Usages()[d.space.ID()]; u.Owner != bob.Identity || u.Blocks < 200<<10 {
		t.Errorf("it is counted as %+v", u)
	}
}

// The book of what spaces take follows from the spaces: damaged, it keeps no node from starting.
func TestDamagedUsage(t *testing.T) {
	for name, damaged := range map[string][]byte{"zeros": make([]byte, 64<<10), "short": []byte("x")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := newNode(t, dir, spaces.Options{})
			d := newDevice(t, n)
			d.equal(t)
			n.stop()
			book := filepath.Join(dir, "usage.db")
			must(t, os.WriteFile(book, damaged, 0o600))
			n = newNode(t, dir, spaces.Options{})
			if b, err := os.ReadFile(book + ".damaged"); err != nil || !bytes.Equal(b, damaged) {
				t.Errorf("put aside are %d bytes, %v", len(b), err)
			}
			if n.set.Space(t.Context(), d.space.ID(), d.keys.Identity) == nil {
				t.Fatal("the space is gone")
			}
			n.stop()
			n = newNode(t, dir, spaces.Options{})
			if u := n.set.Usages()[d.space.ID()]; u.Owner != d.keys.Identity || u.Log == 0 {
				t.Errorf("after it was opened it is counted as %+v", u)
			}
		})
	}
}

// The index of a space follows from its segment files: damaged, it is made again.
func TestDamagedIndex(t *testing.T) {
	for name, damaged := range map[string][]byte{"zeros": make([]byte, 64<<10), "short": []byte("x"), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := newNode(t, dir, spaces.Options{})
			d := newDevice(t, n)
			for range 5 {
				d.write(t, "sealed")
			}
			d.equal(t)
			id, err := d.blocks.Put([]byte("content"))
			must(t, err)
			if missing, err := d.e.Upload(t.Context(), d.space.ID(), dag.PublicKey{}, []block.ID{id}); err != nil || len(missing) > 0 {
				t.Fatal(missing, err)
			}
			n.stop()
			found, err := filepath.Glob(filepath.Join(dir, "spaces", "*", "*", "space.db"))
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			must(t, os.WriteFile(found[0], damaged, 0o600))
			n = newNode(t, dir, spaces.Options{})
			r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
			if r == nil {
				t.Fatal("the space is gone")
			}
			if !slices.Equal(r.Files.Heads(), d.files.Heads()) || !r.Blocks.Has(id) {
				t.Error("not all of it is there")
			}
		})
	}
}

// Changes count in the quota as content does: beyond it they are not taken, the device hears so, and again when there is room; access records are.
func TestChangesWithinTheQuota(t *testing.T) {
	var quota atomic.Int64
	quota.Store(64 << 10)
	n := newNode(t, t.TempDir(), spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return quota.Load(), 0 }})
	d := newDevice(t, n)
	d.write(t, "first")
	d.equal(t)
	id := d.space.ID()
	held := func() uint64 {
		r := n.set.Space(t.Context(), id, d.keys.Identity)
		if r == nil {
			t.Fatal("the space is gone")
		}
		batches, _, _ := r.Files.Counters()
		return batches
	}
	text := strings.Repeat("x", 4<<10)
	for range 40 {
		d.write(t, text)
	}
	eventually(t, "the device hears of the quota", func() bool {
		f, full := d.e.Full(id, dag.PublicKey{})
		return full && f.Limit == 64<<10 && f.Used <= f.Limit
	})
	if b := held(); b == 0 || b > 17 {
		t.Errorf("it holds %d batches of more than 4 KiB", b)
	}
	if blk, err := d.blocks.Put(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	} else if missing, err := d.e.Upload(t.Context(), id, dag.PublicKey{}, []block.ID{blk}); err != nil || len(missing) != 1 {
		t.Errorf("a block beyond the quota: %v, %v", missing, err)
	}
	quota.Store(1 << 20)
	eventually(t, "the device hears that there is room", func() bool { _, full := d.e.Full(id, dag.PublicKey{}); return !full })
	d.equal(t)
	if b := held(); b != 41 {
		t.Errorf("it holds %d batches", b)
	}
}

// What comes before what it names is no way round the quota: it waits, and is let go of where there is no room for it when the others are there.
func TestQuotaOfChangesInAnyOrder(t *testing.T) {
	var quota atomic.Int64
	quota.Store(64 << 10)
	n := newNode(t, t.TempDir(), spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return quota.Load(), 0 }})
	d := newDevice(t, n)
	d.write(t, "first")
	d.equal(t)
	d.stop()
	r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
	give := func(frame []byte) {
		t.Helper()
		if !r.Takes(len(frame)) {
			return
		}
		must(t, r.Files.IngestAll([][]byte{frame}, func(_ dag.Result, err error) error { return err }))
		r.Took(len(frame))
	}
	var frames [][]byte
	for range 40 {
		f, err := d.files.Frame(d.write(t, strings.Repeat("x", 4<<10)).ID())
		must(t, err)
		frames = append(frames, bytes.Clone(f))
	}
	for _, f := range slices.Backward(frames) {
		give(bytes.Clone(f))
	}
	for _, f := range frames { // what was let go of comes again
		give(bytes.Clone(f))
	}
	batches, _, _ := r.Files.Counters()
	if u := n.set.Usages()[d.space.ID()]; batches < 10 || batches > 16 || u.Log+u.Blocks > 64<<10 {
		t.Errorf("it holds %d batches of more than 4 KiB, and counts %+v", batches, u)
	}
	if _, limit, full := r.Quota(); !full || limit != 64<<10 {
		t.Errorf("it says of a quota of %d bytes that it is full: %v", limit, full)
	}
	quota.Store(1 << 20)
	for _, f := range frames {
		give(bytes.Clone(f))
	}
	if batches, _, _ := r.Files.Counters(); batches != 41 {
		t.Errorf("with room for all it holds %d batches", batches)
	}
}

// A member that gives what is there already, or what nobody keeps, over and over, uses up nobody's quota, however many do at once; what one has in flight
// is counted for the others.
func TestQuotaCountsWhatIsKept(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return 8 << 20, 0 }})
	d := newDevice(t, n)
	d.write(t, "sealed")
	d.equal(t)
	id := d.space.ID()
	r := n.set.Space(t.Context(), id, d.keys.Identity)
	eventually(t, "what it takes is known", func() bool { return n.set.Usages()[id].Log > 0 })
	before := n.set.Usages()[id]
	for range 100 {
		if !r.Takes(1 << 20) {
			t.Fatalf("the quota is used up: %+v", n.set.Usages()[id])
		}
		r.Took(1 << 20)
	}
	if now := n.set.Usages()[id]; now != before {
		t.Errorf("%+v is counted, before %+v", now, before)
	}
	if !r.Takes(5 << 20) {
		t.Error("there is room")
	}
	data := bytes.Repeat([]byte{1}, 1<<20)
	must(t, r.Upload(d.keys.Identity, block.Sum(data), data))
	if now := n.set.Usages()[id].Log - before.Log; now != 5<<20 {
		t.Errorf("%d bytes of changes are in flight", now)
	}
	if r.Takes(5 << 20) {
		t.Error("what is in flight is not counted")
	}
	r.Took(5 << 20)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 50 {
				if r.Takes(100 << 10) {
					r.Took(100 << 10)
				}
				data := bytes.Repeat([]byte{byte(i), byte(k)}, 5<<10)
				if err := r.Upload(d.keys.Identity, block.Sum(data), data); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if now := n.set.Usages()[id]; now.Log != before.Log || now.Blocks < before.Blocks+1<<20+200*10<<10 || now.Blocks > before.Blocks+1<<20+200*11<<10 {
		t.Errorf("%+v is counted, before %+v", now, before)
	}
}

// A device hears how much is used of the quota of which least is left, before it gives what makes way to other content; who may not write hears nothing.
func TestRoomOfAQuota(t *testing.T) {
	var all, one atomic.Int64
	n := newNode(t, t.TempDir(), spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return all.Load(), one.Load() }})
	d := newDevice(t, n)
	d.write(t, "first")
	d.equal(t)
	id := d.space.ID()
	room := func() (used, limit int64) {
		t.Helper()
		used, limit, err := d.e.Room(t.Context(), id, dag.PublicKey{})
		must(t, err)
		return used, limit
	}
	if used, limit := room(); used != 0 || limit != 0 {
		t.Errorf("without a quota %d of %d bytes are used", used, limit)
	}
	all.Store(1 << 20)
	before, limit := room()
	if before == 0 || limit != 1<<20 {
		t.Errorf("%d of %d bytes are used", before, limit)
	}
	blk, err := d.blocks.Put(make([]byte, 100<<10))
	must(t, err)
	ids := []block.ID{blk, block.Sum([]byte("nobody has it"))}
	if missing, err := d.e.Lacking(t.Context(), id, dag.PublicKey{}, ids); err != nil || len(missing) != 2 {
		t.Errorf("it lacks %v, %v", missing, err)
	}
	missing, err := d.e.Upload(t.Context(), id, dag.PublicKey{}, ids[:1])
	if err != nil || len(missing) != 0 {
		t.Fatalf("%v, %v", missing, err)
	}
	if missing, err := d.e.Lacking(t.Context(), id, dag.PublicKey{}, ids); err != nil || !slices.Equal(missing, ids[1:]) {
		t.Errorf("it lacks %v, %v", missing, err)
	}
	if used, _ := room(); used < before+100<<10 {
		t.Errorf("%d bytes are used after %d and a block", used, before)
	}
	one.Store(512 << 10)
	if _, limit := room(); limit != 512<<10 {
		t.Errorf("the quota of which less is left is %d", limit)
	}
	if used, limit := n.set.Space(t.Context(), id, d.keys.Identity).Room(dag.PublicKey{1}); used != 0 || limit != 0 {
		t.Errorf("a stranger hears of %d of %d bytes", used, limit)
	}
	if _, _, err := d.e.Room(t.Context(), id, dag.PublicKey{1}); !errors.Is(err, exchange.ErrOffline) {
		t.Errorf("of another network: %v", err)
	}
}

// Who has a quota brings as many spaces as fill it, empty ones too, and no access list that is longer than what is left. What is here goes on, and what another node
// has comes.
func TestSpacesWithinTheQuota(t *testing.T) {
	quota := int64(20 * 64 << 10)
	n := newNode(t, t.TempDir(), spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return quota, 0 }})
	keys := newKeys(t)
	take := func(members int) (taken bool, id dag.ID, frames [][]byte) {
		sp, err := acl.CreateSpace(keys, store.NewMem(), nil)
		must(t, err)
		for range members {
			_, err := sp.Invite(acl.Terms{Role: acl.RoleReader}, time.Unix(1<<30, 0), nil)
			must(t, err)
		}
		must(t, sp.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
		r := n.set.Take(t.Context(), sp.ID(), keys.Identity, frames)
		if r != nil {
			r.Release()
		}
		return r != nil, sp.ID(), frames
	}
	for i := range 20 {
		if ok, _, _ := take(0); !ok {
			t.Fatalf("space %d is not taken", i)
		}
	}
	ok, id, frames := take(0)
	if ok {
		t.Error("one more is taken")
	}
	if r := n.set.TakeCopy(t.Context(), id, frames); r == nil {
		t.Error("of another node it is not taken")
	} else {
		r.Release()
	}
	if r := n.set.Take(t.Context(), id, keys.Identity, frames); r == nil {
		t.Error("what is here is not taken any more")
	} else {
		r.Release()
	}
	quota = 100 * 64 << 10
	if ok, _, _ := take(0); !ok {
		t.Error("within a larger quota it is not taken")
	}
	used := int64(0)
	for _, u := range n.set.Usages() {
		used += u.Blocks + u.Log
	}
	if used < 22*1000 {
		t.Errorf("%d bytes of 22 spaces are counted", used)
	}
	keys, quota = newKeys(t), 100<<10
	if ok, _, _ := take(10); !ok {
		t.Error("a list that has room is not taken")
	}
	if ok, _, f := take(300); ok {
		n := 0
		for _, f := range f {
			n += len(f)
		}
		t.Errorf("a list of %d bytes is taken with 100 KiB left", n)
	}
}
