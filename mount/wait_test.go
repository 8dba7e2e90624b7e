package mount

import (
	"context"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
	"golang.org/x/sys/unix"
)

// absentContent is a backend whose content is elsewhere until it is let go.
type absentContent struct {
	*memfs.FS
	here chan struct{}

	mu      sync.Mutex
	waiting int
	ended   int
}

func (b *absentContent) Read(ctx context.Context, ino fs.Ino, p []byte, off int64) (int, error) {
	b.mu.Lock()
	b.waiting++
	b.mu.Unlock()
	select {
	case <-b.here:
		return b.FS.Read(ctx, ino, p, off)
	case <-ctx.Done():
		b.mu.Lock()
		b.ended++
		b.mu.Unlock()
		return 0, ctx.Err()
	}
}

func (b *absentContent) counts() (waiting, ended int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting, b.ended
}

func newAbsent(t testing.TB) *absentContent {
	b := &absentContent{FS: newMem(), here: make(chan struct{})}
	remote{t, b.FS}.create("f", "there")
	return b
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("not after a minute: %s", what)
}

// TestKillWhileWaiting holds that a process that waits for absent content can be killed, and that the wait then ends. (A
// signal that asks for a core file does not reach who waits for a page; that is the kernel's, for all filesystems.)
func TestKillWhileWaiting(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			b := newAbsent(t)
			m := mountOn(t, b)
			cmd := exec.Command("cat", m.dir+"/f")
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			must(t, cmd.Start())
			eventually(t, "it waits", func() bool { n, _ := b.counts(); return n > 0 })
			time.Sleep(20 * time.Millisecond)
			must(t, cmd.Process.Signal(sig))
			done := make(chan struct{})
			go func() { _ = cmd.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Error("it lives on")
				close(b.here)
				<-done
			}
			eventually(t, "the wait ends", func() bool { _, n := b.counts(); return n > 0 })
		})
	}
}

// TestSignalWhileWaiting holds that a signal that is handled does not disturb a read, that a kill after it is still
// seen, and that statfs and stat answer meanwhile.
func TestSignalWhileWaiting(t *testing.T) {
	for _, then := range []string{"content", "kill"} {
		t.Run(then, func(t *testing.T) {
			b := newAbsent(t)
			m := mountOn(t, b)
			cmd, out, _ := helper(t, "read", m.dir+"/f")
			awaitLine(t, out)
			eventually(t, "it waits", func() bool { n, _ := b.counts(); return n > 0 })
			for range 3 {
				must(t, cmd.Process.Signal(syscall.SIGUSR1))
				time.Sleep(60 * time.Millisecond)
			}
			if _, n := b.counts(); n > 0 {
				t.Fatal("a handled signal ended the wait")
			}
			var st unix.Statfs_t
			must(t, unix.Statfs(m.dir, &st))
			stat(t, m.dir+"/f")
			if then == "kill" {
				must(t, cmd.Process.Kill())
				eventually(t, "the wait ends", func() bool { _, n := b.counts(); return n > 0 })
				return
			}
			close(b.here)
			if got := awaitLine(t, out); got != "there\n" {
				t.Errorf("it read %q", got)
			}
		})
	}
}

// TestUnmountWhileWaiting holds that the end of the mount ends all waits.
func TestUnmountWhileWaiting(t *testing.T) {
	b := newAbsent(t)
	m := mountOn(t, b)
	cmd, out, _ := helper(t, "read", m.dir+"/f")
	awaitLine(t, out)
	eventually(t, "it waits", func() bool { n, _ := b.counts(); return n > 0 })
	start := time.Now()
	must(t, m.stop())
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	_ = cmd.Wait()
}

func TestDying(t *testing.T) {
	if dying(uint32(os.Getpid())) {
		t.Error("this process dies")
	}
	cmd := exec.Command("sleep", "60")
	must(t, cmd.Start())
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if !dying(uint32(cmd.Process.Pid)) {
		t.Error("a dead process lives")
	}
	const status = "Name:\tx\nSigPnd:\t%\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000200\nSigIgn:\t0000000000001000\n"
	if got := signals([]byte(status), "SigIgn:"); got != 0x1000 {
		t.Errorf("SigIgn is %x", got)
	}
	if got := signals([]byte(status), "SigCgt:"); got != 0 {
		t.Errorf("SigCgt is %x", got)
	}
}
