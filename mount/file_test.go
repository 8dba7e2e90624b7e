package mount

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inEach runs a test in an empty directory of each backend's mount.
func inEach(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			dir := mountOn(t, open(t)).dir
			if name != "mem" {
				dir += "/Personal"
			}
			test(t, dir)
		})
	}
}

// TestUnlinkedOpenFile holds that a file without a name can be used as long as it is open.
func TestUnlinkedOpenFile(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		f, err := os.Create(dir + "/f")
		must(t, err)
		defer f.Close()
		_, err = f.WriteString("before")
		must(t, err)
		must(t, os.Remove(dir+"/f"))
		_, err = f.WriteString(" and after")
		must(t, err)
		if got := readAll(t, f); got != "before and after" {
			t.Errorf("it holds %q", got)
		}
		must(t, f.Truncate(6))
		if st, err := f.Stat(); err != nil || st.Size() != 6 {
			t.Errorf("after truncation: %v, %v", st, err)
		}
		newFile(t, dir+"/f", "another")
		if got := readAll(t, f); got != "before" {
			t.Errorf("beside another of its name it holds %q", got)
		}
		contains(t, dir+"/f", "another")
	})
}

// TestReplacedOpenFile holds that who has a file open keeps it when another is renamed over it.
func TestReplacedOpenFile(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		newFile(t, dir+"/f", "old")
		f, err := os.Open(dir + "/f")
		must(t, err)
		defer f.Close()
		newFile(t, dir+"/tmp", "newer")
		must(t, os.Rename(dir+"/tmp", dir+"/f"))
		if got := readAll(t, f); got != "old" {
			t.Errorf("the open file holds %q", got)
		}
		contains(t, dir+"/f", "newer")
	})
}

func TestTmpfileLink(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR, 0o640)
		must(t, err)
		defer unix.Close(fd)
		_, err = unix.Write(fd, []byte("made whole"))
		must(t, err)
		list(t, dir, 0)
		must(t, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, dir+"/f", unix.AT_SYMLINK_FOLLOW))
		contains(t, dir+"/f", "made whole")
		if st := stat(t, dir+"/f"); st.Nlink != 1 || st.Mode&0o777 != 0o640 {
			t.Errorf("nlink %d, mode %o", st.Nlink, st.Mode)
		}
		_, err = unix.Pwrite(fd, []byte("MADE"), 0)
		must(t, err)
		contains(t, dir+"/f", "MADE whole")

		excl, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL, 0o640)
		must(t, err)
		defer unix.Close(excl)
		if err := unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", excl), unix.AT_FDCWD, dir+"/g", unix.AT_SYMLINK_FOLLOW); err == nil {
			t.Error("a file made with O_EXCL got a name")
		}
	})
}

func TestRenameFlags(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		rename := func(from, to string, flags uint) error {
			return unix.Renameat2(unix.AT_FDCWD, dir+"/"+from, unix.AT_FDCWD, dir+"/"+to, flags)
		}
		newFile(t, dir+"/a", "a")
		newFile(t, dir+"/b", "b")
		must(t, os.Mkdir(dir+"/d", 0o755))
		newFile(t, dir+"/d/in", "in")
		if err := rename("a", "b", unix.RENAME_NOREPLACE); err != unix.EEXIST {
			t.Errorf("NOREPLACE over a file: %v", err)
		}
		must(t, rename("a", "b", unix.RENAME_EXCHANGE))
		contains(t, dir+"/a", "b")
		contains(t, dir+"/b", "a")
		must(t, rename("a", "d", unix.RENAME_EXCHANGE))
		contains(t, dir+"/d", "b")
		contains(t, dir+"/a/in", "in")
		if err := rename("a", "a/in", unix.RENAME_EXCHANGE); err != unix.EINVAL {
			t.Errorf("EXCHANGE with what is inside: %v", err)
		}
		if err := rename("a", "none", unix.RENAME_EXCHANGE); err != unix.ENOENT {
			t.Errorf("EXCHANGE with nothing: %v", err)
		}
		if err := rename("a", "w", unix.RENAME_WHITEOUT); err != unix.EINVAL {
			t.Errorf("WHITEOUT: %v", err)
		}
		must(t, rename("a", "c", unix.RENAME_NOREPLACE))
		contains(t, dir+"/c/in", "in")
	})
}

