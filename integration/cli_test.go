package integration

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFirstMountOnATerminal holds that the phrase stands on one line of its own on a terminal too, and that it is said what it is
// and where the spaces are.
func TestFirstMountOnATerminal(t *testing.T) {
	NeedFUSE(t)
	h := NewHome(t)
	m := StartTerminal(t, h.Command("mount", h.Mnt))
	h.mounted = true
	if code := m.Wait(); code != 0 {
		t.Fatalf("mount ends with %d: %q", code, m.Seen())
	}
	phrase := strings.TrimSpace(h.Must("account", "phrase"))
	m.Await("what it says", func(seen string) bool {
		return strings.Contains(seen, "\n"+phrase+"\r\n") && strings.Contains(seen, "recovery phrase") && strings.Contains(seen, h.Mnt+" is mounted")
	})
}

// TestDeleteAsks holds that a space is deleted on a terminal only after its name was typed.
func TestDeleteAsks(t *testing.T) {
	h := NewHome(t)
	h.Must("init")
	h.Must("space", "create", "Work")
	for _, c := range []struct {
		answer string
		left   bool
	}{{"yes\r", true}, {"Work\r", false}} {
		m := StartTerminal(t, h.Command("space", "delete", "Work"))
		m.Await("the question", func(seen string) bool { return strings.Contains(seen, "Type its name") })
		m.Type(c.answer)
		code := m.Wait()
		if left := strings.Contains(h.Must("space", "list"), "Work"); left != c.left || (code == 0) == c.left {
			t.Errorf("answered %q, the space is there: %v, exit code %d: %q", c.answer, left, code, m.Seen())
		}
	}
}

// TestStatusKeys holds the keys of status --json and account show --json, which programs rely on.
func TestStatusKeys(t *testing.T) {
	h := Mounted(t)
	keys := func(v any) string {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("%v is no object", v)
		}
		return strings.Join(slices.Sorted(maps.Keys(m)), " ")
	}
	one := func(args ...string) map[string]any {
		out := h.Must(args...)
		var v map[string]any
		if err := json.Unmarshal([]byte(out), &v); err != nil || strings.Count(out, "\n") != 1 {
			t.Fatalf("%v prints %q: %v", args, out, err)
		}
		return v
	}
	for range 2 {
		s := one("status", "--json")
		if got := keys(s); got != "account device limits listen mountpoint networks paused peers pid spaces" {
			t.Errorf("status has %q", got)
		}
		if got := keys(s["device"]); got != "name peer_id" {
			t.Errorf("status has a device with %q", got)
		}
		if got := keys(s["spaces"].([]any)[0]); got != "conflicts id name networks objects peers pending_blocks pending_changes pending_fetch_blocks pending_fetch_changes pending_send_batches pending_send_blocks policy role state synced_peers" {
			t.Errorf("status has a space with %q", got)
		}
		a := one("account", "show", "--json")
		if got := keys(a) + ": " + keys(a["device"]); got != "account device fingerprint: name peer_id" {
			t.Errorf("account show has %q", got)
		}
		if h.mounted { // and the same without a daemon
			h.Unmount()
		}
	}
}

// TestJSON holds that with --json each command that has a result prints one JSON value on one line, with the daemon and without.
func TestJSON(t *testing.T) {
	h := Mounted(t)
	out := t.TempDir()
	check(t, os.WriteFile(h.Personal("f"), []byte("one"), 0o644), os.Mkdir(h.Personal("d"), 0o755))
	h.Settle()
	check(t, os.WriteFile(h.Personal("f"), []byte("two"), 0o644), os.Remove(h.Personal("d")))
	for _, daemon := range []string{"with", "without"} {
		for _, line := range []string{
			"status", "status Personal/f", "status --wait", "account show", "account phrase", "space create W", "space list",
			"conflicts", "limit", "limit --up 1M", "pause", "resume",
			"space info W", "space policy W on-demand --cache-limit 1G", "space policy W", "space policy W mirror", "pin W", "unpin W", "space rename W V", "space delete V", "log Personal/f", "log --deleted Personal", "restore Personal/f",
			"restore Personal/f --to " + out + "/" + daemon, "restore Personal/f --to Personal/" + daemon, "prune --dry-run",
			"prune --keep-last 3", "verify", "export Personal " + out + "/p" + daemon, "space create S", "export S " + out + "/s" + daemon,
			"space delete S", "import " + out + "/s" + daemon + " --as T", "space delete T", "version",
		} {
			r := h.Run(append(strings.Fields(line), "--json")...)
			if r.Code != 0 || strings.Count(r.Stdout, "\n") != 1 || !json.Valid([]byte(r.Stdout)) {
				t.Errorf("%s, %s a daemon: %+v", line, daemon, r)
			}
		}
		if h.mounted {
			h.Unmount()
		}
	}
}

