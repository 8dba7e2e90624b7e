package fs

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
)

// BenchmarkListCold lists a directory of 10,000 files and the attributes of all, as a kernel asks for them that knows nothing
// yet, from a home that was opened just now.
func BenchmarkListCold(b *testing.B) {
	const n, page = 10_000, 200
	ctx, cred, open := benchHome(b)
	h, root := open()
	for i := range n {
		_, err := h.Mknod(root, fmt.Sprintf("file-%d", i), 0100644, 0, cred)
		must(b, err)
	}
	must(b, h.Flush(ctx))
	must(b, h.Close())
	for b.Loop() {
		b.StopTimer()
		h, root := open()
		b.StartTimer()
		inos, off, listed := []Ino(nil), uint64(0), 0
		for more := true; more; listed += len(inos) {
			inos = inos[:0]
			must(b, h.ReadDir(root, off, func(d Dirent) bool {
				inos, off = append(inos, d.Ino), d.Off
				return len(inos) < page
			}))
			more = len(inos) > 0
			h.Prefetch(inos)
			for _, ino := range inos {
				_, err := h.Getattr(ino)
				must(b, err)
			}
		}
		b.StopTimer()
		if listed != n {
			b.Fatalf("%d of %d listed", listed, n)
		}
		must(b, h.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "files/s")
}

// benchHome is a home on the disk, which open opens anew, with the root of Personal.
func benchHome(b *testing.B) (ctx context.Context, cred Cred, open func() (*Home, Ino)) {
	b.Helper()
	ctx = context.Background()
	dir := b.TempDir()
	d, err := disk.OS(dir)
	must(b, err)
	account, err := acl.NewAccount(rand.Reader)
	must(b, err)
	keys, err := acl.InitKeys(d, account, "test", nil, rand.Reader)
	must(b, err)
	cred = Cred{uint32(os.Geteuid()), uint32(os.Getegid())}
	open = func() (*Home, Ino) {
		h, err := Open(ctx, Options{Disk: d, Dir: dir, Keys: keys, Rand: rand.Reader, UID: cred.UID, GID: cred.GID})
		must(b, err)
		if _, err := h.Space(PersonalName); err != nil {
			_, err = h.CreatePersonal()
			must(b, err)
		}
		root, err := h.SpaceRoot(PersonalName)
		must(b, err)
		return h, root
	}
	return ctx, cred, open
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
