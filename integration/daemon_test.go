package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKilledDaemon holds that a killed daemon gives ENOTCONN, that commands go on without it, and that the next mount takes over.
func TestKilledDaemon(t *testing.T) {
	h := Mounted(t)
	check(t, writeSynced(h.Personal("kept"), "kept"))
	h.Kill()
	// ECONNABORTED is what the operation gets that the kernel had begun.
	if err := os.WriteFile(h.Personal("dead"), nil, 0o644); !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("writing to a dead mount: %v, want ENOTCONN", err)
	}
	if out := h.Must("space", "list"); !strings.Contains(out, "Personal") {
		t.Errorf("space list without a daemon: %q", out)
	}
	h.Mount()
	if b, err := os.ReadFile(h.Personal("kept")); err != nil || string(b) != "kept" {
		t.Errorf("after the next mount: %q, %v", b, err)
	}
	h.Kill()
	h.Must("unmount", h.Mnt) // takes away what a killed daemon left
	if isMountpoint(h.Mnt) {
		t.Error("unmount left the dead mount")
	}
	h.Mount()
}

// TestStoppedDaemon holds that who waits for a stopped daemon, whatever for, is free when that is killed, and that the next
// mount takes over.
func TestStoppedDaemon(t *testing.T) {
	h := Mounted(t)
	check(t, os.Mkdir(h.Personal("d"), 0o755))
	for _, name := range []string{"d/f", "read", "fault"} {
		check(t, writeSynced(h.Personal(name), strings.Repeat(name, 1000)))
	}
	h.Remount() // the kernel knows nothing
	var busy, waiting []*process
	for i := range 3 {
		p := newProcess(t)
		p.start("store %s", h.Personal(fmt.Sprint("busy", i)))
		busy = append(busy, p)
	}
	time.Sleep(200 * time.Millisecond) // requests are in the daemon's hands
	pid := h.PID()
	check(t, stop(pid))
	for _, line := range []string{
		"stat " + h.Personal("not seen before"), "list " + h.Personal("d"), "read " + h.Personal("read"), "fault " + h.Personal("fault"),
		"statfs " + h.Mnt, "store " + h.Personal("new"),
	} {
		for range 2 {
			p := newProcess(t)
			p.start("%s", line)
			waiting = append(waiting, p)
		}
	}
	time.Sleep(300 * time.Millisecond)
	// Half of those who wait are killed before the daemon is. They may hang on until that, and no longer.
	for i, p := range waiting {
		if i%2 == 0 {
			check(t, p.cmd.Process.Kill())
		}
	}
	check(t, busy[0].cmd.Process.Kill())
	h.KillPID(pid)
	for i, p := range append(waiting, busy...) {
		ended := make(chan string, 1)
		go func() {
			if p.out.Scan() {
				ended <- p.out.Text()
				return
			}
			ended <- "killed"
		}()
		select {
		case s := <-ended:
			if s != "killed" && s != "=ENOTCONN" && s != "=ECONNABORTED" && !strings.HasPrefix(s, "=the map") {
				t.Errorf("process %d of those who waited was told %q", i, s)
			}
		case <-time.After(time.Minute):
			state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stack", p.cmd.Process.Pid))
			t.Errorf("process %d hangs on after the daemon's end: %s", i, state)
		}
		p.kill()
	}
	h.Mount()
	if b, err := os.ReadFile(h.Personal("read")); err != nil || string(b) != strings.Repeat("read", 1000) {
		t.Errorf("after the next mount: %d bytes, %v", len(b), err)
	}
}

// TestDaemonKeepsNothing holds that the daemon has no descriptor, folder or session of who mounted.
func TestDaemonKeepsNothing(t *testing.T) {
	NeedFUSE(t)
	h := NewHome(t)
	held, err := os.Create(filepath.Join(t.TempDir(), "held"))
	check(t, err)
	defer held.Close()
	cmd := h.Command("mount", h.Mnt)
	cmd.ExtraFiles = []*os.File{held}
	cmd.Dir = filepath.Dir(held.Name())
	r, err := run(cmd)
	if err != nil || r.Code != 0 {
		t.Fatalf("mount: %v, %+v", err, r)
	}
	h.mounted = true
	pid := h.PID()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(proc + "/fd")
	check(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if err != nil {
			continue
		}
		if target == held.Name() || strings.HasPrefix(target, "pipe:") || strings.HasPrefix(target, "/dev/pts") {
			t.Errorf("the daemon holds descriptor %s: %s", fd.Name(), target)
		}
	}
	if wd, err := os.Readlink(proc + "/cwd"); err != nil || wd != "/" {
		t.Errorf("the daemon's folder is %s, %v", wd, err)
	}
	stat, err := os.ReadFile(proc + "/stat")
	check(t, err)
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	if session := f[3]; session != strconv.Itoa(pid) {
		t.Errorf("the daemon is in session %s, its pid is %d", session, pid)
	}
	argv, err := os.ReadFile(proc + "/cmdline")
	check(t, err)
	if !strings.Contains(string(argv), "--home\x00"+h.Dir+"\x00") {
		t.Errorf("the daemon's arguments are %q: no --home %s", argv, h.Dir)
	}
	if exe, err := os.Readlink(proc + "/exe"); err != nil || exe != Binary {
		t.Errorf("the daemon runs %s, not %s", exe, Binary)
	}
}