func TestNames(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		for _, name := range []string{strings.Repeat("x", 255), strings.Repeat("語", 85), "a\nb", "\x01\xff\xfe", " ", "...", "-rf", "nul\\x"} {
			newFile(t, dir+"/"+name, name)
			contains(t, dir+"/"+name, name)
			if got := list(t, dir, 1); got[0] != name {
				t.Errorf("%q is listed as %q", name, got[0])
			}
			must(t, os.Remove(dir+"/"+name))
		}
		newFile(t, dir+"/here", "")
		for _, err := range []error{
			unix.Mkdir(dir+"/"+strings.Repeat("x", 256), 0o755),
			unix.Unlink(dir + "/" + strings.Repeat("x", 256)),
			unix.Symlink("x", dir+"/"+strings.Repeat("x", 256)),
			unix.Rename(dir+"/here", dir+"/"+strings.Repeat("x", 256)),
		} {
			if err != unix.ENAMETOOLONG {
				t.Errorf("a name of 256 bytes: %v", err)
			}
		}
		target := strings.Repeat("t", 4095)
		must(t, os.Symlink(target, dir+"/link"))
		if got, err := os.Readlink(dir + "/link"); err != nil || got != target {
			t.Errorf("a link of 4095 bytes: %d bytes, %v", len(got), err)
		}
		if st := stat(t, dir+"/link"); st.Size != 4095 {
			t.Errorf("its size is %d", st.Size)
		}
	})
}

func TestXattrs(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		path := dir + "/f"
		newFile(t, path, "x")
		for _, size := range []int{0, 1, 255, 4096, 65536} {
			value := bytes.Repeat([]byte{'v'}, size)
			must(t, unix.Setxattr(path, "user.v", value, 0))
			buf := make([]byte, 65536)
			n, err := unix.Getxattr(path, "user.v", buf)
			if err != nil || !bytes.Equal(buf[:n], value) {
				t.Errorf("%d bytes: %d, %v", size, n, err)
			}
			if n, err := unix.Getxattr(path, "user.v", nil); err != nil || n != size {
				t.Errorf("the size of %d bytes: %d, %v", size, n, err)
			}
			if size > 1 {
				if _, err := unix.Getxattr(path, "user.v", buf[:size-1]); err != unix.ERANGE {
					t.Errorf("%d bytes into less: %v", size, err)
				}
			}
		}
		check := func(what string, err, want error) {
			t.Helper()
			if err != want {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		check("CREATE of one that is there", unix.Setxattr(path, "user.v", nil, unix.XATTR_CREATE), unix.EEXIST)
		check("REPLACE of none", unix.Setxattr(path, "user.w", nil, unix.XATTR_REPLACE), unix.ENODATA)
		check("removal", unix.Removexattr(path, "user.v"), nil)
		check("removal of none", unix.Removexattr(path, "user.v"), unix.ENODATA)
		_, err := unix.Getxattr(path, "user.v", nil)
		check("none", err, unix.ENODATA)
		acl := []byte("\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x04\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff")
		check("an access list", unix.Setxattr(path, "system.posix_acl_access", acl, 0), unix.EOPNOTSUPP)
		check("a namespace that there is not", unix.Setxattr(path, "nothing", nil, 0), unix.EOPNOTSUPP)
		_, err = unix.Getxattr(path, "other.x", nil)
		check("asking in one", err, unix.EOPNOTSUPP)
		check("a namespace alone", unix.Setxattr(path, "user.", nil, 0), unix.EINVAL)
		check("a namespace alone, to remove", unix.Removexattr(path, "trusted."), unix.EINVAL)
		for i := range 100 {
			must(t, unix.Setxattr(path, fmt.Sprintf("user.n%d", i), []byte("x"), 0))
		}
		size, err := unix.Listxattr(path, nil)
		must(t, err)
		buf := make([]byte, size)
		n, err := unix.Listxattr(path, buf)
		if err != nil || n != size || bytes.Count(buf, []byte{0}) != 100 {
			t.Errorf("a list of 100 names has %d bytes, then %d, %v", size, n, err)
		}
		if _, err := unix.Listxattr(path, buf[:size-1]); err != unix.ERANGE {
			t.Errorf("a list into less: %v", err)
		}
	})
}

