package integration

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watcher is anyfs watch --json at work.
type watcher struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan watched
}

type watched struct {
	Event, Path, From, Device string
	Local, Dir                bool
	Time                      time.Time
}

func (h *Home) watch(t *testing.T, args ...string) *watcher {
	t.Helper()
	w := &watcher{t: t, cmd: h.Command(append([]string{"watch", "--json"}, args...)...), lines: make(chan watched, 1000)}
	out, err := w.cmd.StdoutPipe()
	check(t, err)
	talk, err := w.cmd.StderrPipe()
	check(t, err, w.cmd.Start())
	t.Cleanup(func() { _ = w.cmd.Process.Kill(); _, _ = w.cmd.Process.Wait() })
	if line, err := bufio.NewReader(talk).ReadString('\n'); err != nil {
		t.Fatalf("watch says %q, %v", line, err)
	}
	go func() {
		defer close(w.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			var l watched
			if err := json.Unmarshal(s.Bytes(), &l); err != nil {
				t.Errorf("%s: %v", s.Bytes(), err)
			}
			w.lines <- l
		}
	}()
	return w
}

// next waits for a change, and fails where it is another than one of these: "event path" or "event path from".
func (w *watcher) next(want string) watched {
	w.t.Helper()
	select {
	case l, ok := <-w.lines:
		if got := strings.TrimSpace(l.Event + " " + l.Path + " " + l.From); !ok || got != want {
			w.t.Fatalf("the next change is %+v, want %q", l, want)
		}
		return l
	case <-time.After(time.Minute):
		w.t.Fatalf("there is no %q", want)
	}
	return watched{}
}

// TestWatchCommand: changes of this device and of another are told as they happen, with who made them; and who watches keeps no daemon
// from its end.
func TestWatchCommand(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	check(t, os.Mkdir(a.Personal("dir"), 0o755))
	d.Same()
	here, there, part := a.watch(t), b.watch(t, b.Mnt), b.watch(t, b.Personal("dir"))
	check(t, os.WriteFile(a.Personal("f"), []byte("one"), 0o644))
	here.next("created Personal/f")
	if l := here.next("changed Personal/f"); !l.Local || time.Since(l.Time) > time.Minute {
		t.Errorf("%+v", l)
	}
	if l := there.next("created Personal/f"); l.Local || l.Device == "" {
		t.Errorf("%+v", l)
	}
	if got, err := os.ReadFile(b.Personal("f")); string(got) != "one" {
		t.Errorf("when it is told, the file holds %q, %v", got, err)
	}
	check(t, os.Rename(b.Personal("f"), b.Personal("dir", "g")))
	there.next("renamed Personal/dir/g Personal/f")
	part.next("renamed Personal/dir/g Personal/f")
	if l := here.next("renamed Personal/dir/g Personal/f"); l.Device != "device 1" {
		t.Errorf("%+v", l)
	}
	check(t, os.Mkdir(filepath.Join(b.Mnt, "Work"), 0o755))
	there.next("created Work")
	if l := here.next("created Work"); !l.Dir {
		t.Errorf("%+v", l)
	}
	check(t, os.Remove(a.Personal("dir", "g")))
	here.next("removed Personal/dir/g")
	there.next("removed Personal/dir/g")
	part.next("removed Personal/dir/g")

	check(t, part.cmd.Process.Signal(syscall.SIGINT))
	if err := part.cmd.Wait(); err != nil {
		t.Errorf("interrupted it ends with %v", err)
	}
	began := time.Now()
	a.Unmount()
	if took := time.Since(began); took > 1500*time.Millisecond {
		t.Errorf("while somebody watches an unmount takes %v", took)
	}
	if err := here.cmd.Wait(); err != nil {
		t.Errorf("at the end of the daemon it ends with %v", err)
	}
	if r := a.Run("watch"); r.Code != 1 || !strings.Contains(r.Stderr, "anyfs mount") {
		t.Errorf("without a mount: %+v", r)
	}
	if r := b.Run("watch", b.Personal("none")); r.Code != 3 {
		t.Errorf("of nothing: %+v", r)
	}
}
