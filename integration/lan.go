package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// LAN is a local network on which each device has a network namespace of its own. Each has one Ethernet device, a TAP device, whose
// cable ends in a switch in this process: it does to the frames what a bad network does (Cable), on every kernel, and shows them to
// who wants to see all that is sent.
type LAN struct {
	Hosts []*Host

	stop    context.CancelFunc
	running sync.WaitGroup

	route func(from *Host) func(frame []byte) // what becomes of what a host sends; nil: as a switch does

	mu      sync.Mutex
	known   map[[6]byte]*Host // by MAC address, where it was seen last
	capture func(frame []byte)
	rnd     *rand.Rand
}

// Host is a namespace on a LAN.
type Host struct {
	Addr netip.Addr
	Sent atomic.Uint64 // bytes of frames
	Lost atomic.Uint64 // frames that its cable lost, in either direction

	lan   *LAN
	side  atomic.Int32
	ns    *os.File // the namespace
	tap   *os.File
	cable atomic.Pointer[Cable]
	up    queue // towards the switch
	down  queue // towards the host
}

// Cable is what the way between a host and the switch does to frames, in each direction alike.
type Cable struct {
	Down  bool
	Loss  float64       // the part of frames that is lost
	Delay time.Duration // of each frame
	Rate  int           // bytes per second; 0: no limit
}

// maxQueued is how many bytes wait for a cable that is slow; what comes beyond is lost, as in any switch.
const maxQueued = 128 << 10

// queue is one direction of a cable.
type queue struct {
	mu      sync.Mutex
	free    time.Time // when it can take the next frame
	waiting atomic.Int64
	frames  chan delayed
}

type delayed struct {
	frame []byte
	at    time.Time
}

// NewLAN makes a network with n hosts, at 10.77.0.1 and so on. When the test ends, nothing of it is left.
func NewLAN(t testing.TB, n int) *LAN {
	t.Helper()
	l := &LAN{}
	l.start(t, n, func(h *Host, i int) [][]string {
		h.Addr = netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})
		return [][]string{{"addr", "add", h.Addr.String() + "/24", "dev", "lan0"}, {"link", "set", "lan0", "up"}}
	})
	return l
}

// start makes n hosts, with what `ip` is told in each, and begins to carry what they send.
func (l *LAN) start(t testing.TB, n int, setUp func(h *Host, i int) [][]string) {
	t.Helper()
	Need(t, "ip", "nsenter")
	if os.Getuid() != 0 {
		without(t, "the rights to make network namespaces")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		// The kernel may have it, and only the file be missing.
		if os.MkdirAll("/dev/net", 0o755) != nil || unix.Mknod("/dev/net/tun", unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))) != nil {
			without(t, err.Error())
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop, l.known, l.rnd = stop, map[[6]byte]*Host{}, rand.New(rand.NewPCG(1, 7))
	t.Cleanup(l.close)
	for i := range n {
		h := &Host{lan: l}
		h.up.frames, h.down.frames = make(chan delayed, 4096), make(chan delayed, 4096)
		h.cable.Store(&Cable{})
		if err := h.open(); err != nil {
			without(t, "network namespaces with TAP devices: "+err.Error())
		}
		for _, args := range append([][]string{{"link", "set", "lo", "up"}}, setUp(h, i)...) {
			if out, err := h.Command("ip", args...).CombinedOutput(); err != nil {
				t.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
		l.Hosts = append(l.Hosts, h)
	}
	for _, h := range l.Hosts {
		l.running.Go(func() { h.read(ctx) })
		forward := l.forward
		if l.route != nil {
			forward = l.route
		}
		l.running.Go(func() { h.up.run(ctx, forward(h)) })
		l.running.Go(func() { h.down.run(ctx, func(f []byte) { _, _ = h.tap.Write(f) }) })
	}
}

func (l *LAN) close() {
	l.stop()
	for _, h := range l.Hosts {
		h.tap.Close()
	}
	l.running.Wait()
	for _, h := range l.Hosts {
		h.ns.Close()
	}
}

// open makes the namespace and its TAP device. The device is gone when the file is closed, and the namespace with the last process.
func (h *Host) open() error {
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		errs <- func() (err error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if h.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
				return err
			}
			fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
			if err != nil {
				return fmt.Errorf("open /dev/net/tun: %w", err)
			}
			req, err := unix.NewIfreq("lan0")
			if err == nil {
				req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
				err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
			}
			if err != nil {
				_ = unix.Close(fd)
				return fmt.Errorf("TUNSETIFF: %w", err)
			}
			h.tap = os.NewFile(uintptr(fd), "tap")
			return nil
		}()
	}()
	return <-errs
}

