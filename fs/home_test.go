package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// testHome is a home on a simulated disk. Its keys are the same after a reopening.
type testHome struct {
	*Home
	t    testing.TB
	sim  *disk.Sim
	keys *acl.Keys
	root Ino          // of the space Personal
	rand io.Reader    // for keys, and so for the order of names
	skew atomic.Int64 // of its clock, in nanoseconds

	dbs string // the folder of real databases; empty: they are on the simulated disk
	how simulation
}

// tick lets time pass.
func (th *testHome) tick(d time.Duration) { th.skew.Add(int64(d)) }

func (th *testHome) clock() time.Time { return time.Now().Add(time.Duration(th.skew.Load())) }

func newTestHome(t testing.TB) *testHome {
	t.Helper()
	return newTestHomeOf(t, rand.Reader)
}

func newTestHomeOf(t testing.TB, rnd io.Reader) *testHome {
	t.Helper()
	th := newBareHome(t, rnd)
	th.open()
	if _, err := th.CreatePersonal(); err != nil {
		t.Fatal(err)
	}
	th.find()
	t.Cleanup(th.leave)
	return th
}

// newBareHome has keys on its disk, and is not open.
func newBareHome(t testing.TB, rnd io.Reader) *testHome {
	t.Helper()
	sim := disk.NewSim(mrand.New(mrand.NewPCG(1, 2)))
	account, err := acl.NewAccount(rnd)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := acl.InitKeys(sim, account, "test", nil, rnd)
	if err != nil {
		t.Fatal(err)
	}
	return &testHome{t: t, sim: sim, keys: keys, rand: rnd}
}

// leave closes the home and lets go of its disk: a test may make many.
func (th *testHome) leave() {
	if th.Home != nil {
		th.Home.closeSpaces()
	}
	th.Home, th.sim = nil, nil
}

func (th *testHome) open() {
	th.t.Helper()
	th.must(th.tryOpen())
	if th.root != 0 {
		th.find()
	}
}

func (th *testHome) tryOpen() error {
	if th.rand == nil {
		th.rand = rand.Reader
	}
	h, err := Open(context.Background(), Options{
		Disk: th.sim, Keys: th.keys, Rand: th.rand, UID: 1000, GID: 1000, Clock: th.clock,
		sim: th.how,
		OpenDB: func(name string) (kv.DB, error) {
			if th.dbs == "" {
				return kv.NewSimDB(th.sim, name)
			}
			path := filepath.Join(th.dbs, name)
			if err := os.MkdirAll(filepath.Dir(path), 0700); err != nil {
				return nil, err
			}
			return kv.OpenBolt(path)
		},
	})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	th.Home = h
	return nil
}

func (th *testHome) find() {
	th.t.Helper()
	root, err := th.SpaceRoot(PersonalName)
	if err != nil {
		th.t.Fatal(err)
	}
	th.root = root
}

// reopen closes the home in order and opens it again.
func (th *testHome) reopen() {
	th.t.Helper()
	if err := th.Home.Close(); err != nil {
		th.t.Fatalf("close: %v", err)
	}
	th.open()
}

// kill opens the home anew from what the kernel has: as after a SIGKILL.
func (th *testHome) kill() {
	th.t.Helper()
	th.Home.abandon()
	th.sim = th.sim.Crash(func() disk.Keep { return disk.Whole })
	th.open()
}

// abandon gives up a home without making anything durable, as a kill does.
func (h *Home) abandon() {
	for _, s := range h.each() {
		s.mu.Lock()
		s.gone = true
		s.mu.Unlock()
	}
}

func (th *testHome) must(err error) {
	th.t.Helper()
	if err != nil {
		th.t.Fatal(err)
	}
}

func (th *testHome) create(dir Ino, name string, data []byte) Ino {
	th.t.Helper()
	a, err := th.Mknod(dir, name, 0100644, 0, Cred{1000, 1000})
	th.must(err)
	th.write(a.Ino, data, 0)
	return a.Ino
}

func (th *testHome) write(ino Ino, data []byte, off int64) {
	th.t.Helper()
	for len(data) > 0 {
		n, err := th.Write(context.Background(), ino, data[:min(len(data), 1<<20)], off, WriteFlags{})
		th.must(err)
		data, off = data[n:], off+int64(n)
	}
}

func (th *testHome) read(ino Ino) []byte {
	th.t.Helper()
	a, err := th.Getattr(ino)
	th.must(err)
	b := make([]byte, a.Size)
	for off := 0; off < len(b); {
		n, err := th.Read(context.Background(), ino, b[off:min(len(b), off+1<<20)], int64(off))
		if err != nil && !errors.Is(err, io.EOF) {
			th.t.Fatal(err)
		}
		if n == 0 {
			th.t.Fatalf("read of %d ends at %d of %d", ino, off, len(b))
		}
		off += n
	}
	return b
}

func (th *testHome) look(dir Ino, name string) Ino {
	th.t.Helper()
	a, err := th.Lookup(dir, name)
	th.must(err)
	return a.Ino
}

func (th *testHome) wantContent(dir Ino, name string, want []byte) {
	th.t.Helper()
	if got := th.read(th.look(dir, name)); !bytes.Equal(got, want) {
		th.t.Fatalf("%s holds %d bytes, not the %d written (first difference at %d)", name, len(got), len(want), firstDiff(got, want))
	}
}