// caps is a valid value of security.capability.
const caps = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// TestPrivileges holds that suid, sgid and security.capability go where Linux takes them away.
func TestPrivileges(t *testing.T) {
	needRoot(t)
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			dir := mountOn(t, open(t), func(o *Options) { o.AllowOther = true }).dir
			// Others may not pass through the folders of the test.
			reach(t, filepath.Dir(dir))
			if name != "mem" {
				dir += "/Personal"
			}
			must(t, os.Chmod(dir, 0o777))
			path := dir + "/f"
			cases := map[string]struct {
				do    func() error
				mode  uint32 // after 06777
				kept  bool   // security.capability
				plain bool   // without security.capability: the kernel clears suid when it removes that
			}{
				"write by another":     {func() error { return asOther(path, "echo x >> %s") }, 0o777, false, false},
				"truncation by him":    {func() error { return asOther(path, "truncate -s 3 %s") }, 0o777, false, false},
				"fallocate by him":     {func() error { return asOther(path, "fallocate -o 0 -l 100 %s") }, 0o777, false, false},
				"chown by root":        {func() error { return os.Chown(path, 1000, 1000) }, 0o777, false, false},
				"chown -1 -1":          {func() error { return os.Chown(path, -1, -1) }, 0o777, false, false},
				"chmod":                {func() error { return unix.Chmod(path, 0o4755) }, 0o4755, true, false},
				"write by root":        {func() error { return asRoot(path, "echo x >> %s") }, 0o6777, false, true},
				"setting the times":    {func() error { return asRoot(path, "touch %s") }, 0o6777, true, false},
				"chown without change": {func() error { return os.Chown(path, 0, 0) }, 0o777, false, false},
			}
			for what, c := range cases {
				_ = os.Remove(path)
				newFile(t, path, "content")
				must(t, unix.Chmod(path, 0o6777))
				if !c.plain {
					must(t, unix.Setxattr(path, capability, []byte(caps), 0))
				}
				if err := c.do(); err != nil {
					t.Errorf("%s: %v", what, err)
					continue
				}
				if st := stat(t, path); st.Mode&0o7777 != c.mode {
					t.Errorf("after %s the mode is %o, want %o", what, st.Mode&0o7777, c.mode)
				}
				_, err := unix.Getxattr(path, capability, make([]byte, 64))
				if (err == nil) != c.kept {
					t.Errorf("after %s security.capability: %v, want it kept: %v", what, err, c.kept)
				}
			}
		})
	}
}

// reach opens the folders above dir to others, up to the temporary folder.
func reach(t *testing.T, dir string) {
	for dir != os.TempDir() && dir != "/" {
		must(t, os.Chmod(dir, 0o755))
		dir = filepath.Dir(dir)
	}
}

func asOther(path, script string) error { return shell(path, script, 1234) }

func asRoot(path, script string) error { return shell(path, script, 0) }

func shell(path, script string, uid uint32) error {
	cmd := exec.Command("sh", "-c", fmt.Sprintf(script, path))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w", out, err)
	}
	return nil
}

