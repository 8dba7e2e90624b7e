package mount

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/fs"
	"golang.org/x/sys/unix"
)

func serveAt(t testing.TB, dir string) error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return Serve(ctx, newMem(), Options{Dir: dir, Ready: cancel})
}

// TestMountpoint holds which folders can be mounted on, and what is said of the others.
func TestMountpoint(t *testing.T) {
	needFUSE(t)
	base := t.TempDir()
	full := filepath.Join(base, "full")
	must(t, os.Mkdir(full, 0o755))
	newFile(t, filepath.Join(full, "f"), "")
	for dir, want := range map[string]string{
		full:                          "full is not empty; pick another folder",
		filepath.Join(full, "f"):      "f is not a folder",
		filepath.Join(full, "f", "x"): "is not a folder",
	} {
		if err := serveAt(t, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", dir, err, want)
		}
	}
	deep := filepath.Join(base, "is", "made")
	must(t, serveAt(t, deep))
	link := filepath.Join(base, "link")
	must(t, os.Symlink("is/made", link))
	must(t, serveAt(t, link))
	odd := filepath.Join(base, "with space, comma\\and\nline")
	must(t, serveAt(t, odd))
	relative, err := filepath.Rel(mustGetwd(t), deep)
	must(t, err)
	must(t, serveAt(t, relative))
}

func mustGetwd(t testing.TB) string {
	t.Helper()
	wd, err := os.Getwd()
	must(t, err)
	return wd
}

func TestMountedTwice(t *testing.T) {
	m := mountOn(t, newMem())
	if err := serveAt(t, m.dir); !errors.Is(err, ErrMounted) {
		t.Errorf("a second mount at the same place: %v", err)
	}
	newFile(t, m.dir+"/f", "still there")
}

// TestKilledDaemon holds that a mount whose daemon was killed answers ENOTCONN, and that the next one takes its place.
func TestKilledDaemon(t *testing.T) {
	needFUSE(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for range 2 {
		cmd, out, _ := helper(t, "serve", dir)
		awaitLine(t, out)
		held, err := os.Create(dir + "/f")
		must(t, err)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if _, err := os.Stat(dir); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("stat: %v", err)
		}
		if _, err := held.WriteString("x"); !errors.Is(err, syscall.ENOTCONN) {
			t.Errorf("write: %v", err)
		}
		defer held.Close()
	}
	must(t, serveAt(t, dir))
	for range 2 { // nothing was done: stat still remembers the dead one
		cmd, out, _ := helper(t, "serve", dir)
		awaitLine(t, out)
		stat(t, dir)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	}
	must(t, Unmount(dir))
	if err := Unmount(dir); err == nil || !strings.Contains(err.Error(), "not mounted") {
		t.Errorf("unmount of nothing: %v", err)
	}
}