// Command prepares a command that runs in the namespace.
func (h *Host) Command(program string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{h.enter(), "--", program}, args...)...)
}

// enter is what nsenter is told to enter the namespace.
func (h *Host) enter() string { return fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), h.ns.Fd()) }

// Set has the host's cable be another.
func (h *Host) Set(c Cable) { h.cable.Store(&c) }

// SetAll has all cables be another.
func (l *LAN) SetAll(c Cable) {
	for _, h := range l.Hosts {
		h.Set(c)
	}
}

// Split parts the network: these hosts reach each other, and the others each other, and none of the ones any of the others. None: all are joined again.
func (l *LAN) Split(hosts ...*Host) {
	for _, h := range l.Hosts {
		h.side.Store(0)
	}
	for _, h := range hosts {
		h.side.Store(1)
	}
}

// Capture has fn be shown each frame that a host sends, until the test ends; nil ends it. Frames are shown one after the other.
func (l *LAN) Capture(fn func(frame []byte)) {
	l.mu.Lock()
	l.capture = fn
	l.mu.Unlock()
}

// read takes what the host sends.
func (h *Host) read(ctx context.Context) {
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := h.tap.Read(buf)
		if err != nil {
			return
		}
		h.Sent.Add(uint64(n))
		frame := append([]byte(nil), buf[:n]...)
		h.lan.mu.Lock()
		if h.lan.capture != nil {
			h.lan.capture(frame)
		}
		h.lan.mu.Unlock()
		h.put(&h.up, frame)
	}
}

// put gives a frame to one direction of the host's cable.
func (h *Host) put(q *queue, frame []byte) {
	c := h.cable.Load()
	h.lan.mu.Lock()
	lost := c.Down || c.Loss > 0 && h.lan.rnd.Float64() < c.Loss
	h.lan.mu.Unlock()
	if !lost && q.waiting.Load() > maxQueued && c.Rate > 0 {
		lost = true
	}
	if lost {
		h.Lost.Add(1)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if q.free.Before(now) {
		q.free = now
	}
	if c.Rate > 0 {
		q.free = q.free.Add(time.Duration(len(frame)) * time.Second / time.Duration(c.Rate))
	}
	q.waiting.Add(int64(len(frame)))
	select {
	case q.frames <- delayed{frame, q.free.Add(c.Delay)}:
	default:
		q.waiting.Add(-int64(len(frame)))
		h.Lost.Add(1)
	}
}

// run hands the frames of a queue on when it is time.
func (q *queue) run(ctx context.Context, to func([]byte)) {
	for {
		select {
		case d := <-q.frames:
			if wait := time.Until(d.at); wait > 0 {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
					return
				}
			}
			q.waiting.Add(-int64(len(d.frame)))
			to(d.frame)
		case <-ctx.Done():
			return
		}
	}
}

// forward is the switch: a frame from a host goes to who has its address, or to all.
func (l *LAN) forward(from *Host) func(frame []byte) {
	return func(frame []byte) {
		if len(frame) < 14 {
			return
		}
		dst, src := [6]byte(frame[:6]), [6]byte(frame[6:12])
		l.mu.Lock()
		l.known[src] = from
		to := l.known[dst]
		l.mu.Unlock()
		for _, h := range l.Hosts {
			if h == from || to != nil && to != h {
				continue
			}
			if h.side.Load() != from.side.Load() {
				h.Lost.Add(1)
				continue
			}
			h.put(&h.down, frame)
		}
	}
}

// FrameKind tells what a frame carries: "TCP", "UDP", "mDNS", "ARP" or another.
func FrameKind(frame []byte) string {
	if len(frame) < 34 {
		return "short"
	}
	var proto byte
	var rest []byte
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0806:
		return "ARP"
	case 0x0800:
		head := int(frame[14]&15) * 4
		if len(frame) < 14+head+4 {
			return "short"
		}
		proto, rest = frame[23], frame[14+head:]
	case 0x86DD:
		if len(frame) < 58 {
			return "short"
		}
		proto, rest = frame[20], frame[54:]
	default:
		return "other"
	}
	switch {
	case proto == unix.IPPROTO_TCP:
		return "TCP"
	case proto == unix.IPPROTO_UDP && binary.BigEndian.Uint16(rest[2:]) == 5353:
		return "mDNS"
	case proto == unix.IPPROTO_UDP:
		return "UDP"
	}
	return "other"
}

// SendUDP sends a datagram from the host to another's discard port, in the clear.
func (h *Host) SendUDP(t testing.TB, to *Host, text string) {
	t.Helper()
	script := fmt.Sprintf("printf %%s '%s' >/dev/udp/%s/9", text, to.Addr)
	if out, err := h.Command("bash", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("a datagram from %v: %v: %s", h.Addr, err, out)
	}
}