// TestMap holds that shared and private maps show and write what they should.
func TestMap(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		path := dir + "/f"
		newFile(t, path, strings.Repeat("a", 10000))
		fd, err := unix.Open(path, unix.O_RDWR, 0)
		must(t, err)
		defer unix.Close(fd)
		shared, err := unix.Mmap(fd, 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		must(t, err)
		private, err := unix.Mmap(fd, 0, 10000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
		must(t, err)
		private[1] = 'p'
		copy(shared[5000:], "shared")
		_, err = unix.Pwrite(fd, []byte("written"), 100)
		must(t, err)
		if string(shared[100:107]) != "written" || string(private[100:107]) != "aaaaaaa" && string(private[100:107]) != "written" {
			t.Errorf("maps show %q and %q", shared[100:107], private[100:107])
		}
		must(t, unix.Msync(shared, unix.MS_SYNC))
		must(t, unix.Munmap(shared))
		must(t, unix.Munmap(private))
		b, err := os.ReadFile(path)
		must(t, err)
		want := []byte(strings.Repeat("a", 10000))
		copy(want[5000:], "shared")
		copy(want[100:], "written")
		if !bytes.Equal(b, want) {
			t.Errorf("the file holds %q", b)
		}
	})
}

// TestExec holds that programs run from the mount, and cannot be written meanwhile.
func TestExec(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		b, err := os.ReadFile("/bin/sleep")
		must(t, err)
		must(t, os.WriteFile(dir+"/sleep", b, 0o755))
		// Through a shell: while this process starts another, it cannot answer the requests for that program.
		cmd := exec.Command("sh", "-c", "echo ready; exec "+dir+"/sleep 10")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		awaitLine(t, out)
		eventually(t, "it runs", func() bool {
			exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", cmd.Process.Pid))
			return exe == dir+"/sleep"
		})
		if _, err := unix.Open(dir+"/sleep", unix.O_WRONLY, 0); err != unix.ETXTBSY {
			t.Errorf("writing a running program: %v", err)
		}
		must(t, os.Remove(dir+"/sleep"))
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
	})
}

// TestHoles holds that sparse files are sparse, and that holes can be made and found.
func TestHoles(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		const size = 20 << 30
		f, err := os.Create(dir + "/f")
		must(t, err)
		defer f.Close()
		fd := int(f.Fd())
		must(t, f.Truncate(size))
		_, err = f.WriteAt([]byte("far"), 15<<30)
		must(t, err)
		if st := stat(t, dir+"/f"); st.Size != size || st.Blocks > 64<<20/512 {
			t.Errorf("size %d, %d blocks", st.Size, st.Blocks)
		}
		if off, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || off > 15<<30 || off < 15<<30-4<<20 {
			t.Errorf("SEEK_DATA: %d, %v", off, err)
		}
		if off, err := unix.Seek(fd, 15<<30, unix.SEEK_HOLE); err != nil || off <= 15<<30 || off > 15<<30+4<<20 {
			t.Errorf("SEEK_HOLE: %d, %v", off, err)
		}
		if _, err := unix.Seek(fd, size, unix.SEEK_DATA); err != unix.ENXIO {
			t.Errorf("SEEK_DATA at the end: %v", err)
		}
		must(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 15<<30, 1))
		b := make([]byte, 3)
		_, err = f.ReadAt(b, 15<<30)
		if err != nil || string(b) != "\x00ar" {
			t.Errorf("after punching: %q, %v", b, err)
		}
		must(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE, size-1, 10))
		if st := stat(t, dir+"/f"); st.Size != size+9 {
			t.Errorf("ZERO_RANGE beyond the end: size %d", st.Size)
		}
		must(t, unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, size+100, 10))
		if st := stat(t, dir+"/f"); st.Size != size+9 {
			t.Errorf("KEEP_SIZE: size %d", st.Size)
		}
		if err := unix.Fallocate(fd, unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096); err != unix.EOPNOTSUPP {
			t.Errorf("COLLAPSE_RANGE: %v", err)
		}
	})
}

func TestCopyFileRange(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) {
			m, c := mountCounted(t, open(t))
			dir := m.dir
			if name != "mem" {
				dir += "/Personal"
			}
			content := strings.Repeat("0123456789abcdef", 20000)
			newFile(t, dir+"/src", content)
			src, err := os.Open(dir + "/src")
			must(t, err)
			defer src.Close()
			dst, err := os.Create(dir + "/dst")
			must(t, err)
			defer dst.Close()
			c.take()
			off := int64(10)
			n, err := unix.CopyFileRange(int(src.Fd()), &off, int(dst.Fd()), nil, 1<<20, 0)
			if err != nil || n != len(content)-10 {
				t.Fatalf("copied %d, %v", n, err)
			}
			if got := c.take(); !strings.Contains(got, "COPY_FILE_RANGE 1") || strings.Contains(got, "READ") || strings.Contains(got, "WRITE") {
				t.Errorf("it costs %q", got)
			}
			contains(t, dir+"/dst", content[10:])
		})
	}
}

