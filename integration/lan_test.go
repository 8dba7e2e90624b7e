package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lanWork is what a device does in a scenario: files of several sizes with n bytes in all that occur nowhere else, attributes, links.
func lanWork(dir string, seed uint64, n int) error {
	rnd := rand.New(rand.NewPCG(seed, 3))
	errs := []error{os.MkdirAll(filepath.Join(dir, "deep", "er"), 0o755)}
	for i := 0; n > 0; i++ {
		k := min(n, 1+rnd.IntN(2)*rnd.IntN(20_000)+rnd.IntN(2)*rnd.IntN(3<<20))
		b := make([]byte, k)
		for j := range b {
			b[j] = byte(rnd.Uint32())
		}
		file := filepath.Join(dir, fmt.Sprintf("file %d", i))
		errs = append(errs, os.WriteFile(file, b, 0o640), unix.Setxattr(file, "user.number", fmt.Appendf(nil, "%d", i), 0))
		n -= k
	}
	return errors.Join(append(errs,
		os.WriteFile(filepath.Join(dir, "tmp"), fmt.Appendf(nil, "saved %d", seed), 0o600),
		os.Rename(filepath.Join(dir, "tmp"), filepath.Join(dir, "deep", "saved")),
		os.Link(filepath.Join(dir, "file 0"), filepath.Join(dir, "deep", "er", "link")),
		os.Symlink("deep/saved", filepath.Join(dir, "symlink")),
		os.WriteFile(filepath.Join(dir, "goes"), nil, 0o600), os.Remove(filepath.Join(dir, "goes")))...)
}

// scenario is a network that has something, and what devices do on it.
type scenario struct {
	name   string
	cable  Cable                                               // of each device
	bytes  int                                                 // that each device writes
	during func(t *testing.T, l *LAN, d *Devices) (end func()) // while they work; end is called when all are equal
	breaks int                                                 // how often a connection may break; what is on the way then is sent again
}

// maxChunk is the largest piece of content: of each of the two streams on which blocks come, one may be lost with a connection.
const maxChunk = 4 << 20

var scenarios = []scenario{
	{name: "good", bytes: 6 << 20},
	{name: "loss", cable: Cable{Loss: 0.04}, bytes: 1 << 20},                    // twice on the way: 8%
	{name: "delay", cable: Cable{Delay: 50 * time.Millisecond}, bytes: 2 << 20}, // 100 ms each way,
	{name: "slow", cable: Cable{Rate: 125_000}, bytes: 250_000},                 // 1 Mbit/s,
	{name: "partition", cable: Cable{Rate: 4 << 20}, bytes: 8 << 20, breaks: 2, during: func(t *testing.T, l *LAN, d *Devices) func() {
		// The first is cut off in the middle of a transfer, and works on, as the others do, on the same file too.
		l.Hosts[0].Set(Cable{Down: true})
		for i, h := range d.All {
			check(t, os.WriteFile(h.Personal(fmt.Sprintf("apart %d", i)), fmt.Appendf(nil, "apart %d", i), 0o644))
		}
		check(t,
			os.WriteFile(d.All[0].Personal("both"), []byte("by the first"), 0o644),
			os.WriteFile(d.All[1].Personal("both"), []byte("by the second"), 0o644))
		away := 5 * time.Second
		if Long() {
			away = 2 * time.Minute
		}
		time.Sleep(away)
		l.SetAll(Cable{})
		return func() {}
	}},
	{name: "kill", cable: Cable{Rate: 6 << 20}, bytes: 8 << 20, breaks: 2, during: func(t *testing.T, l *LAN, d *Devices) func() {
		h := d.All[1]
		begin := h.received()
		d.Eventually("a transfer is under way", func() error {
			if got := h.received() - begin; got < 1<<20 {
				return fmt.Errorf("%d bytes have come", got)
			}
			return nil
		})
		h.Kill()
		h.Mount()
		return func() {}
	}},
	{name: "flapping", cable: Cable{Rate: 2 << 20}, bytes: 1 << 20, breaks: 2, during: func(_ *testing.T, l *LAN, _ *Devices) func() {
		up := *l.Hosts[1].cable.Load()
		down := up
		down.Down = true
		var wg sync.WaitGroup
		done := make(chan struct{})
		wg.Go(func() {
			for c, wait := down, 300*time.Millisecond; ; c.Down, wait = !c.Down, time.Second-wait {
				l.Hosts[1].Set(c)
				select {
				case <-done:
					l.Hosts[1].Set(up)
					return
				case <-time.After(wait):
				}
			}
		})
		return func() { close(done); wg.Wait() }
	}},
}

