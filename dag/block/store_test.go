package block

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// xorSealer is a Sealer that notices other associated data and other bytes.
type xorSealer struct{}

func (xorSealer) SealLocal(dst, plaintext, ad []byte) []byte {
	tag := Sum(append(bytes.Clone(plaintext), ad...))
	for _, c := range plaintext {
		dst = append(dst, c^0x5A)
	}
	return append(dst, tag[:8]...)
}

func (xorSealer) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < 8 {
		return nil, errors.New("too short")
	}
	n := len(sealed) - 8
	plain := make([]byte, n)
	for i, c := range sealed[:n] {
		plain[i] = c ^ 0x5A
	}
	if tag := Sum(append(bytes.Clone(plain), ad...)); !bytes.Equal(tag[:8], sealed[n:]) {
		return nil, errors.New("not authentic")
	}
	return append(dst, plain...), nil
}

// open opens a store with small limits, so that few blocks reach all of them.
func open(t testing.TB, d disk.FS, db kv.DB) *Store {
	t.Helper()
	s, err := Open(options(d, db))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func options(d disk.FS, db kv.DB) Options {
	return Options{Disk: d, Dir: "blocks", DB: db, Seal: xorSealer{}, SegmentBytes: 256 << 10, OpenFiles: 3, CacheEntries: 8, FlushEntries: 16}
}

// data is a block that a number stands for, of up to 40,000 bytes, not to be changed.
func data(n int) []byte {
	if p, ok := testBlocks.Load(n); ok {
		return p.([]byte)
	}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	rnd := rand.NewChaCha8(seed)
	p := make([]byte, rnd.Uint64()%40_000)
	rnd.Read(p)
	testBlocks.Store(n, p)
	return p
}

var testBlocks, testIDs sync.Map

// dataID is the ID of data(n).
func dataID(n int) ID {
	id, ok := testIDs.Load(n)
	if !ok {
		id, _ = testIDs.LoadOrStore(n, Sum(data(n)))
	}
	return id.(ID)
}

func TestPutGet(t *testing.T) {
	d, db := disk.NewSim(rand.New(rand.NewPCG(1, 1))), kv.NewMem()
	s := open(t, d, db)
	ctx := context.Background()
	var ids []ID
	for n := range 100 {
		id, err := s.Put(data(n))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
		if n%20 == 0 {
			if err := s.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	live, onDisk := s.Bytes()
	check := func() {
		t.Helper()
		for n, id := range ids {
			got, err := s.Get(ctx, id)
			if err != nil || !bytes.Equal(got, data(n)) {
				t.Fatalf("block %d: %d bytes, %v", n, len(got), err)
			}
			r, size, err := s.Reader(ctx, id)
			if err != nil || size != int64(len(got)) {
				t.Fatalf("block %d: reader of %d bytes, %v", n, size, err)
			}
			part := make([]byte, min(size, 100))
			if _, err := r.ReadAt(part, size-int64(len(part))); err != nil || !bytes.HasSuffix(got, part) {
				t.Fatalf("block %d: partial read: %v", n, err)
			}
		}
		if l, _ := s.Bytes(); l != live || s.Len() != 100 {
			t.Fatalf("live %d, want %d; %d blocks", l, live, s.Len())
		}
	}
	check()
	for n := range 100 { // dedup
		if _, err := s.Put(data(n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, now := s.Bytes(); now != onDisk {
		t.Fatalf("putting the blocks again took %d bytes", now-onDisk)
	}
	s.Close()
	s = open(t, d, db)
	check()
	if _, err := s.Get(ctx, ID{1}); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	checked := 0
	if err := s.Verify(ctx, func(id ID, err error) {
		if err != nil {
			t.Error(id, err)
		}
		checked++
	}); err != nil || checked != 100 {
		t.Fatalf("verified %d, %v", checked, err)
	}
	if err := s.Evict(ids[:60]...); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(ctx); err != nil {
		t.Fatal(err)
	}
	ids, live = nil, 0
	for n := range 100 {
		id := Sum(data(n))
		if s.Has(id) != (n >= 60) {
			t.Fatalf("block %d: %v", n, s.Has(id))
		}
		live += int64(len(data(n))+recordHeader) * int64(max(0, min(1, n-59)))
	}
	if l, now := s.Bytes(); l != live || now > 2*live {
		t.Fatalf("live %d, want %d; on disk %d, was %d", l, live, now, onDisk)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func rnd1() *rand.Rand { return rand.New(rand.NewPCG(1, 1)) }
