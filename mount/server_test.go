package mount

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
	"golang.org/x/sys/unix"
)

// slowNames is a backend that is held up where a name begins with "slow".
type slowNames struct {
	*memfs.FS
	release chan struct{}
}

func (b *slowNames) Lookup(parent fs.Ino, name string) (fs.Attr, error) {
	if strings.HasPrefix(name, "slow") {
		<-b.release
	}
	return b.FS.Lookup(parent, name)
}

// TestHeldUp holds that requests that are held up hold up no other.
func TestHeldUp(t *testing.T) {
	b := &slowNames{FS: newMem(), release: make(chan struct{})}
	m := mountOn(t, b)
	newFile(t, m.dir+"/f", "x")
	var held sync.WaitGroup
	for i := range 40 {
		dir := fmt.Sprintf("%s/d%d", m.dir, i)
		must(t, os.Mkdir(dir, 0o755))
		held.Go(func() { absent(t, dir+"/slow") })
	}
	time.Sleep(50 * time.Millisecond)
	worst := time.Duration(0)
	for i := range 50 {
		start := time.Now()
		var st unix.Statfs_t
		must(t, unix.Statfs(m.dir, &st))
		newFile(t, fmt.Sprintf("%s/new%d", m.dir, i), "x")
		worst = max(worst, time.Since(start))
	}
	t.Logf("beside 40 requests that are held up others take up to %v", worst)
	if worst > 20*time.Second { // they would wait until the others are let go, which is never
		t.Errorf("a request took %v", worst)
	}
	close(b.release)
	held.Wait()
}

// slowReads is a backend on a slow disk.
type slowReads struct {
	*memfs.FS
	each time.Duration

	mu        sync.Mutex
	now, most int // reads at a time
}

func (b *slowReads) Read(ctx context.Context, ino fs.Ino, p []byte, off int64) (int, error) {
	b.mu.Lock()
	b.now++
	b.most = max(b.most, b.now)
	b.mu.Unlock()
	time.Sleep(b.each)
	b.mu.Lock()
	b.now--
	b.mu.Unlock()
	return b.FS.Read(ctx, ino, p, off)
}

// TestReadsAtOnce holds that many reads that each wait for a disk wait together.
func TestReadsAtOnce(t *testing.T) {
	const readers, reads, each = 8, 50, 2 * time.Millisecond
	b := &slowReads{FS: newMem(), each: each}
	m := mountOn(t, b)
	data := make([]byte, 16<<20)
	must(t, os.WriteFile(m.dir+"/f", data, 0o644))
	fd, err := unix.Open(m.dir+"/f", unix.O_RDONLY, 0)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	must(t, unix.Fadvise(fd, 0, 0, unix.FADV_RANDOM))
	start := time.Now()
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for i := range reads {
				if _, err := unix.Pread(fd, buf, int64((r*reads+i)*3*4096)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	t.Logf("%d reads of %v by %d readers took %v, up to %d at a time", readers*reads, each, readers, time.Since(start), b.most)
	if b.most < readers/2 {
		t.Errorf("at most %d of %d readers were served at a time", b.most, readers)
	}
}
