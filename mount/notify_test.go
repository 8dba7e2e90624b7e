package mount

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// remote is another device: it changes a filesystem in memory directly, and says so.
type remote struct {
	t testing.TB
	*memfs.FS
}

func (r remote) create(name, content string) fs.Ino {
	r.t.Helper()
	a, err := r.Mknod(fs.RootIno, name, syscall.S_IFREG|0o644, 0, fs.Cred{})
	must(r.t, err)
	_, err = r.Write(context.Background(), a.Ino, []byte(content), 0, fs.WriteFlags{})
	must(r.t, err)
	r.Emit(fs.Event{Parent: fs.RootIno, Name: name})
	return a.Ino
}

func (r remote) unlink(name string) {
	r.t.Helper()
	must(r.t, r.Unlink(fs.RootIno, name))
	r.Emit(fs.Event{Parent: fs.RootIno, Name: name})
}

func (r remote) renew(name, content string) {
	r.t.Helper()
	events, err := r.Renew(fs.RootIno, name, []byte(content))
	must(r.t, err)
	r.Emit(events...)
}

// TestRemoteNames holds that names that come and go elsewhere do so here: those looked up, those listed, those never
// seen and those that were seen not to be there.
func TestRemoteNames(t *testing.T) {
	mem := newMem()
	m := mountOn(t, mem)
	r := remote{t, mem}
	absent(t, m.dir+"/a")
	list(t, m.dir, 0)
	r.create("a", "from elsewhere")
	contains(t, m.dir+"/a", "from elsewhere")
	list(t, m.dir, 1)
	r.create("never looked up", "")
	list(t, m.dir, 2)
	r.unlink("a")
	absent(t, m.dir+"/a")
	list(t, m.dir, 1)
	r.create("a", "again")
	contains(t, m.dir+"/a", "again")
	must(t, mem.Rename(fs.RootIno, "a", fs.RootIno, "b", 0))
	mem.Emit(fs.Event{Parent: fs.RootIno, Name: "a"}, fs.Event{Parent: fs.RootIno, Name: "b"})
	absent(t, m.dir+"/a")
	contains(t, m.dir+"/b", "again")
}

// TestRemoteAttributes holds that attributes, and targets of links, are seen to change.
func TestRemoteAttributes(t *testing.T) {
	mem := newMem()
	m := mountOn(t, mem)
	ino := remote{t, mem}.create("a", "content")
	stat(t, m.dir+"/a")
	mode := uint32(0o600)
	_, err := mem.Setattr(context.Background(), ino, fs.SetAttr{Mode: &mode})
	must(t, err)
	mem.Emit(fs.Event{Inode: ino})
	if st := stat(t, m.dir+"/a"); st.Mode&0o777 != 0o600 {
		t.Errorf("mode %o", st.Mode)
	}
	must(t, mem.Setxattr(ino, capability, []byte(caps), 0))
	mem.Emit(fs.Event{Inode: ino})
	if n, err := unix.Getxattr(m.dir+"/a", capability, nil); n == 0 || err != nil {
		t.Errorf("security.capability from elsewhere: %d, %v", n, err)
	}
}

