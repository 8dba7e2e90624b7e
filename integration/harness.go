// Package integration tests anyfs as a person meets it: the real binary, real mounts, real programs on them.
//
// This file and its neighbours are the harness: homes with a daemon that can be mounted, unmounted and killed, trees that
// can be compared in all that a filesystem keeps, and a terminal for programs that want one. Tests that take minutes run
// only with ANYFS_LONG=1; docs/testing.md says which. A program that a test needs and the machine lacks is named and the
// test skipped, but where CI is set that is a failure.
package integration

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Binary is the anyfs executable under test; TestMain builds it.
var Binary string

// patience bounds every command of the harness: none takes so long unless it hangs.
const patience = 5 * time.Minute

// Home is one home folder and its mountpoint. Its methods fail the test rather than return errors.
type Home struct {
	t   testing.TB
	Dir string // the home folder
	Mnt string // the mountpoint
	// Phrase is the recovery phrase that the first mount printed.
	Phrase  string
	mounted bool
	binary  string   // "": Binary
	env     []string // beside that of the tests

	Listen string // what its daemon is given for --listen; "": none
	Host   *Host  // the network namespace in which it is; nil: that of the tests
}

// Result is what a command left.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// NewHome gives an empty home that is not mounted. When the test ends, nothing of it is left mounted or running.
func NewHome(t testing.TB) *Home {
	t.Helper()
	base := t.TempDir()
	h := &Home{t: t, Dir: filepath.Join(base, "home"), Mnt: filepath.Join(base, "mnt")}
	t.Cleanup(h.cleanup)
	return h
}

// Mounted gives a home that is mounted.
func Mounted(t testing.TB) *Home {
	t.Helper()
	NeedFUSE(t)
	h := NewHome(t)
	h.Mount()
	return h
}

// In gives the same home for a subtest, which it then fails.
func (h *Home) In(t testing.TB) *Home {
	sub := *h
	sub.t = t
	return &sub
}

// Personal is a path in the space Personal.
func (h *Home) Personal(elem ...string) string {
	return filepath.Join(append([]string{h.Mnt, "Personal"}, elem...)...)
}

// Command prepares an anyfs command on this home.
func (h *Home) Command(args ...string) *exec.Cmd {
	binary := Binary
	if h.binary != "" {
		binary = h.binary
	}
	args = append([]string{"--home", h.Dir}, args...)
	cmd := exec.Command(binary, args...)
	if h.Host != nil {
		cmd = h.Host.Command(binary, args...)
	}
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(h.Dir), "ANYFS_LISTEN="+cmp.Or(h.Listen, "none"))
	cmd.Env = append(cmd.Env, h.env...)
	return cmd
}

// Run runs an anyfs command to its end.
func (h *Home) Run(args ...string) Result {
	h.t.Helper()
	r, err := run(h.Command(args...))
	if err != nil {
		h.t.Fatalf("anyfs %s: %v\n%s", strings.Join(args, " "), err, h.traces())
	}
	return r
}

// traces has each daemon of the home write where all its goroutines are, which ends it, and gives that.
func (h *Home) traces() string {
	var out strings.Builder
	for _, pid := range daemonsOf(h.Dir) {
		state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		wchan, _ := exec.Command("sh", "-c", fmt.Sprintf("cd /proc/%d/task && head -v -n 9 */stack */syscall", pid)).CombinedOutput()
		_ = syscall.Kill(pid, syscall.SIGQUIT)
		time.Sleep(2 * time.Second)
		trace, _ := os.ReadFile(filepath.Join(h.Dir, "anyfs.crash"))
		fmt.Fprintf(&out, "daemon %d:\n%s\n%s\n%s\n", pid, state, wchan, trace)
	}
	return out.String()
}

