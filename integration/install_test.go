package integration

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInstall: a unit is made and handed to systemd; run as systemd runs it, it says when the mount can be used and when it ends; and it
// is taken away again.
func TestInstall(t *testing.T) {
	NeedFUSE(t)
	h := NewHome(t)
	config, bin := t.TempDir(), t.TempDir()
	calls := filepath.Join(t.TempDir(), "calls")
	// What is asked of systemd is noted; there is no user's systemd where tests run.
	fake := fmt.Sprintf("#!/bin/sh\necho \"$*\" >> %s\n", calls)
	check(t, os.WriteFile(filepath.Join(bin, "systemctl"), []byte(fake), 0o755))
	run := func(args ...string) (string, error) {
		cmd := h.Command(args...)
		cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+config, "PATH="+bin+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	asked := func() []string {
		b, _ := os.ReadFile(calls)
		_ = os.Remove(calls)
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	mnt := filepath.Join(t.TempDir(), "My files 100%")
	out, err := run("mount", "--no-discovery", "--listen", "none", "--install", mnt)
	if err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	units, err := filepath.Glob(filepath.Join(config, "systemd", "user", "anyfs-*.service"))
	if err != nil || len(units) != 1 {
		t.Fatalf("units: %q, %v", units, err)
	}
	unit := filepath.Base(units[0])
	if got := fmt.Sprint(asked()); got != fmt.Sprintf("[--user show-environment --user daemon-reload --user enable --now %s]", unit) {
		t.Errorf("systemd is asked %s", got)
	}
	text, err := os.ReadFile(units[0])
	check(t, err)
	if tool, err := exec.LookPath("systemd-analyze"); err == nil {
		// Its exit status tells of what the machine lacks, too.
		said, _ := exec.Command(tool, "--user", "verify", units[0]).CombinedOutput()
		if strings.Contains(string(said), unit) || strings.Contains(string(said), ".service:") {
			t.Errorf("systemd says of the unit: %s", said)
		}
	}
	// The command line of the unit, as systemd takes it: words in quotes, %% and $$ for one.
	_, line, _ := strings.Cut(string(text), "ExecStart=")
	line, _, _ = strings.Cut(line, "\n")
	line = strings.ReplaceAll(line, "%%", "%")
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(t, err)
	defer l.Close()
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		check(t, l.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, err := l.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), want+"\n") {
			t.Fatalf("the manager hears %q, %v, want %s", b[:n], err, want)
		}
	}
	start := func() *exec.Cmd {
		cmd := exec.Command("sh", "-c", "exec "+line)
		cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
		check(t, cmd.Start())
		t.Cleanup(func() { _ = cmd.Process.Kill(); detach(mnt) })
		hear("READY=1")
		check(t, os.WriteFile(filepath.Join(mnt, "Personal", "f"), []byte("x"), 0o644))
		return cmd
	}
	cmd := start()
	if out, err := run("mount", "--install", mnt); err != nil || !strings.Contains(out, "mounted already") {
		t.Errorf("where it is mounted: %v: %s", err, out)
	}
	if got := asked(); got[len(got)-1] != "--user enable "+unit {
		t.Errorf("where it is mounted systemd is asked %q", got)
	}
	second := exec.Command("sh", "-c", "exec "+line)
	second.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	if err := second.Run(); second.ProcessState.ExitCode() != 6 {
		t.Errorf("a second one ends with %v", err)
	}
	check(t, cmd.Process.Signal(syscall.SIGTERM))
	hear("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("stopped it ends with %v", err)
	}
	for l.SetReadDeadline(time.Now().Add(50*time.Millisecond)) == nil {
		if _, err := l.Read(make([]byte, 100)); err != nil {
			break
		}
	}
	cmd = start()
	h.Must("unmount", mnt)
	hear("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("unmounted it ends with %v", err)
	}
	if out, err := run("mount", "--uninstall", mnt); err != nil {
		t.Errorf("uninstall: %v: %s", err, out)
	}
	if got := fmt.Sprint(asked()); got != fmt.Sprintf("[--user disable --now %s --user daemon-reload]", unit) {
		t.Errorf("at the end systemd is asked %s", got)
	}
	if _, err := os.Lstat(units[0]); !os.IsNotExist(err) {
		t.Errorf("the unit is left: %v", err)
	}
	if out, err := run("mount", "--uninstall", mnt); err == nil || !strings.Contains(out, "no unit") {
		t.Errorf("uninstall again: %v: %s", err, out)
	}
	// Where there is no systemd nothing is left behind.
	cmd = h.Command("mount", "--install", mnt)
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+config, "PATH="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no systemd") {
		t.Errorf("without systemd: %v: %s", err, out)
	}
	if units, _ := filepath.Glob(filepath.Join(config, "systemd", "user", "*")); len(units) > 0 {
		t.Errorf("without systemd there are %q", units)
	}
}