// TestSpecialFiles holds that all types can be made, and have the rights of the mount: devices do not open.
func TestSpecialFiles(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		must(t, unix.Mkfifo(dir+"/fifo", 0o600))
		must(t, unix.Mknod(dir+"/sock", unix.S_IFSOCK|0o600, 0))
		must(t, unix.Mknod(dir+"/reg", unix.S_IFREG|0o600, 0))
		for name, want := range map[string]uint32{"fifo": unix.S_IFIFO, "sock": unix.S_IFSOCK, "reg": unix.S_IFREG} {
			if st := stat(t, dir+"/"+name); st.Mode&unix.S_IFMT != want {
				t.Errorf("%s has mode %o", name, st.Mode)
			}
		}
		r, err := unix.Open(dir+"/fifo", unix.O_RDONLY|unix.O_NONBLOCK, 0)
		must(t, err)
		w, err := unix.Open(dir+"/fifo", unix.O_WRONLY|unix.O_NONBLOCK, 0)
		must(t, err)
		_, err = unix.Write(w, []byte("through"))
		must(t, err)
		b := make([]byte, 10)
		if n, err := unix.Read(r, b); err != nil || string(b[:n]) != "through" {
			t.Errorf("a fifo gives %q, %v", b[:n], err)
		}
		must(t, unix.Close(r))
		must(t, unix.Close(w))
		if err := unix.Mknod(dir+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err == nil {
			if st := stat(t, dir+"/null"); st.Rdev != unix.Mkdev(1, 3) {
				t.Errorf("rdev is %x", st.Rdev)
			}
			if _, err := unix.Open(dir+"/null", unix.O_RDONLY, 0); err != unix.EACCES {
				t.Errorf("a device opens: %v", err)
			}
		}
	})
}

// TestTimes holds that times are kept to the nanosecond, also those before 1970.
func TestTimes(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		newFile(t, dir+"/f", "x")
		must(t, os.Symlink("f", dir+"/l"))
		for _, name := range []string{"f", "l", ""} {
			path := dir + "/" + name
			for _, want := range []unix.Timespec{{Sec: 1700000000, Nsec: 123456789}, {Sec: 0, Nsec: 1}, {Sec: -100, Nsec: 999999999}} {
				ts := []unix.Timespec{want, want}
				must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
				if st := stat(t, path); st.Mtim != want {
					t.Errorf("mtime %v, want %v", st.Mtim, want)
				}
			}
			before := stat(t, path)
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}, unix.AT_SYMLINK_NOFOLLOW))
			if st := stat(t, path); st.Mtim.Sec < 1700000000 || st.Ctim.Nano() <= before.Ctim.Nano() {
				t.Errorf("UTIME_NOW: mtime %v, ctime %v", st.Mtim, st.Ctim)
			}
		}
	})
}

// TestListWhileDeleting holds that a listing goes on where it was, and misses and repeats nothing, while entries vanish.
func TestListWhileDeleting(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		const count = 2000
		for i := range count {
			newFile(t, fmt.Sprintf("%s/%04d", dir, i), "")
		}
		d, err := os.Open(dir)
		must(t, err)
		defer d.Close()
		seen := map[string]bool{}
		for {
			names, err := d.Readdirnames(50)
			if err != nil {
				break
			}
			for _, name := range names {
				if seen[name] {
					t.Fatalf("%s is listed twice", name)
				}
				seen[name] = true
				must(t, os.Remove(dir+"/"+name))
			}
		}
		if len(seen) != count {
			t.Errorf("%d of %d were listed", len(seen), count)
		}
		list(t, dir, 0)
	})
}

