package mount

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestSpare gives the machine idle processors and takes them away: the leader looks for requests only while some stand idle, and what can't be read
// changes nothing.
func TestSpare(t *testing.T) {
	var idle time.Duration
	var failed error
	p := &spare{since: func() (time.Duration, error) { return idle, failed }}
	p.some.Store(true)
	now := time.Unix(1000, 0)
	p.begin(now)
	for i, step := range []struct {
		passed time.Duration
		idle   float64 // processors
		failed error
		want   bool
	}{
		{passed: spareEach / 2, idle: 0, want: true}, // too soon for a verdict
		{passed: spareEach / 2, idle: 0.3, want: true},
		{passed: spareEach, idle: 0.07, want: true},
		{passed: spareEach, idle: 0.05, want: false}, // somebody waits for a processor
		{passed: spareEach, idle: 0.4, want: false},  // that is what it leaves free itself since it sleeps
		{passed: 3 * spareEach, idle: 0.4, want: false},
		{passed: spareEach, idle: 0.6, want: true},
		{passed: spareEach, idle: 0, failed: errors.New("no /proc"), want: true},
		{passed: 9 * spareEach, idle: 0, want: true},
	} {
		now, failed = now.Add(step.passed), step.failed
		idle += time.Duration(step.idle * float64(step.passed))
		if p.look(now); p.some.Load() != step.want {
			t.Fatalf("step %d: %v, want %v", i, p.some.Load(), step.want)
		}
	}
	// After a pause only what comes then counts.
	failed = nil
	idle += time.Hour
	now = now.Add(time.Hour)
	p.begin(now)
	now = now.Add(spareEach)
	if p.look(now); p.some.Load() {
		t.Error("it is judged by the pause")
	}
}

func TestParseIdle(t *testing.T) {
	const line = "cpu  2880152 1785473 1455533 3040833 51672 0 50454 3175 0 0\ncpu0 1462871 88"
	if d, err := parseIdle([]byte(line)); err != nil || d != (3040833+51672)*10*time.Millisecond {
		t.Error(d, err)
	}
	for _, bad := range []string{"", "cpu", "cpu 1 2 3 4 5", "cpu0 1 2 3 4 5 6 7", "cpu 1 2 3 x 5 6 7"} {
		if d, err := parseIdle([]byte(bad)); err == nil {
			t.Errorf("%q gives %v", bad, d)
		}
	}
	if d, err := idleSince(); err != nil || d <= 0 {
		t.Error(d, err)
	}
}

// TestSleepsAtOnce holds that the leader asks for a request once before it sleeps, and once when there is one, where no processor stands idle.
func TestSleepsAtOnce(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pair[1])
	dev, err := openDevice(pair[0])
	must(t, err)
	defer dev.close()
	s := newServer(dev, fuse.NewDefaultRawFileSystem(), fuse.MountOptions{}, slog.New(slog.DiscardHandler), func() {})
	s.spins = true
	s.spare.some.Store(false)
	j := s.newJob()
	defer j.free()
	asked, try := 0, j.try
	j.try = func(fd uintptr) bool {
		asked++
		return try(fd)
	}
	sent := make(chan error, 1)
	go func() {
		time.Sleep(20 * time.Millisecond)
		_, err := unix.Write(pair[1], make([]byte, 64))
		sent <- err
	}()
	if !j.await() {
		t.Error("there is no request")
	}
	must(t, <-sent)
	if asked > 2 {
		t.Errorf("it asked %d times", asked)
	}
}