// TestStatusWaitTimesOut holds that status --wait gives up after --timeout, with its own exit code, and says of a daemon that
// does not answer that it does not.
func TestStatusWaitTimesOut(t *testing.T) {
	h := Mounted(t)
	pid := h.PID()
	check(t, stop(pid))
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	start := time.Now()
	r := h.Run("status", "--wait", "--timeout", "500ms")
	if took := time.Since(start); r.Code != 4 || !strings.Contains(r.Stderr, "500ms") || took > 10*time.Second {
		t.Errorf("status --wait of a stopped daemon: %+v after %v", r, took)
	}
	r = h.Run("status", "--wait", "--timeout", "8s")
	if r.Code != 4 || !strings.Contains(r.Stderr, "which is stopped") || !strings.Contains(r.Stderr, "does not answer") {
		t.Errorf("a longer wait: %+v", r)
	}
	check(t, syscall.Kill(pid, syscall.SIGCONT))
	if r := h.Run("status", "--wait", "--timeout", "20s"); r.Code != 0 {
		t.Errorf("status --wait of one that goes on: %+v", r)
	}
}

// TestHeldHome holds that who has to wait for a home that another process has open says for whom, in the log too, and goes on when
// that ends.
func TestHeldHome(t *testing.T) {
	NeedFUSE(t)
	h := NewHome(t)
	h.Must("init")
	lock, err := os.OpenFile(filepath.Join(h.Dir, "lock"), os.O_RDWR, 0)
	check(t, err, unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	release := time.AfterFunc(5*time.Second, func() { lock.Close() })
	defer release.Stop()
	r := h.Run("mount", h.Mnt)
	h.mounted = r.Code == 0
	if r.Code != 0 || !strings.Contains(r.Stderr, "Waiting for") || !strings.Contains(r.Stderr, h.Dir) {
		t.Errorf("mount of a home that is held for a while: %+v", r)
	}
	if log, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log")); err != nil || !strings.Contains(string(log), "waiting for who has the home open") {
		t.Errorf("the log does not tell of the wait: %s %v", log, err)
	}
}

// TestHeldDatabase holds that a daemon waits for a database that a dying process has open, says that it takes long, and gives up in
// the end with a reason.
func TestHeldDatabase(t *testing.T) {
	t.Parallel() // it mostly waits
	NeedFUSE(t)
	h := NewHome(t)
	h.Must("init")
	hold := func(d time.Duration) {
		f, err := os.OpenFile(filepath.Join(h.Dir, "spaces/0001/space.db"), os.O_RDWR, 0)
		check(t, err, unix.Flock(int(f.Fd()), unix.LOCK_EX))
		release := time.AfterFunc(d, func() { f.Close() })
		t.Cleanup(func() { release.Stop(); f.Close() })
	}
	hold(5 * time.Second)
	r := h.Run("mount", h.Mnt)
	h.mounted = r.Code == 0
	if r.Code != 0 || !strings.Contains(r.Stderr, "takes long") {
		t.Errorf("mount of a home whose database is held for a while: %+v", r)
	}
	if log, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log")); err != nil || !strings.Contains(string(log), "opening the home takes long") {
		t.Errorf("the log does not tell of it: %s %v", log, err)
	}
	if !h.mounted {
		return
	}
	h.Unmount()
	hold(time.Hour)
	start := time.Now()
	if r := h.Run("mount", h.Mnt); r.Code == 0 || !strings.Contains(r.Stderr, "another process has it open") || time.Since(start) > time.Minute {
		t.Errorf("mount of a home whose database is held, after %v: %+v", time.Since(start), r)
	}
}

