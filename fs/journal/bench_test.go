package journal

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/disk"
)

// benchJournal is a journal on the disk of ANYFS_BENCH_DIR, or of the temporary folder. It releases what it can, so that
// it runs for ever.
func benchJournal(b testing.TB) *Journal {
	b.Helper()
	dir := b.TempDir()
	if base := os.Getenv("ANYFS_BENCH_DIR"); base != "" {
		var err error
		dir, err = os.MkdirTemp(base, "journal")
		must(b, err)
		b.Cleanup(func() { os.RemoveAll(dir) })
	}
	d, err := disk.OS(dir)
	must(b, err)
	j, err := Open(Options{Disk: d, Dir: "journal", Key: seal.NewLocal([32]byte{1})}, 0, nil)
	must(b, err)
	b.Cleanup(func() { j.Close() })
	must(b, j.prepare())
	return j
}

func benchAppend(b *testing.B, j *Journal, rec []byte) Seq {
	seq, _, err := j.Append(rec)
	if err != nil {
		b.Fatal(err)
	}
	if _, live := j.Oldest(); live > 48<<20 {
		j.Release(seq)
	}
	return seq
}

func BenchmarkAppend100(b *testing.B) {
	j, rec := benchJournal(b), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		benchAppend(b, j, rec)
	}
}

// The way of a namespace operation: appended, then written before the reply.
func BenchmarkAppendWrite100(b *testing.B) {
	j, rec := benchJournal(b), make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if err := j.Write(benchAppend(b, j, rec)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendWrite4K(b *testing.B) {
	j, rec := benchJournal(b), make([]byte, 4096)
	b.SetBytes(4096)
	for b.Loop() {
		if err := j.Write(benchAppend(b, j, rec)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppend4K(b *testing.B) {
	j, rec := benchJournal(b), make([]byte, 4096)
	b.SetBytes(4096)
	for b.Loop() {
		benchAppend(b, j, rec)
	}
}

func BenchmarkAppendWrite128K(b *testing.B) {
	j, rec := benchJournal(b), make([]byte, 128<<10)
	b.SetBytes(128 << 10)
	for b.Loop() {
		if err := j.Write(benchAppend(b, j, rec)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSync(b *testing.B) { benchSync(b, 1) }

func BenchmarkSyncGroup8(b *testing.B) { benchSync(b, 8) }

func benchSync(b *testing.B, parallel int) {
	j, rec := benchJournal(b), make([]byte, 100)
	left := make(chan struct{}, 1024)
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for range left {
				if err := j.Sync(context.Background(), benchAppend(b, j, rec)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		left <- struct{}{}
	}
	close(left)
	wg.Wait()
}

func BenchmarkReadAt4K(b *testing.B) {
	j := benchJournal(b)
	var locs []Loc
	for range 1000 {
		seq, loc, err := j.Append(make([]byte, 4096))
		must(b, err)
		must(b, j.Write(seq))
		locs = append(locs, loc)
	}
	p := make([]byte, 4096)
	i := 0
	b.SetBytes(4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := j.ReadAt(locs[i*7919%1000], p, 0); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	d, err := disk.OS(dir)
	must(b, err)
	o := Options{Disk: d, Dir: "journal", Key: seal.NewLocal([32]byte{1})}
	j, err := Open(o, 0, nil)
	must(b, err)
	rec, bytes := make([]byte, 200), int64(0)
	for bytes < 100<<20 {
		_, _, err := j.Append(rec)
		must(b, err)
		bytes += int64(len(rec))
	}
	must(b, j.Close())
	b.SetBytes(bytes)
	b.ReportAllocs()
	for b.Loop() {
		n := int64(0)
		j, err := Open(o, 0, func(_ Seq, rec []byte, _ Loc) error { n += int64(len(rec)); return nil })
		if err != nil || n != bytes {
			b.Fatal(n, err)
		}
		must(b, j.Close())
	}
}
