package fs

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// Chunks of a file that is being written are told of before it is published, but not those of what is ignored. A mirror fetches them; those
// that nothing comes to refer to go, and no others.
func TestEarly(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	a.create(a.root, ".anyfsignore", []byte("*.tmp\n"))
	d.settle()
	var mu sync.Mutex
	var told []block.ID
	a.SetSealed(func(space dag.ID, id block.ID) {
		mu.Lock()
		defer mu.Unlock()
		if space != from.id || !from.blocks.Has(id) {
			t.Errorf("block %s of space %s", id, space)
		}
		told = append(told, id)
	})
	// write begins a large file, and returns which of its blocks were told of before it ends.
	write := func(name string, seed uint64) (ino Ino, rest []byte, ids []block.ID) {
		f := must2(a.Mknod(a.root, name, 0100644, 0, Cred{1000, 1000}))
		data := random(seed, 14<<20)
		for off := 0; off < 13<<20; off += 1 << 20 {
			must2(a.Write(t.Context(), f.Ino, data[off:off+1<<20], int64(off), WriteFlags{}))
		}
		_, local, err := a.space(f.Ino)
		a.must(err)
		from.mu.Lock()
		st := from.streams[local]
		from.mu.Unlock()
		if st == nil {
			t.Fatal("no stream")
		}
		st.jobs.Wait()
		mu.Lock()
		defer mu.Unlock()
		ids, told = told, nil
		return f.Ino, data[13<<20:], ids
	}
	_, _, ids := write("a.tmp", 1)
	if len(ids) > 0 {
		t.Fatalf("%d blocks of an ignored file", len(ids))
	}
	ino, rest, ids := write("kept", 2)
	if len(ids) < 3 {
		t.Fatalf("%d blocks were told of", len(ids))
	}
	_, _, lost := write("gone", 3)

	h := &holder{from: from.blocks}
	to.blocks.SetFetcher(h)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.fetcher(ctx) })
	defer wg.Wait()
	defer cancel()
	var r Replica
	for _, r = range b.Replicas() {
		if r.ID == to.id {
			break
		}
	}
	r.Sealed(dag.PublicKey{1}, ids)
	if to.early.under > 0 || to.acl.List().State().Role(dag.PublicKey{1}) != acl.RoleNone {
		t.Error("blocks are fetched because a stranger tells of them")
	}
	here := func(ids []block.ID) (n int) {
		for _, id := range ids {
			if to.blocks.Has(id) {
				n++
			}
		}
		return n
	}
	all := append(append([]block.ID{}, ids...), lost...)
	for end := time.Now().Add(20 * time.Second); here(all) < len(all); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of %d blocks came", here(all), len(all))
		}
		r.Sealed(a.keys.Identity, all) // what found no place is told of again
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		to.early.mu.Lock()
		under := to.early.under
		to.early.mu.Unlock()
		if under == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d are on their way", under)
		}
	}
	if n := len(to.early.unclaimed(time.Now())); n != len(all) {
		t.Errorf("%d of %d are known to be nobody's yet", n, len(all))
	}

	// The one file is finished, of the other nothing becomes.
	must2(a.Write(t.Context(), ino, rest, 13<<20, WriteFlags{}))
	b.must(a.Unlink(a.root, "gone"))
	d.settle()
	b.must(to.dropEarly(t.Context(), time.Now().Add(-time.Minute)))
	if here(all) != len(all) {
		t.Error("blocks went that came a moment ago")
	}
	if err := to.dropEarly(t.Context(), time.Now()); err == nil {
		t.Error("blocks went although it is not known what refers to them") // the file's root has not come
	}
	if here(all) != len(all) {
		t.Fatal("blocks went although it is not known what refers to them")
	}
	wg.Go(func() { b.mirrorer(ctx) })
	b.Mirror()
	for end := time.Now().Add(20 * time.Second); to.wanted() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the file does not come")
		}
	}
	if n := len(to.early.unclaimed(time.Now())); n != len(lost) {
		t.Errorf("%d are known to be nobody's, not %d", n, len(lost))
	}
	// What the claims say is not relied upon.
	to.early.mu.Lock()
	for _, id := range ids {
		to.early.came[id] = time.Time{}
	}
	to.early.mu.Unlock()
	b.must(to.dropEarly(t.Context(), time.Now()))
	if here(ids) != len(ids) || here(lost) != 0 {
		t.Errorf("%d of %d blocks of the file are here, %d of what never was", here(ids), len(ids), here(lost))
	}
	if n := len(to.early.unclaimed(time.Now())); n != 0 {
		t.Errorf("%d blocks are looked at again", n)
	}
	d.wantShown(a, ".anyfsignore", "a.tmp", "kept")
	d.wantShown(b, ".anyfsignore", "kept")
	a.verify()
	b.verify()
}

// Where a writer pauses no chunk ends or begins: when he goes on, the block is of no use to who fetched it ahead.
func TestLooseIsNotEarly(t *testing.T) {
	d := newDevices(t, 1)
	a := d.all[0]
	sp := must2(a.namedSpace(PersonalName))
	d.settle()
	var mu sync.Mutex
	told := map[block.ID]bool{}
	a.SetSealed(func(_ dag.ID, id block.ID) {
		mu.Lock()
		defer mu.Unlock()
		told[id] = true
	})
	f := must2(a.Mknod(a.root, "f", 0100644, 0, Cred{1000, 1000}))
	_, local, err := a.space(f.Ino)
	a.must(err)
	const size, pause = 18 << 20, 9 << 20
	data := random(4, size)
	for off := 0; off < size; off += 1 << 20 {
		if off == pause {
			a.must(sp.settleStream(local))
		}
		must2(a.Write(t.Context(), f.Ino, data[off:off+1<<20], int64(off), WriteFlags{}))
	}
	a.must(sp.settleStream(local))
	sp.mu.Lock()
	defer sp.mu.Unlock()
	x := must2(sp.ix.Inode(local))
	early, loose, behind := 0, 0, 0 // blocks, and how many came since the pause
	x.Ext.Range(0, size, func(off int64, e index.Extent) bool {
		if e.Src.Kind != index.SourceBlock {
			t.Errorf("at %d is no block", off)
			return true
		}
		if off >= pause {
			behind++
		}
		is := behind == 1 || behind == 2 // the cut points may be others than the whole file's
		for _, end := range []int64{pause, size} {
			is = is || off+e.Len == end
		}
		if told[e.Src.Block] == is {
			t.Errorf("the block from %d to %d: told %v", off, off+e.Len, told[e.Src.Block])
		}
		if is {
			loose++
		} else {
			early++
		}
		return true
	})
	if early < 6 || loose != 4 {
		t.Fatalf("%d blocks, and %d that are loose", early, loose)
	}
}