// Must runs an anyfs command that has to succeed, and gives its stdout.
func (h *Home) Must(args ...string) string {
	h.t.Helper()
	r := h.Run(args...)
	if r.Code != 0 {
		h.t.Fatalf("anyfs %s: exit %d\nstdout: %s\nstderr: %s\n%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr, h.logTail())
	}
	return r.Stdout
}

// Mount mounts the home and remembers the phrase if it is printed.
func (h *Home) Mount(extra ...string) {
	h.t.Helper()
	out := h.Must(append(append([]string{"mount"}, extra...), h.Mnt)...)
	h.mounted = true
	if words := strings.Fields(out); len(words) == 12 {
		h.Phrase = strings.Join(words, " ")
	}
}

// Unmount unmounts the home; when it returns the daemon has ended.
func (h *Home) Unmount() {
	h.t.Helper()
	pid := h.PID()
	h.Must("unmount", h.Mnt)
	h.mounted = false
	if alive(pid) {
		h.t.Fatalf("the daemon %d still runs after unmount", pid)
	}
}

// Remount is Unmount and Mount.
func (h *Home) Remount() {
	h.t.Helper()
	h.Unmount()
	h.Mount()
}

// Status is what status --json prints.
type Status struct {
	Account string `json:"account"`
	Device  struct {
		PeerID string `json:"peer_id"`
		Name   string `json:"name"`
	} `json:"device"`
	Mountpoint string        `json:"mountpoint"`
	PID        int           `json:"pid"`
	Spaces     []SpaceStatus `json:"spaces"`
}

// SpaceStatus is one space of Status.
type SpaceStatus struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Role           string `json:"role"`
	State          string `json:"state"`
	Objects        int64  `json:"objects"`
	PendingChanges int64  `json:"pending_changes"`
	PendingBlocks  int64  `json:"pending_blocks"`
	Conflicts      int64  `json:"conflicts"`
}

// Status asks for the home's status.
func (h *Home) Status() Status {
	h.t.Helper()
	var s Status
	out := h.Must("status", "--json")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		h.t.Fatalf("status --json: %v in %q", err, out)
	}
	return s
}

// PID is the daemon's process id.
func (h *Home) PID() int {
	h.t.Helper()
	pid := h.Status().PID
	if pid <= 0 {
		h.t.Fatalf("status gives no pid of a daemon")
	}
	return pid
}

// Kill ends the daemon with SIGKILL and waits until it is gone. The mountpoint stays as a crash leaves it.
func (h *Home) Kill() {
	h.t.Helper()
	h.KillPID(h.PID())
}

// KillPID is Kill for who asked for the pid before.
func (h *Home) KillPID(pid int) {
	h.t.Helper()
	if err := kill(pid); err != nil {
		h.t.Fatalf("kill %d: %v", pid, err)
	}
}

// stop stops a process with SIGSTOP and waits until all of its threads stand: until the one that gets the signal is scheduled, the others
// go on.
func stop(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(stats) == 0 {
			return errors.Join(err, errors.New("it is gone"))
		}
		standing := 0
		for _, name := range stats {
			b, _ := os.ReadFile(name)
			if i := strings.LastIndexByte(string(b), ')'); i >= 0 && strings.HasPrefix(string(b[i:]), ") T") {
				standing++
			}
		}
		if standing == len(stats) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d threads stand", standing, len(stats))
		}
	}
}

// kill ends a process with SIGKILL and waits until all of its threads are gone, and with them its files and sockets: the
// table of processes shows it as ended when its first thread is.
func kill(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case time.Now().After(end):
			return errors.New("it does not die")
		}
	}
}

// Settle waits until the daemon has published and made durable what was done so far.
func (h *Home) Settle() {
	h.t.Helper()
	h.Must("status", "--wait", "--here", "--timeout", "60s")
}

// Sync waits until another device holds what was done so far, and all that is known of is here.
func (h *Home) Sync() {
	h.t.Helper()
	h.Must("status", "--wait", "--timeout", "60s")
}

// Xattr reads an extended attribute.
func (h *Home) Xattr(path, name string) string {
	h.t.Helper()
	v, err := getxattr(path, name)
	if err != nil {
		h.t.Fatalf("getxattr %s %s: %v", path, name, err)
	}
	return v
}

// ID is the id of the object that path stands for.
func (h *Home) ID(path string) string {
	h.t.Helper()
	return h.Xattr(path, "user.anyfs.id")
}