// TestLongHome holds that a home works whose path is far longer than a unix socket's may be.
func TestLongHome(t *testing.T) {
	NeedFUSE(t)
	h := NewHome(t)
	h.Dir = filepath.Join(h.Dir, strings.Repeat("long/", 30), strings.Repeat("x", 200))
	check(t, os.MkdirAll(filepath.Dir(h.Dir), 0o755))
	h.Mount()
	check(t, os.WriteFile(h.Personal("f"), []byte("f"), 0o644))
	h.Remount()
	if out := h.Must("status"); !strings.Contains(out, h.Mnt) {
		t.Errorf("status: %q", out)
	}
}

// TestHomeIsPrivate holds that a home folder is 0700 also when it was there before with other permissions.
func TestHomeIsPrivate(t *testing.T) {
	h := NewHome(t)
	check(t, os.MkdirAll(h.Dir, 0o755), os.Chmod(h.Dir, 0o755))
	h.Must("init")
	st, err := os.Stat(h.Dir)
	check(t, err)
	if st.Mode().Perm() != 0o700 {
		t.Errorf("the home is %v", st.Mode())
	}
	check(t, filepath.WalkDir(h.Dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 && info.Mode().Type() == 0 {
			t.Errorf("%s is %v", p, info.Mode())
		}
		return nil
	}))
}

// TestUnmountWaits holds that nothing is lost by an unmount right after work, and that a busy mount is not torn away.
func TestUnmountWaits(t *testing.T) {
	h := Mounted(t)
	open, err := os.Create(h.Personal("open"))
	check(t, err, second(open.WriteString("written")))
	if r := h.Run("unmount", h.Mnt); r.Code == 0 {
		t.Error("unmount succeeded though a file is open")
		h.mounted = false
	} else if !strings.Contains(r.Stderr, "use") {
		t.Errorf("unmount of a busy mount says %q", r.Stderr)
	}
	check(t, open.Close())
	h.Remount()
	if b, err := os.ReadFile(h.Personal("open")); err != nil || string(b) != "written" {
		t.Errorf("after unmount: %q, %v", b, err)
	}
}

// TestForeignUnmount holds that umount(8) ends the daemon as unmount does.
func TestForeignUnmount(t *testing.T) {
	h := Mounted(t)
	check(t, os.WriteFile(h.Personal("f"), []byte("f"), 0o644))
	pid := h.PID()
	if os.Getuid() == 0 {
		Sh(t, "/", `umount "$M"`, "M="+h.Mnt)
	} else {
		Sh(t, "/", `fusermount3 -u "$M"`, "M="+h.Mnt)
	}
	h.mounted = false
	for end := time.Now().Add(time.Minute); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the daemon runs on after umount")
		}
	}
	h.Mount()
	if b, err := os.ReadFile(h.Personal("f")); err != nil || string(b) != "f" {
		t.Errorf("after umount: %q, %v", b, err)
	}
}

// TestTerminated holds that SIGTERM unmounts and loses nothing.
func TestTerminated(t *testing.T) {
	h := Mounted(t)
	check(t, os.WriteFile(h.Personal("f"), []byte("f"), 0o644))
	pid := h.PID()
	check(t, syscall.Kill(pid, syscall.SIGTERM))
	for end := time.Now().Add(time.Minute); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the daemon ignores SIGTERM")
		}
	}
	if isMountpoint(h.Mnt) {
		t.Error("SIGTERM left the mount")
	}
	h.Mount()
	if b, err := os.ReadFile(h.Personal("f")); err != nil || string(b) != "f" {
		t.Errorf("after SIGTERM: %q, %v", b, err)
	}
}

// TestPrompts holds that a passphrase is asked for on a terminal, unseen, and never without one.
func TestPrompts(t *testing.T) {
	h := NewHome(t)
	m := StartTerminal(t, h.Command("init", "--passphrase"))
	asked := func(n int) func(string) bool {
		return func(seen string) bool { return strings.Count(seen, ": ") >= n }
	}
	m.Await("the question", asked(1))
	m.Type("open sesame\r")
	m.Await("the second question", asked(2))
	m.Type("open sesame\r")
	if code := m.Wait(); code != 0 {
		t.Fatalf("init ends with %d: %q", code, m.Seen())
	}
	if strings.Contains(m.Seen(), "sesame") {
		t.Errorf("the terminal shows the passphrase: %q", m.Seen())
	}
	start := time.Now()
	if r := h.Run("account", "phrase"); r.Code != 5 || time.Since(start) > 10*time.Second {
		t.Errorf("account phrase without a passphrase: %+v", r)
	}
	m = StartTerminal(t, h.Command("account", "phrase"))
	m.Await("the question", asked(1))
	m.Type("open sesame\r")
	if code := m.Wait(); code != 0 {
		t.Errorf("account phrase ends with %d: %q", code, m.Seen())
	}
	// Ctrl-C ends the question, and leaves the terminal as it was.
	m = StartTerminal(t, h.Command("account", "phrase"))
	m.Await("the question", asked(1))
	m.Type("\x03")
	start = time.Now()
	if code := m.Wait(); code == 0 || time.Since(start) > 10*time.Second {
		t.Errorf("account phrase after Ctrl-C ends with %d: %q", code, m.Seen())
	}
	m.Await("what it says", func(seen string) bool { return strings.Contains(seen, "interrupted") })
	if !m.Echoes() {
		t.Error("after Ctrl-C the terminal does not show what is typed")
	}
}

// writeSynced makes a file that survives the end of the daemon, whenever that is.
func writeSynced(path, content string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}