// TestLAN: three devices find each other, and whatever the network does, they end equal, and what one has got is not sent to it again.
func TestLAN(t *testing.T) {
	l := NewLAN(t, 3)
	all := NewLANDevices(t, l, nil)
	began := time.Now()
	all.Connected()
	t.Logf("the devices found each other within %v", time.Since(began))
	all.Same()
	for k, s := range scenarios {
		n := s.bytes
		if Long() {
			n *= 8
		}
		t.Run(s.name, func(t *testing.T) {
			d := all.In(t)
			defer all.In(all.t)
			defer l.SetAll(Cable{})
			d.Connected()
			killed := -1
			if s.name == "kill" {
				killed = 1 // it does not write: the mount goes away from under who works there
			}
			before := sentTo(d, killed)
			lost := l.lost()
			l.SetAll(s.cable)
			began := time.Now()
			errs := make([]error, len(d.All))
			want := make([]uint64, len(d.All)) // bytes that have to come to each
			var work sync.WaitGroup
			for i, h := range d.All {
				if i == killed {
					continue
				}
				for o := range d.All {
					if o != i {
						want[o] += uint64(n)
					}
				}
				work.Go(func() { errs[i] = lanWork(h.Personal(fmt.Sprintf("%s by %d", s.name, i)), uint64(k*10+i), n) })
			}
			end := func() {}
			if s.during != nil {
				end = s.during(t, l, d)
			}
			work.Wait()
			check(t, errs...)
			d.WaitEqual()
			end()
			took := time.Since(began)
			l.SetAll(Cable{})
			d.Connected()
			after := sentTo(d, killed)
			early := earlier(d, s.name)
			for i := range d.All {
				got := after[i] - before[i]
				// A file whose writer is kept from going on, here by a busy machine, is told of as it is then.
				limit := want[i] + want[i]/50 + 200<<10 + uint64(s.breaks*2*maxChunk)
				for o, n := range early {
					if o != i {
						limit += n
					}
				}
				t.Logf("device %d was sent %d bytes for %d of content, %.1f%% more", i, got, want[i], float64(got)/float64(want[i])*100-100)
				if got > limit {
					t.Errorf("device %d was sent %d bytes, %d are needed, and %v for earlier versions of what each wrote", i, got, want[i], early)
				}
				if got < want[i] {
					t.Errorf("device %d was sent %d bytes: the counters miss some of %d", i, got, want[i])
				}
			}
			lost = l.lost() - lost
			t.Logf("%v, %d frames lost", took.Round(time.Millisecond), lost)
			if (s.cable.Loss > 0 || s.name == "partition" || s.name == "flapping") && lost == 0 {
				t.Error("no frame was lost: nothing was tried")
			}
		})
	}
	for _, h := range all.All {
		h.Must("verify")
	}
}

// earlier gives, for each device, how many bytes there are in versions of the files it wrote that are not the last.
func earlier(d *Devices, name string) []uint64 {
	d.t.Helper()
	out := make([]uint64, len(d.All))
	for i := range d.All {
		files, err := filepath.Glob(d.All[0].Personal(fmt.Sprintf("%s by %d", name, i), "file *"))
		check(d.t, err)
		for _, f := range files {
			var versions []struct {
				Size    uint64 `json:"size"`
				Content bool   `json:"content"` // it differs from the one before
			}
			check(d.t, json.Unmarshal([]byte(d.All[0].Must("log", f, "--json")), &versions))
			last := true
			for _, v := range versions {
				if v.Content && !last {
					out[i] += v.Size
				}
				last = last && !v.Content
			}
			if last {
				d.t.Fatalf("%s has no content: %+v", f, versions)
			}
		}
	}
	return out
}

// received is how many bytes a device got of all others that are connected.
func (h *Home) received() (n uint64) {
	for _, p := range h.SyncStatus().Peers {
		n += p.Received
	}
	return n
}

// lost is how many frames all cables have lost.
func (l *LAN) lost() (n uint64) {
	for _, h := range l.Hosts {
		n += h.Lost.Load()
	}
	return n
}

// sentTo is how many bytes each device was sent by the others, as these count them. One that is killed forgets what it has sent: then
// each other is asked for what it received.
func sentTo(d *Devices, killed int) []uint64 {
	d.t.Helper()
	out := make([]uint64, len(d.All))
	number := map[string]int{}
	for i, h := range d.All {
		number[h.Status().Device.PeerID] = i
	}
	for i, h := range d.All {
		for _, p := range h.SyncStatus().Peers {
			if to := number[p.PeerID]; killed < 0 || to == killed {
				out[to] += p.Sent
			}
			if killed >= 0 && i != killed {
				out[i] += p.Received
			}
		}
	}
	return out
}