func firstDiff(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// random gives n bytes that do not compress and are the same each time.
func random(seed uint64, n int) []byte {
	r := mrand.New(mrand.NewPCG(seed, 7))
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n:n]
}

func (th *testHome) list(dir Ino) []string {
	th.t.Helper()
	var names []string
	th.must(th.ReadDir(dir, 0, func(e Dirent) bool {
		names = append(names, e.Name)
		return true
	}))
	return names
}

func TestFilesSurviveReopenAndKill(t *testing.T) {
	for _, how := range []string{"reopen", "kill", "flush and kill"} {
		t.Run(how, func(t *testing.T) {
			th := newTestHome(t)
			d, err := th.Mkdir(th.root, "docs", 0755, Cred{1000, 1000})
			th.must(err)
			sizes := []int{0, 1, 100, 8 << 10, 8<<10 + 1, 70 << 10, 300 << 10, 3 << 20, 9<<20 + 17}
			var data [][]byte
			for i, n := range sizes {
				data = append(data, random(uint64(i), n))
				th.create(d.Ino, string(rune('a'+i)), data[i])
			}
			_, err = th.Symlink(d.Ino, "link", "a/b/c", Cred{1000, 1000})
			th.must(err)
			th.must(th.Setxattr(th.look(d.Ino, "a"), "user.color", []byte("blue"), 0))
			switch how {
			case "reopen":
				th.reopen()
			case "flush and kill":
				th.must(th.Flush(context.Background()))
				th.kill()
			default:
				th.must(th.SyncAll(context.Background()))
				th.kill()
			}
			dir := th.look(th.root, "docs")
			for i := range sizes {
				th.wantContent(dir, string(rune('a'+i)), data[i])
			}
			target, err := th.Readlink(th.look(dir, "link"))
			th.must(err)
			if target != "a/b/c" {
				t.Fatalf("link points to %q", target)
			}
			v, err := th.Getxattr(th.look(dir, "a"), "user.color")
			th.must(err)
			if string(v) != "blue" {
				t.Fatalf("attribute is %q", v)
			}
			if got := len(th.list(dir)); got != len(sizes)+1 {
				t.Fatalf("%d entries, want %d", got, len(sizes)+1)
			}
		})
	}
}

func TestSaveByRenameKeepsObject(t *testing.T) {
	th := newTestHome(t)
	ctx := context.Background()
	th.create(th.root, "doc", []byte("one"))
	id := func() string {
		v, err := th.Getxattr(th.look(th.root, "doc"), "user.anyfs.id")
		th.must(err)
		return string(v)
	}
	first := id()
	// A temporary renamed over the file.
	th.create(th.root, ".doc.tmp", []byte("two"))
	th.must(th.Rename(th.root, ".doc.tmp", th.root, "doc", 0))
	if id() != first {
		t.Fatal("renaming a temporary over the file gave another object")
	}
	th.must(th.Flush(ctx))
	// The file renamed aside, and a new one made under its name.
	th.must(th.Rename(th.root, "doc", th.root, "doc~", 0))
	th.create(th.root, "doc", []byte("three"))
	if id() != first {
		t.Fatal("a new file under the name of one that was renamed aside is another object")
	}
	th.must(th.Unlink(th.root, "doc~"))
	th.must(th.Flush(ctx))
	th.wantContent(th.root, "doc", []byte("three"))
	th.reopen()
	if id() != first {
		t.Fatal("the object changed with a restart")
	}
	th.wantContent(th.root, "doc", []byte("three"))
}

// TestJournalAfterADeletedSpace holds that a home opens whose journal was trimmed to nothing, after the space is gone that
// wrote last and with it the note of how far the journal is not needed.
func TestJournalAfterADeletedSpace(t *testing.T) {
	for _, trim := range []bool{false, true} {
		th := newTestHome(t)
		kept := th.create(th.root, "kept", []byte("kept"))
		th.flush()
		th.must(th.checkpoint(context.Background()))
		must2(th.CreateSpace("Other"))
		other, err := th.SpaceRoot("Other")
		th.must(err)
		for range 40 {
			f := th.create(other, "f", random(1, 700<<10))
			th.flush()
			th.must(th.checkpoint(context.Background()))
			th.must(th.Unlink(other, "f"))
			th.Unref(f)
		}
		th.flush()
		th.must(th.checkpoint(context.Background()))
		if trim {
			th.jr.Trim()
		}
		th.must(th.DeleteSpace("Other"))
		if trim {
			th.jr.Trim()
		}
		th.kill()
		th.wantContent(th.root, "kept", []byte("kept"))
		th.create(th.root, "after", []byte("after"))
		th.flush()
		th.kill()
		th.wantContent(th.root, "after", []byte("after"))
		if got := th.read(th.look(th.root, "kept")); string(got) != "kept" {
			t.Errorf("inode %d holds %q", kept, got)
		}
		th.verify()
	}
}

// openInline opens the home on a disk over its own, with files of the journal of that size, and nothing happening beside what is called.
func (th *testHome) openInline(d disk.FS, journalBytes int64) {
	th.t.Helper()
	h, err := Open(context.Background(), Options{
		Disk: d, Keys: th.keys, Rand: th.rand, UID: 1000, GID: 1000, Clock: th.clock,
		sim:    simulation{inline: true, journalBytes: journalBytes},
		OpenDB: func(name string) (kv.DB, error) { return kv.NewSimDB(th.sim, name) },
	})
	th.must(err)
	th.Home = h
	th.find()
}