// TestStoppedDaemon holds that a mount whose daemon does not answer is not waited for without end.
func TestStoppedDaemon(t *testing.T) {
	needFUSE(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	cmd, out, _ := helper(t, "serve", dir)
	awaitLine(t, out)
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	start := time.Now()
	err := serveAt(t, dir)
	if !errors.Is(err, ErrMounted) || time.Since(start) > 2*answersWithin {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	must(t, cmd.Process.Signal(syscall.SIGCONT))
}

// TestUnmountInUse holds that a mount in use stays when it is unmounted politely, and ends when it must.
func TestUnmountInUse(t *testing.T) {
	m := mountOn(t, newMem())
	f, err := os.Create(m.dir + "/f")
	must(t, err)
	defer f.Close()
	err = Unmount(m.dir)
	if !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("unmount: %v", err)
	}
	_, err = f.WriteString("still there")
	must(t, err)
	start := time.Now()
	must(t, m.stop())
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := f.WriteString("x"); err == nil {
		t.Error("a file of a mount that ended can be written")
	}
}

// TestMapSurvivesTheEnd holds that what was written to a shared map is not lost when the mount must end.
func TestMapSurvivesTheEnd(t *testing.T) {
	mem := newMem()
	m := mountOn(t, mem)
	newFile(t, m.dir+"/f", strings.Repeat("a", 8192))
	fd, err := unix.Open(m.dir+"/f", unix.O_RDWR, 0)
	must(t, err)
	defer unix.Close(fd)
	shared, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(shared)
	copy(shared[4096:], "mapped")
	must(t, m.stop())
	a, err := mem.Lookup(1, "f")
	must(t, err)
	b := make([]byte, 6)
	_, err = mem.Read(context.Background(), a.Ino, b, 4096)
	if err != nil || string(b) != "mapped" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func TestSpace(t *testing.T) {
	mem := newMem()
	_, err := mem.Mkdir(1, "Personal", 0o755, cred0())
	must(t, err)
	m := mountOn(t, mem, func(o *Options) { o.Space = "Personal" })
	newFile(t, m.dir+"/f", "in the space")
	must(t, os.Mkdir(m.dir+"/d", 0o755))
	for _, d := range dirents(t, m.dir, 0) {
		if d.name == ".." && d.ino != stat(t, m.dir).Ino {
			t.Error("the top of a mount has another above it")
		}
	}
	if _, err := mem.Lookup(fs.Ino(stat(t, m.dir).Ino), "f"); err != nil {
		t.Error(err)
	}
	err = Serve(context.Background(), mem, Options{Dir: t.TempDir(), Space: "Other"})
	if !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a space that is not there: %v", err)
	}
}

func TestReadOnly(t *testing.T) {
	m := mountOn(t, newMem(), func(o *Options) { o.ExtraOpts = []string{"ro,noexec", "x-gvfs-show"} })
	if err := unix.Mkdir(m.dir+"/d", 0o755); err != unix.EROFS {
		t.Errorf("mkdir: %v", err)
	}
	var s unix.Statfs_t
	must(t, unix.Statfs(m.dir, &s))
	if s.Flags&(unix.ST_RDONLY|unix.ST_NOEXEC) != unix.ST_RDONLY|unix.ST_NOEXEC {
		t.Errorf("flags %x", s.Flags)
	}
}

// TestNoPrivileges: whatever others wrote, no file on a mount gives who runs it another's rights, and none is a device; whatever options are asked for.
func TestNoPrivileges(t *testing.T) {
	for _, opts := range [][]string{nil, {"noexec"}, {"x-gvfs-show"}} {
		m := mountOn(t, newMem(), func(o *Options) { o.ExtraOpts = opts })
		var s unix.Statfs_t
		must(t, unix.Statfs(m.dir, &s))
		if s.Flags&(unix.ST_NOSUID|unix.ST_NODEV) != unix.ST_NOSUID|unix.ST_NODEV {
			t.Errorf("options %q: flags %x", opts, s.Flags)
		}
	}
	for _, opt := range []string{"suid", "dev"} {
		if _, err := parseOptions([]string{opt}); err == nil {
			t.Errorf("%s is taken", opt)
		}
	}
}

func TestAllowOther(t *testing.T) {
	needRoot(t)
	for _, allow := range []bool{false, true} {
		m := mountOn(t, newMem(), func(o *Options) { o.AllowOther = allow })
		reach(t, filepath.Dir(m.dir))
		err := shell(m.dir, "ls %s", 1234)
		if (err == nil) != allow {
			t.Errorf("allow_other %v: %v", allow, err)
		}
	}
}

func TestOptions(t *testing.T) {
	for list, want := range map[string]settings{
		"":                                 {},
		"ro":                               {readOnly: true},
		"ro,rw,noexec":                     {noExec: true},
		"allow_other,nosuid,nodev,noatime": {allowOther: true},
		"rw,user,noauto,_netdev,x-systemd.automount": {},
	} {
		if got, err := parseOptions([]string{list}); err != nil || got != want {
			t.Errorf("%q: %+v, %v", list, got, err)
		}
	}
	for _, list := range []string{"suid", "ro,dev", "nonsense=1", "allow_root"} {
		err := CheckOptions([]string{list})
		if err == nil || !strings.Contains(err.Error(), list[strings.LastIndex(list, ",")+1:]) {
			t.Errorf("%q: %v", list, err)
		}
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]mountEntry{
		`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`: {98, 0, "/mnt2", "ext3"},
		`42 27 0:39 / /a\040b\011c\134d rw - fuse.anyfs anyfs rw`:                        {0, 39, "/a b\tc\\d", fsType},
		`42 27 0:39 / /trailing\ rw - x y z`:                                             {0, 39, `/trailing\`, "x"},
	} {
		if got, ok := parseMount(line); !ok || got != want {
			t.Errorf("%q: %+v, %v", line, got, ok)
		}
	}
	for _, line := range []string{"", "1 2 3", "36 35 98:0 / /mnt rw", "36 35 x / /mnt rw - ext4 y z"} {
		if got, ok := parseMount(line); ok {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

// TestWithoutHelper holds that who may not mount is told what to install.
func TestWithoutHelper(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := exec.LookPath("/bin/fusermount3"); err == nil {
		if _, err := fusermount(); err != nil {
			t.Errorf("the helper in /bin is not found: %v", err)
		}
		return
	}
	if _, err := fusermount(); !errors.Is(err, errNoHelper) || !strings.Contains(err.Error(), "fuse3") {
		t.Errorf("%v", err)
	}
}

// FuzzParseMount holds that any line is an entry or none, and that what is escaped comes back.
func FuzzParseMount(f *testing.F) {
	f.Add(`36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`, "/a b\\c\nd")
	f.Add(`42 27 0:39 / /a\040b - fuse.anyfs anyfs rw`, "")
	f.Fuzz(func(t *testing.T, line, path string) {
		if m, ok := parseMount(line); ok && m.fsType == "" {
			t.Errorf("%q: %+v", line, m)
		}
		escaped := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
		if got := unescape(escaped); got != path {
			t.Errorf("%q came back as %q", path, got)
		}
	})
}
