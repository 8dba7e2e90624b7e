package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/mount/control"
	"golang.org/x/sys/unix"
)

// startHelper starts the test binary as a daemon that does as told.
func startHelper(t testing.TB, ctx context.Context, home, what, input string) (int, error) {
	t.Helper()
	t.Setenv(helperEnv, "daemon")
	return StartDaemon(ctx, home, []byte(input), what)
}

func newHome(t testing.TB) string {
	home := t.TempDir()
	t.Cleanup(func() { _ = unix.Unmount(filepath.Join(home, "mnt"), unix.MNT_DETACH) })
	return home
}

// TestDaemon holds the whole life: started, ready, with nothing of its starter's, stopped by a signal, all in order.
func TestDaemon(t *testing.T) {
	needFUSE(t)
	home := newHome(t)
	held, err := os.Create(filepath.Join(t.TempDir(), "held"))
	must(t, err)
	defer held.Close()
	inherited, err := unix.Dup(int(held.Fd())) // not closed on exec, as what a shell leaves open
	must(t, err)
	defer unix.Close(inherited)
	pid, err := startHelper(t, context.Background(), home, "serve", "secret")
	must(t, err)
	newFile(t, home+"/mnt/f", "x")
	if got := HomeHolder(home); got != pid {
		t.Errorf("the home is held by %d, the daemon is %d", got, pid)
	}
	if _, err := LockHome(home); !errors.Is(err, ErrHomeInUse) || !strings.Contains(err.Error(), strconv.Itoa(pid)) {
		t.Errorf("a second holder: %v", err)
	}
	proc := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(proc + "/fd")
	must(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(proc + "/fd/" + fd.Name())
		if strings.HasPrefix(target, "pipe:") || target == held.Name() {
			t.Errorf("it holds %s: %s", fd.Name(), target)
		}
	}
	if wd, _ := os.Readlink(proc + "/cwd"); wd != "/" {
		t.Errorf("its folder is %s", wd)
	}
	if sid, err := unix.Getsid(pid); err != nil || sid != pid {
		t.Errorf("its session is %d, %v", sid, err)
	}
	line, err := os.ReadFile(proc + "/cmdline")
	if err != nil || !strings.Contains(string(line), "\x00--home\x00"+home+"\x00") {
		t.Errorf("its arguments are %q, %v", line, err)
	}
	must(t, syscall.Kill(pid, syscall.SIGTERM))
	l := awaitHome(t, home)
	defer l.Unlock()
	contains(t, home+"/durable", strconv.Itoa(pid))
	if _, err := os.Stat(home + "/control.sock"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	if _, ok, _ := mountAt(home + "/mnt"); ok {
		t.Error("the mount is left")
	}
	if left := l.Left(); left.Dir != "" {
		t.Errorf("it is said that a mount was left: %+v", left)
	}
}

func awaitHome(t testing.TB, home string) *HomeLock {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := AwaitHome(ctx, home)
	must(t, err)
	return l
}

// TestDaemonUnmounted holds that a daemon whose mount is unmounted ends, with everything durable.
func TestDaemonUnmounted(t *testing.T) {
	needFUSE(t)
	home := newHome(t)
	pid, err := startHelper(t, context.Background(), home, "serve", "")
	must(t, err)
	must(t, Unmount(home+"/mnt"))
	must(t, awaitHome(t, home).Unlock())
	contains(t, home+"/durable", strconv.Itoa(pid))
}

// TestDaemonKilled holds that the next holder of a home is told of the mount that a killed one left, and takes it away
// also when it does not answer.
func TestDaemonKilled(t *testing.T) {
	needFUSE(t)
	home := newHome(t)
	pid, err := startHelper(t, context.Background(), home, "serve", "")
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	l := awaitHome(t, home)
	if left := l.Left(); left.Dir != home+"/mnt" || left.Dev == 0 {
		t.Errorf("left: %+v", left)
	}
	must(t, l.Unlock()) // a command that does not mount
	if _, err := control.Dial(context.Background(), home); !errors.Is(err, control.ErrNoDaemon) {
		t.Errorf("a dead daemon's socket: %v", err)
	}
	pid, err = startHelper(t, context.Background(), home, "serve", "")
	must(t, err)
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	l = awaitHome(t, home)
	defer l.Unlock()
	must(t, l.TakeAway())
	if _, ok, _ := mountAt(home + "/mnt"); ok || l.Left().Dir != "" {
		t.Errorf("still mounted: %v, left: %+v", ok, l.Left())
	}
}

// TestDaemonFails holds that a daemon that does not start says why.
func TestDaemonFails(t *testing.T) {
	_, err := startHelper(t, context.Background(), t.TempDir(), "fail", "12345")
	var e *StartError
	if !errors.As(err, &e) || e.Exit != 5 || e.Text != `the passphrase "12345" is wrong` {
		t.Errorf("%#v", err)
	}
	_, err = startHelper(t, context.Background(), t.TempDir(), "die", "")
	if !errors.As(err, &e) || e.Exit != 1 || !strings.Contains(e.Text, "exit status 7") || !strings.Contains(e.Text, "a last word") {
		t.Errorf("%#v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := startHelper(t, ctx, t.TempDir(), "hang", ""); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

// TestForeground holds that a process that no StartDaemon started has nobody to report to.
func TestForeground(t *testing.T) {
	s, err := FromStarter()
	if s != nil || err != nil {
		t.Fatalf("%v, %v", s, err)
	}
	must(t, s.Ready())
	s.Failed(os.ErrInvalid, 1)
}

func TestLockHome(t *testing.T) {
	home := t.TempDir()
	if pid := HomeHolder(home); pid != 0 {
		t.Errorf("a new home is held by %d", pid)
	}
	cmd, out, stdin := helper(t, "lock", home)
	awaitLine(t, out)
	if pid := HomeHolder(home); pid != cmd.Process.Pid {
		t.Errorf("held by %d, not %d", pid, cmd.Process.Pid)
	}
	must(t, os.Truncate(filepath.Join(home, lockName), 0))
	if pid := HomeHolder(home); pid != -1 {
		t.Errorf("held by somebody who does not say who, but told is %d", pid)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := AwaitHome(ctx, home); !errors.Is(err, ErrHomeInUse) {
		t.Errorf("AwaitHome of one that is held: %v", err)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		stdin.Close()
	}()
	l := awaitHome(t, home)
	if pid := HomeHolder(home); pid != os.Getpid() {
		t.Errorf("held by %d, not by us", pid)
	}
	must(t, l.Unlock())
	if pid := HomeHolder(home); pid != 0 {
		t.Errorf("given free, but held by %d", pid)
	}
}

// TestRunFails holds that a part that fails ends the others, and that its error is returned.
func TestRunFails(t *testing.T) {
	needFUSE(t)
	home := newHome(t)
	l, err := LockHome(home)
	must(t, err)
	defer l.Unlock()
	broken := errors.New("the disk is gone")
	d := &Daemon{
		Lock:    l,
		Backend: newMem(),
		Mount:   Options{Dir: home + "/mnt"},
		Work: func(context.Context) error {
			time.Sleep(200 * time.Millisecond)
			return broken
		},
	}
	if err := d.Run(context.Background()); !errors.Is(err, broken) {
		t.Errorf("Run: %v", err)
	}
	if _, ok, _ := mountAt(home + "/mnt"); ok {
		t.Error("the mount is left")
	}
	newFile(t, home+"/full", "")
	d.Mount.Dir = home
	d.Work = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	if err := d.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("Run at a bad place: %v", err)
	}
}
