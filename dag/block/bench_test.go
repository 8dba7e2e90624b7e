package block

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// benchStore is a store on the real disk with the default limits.
func benchStore(b *testing.B) *Store {
	b.Helper()
	dir := b.TempDir()
	d, err := disk.OS(dir)
	if err != nil {
		b.Fatal(err)
	}
	db, err := kv.OpenBolt(filepath.Join(dir, "space.db"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(Options{Disk: d, Dir: "blocks", DB: db, Seal: newGCMSealer()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		s.Close()
		db.Close()
	})
	return s
}

// gcmSealer seals as acl/seal does, which this package does not import.
type gcmSealer struct{ cipher.AEAD }

func newGCMSealer() gcmSealer {
	block, _ := aes.NewCipher(make([]byte, 32))
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return gcmSealer{gcm}
}

func (g gcmSealer) SealLocal(dst, plaintext, ad []byte) []byte {
	return g.Seal(dst, nil, plaintext, ad)
}

func (g gcmSealer) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	return g.Open(dst, nil, sealed, ad)
}

// cpu reports the processor time of what follows, user and system: it says more than the clock where others work too.
func cpu(b *testing.B) (done func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := used()
	return func() { b.ReportMetric(float64(used()-start)/float64(b.N), "cpu-ns/op") }
}

// fresh makes p another block for each n.
func fresh(p []byte, n int) []byte {
	binary.LittleEndian.PutUint64(p, uint64(n)+1)
	return p
}

func benchPut(b *testing.B, size int, put func(s *Store, p []byte, n int) error) {
	s := benchStore(b)
	p := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(p)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	n := 0
	defer cpu(b)()
	for b.Loop() {
		if err := put(s, fresh(p, n), n); err != nil {
			b.Fatal(err)
		}
		if n++; n%2000 == 0 { // as the 2 s timer of a space would
			b.StopTimer()
			if err := s.Checkpoint(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	}
}

func BenchmarkPut1MiB(b *testing.B) {
	benchPut(b, 1<<20, func(s *Store, p []byte, _ int) error { _, err := s.Put(p); return err })
}

func BenchmarkPutHashed1MiB(b *testing.B) {
	benchPut(b, 1<<20, func(s *Store, p []byte, n int) error {
		var id ID
		binary.LittleEndian.PutUint64(id[:], uint64(n)+1)
		return s.PutHashed(id, p)
	})
}

func BenchmarkPut12KiB(b *testing.B) {
	benchPut(b, 12<<10, func(s *Store, p []byte, _ int) error { _, err := s.Put(p); return err })
}

func BenchmarkPutDuplicate1MiB(b *testing.B) {
	benchPut(b, 1<<20, func(s *Store, p []byte, _ int) error { _, err := s.Put(fresh(p, 0)); return err })
}

func BenchmarkPutSync4KiB(b *testing.B) {
	benchPut(b, 4<<10, func(s *Store, p []byte, _ int) error {
		if _, err := s.Put(p); err != nil {
			return err
		}
		return s.Sync(context.Background())
	})
}

// benchFilled is a store of n blocks in the index.
func benchFilled(b *testing.B, n, size int) (*Store, []ID) {
	s := benchStore(b)
	p := make([]byte, size)
	ids := make([]ID, n)
	for i := range ids {
		id, err := s.Put(fresh(p, i))
		if err != nil {
			b.Fatal(err)
		}
		ids[i] = id
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		b.Fatal(err)
	}
	return s, ids
}

func BenchmarkGet1MiB(b *testing.B) {
	s, ids := benchFilled(b, 64, 1<<20)
	b.SetBytes(1 << 20)
	i := 0
	defer cpu(b)()
	for b.Loop() {
		if _, err := s.Get(context.Background(), ids[i%len(ids)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkRead16KiB(b *testing.B) {
	s, ids := benchFilled(b, 64, 1<<20)
	p := make([]byte, 16<<10)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	i := 0
	defer cpu(b)()
	for b.Loop() {
		r, size, err := s.Reader(context.Background(), ids[i*7%len(ids)])
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.ReadAt(p, int64(i)*16411%(size-int64(len(p)))); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkHas looks in an index that is larger than the cache.
func BenchmarkHas(b *testing.B) {
	s, ids := benchFilled(b, 100_000, 16)
	rnd := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if !s.Has(ids[rnd.IntN(len(ids))]) {
			b.Fatal("absent")
		}
	}
}

// BenchmarkCheckpoint writes 10,000 places to an index of 100,000.
func BenchmarkCheckpoint(b *testing.B) {
	s, _ := benchFilled(b, 100_000, 16)
	p := make([]byte, 16)
	n := 1 << 30
	defer cpu(b)()
	for b.Loop() {
		b.StopTimer()
		for range 10_000 {
			if _, err := s.Put(fresh(p, n)); err != nil {
				b.Fatal(err)
			}
			n++
		}
		b.StartTimer()
		if err := s.Checkpoint(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen opens a store whose last 16,000 blocks are durable but not in the index.
func BenchmarkOpen(b *testing.B) {
	s, _ := benchFilled(b, 100_000, 16)
	p := make([]byte, 16)
	for n := range 16_000 {
		if _, err := s.Put(fresh(p, 1<<30+n)); err != nil {
			b.Fatal(err)
		}
	}
	write, done := s.Freeze()
	err := s.opt.DB.Update(write)
	done(err == nil)
	defer cpu(b)()
	for b.Loop() {
		s2, err := Open(s.opt)
		if err != nil {
			b.Fatal(err)
		}
		s2.Close()
	}
}

func BenchmarkBuildTree(b *testing.B) {
	leaves := make([]Leaf, 4096) // of a file of 4 GiB
	for i := range leaves {
		leaves[i] = Leaf{Sum(binary.LittleEndian.AppendUint32(nil, uint32(i))), 1 << 20}
	}
	b.ReportAllocs()
	defer cpu(b)()
	for b.Loop() {
		if _, err := BuildTree(func(p []byte) (ID, error) { return Sum(p), nil }, leaves); err != nil {
			b.Fatal(err)
		}
	}
}