// keep copies the home of a test that failed to a new folder in the one that ANYFS_KEEP names.
func (h *Home) keep() {
	dir := os.Getenv("ANYFS_KEEP")
	if dir == "" {
		return
	}
	to, err := os.MkdirTemp(dir, h.t.Name()+"-")
	if err == nil {
		err = exec.Command("cp", "-a", h.Dir, to).Run()
	}
	h.t.Logf("the home is kept in %s: %v", to, err)
}

// cleanup leaves nothing mounted and no daemon.
func (h *Home) cleanup() {
	if h.t.Failed() {
		h.t.Log(h.logTail())
		defer h.keep()
	}
	if h.mounted {
		done := make(chan Result, 1)
		go func() { r, _ := run(h.Command("unmount", h.Mnt)); done <- r }()
		select {
		case r := <-done:
			if r.Code != 0 && !h.t.Failed() {
				h.t.Errorf("unmount at the end: exit %d: %s", r.Code, r.Stderr)
			}
		case <-time.After(patience):
			h.t.Errorf("unmount at the end hangs: %s", h.traces())
		}
	}
	detach(h.Mnt)
	for _, pid := range daemonsOf(h.Dir) {
		h.t.Errorf("the daemon %d outlived its test", pid)
		_ = kill(pid)
	}
	// The folder may hold read-only directories, which TempDir's removal does not enter.
	_ = filepath.WalkDir(filepath.Dir(h.Dir), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
}

// logTail gives the end of the daemon's log.
func (h *Home) logTail() string {
	b, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log"))
	if err != nil {
		return ""
	}
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return "the daemon's log ends with:\n" + string(b)
}

// detach takes a mount away whatever uses it, and is quiet when there is none.
func detach(dir string) {
	for range 8 {
		if syscall.Unmount(dir, syscall.MNT_DETACH) != nil {
			break
		}
	}
	if isMountpoint(dir) {
		_ = exec.Command("fusermount3", "-uz", dir).Run()
	}
}

// isMountpoint looks into the kernel's table, since a stat of a dead mount fails.
func isMountpoint(dir string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == dir {
			return true
		}
	}
	return false
}

// daemonsOf finds processes of the binary under test that name the home among their arguments.
func daemonsOf(home string) []int {
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		argv := bytes.Split(b, []byte{0})
		for i, a := range argv {
			if string(a) == "--home="+home || i > 0 && string(argv[i-1]) == "--home" && string(a) == home {
				if alive(pid) {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// alive reports whether the process runs; one that has ended and was not waited for does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i < 0 || i+2 >= len(b) || b[i+2] != 'Z' && b[i+2] != 'X'
}

// run runs a command to its end, at most for patience. A code that is not 0 is no error.
func run(cmd *exec.Cmd) (Result, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = 5 * time.Second // a descriptor that a daemon keeps open must not hang the test
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })
	err := cmd.Wait()
	hung := !timer.Stop()
	r := Result{Stdout: out.String(), Stderr: errOut.String(), Code: cmd.ProcessState.ExitCode()}
	var exit *exec.ExitError
	switch {
	case hung:
		return r, fmt.Errorf("still running after %v; stderr: %s", patience, r.Stderr)
	case err != nil && !errors.As(err, &exit):
		return r, fmt.Errorf("%w; stderr: %s", err, r.Stderr)
	}
	return r, nil
}

// Sh runs a bash script in dir, which has to succeed, and gives its stdout. Settings of the machine's user do not reach it.
func Sh(t testing.TB, dir, script string, env ...string) string {
	t.Helper()
	r, err := run(shell(dir, script, env...))
	if err != nil || r.Code != 0 {
		t.Fatalf("in %s: %s\nexit %d, %v\nstdout: %s\nstderr: %s", dir, script, r.Code, err, tail(r.Stdout), tail(r.Stderr))
	}
	return r.Stdout
}

// shell prepares a bash script that stops at its first failure.
func shell(dir, script string, env ...string) *exec.Cmd {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(cleanEnv(), env...)
	return cmd
}

// cleanEnv is an environment in which programs behave the same on every machine.
func cleanEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C.UTF-8", "TZ=UTC", "TERM=xterm",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@example.org",
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z",
	}
}

func tail(s string) string {
	if len(s) > 4000 {
		return "…" + s[len(s)-4000:]
	}
	return s
}