// TestCrashIsTold holds that the trace of a daemon that crashed is kept by the next one, and that status points to it.
func TestCrashIsTold(t *testing.T) {
	h := Mounted(t)
	pid := h.PID()
	check(t, syscall.Kill(pid, syscall.SIGABRT))
	for end := time.Now().Add(time.Minute); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("SIGABRT does not end the daemon")
		}
	}
	h.Mount()
	trace, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.crash.1"))
	if err != nil || !strings.Contains(string(trace), "goroutine") {
		t.Errorf("the trace is %q, %v", tail(string(trace)), err)
	}
	if out := h.Must("status"); !strings.Contains(out, "Last errors:") || !strings.Contains(out, "anyfs.crash.1") {
		t.Errorf("status says %q", out)
	}
	if out := h.Must("status", "--json"); !strings.Contains(out, `"errors":[{"time":"`) {
		t.Errorf("status --json says %q", out)
	}
	h.Remount()
	if out := h.Must("status"); strings.Contains(out, "Last errors:") {
		t.Errorf("after a start without a crash before it status says %q", out)
	}
}

// TestCopiedHome holds that a copy of a home that is mounted, or whose daemon was killed, takes nothing away from the original.
func TestCopiedHome(t *testing.T) {
	h := Mounted(t)
	check(t, os.WriteFile(h.Personal("f"), []byte("f"), 0o644))
	h.Settle()
	c := NewHome(t)
	Sh(t, "/", `cp -a "$A" "$B" && rm -f "$B/control.sock"`, "A="+h.Dir, "B="+c.Dir)
	c.Mount()
	if b, err := os.ReadFile(c.Personal("f")); err != nil || string(b) != "f" {
		t.Errorf("the copy: %q, %v", b, err)
	}
	if b, err := os.ReadFile(h.Personal("f")); err != nil || string(b) != "f" || !isMountpoint(h.Mnt) {
		t.Errorf("the original, after its copy was mounted: %q, %v", b, err)
	}
}

// TestMountAtALink holds that a mount at a symbolic link is known under both names.
func TestMountAtALink(t *testing.T) {
	NeedFUSE(t)
	h := NewHome(t)
	link := filepath.Join(filepath.Dir(h.Mnt), "link")
	check(t, os.Mkdir(h.Mnt, 0o700), os.Symlink(h.Mnt, link))
	h.Must("mount", link)
	h.mounted = true
	check(t, os.WriteFile(h.Personal("f"), []byte("f"), 0o644))
	for _, dir := range []string{link, h.Mnt} {
		if out := h.Must("log", dir+"/Personal/f"); !strings.Contains(out, "created") {
			t.Errorf("log below %s: %q", dir, out)
		}
		if r := h.Run("mount", dir); r.Code != 0 || !strings.Contains(r.Stderr, "already mounted") {
			t.Errorf("mount at %s again: %+v", dir, r)
		}
	}
	h.Must("unmount", link)
	h.mounted = isMountpoint(h.Mnt)
	if h.mounted {
		t.Error("unmount of the link left the mount")
	}
}

// TestDiskSpace holds that df of the mount says what df of the home's disk does, but for what is kept in reserve.
func TestDiskSpace(t *testing.T) {
	h := Mounted(t)
	var m, d syscall.Statfs_t
	check(t, syscall.Statfs(h.Mnt, &m), syscall.Statfs(h.Dir, &d))
	used := func(s *syscall.Statfs_t) int64 { return int64(s.Blocks-s.Bfree) * s.Bsize }
	avail := func(s *syscall.Statfs_t) int64 { return int64(s.Bavail) * s.Bsize }
	const near = 2 << 30 // others use the disk meanwhile
	if x := used(&m) - used(&d); x < -near || x > near {
		t.Errorf("%d bytes used, on the disk %d", used(&m), used(&d))
	}
	if x := avail(&m) - avail(&d); x < -near || x > near {
		t.Errorf("%d bytes free, on the disk %d", avail(&m), avail(&d))
	}
}
