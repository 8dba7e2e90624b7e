package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// BenchmarkArrive has a device that is new take in a space of 100,000 small files, 250 a directory: frames of batches are verified and
// stored as they come, and each MiB of them arrives in the tree and the index. us/file is the CPU of the process for all of that and the
// checkpoints, ingest-us/file that of verifying and storing alone, and B/file what was allocated.
func BenchmarkArrive(b *testing.B) {
	const n, perDir, step = 100_000, 250, 1 << 20
	ctx := context.Background()
	account, err := acl.NewAccount(rand.Reader)
	must(b, err)
	cred := Cred{uint32(os.Geteuid()), uint32(os.Getegid())}
	open := func(name string) *Home {
		dir := b.TempDir()
		d, err := disk.OS(dir)
		must(b, err)
		keys, err := acl.InitKeys(d, account, name, nil, rand.Reader)
		must(b, err)
		h, err := Open(ctx, Options{Disk: d, Dir: dir, Keys: keys, Rand: rand.Reader, UID: cred.UID, GID: cred.GID})
		must(b, err)
		_, err = h.CreatePersonal()
		must(b, err)
		return h
	}
	personal := func(h *Home) *space {
		s, err := h.namedSpace(PersonalName)
		must(b, err)
		return s
	}
	from := open("old")
	root, err := from.SpaceRoot(PersonalName)
	must(b, err)
	for i := range n / perDir {
		dir, err := from.Mkdir(root, fmt.Sprintf("dir-%04d", i), 0o755, cred)
		must(b, err)
		for j := range perDir {
			f, err := from.Mknod(dir.Ino, fmt.Sprintf("file-%04d", j), 0100644, 0, cred)
			must(b, err)
			_, err = from.Write(ctx, f.Ino, fmt.Appendf(nil, "file %d of directory %d\n", j, i), 0, WriteFlags{})
			must(b, err)
		}
		if i%8 == 7 {
			must(b, from.Flush(ctx))
		}
		if i%64 == 63 {
			must(b, from.checkpoint(ctx))
		}
	}
	must(b, from.Flush(ctx))
	var frames [][]byte
	must(b, personal(from).graph.FramesSince(nil, func(_ dag.ID, frame []byte) error {
		frames = append(frames, append([]byte{}, frame...))
		return nil
	}))
	list := personal(from).acl.List()
	var all, ingest time.Duration
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		h := open("new")
		s := personal(h)
		must(b, list.Export(func(f []byte) error { return s.acl.List().Import(f) }))
		_, err := s.graph.Rejudge(nil)
		must(b, err)
		b.StartTimer()
		start, came := cpuUsed(), 0
		for i, frame := range frames {
			at := cpuUsed()
			r, err := s.graph.Ingest(frame)
			if err != nil || r.Status != dag.Accepted {
				b.Fatal(errors.Join(err, fmt.Errorf("batch %s: %v", r.ID, r.Status)))
			}
			ingest += cpuUsed() - at
			if came += len(frame); came >= step || i == len(frames)-1 {
				came = 0
				must(b, s.arrive(ctx))
			}
		}
		must(b, h.checkpoint(ctx))
		all += cpuUsed() - start
		b.StopTimer()
		if s.objects != n+n/perDir+1 {
			b.Fatalf("%d objects", s.objects)
		}
		must(b, h.Close())
		b.StartTimer()
	}
	b.StopTimer()
	b.ReportMetric(float64(all.Microseconds())/float64(b.N*n), "us/file")
	b.ReportMetric(float64(ingest.Microseconds())/float64(b.N*n), "ingest-us/file")
	must(b, from.Close())
}

// cpuUsed is the CPU time that this process has taken.
func cpuUsed() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