// TestRemoteContent holds that content from elsewhere is a new file to who opens it, and that who has the old one open
// keeps it, can append to it, and overwrites nothing.
func TestRemoteContent(t *testing.T) {
	mem := newMem()
	m := mountOn(t, mem)
	r := remote{t, mem}
	r.create("a", strings.Repeat("old ", 3000))
	f, err := os.OpenFile(m.dir+"/a", os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer f.Close()
	shared, err := unix.Mmap(int(f.Fd()), 0, 12000, unix.PROT_READ, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(shared)
	before := stat(t, m.dir+"/a")
	if got := string(shared[:4]); got != "old " {
		t.Fatalf("the map shows %q", got)
	}
	r.renew("a", strings.Repeat("new ", 5000))

	contains(t, m.dir+"/a", strings.Repeat("new ", 5000))
	after := stat(t, m.dir+"/a")
	if after.Ino != before.Ino {
		t.Errorf("st_ino went from %d to %d", before.Ino, after.Ino)
	}
	if got := readAll(t, f); got != strings.Repeat("old ", 3000) {
		t.Errorf("the open file went to %d bytes, %.8q…", len(got), got)
	}
	if got := string(shared[8000:8004]); got != "old " {
		t.Errorf("the map went to %q", got)
	}
	_, err = f.WriteString("appended")
	must(t, err)
	contains(t, m.dir+"/a", strings.Repeat("new ", 5000)) // memfs keeps versions apart; a home merges them
	if mem.Inodes() != 3 {
		t.Errorf("%d inodes, want the root and two versions", mem.Inodes())
	}
}

// TestRemoteContentForgotten holds that the old version goes when the kernel lets go of it.
func TestRemoteContentForgotten(t *testing.T) {
	mem := newMem()
	m := mountOn(t, mem)
	r := remote{t, mem}
	r.create("a", "old")
	contains(t, m.dir+"/a", "old")
	for i := range 20 {
		r.renew("a", fmt.Sprint("version ", i))
		contains(t, m.dir+"/a", fmt.Sprint("version ", i))
	}
	for range 100 {
		if mem.Inodes() == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := mem.Inodes(); n != 2 {
		t.Errorf("%d inodes are left, want 2", n)
	}
	m.stop()
	if n := mem.Inodes(); n != 2 {
		t.Errorf("%d inodes after unmount, want 2", n)
	}
}

// slowAnswers delays answers after they were read from the tree, as a busy machine does.
type slowAnswers struct {
	*filesystem
	delay time.Duration
}

func (s slowAnswers) Lookup(x cancelled, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	st := s.filesystem.Lookup(x, in, name, out)
	time.Sleep(s.delay)
	return st
}

func (s slowAnswers) ReadDirPlus(x cancelled, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	st := s.filesystem.ReadDirPlus(x, in, out)
	time.Sleep(s.delay)
	return st
}

func (s slowAnswers) SetAttr(x cancelled, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	st := s.filesystem.SetAttr(x, in, out)
	time.Sleep(s.delay)
	return st
}

func (s slowAnswers) Link(x cancelled, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	st := s.filesystem.Link(x, in, name, out)
	time.Sleep(s.delay)
	return st
}

// TestCrossedAttributes is TestCrossedAnswers for attributes that the kernel takes from a setattr and a link whatever it was told before.
func TestCrossedAttributes(t *testing.T) {
	mem := newMem()
	m := mountThrough(t, mem, func(f *filesystem) fuse.RawFileSystem { return slowAnswers{f, 30 * time.Millisecond} })
	r := remote{t, mem}
	for _, call := range []struct {
		name  string
		do    func(path string) error
		links uint64
		after time.Duration // its answer is on its way
	}{
		{"setattr", func(path string) error { return os.Chmod(path, 0o600) }, 2, 15 * time.Millisecond},
		{"link", func(path string) error { return os.Link(path, path+" linked") }, 3, 45 * time.Millisecond}, // the new name is looked up first
	} {
		crossing := 0
		for i := range 8 {
			name := fmt.Sprint(call.name, i)
			ino := r.create(name, "x")
			stat(t, m.dir+"/"+name)
			time.Sleep(crossWindow + 50*time.Millisecond) // what it was told of the lookup is not told again
			var wg sync.WaitGroup
			var over atomic.Bool
			wg.Go(func() {
				if err := call.do(m.dir + "/" + name); err != nil {
					t.Error(err)
				}
				over.Store(true)
			})
			time.Sleep(call.after)
			a, err := mem.Link(ino, fs.RootIno, name+" elsewhere")
			must(t, err)
			mem.Emit(fs.Event{Inode: ino})
			if !over.Load() && uint64(a.Nlink) == call.links {
				crossing++
			}
			wg.Wait()
			time.Sleep(repeatAfter + 100*time.Millisecond)
			if st := stat(t, m.dir+"/"+name); uint64(st.Nlink) != call.links {
				t.Errorf("%s %d: %d links are shown, not %d", call.name, i, st.Nlink, call.links)
			}
		}
		if crossing == 0 {
			t.Errorf("no %s crossed a change: this test shows nothing", call.name)
		}
	}
}

// TestCrossedAnswers holds that an answer that was read before a change and reaches the kernel after it was told of the
// change is not believed for ever.
func TestCrossedAnswers(t *testing.T) {
	mem := newMem()
	m := mountThrough(t, mem, func(f *filesystem) fuse.RawFileSystem { return slowAnswers{f, 30 * time.Millisecond} })
	r := remote{t, mem}
	crossing := 0
	for i := range 8 {
		name := fmt.Sprint("f", i)
		var wg sync.WaitGroup
		early := true
		wg.Go(func() {
			var st unix.Stat_t
			early = unix.Lstat(m.dir+"/"+name, &st) == unix.ENOENT
		})
		wg.Go(func() { list(t, m.dir, -1) })
		time.Sleep(15 * time.Millisecond)
		r.create(name, "x")
		wg.Wait()
		if early {
			crossing++
		}
		time.Sleep(repeatAfter + 100*time.Millisecond)
		contains(t, m.dir+"/"+name, "x")
		d, err := os.Open(m.dir)
		must(t, err)
		names, err := d.Readdirnames(-1) // with no stat before it, which would find the listing old by its time
		must(t, err)
		d.Close()
		if len(names) != i+1 {
			t.Errorf("%d names are listed, want %d", len(names), i+1)
		}
	}
	if crossing == 0 {
		t.Error("no answer crossed a change: this test shows nothing")
	}
}

// TestNotifyUnderLoad holds that nothing stops when changes from elsewhere are told while the same directory is worked in.
func TestNotifyUnderLoad(t *testing.T) {
	mem := newMem()
	m := mountOn(t, mem)
	r := remote{t, mem}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				path := fmt.Sprintf("%s/w%d-%d", m.dir, w, i%10)
				_ = os.WriteFile(path, []byte("x"), 0o644)
				_, _ = os.ReadDir(m.dir)
				_ = os.Remove(path)
			}
		})
	}
	deadline := time.Now().Add(time.Second)
	for i := 0; time.Now().Before(deadline); i++ {
		name := fmt.Sprint("r", i%20)
		r.create(name, "x")
		r.renew(name, "y")
		r.unlink(name)
	}
	close(stop)
	wg.Wait()
	list(t, m.dir, 0)
}
