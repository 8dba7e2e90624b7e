package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// flip changes one bit of a file.
func flip(t *testing.T, d disk.FS, name string, at int64) {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// damage verifies the store and returns what is wrong, by ID.
func damage(t *testing.T, s *Store) map[ID]error {
	t.Helper()
	bad := map[ID]error{}
	if err := s.Verify(t.Context(), func(id ID, err error) {
		if err != nil {
			bad[id] = err
		}
	}); err != nil {
		t.Fatal(err)
	}
	return bad
}

// filled is a store with checkpointed blocks 0 to n-1.
func filled(t *testing.T, n int) (disk.FS, kv.DB, *Store) {
	t.Helper()
	d, db := disk.NewSim(nil), kv.NewMem()
	s := open(t, d, db)
	for i := range n {
		if _, err := s.Put(data(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d, db, s
}

// TestEveryFlipIsFound flips bits all over the segments: each is told by Verify, with the ID where it is a block's, and
// is never served.
func TestEveryFlipIsFound(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	d, db, s := filled(t, 6)
	place := map[ID]place{}
	for n := range 6 {
		place[dataID(n)], _, _ = s.lookup(dataID(n))
	}
	var at []int64
	for _, p := range place {
		for range 8 {
			at = append(at, int64(p.off)+rnd.Int64N(recordHeader), int64(p.off)+recordHeader+rnd.Int64N(int64(p.n)))
		}
	}
	for range 8 {
		at = append(at, rnd.Int64N(segmentHeader))
	}
	for _, off := range at {
		flip(t, d, "blocks/000001.seg", off)
		s := open(t, d, db)
		var want ID
		for id, p := range place {
			if off >= int64(p.off) && off < p.end() {
				want = id
			}
		}
		bad := damage(t, s)
		if err, ok := bad[want]; !ok || !errors.Is(err, ErrCorrupt) || !want.IsZero() && !strings.Contains(err.Error(), want.String()) {
			t.Fatalf("a flip at %d of block %s is not told: %v", off, want, bad)
		}
		for id, p := range place {
			data, err := s.Get(t.Context(), id)
			if body := off >= int64(p.off)+recordHeader && off < p.end(); body != errors.Is(err, ErrCorrupt) || !body && Sum(data) != id {
				t.Fatalf("a flip at %d: Get of the block at %d gives %v", off, p.off, err)
			}
		}
		flip(t, d, "blocks/000001.seg", off)
	}
	if bad := damage(t, open(t, d, db)); len(bad) > 0 {
		t.Fatal(bad)
	}
}

func TestDamagedIndexIsFound(t *testing.T) {
	d, db, _ := filled(t, 6)
	id := dataID(3)
	if err := db.Update(func(tx kv.Tx) error {
		v := bytes.Clone(tx.Get(bucketBlocks, id[:]))
		v[2] ^= 1
		return tx.Put(bucketBlocks, id[:], v)
	}); err != nil {
		t.Fatal(err)
	}
	s := open(t, d, db)
	if bad := damage(t, s); len(bad) != 1 || !errors.Is(bad[id], ErrCorrupt) {
		t.Fatal(bad)
	}
	if _, err := s.Get(t.Context(), id); !errors.Is(err, ErrCorrupt) || s.Has(id) {
		t.Fatal(err)
	}
	if _, err := s.Put(data(3)); err != nil || !s.Has(id) {
		t.Fatal(err)
	}
	if bad := damage(t, s); len(bad) != 0 {
		t.Fatal(bad)
	}
}

// TestRepair damages a block, sees it refused, puts it again, and wants the repair to last.
func TestRepair(t *testing.T) {
	d, db, s := filled(t, 6)
	id := dataID(2)
	p, _, _ := s.lookup(id)
	flip(t, d, "blocks/000001.seg", int64(p.off)+recordHeader+5)
	if _, err := s.Get(t.Context(), id); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.Put(data(2)); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), id); err != nil || !bytes.Equal(got, data(2)) {
			t.Fatal(err)
		}
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if bad := damage(t, s); len(bad) != 0 {
			t.Fatal(bad)
		}
		s = open(t, d, db)
	}
	if s.Len() != 6 {
		t.Fatal(s.Len())
	}
}

func TestMissingSegment(t *testing.T) {
	d, db, s := filled(t, 40)
	p, _, _ := s.lookup(dataID(0))
	s.Close()
	if err := d.Remove("blocks/000001.seg"); err != nil {
		t.Fatal(err)
	}
	s = open(t, d, db)
	bad := damage(t, s)
	for n := range 40 {
		q, _, _ := s.lookup(dataID(n))
		if _, err := s.Get(t.Context(), dataID(n)); (q.seg == p.seg) != errors.Is(err, ErrCorrupt) || (q.seg == p.seg) != errors.Is(bad[dataID(n)], ErrCorrupt) {
			t.Fatal(n, err, bad[dataID(n)])
		}
	}
	for n := range 40 {
		if _, err := s.Put(data(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Checkpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if bad := damage(t, s); len(bad) != 0 || s.Len() != 40 {
			t.Fatal(bad, s.Len())
		}
		s = open(t, d, db)
	}
}

// TestIndexIsMadeAnew loses the DB, with and without damage to headers, and wants every sound block back and no evicted
// one.
func TestIndexIsMadeAnew(t *testing.T) {
	for _, hurt := range []bool{false, true} {
		d, _, s := filled(t, 40)
		if err := s.Evict(dataID(3), dataID(7), dataID(20)); err != nil {
			t.Fatal(err)
		}
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone := map[int]bool{3: true, 7: true, 20: true}
		if hurt {
			for _, n := range []int{0, 10, 11} {
				p, _, _ := s.lookup(dataID(n))
				flip(t, d, s.segmentName(p.seg), int64(p.off)+20)
				gone[n] = true
			}
			p, _, _ := s.lookup(dataID(15))
			flip(t, d, s.segmentName(p.seg), int64(p.off)+recordHeader+100)
			gone[15] = true
		}
		db := kv.NewMem()
		s = open(t, d, db)
		for range 2 {
			for n := range 40 {
				if got, err := s.Get(t.Context(), dataID(n)); gone[n] != errors.Is(err, ErrAbsent) || !gone[n] && !bytes.Equal(got, data(n)) {
					t.Fatalf("hurt %v: block %d: %v", hurt, n, err)
				}
			}
			if bad := damage(t, s); len(bad) > 0 {
				t.Fatal(bad)
			}
			if err := s.Checkpoint(t.Context()); err != nil {
				t.Fatal(err)
			}
			s = open(t, d, db)
		}
	}
}
