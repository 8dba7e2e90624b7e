package mount

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// wait is the context of one request. It ends when the caller was killed, when the mount ends, or with finish.
//
// A signal that is handled does not end it: reading a file is not interrupted on a local disk either, programs do
// not expect it, and one that waits for a page of a map would die of SIGBUS. The kernel tells of the first signal
// only, and of none where it reads ahead; so who waits is watched. That begins when somebody asks for Done, who then
// has to wait; a request that is answered from local state pays for the allocation alone.
type wait struct {
	cancel <-chan struct{} // closed by the first signal; another request's after finish
	stop   <-chan struct{}
	pid    uint32 // of the calling thread

	mu       sync.Mutex
	done     chan struct{} // nil until asked for
	finished chan struct{}
	err      error
}

var _ context.Context = (*wait)(nil)

// watchEvery is how often who waits is looked at.
const watchEvery = 100 * time.Millisecond

func (f *filesystem) newWait(cancel <-chan struct{}, in *fuse.InHeader) *wait {
	return &wait{cancel: cancel, stop: f.stop, pid: in.Pid}
}

// finish ends the context with its request.
func (w *wait) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.finished != nil {
		close(w.finished)
	}
	w.endLocked()
}

func (w *wait) endLocked() {
	if w.err != nil {
		return
	}
	w.err = context.Canceled
	if w.done != nil {
		close(w.done)
	}
}

// Done implements context.Context.
func (w *wait) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done == nil {
		w.done = make(chan struct{})
		if w.err != nil {
			close(w.done)
		} else {
			w.finished = make(chan struct{})
			go w.watch()
		}
	}
	return w.done
}

// Err implements context.Context.
func (w *wait) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Deadline implements context.Context: there is none.
func (w *wait) Deadline() (time.Time, bool) { return time.Time{}, false }

// Value implements context.Context: there are none.
func (w *wait) Value(any) any { return nil }

// watch ends the context when the caller dies. It returns when the request has ended.
func (w *wait) watch() {
	timer := time.NewTicker(watchEvery)
	defer timer.Stop()
	cancel := w.cancel
	for ended := false; !ended; {
		select {
		case <-w.finished:
			return
		case <-w.stop:
			ended = true
		case <-cancel:
			cancel = nil
			ended = dying(w.pid)
		case <-timer.C:
			ended = dying(w.pid)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endLocked()
}

// Signals that by default do not kill.
const harmless = 1<<(unix.SIGCHLD-1) | 1<<(unix.SIGCONT-1) | 1<<(unix.SIGURG-1) | 1<<(unix.SIGWINCH-1) |
	1<<(unix.SIGSTOP-1) | 1<<(unix.SIGTSTP-1) | 1<<(unix.SIGTTIN-1) | 1<<(unix.SIGTTOU-1)

// dying reports whether a signal is pending for a thread that will kill it, or the thread is gone or not to be seen.
func dying(pid uint32) bool {
	if pid == 0 {
		return true
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if err != nil {
		return true
	}
	pending := signals(status, "SigPnd:") | signals(status, "ShdPnd:")
	kept := signals(status, "SigBlk:") | signals(status, "SigIgn:") | signals(status, "SigCgt:") | harmless
	const kill = 1 << (unix.SIGKILL - 1)
	return pending&(kill|^kept) != 0
}

// signals returns one of the sets of signals in a /proc/PID/status.
func signals(status []byte, field string) uint64 {
	_, rest, ok := bytes.Cut(status, []byte("\n"+field))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	set, _ := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	return set
}