// TestSeekdir holds that an offset means the same entry for as long as it lives, also in another open directory.
func TestSeekdir(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		for i := range 300 {
			newFile(t, fmt.Sprintf("%s/%d", dir, i), "")
		}
		first := dirents(t, dir, 0)
		if len(first) != 302 || first[0].name != "." || first[1].name != ".." {
			t.Fatalf("%d entries, first %v", len(first), first[:2])
		}
		for i := 10; i < 300; i += 3 {
			must(t, os.Remove(dir+"/"+first[i].name))
		}
		must(t, os.Rename(dir+"/"+first[11].name, dir+"/renamed"))
		newFile(t, dir+"/new", "")
		after := dirents(t, dir, first[5].off)
		if !slices.ContainsFunc(after, func(d dirent) bool { return d.name == first[6].name && d.off == first[6].off }) {
			t.Error("an entry is elsewhere after others were removed")
		}
		want := dirents(t, dir, 0)
		for i, d := range want {
			rest := dirents(t, dir, d.off)
			if !slices.Equal(rest, want[i+1:]) {
				t.Fatalf("from entry %d on there are %d entries, want %d", i, len(rest), len(want)-i-1)
			}
		}
	})
}

type dirent struct {
	name string
	ino  uint64
	off  int64
}

// dirents lists a directory from an offset on with the system's own calls.
func dirents(t testing.TB, dir string, off int64) (all []dirent) {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	defer unix.Close(fd)
	_, err = unix.Seek(fd, off, unix.SEEK_SET)
	must(t, err)
	buf := make([]byte, 1500)
	for {
		n, err := unix.Getdents(fd, buf)
		must(t, err)
		if n == 0 {
			return all
		}
		for b := buf[:n]; len(b) > 0; {
			d := (*unix.Dirent)(unsafe.Pointer(&b[0]))
			name := b[19:d.Reclen]
			all = append(all, dirent{string(name[:bytes.IndexByte(name, 0)]), d.Ino, d.Off})
			b = b[d.Reclen:]
		}
	}
}

// TestInodeNumbers holds that a listing and stat agree on inode numbers, "." and ".." included.
func TestInodeNumbers(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		must(t, os.MkdirAll(dir+"/a/b", 0o755))
		newFile(t, dir+"/a/f", "")
		for _, d := range dirents(t, dir+"/a", 0) {
			if st := stat(t, dir+"/a/"+d.name); st.Ino != d.ino {
				t.Errorf("%s: listed as %d, stat says %d", d.name, d.ino, st.Ino)
			}
		}
		if st := stat(t, dir+"/a"); st.Nlink != 3 {
			t.Errorf("a directory with one in it has %d links", st.Nlink)
		}
	})
}

func TestStatfs(t *testing.T) {
	m := mountOn(t, newMem())
	var s unix.Statfs_t
	must(t, unix.Statfs(m.dir, &s))
	if s.Namelen != 255 || int64(s.Blocks)*s.Frsize != 64<<30 || s.Flags&(unix.ST_NOSUID|unix.ST_NODEV) != unix.ST_NOSUID|unix.ST_NODEV {
		t.Errorf("%+v", s)
	}
}

// TestLocks holds that locks of all kinds conflict between processes, without a word to the backend.
func TestLocks(t *testing.T) {
	inEach(t, func(t *testing.T, dir string) {
		f, err := os.Create(dir + "/f")
		must(t, err)
		defer f.Close()
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		if err := exec.Command("flock", "-n", dir+"/f", "true").Run(); err == nil {
			t.Error("flock let two in")
		}
		must(t, unix.Flock(int(f.Fd()), unix.LOCK_UN))
		if out, err := exec.Command("flock", "-n", dir+"/f", "true").CombinedOutput(); err != nil {
			t.Errorf("flock of a free file: %v %s", err, out)
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: 1 << 30, Len: 1}
		must(t, unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock))
		g, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
		must(t, err)
		defer g.Close()
		if err := unix.FcntlFlock(g.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 1 << 30, Len: 1}); err != unix.EAGAIN {
			t.Errorf("two OFD locks: %v", err)
		}
	})
}
