package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/integration/inside"
)

// soakLog samples what the processes of TestSoak take.
type soakLog struct {
	t    *testing.T
	dir  string // where they answer
	long bool

	mu     sync.Mutex
	now    map[string]*soakRun // by name, what runs and is not stopped
	paused map[string]bool
	all    []*soakRun

	quit chan struct{}
	wg   sync.WaitGroup
}

// soakRun is a process from its start to its end.
type soakRun struct {
	name    string
	pid     int
	began   time.Time
	samples []soakSample
	seq     int
}

// soakSample is what a process takes at a time. Memory is in MiB.
type soakSample struct {
	at    time.Time
	rss   float64
	own   float64 // without what it has of files, as of its databases, which the system takes back when it needs to
	live  float64 // what the last collection of garbage found in use
	files float64
	gos   float64
}

func newSoakLog(t *testing.T, dir string, long bool) *soakLog {
	return &soakLog{t: t, dir: dir, long: long, now: map[string]*soakRun{}, paused: map[string]bool{}, quit: make(chan struct{})}
}

// runs tells that a process has started.
func (l *soakLog) runs(name string, pid int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &soakRun{name: name, pid: pid, began: time.Now()}
	l.now[name] = r
	l.all = append(l.all, r)
}

// ends tells that a process is about to end.
func (l *soakLog) ends(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.now, name)
}

// pause tells that a process is stopped, or goes on.
func (l *soakLog) pause(name string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused[name] = yes
}

// start samples each minute, or each second of a short run.
func (l *soakLog) start() {
	every := time.Minute
	if !l.long {
		every = time.Second
	}
	l.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				l.sample()
			case <-l.quit:
				return
			}
		}
	})
	l.t.Cleanup(l.stop)
}

func (l *soakLog) stop() {
	l.mu.Lock()
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// sample asks each process. One that is killed meanwhile has none.
func (l *soakLog) sample() {
	l.mu.Lock()
	defer l.mu.Unlock() // none is killed or stopped meanwhile
	var asked []*soakRun
	for name, r := range l.now {
		if !l.paused[name] && syscall.Kill(r.pid, syscall.SIGUSR1) == nil {
			asked = append(asked, r)
		}
	}
	for _, r := range asked {
		if s, ok := l.answer(r); ok {
			r.samples = append(r.samples, s)
		}
	}
}

// answer reads what a process that was asked has written.
func (l *soakLog) answer(r *soakRun) (s soakSample, ok bool) {
	var p inside.Sample
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(l.dir, fmt.Sprint(r.pid)))
		if err == nil && json.Unmarshal(b, &p) == nil && p.Seq > r.seq {
			break
		}
		if time.Now().After(end) {
			return s, false
		}
	}
	r.seq = p.Seq
	s = soakSample{at: time.Now(), live: float64(p.Live) / (1 << 20), gos: float64(p.Goroutines)}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.pid))
	if err != nil {
		return s, false
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 {
			kb, _ := strconv.ParseFloat(f[1], 64)
			switch f[0] {
			case "VmRSS:":
				s.rss = kb / 1024
			case "RssAnon:":
				s.own = kb / 1024
			}
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.pid))
	s.files = float64(len(fds))
	return s, err == nil && s.rss > 0
}

// soakValues are the values of one kind of some samples.
func soakValues(samples []soakSample, of func(soakSample) float64) (all []float64) {
	for _, s := range samples {
		all = append(all, of(s))
	}
	return all
}

func median(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}

// slope is by how much a value grows in an hour, by least squares.
func slope(samples []soakSample, of func(soakSample) float64) float64 {
	var n, x, y, xx, xy float64
	for _, s := range samples {
		h := s.at.Sub(samples[0].at).Hours()
		v := of(s)
		n, x, y, xx, xy = n+1, x+h, y+v, xx+h*h, xy+h*v
	}
	if d := n*xx - x*x; d > 0 {
		return (n*xy - x*y) / d
	}
	return 0
}

var soakKinds = []struct {
	name string
	of   func(soakSample) float64
	part float64 // by which the later median may be above the earlier one
	more float64 // and this
}{
	{"live heap, MiB", func(s soakSample) float64 { return s.live }, 0.10, 8},
	{"own memory, MiB", func(s soakSample) float64 { return s.own }, 0.10, 8},
	{"RSS, MiB", func(s soakSample) float64 { return s.rss }, 0.10, 16},
	{"descriptors", func(s soakSample) float64 { return s.files }, 0, 16},
	{"goroutines", func(s soakSample) float64 { return s.gos }, 0, 32},
}

// table gives what each process took: at first, in the median, and in the end.
func (l *soakLog) table() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out strings.Builder
	fmt.Fprintf(&out, "%-12s %4s %6s", "process", "run", "min")
	for _, k := range soakKinds {
		fmt.Fprintf(&out, " | %-31s", k.name+": first, median, last")
	}
	out.WriteString("\n")
	count := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(l.names())) {
		for _, r := range l.all {
			if r.name != name {
				continue
			}
			count[name]++
			if len(r.samples) == 0 || l.long && len(r.samples) < 5 && l.now[name] != r {
				continue
			}
			first, last := r.samples[0], r.samples[len(r.samples)-1]
			fmt.Fprintf(&out, "%-12s %4d %6.1f", name, count[name], last.at.Sub(r.began).Minutes())
			for _, k := range soakKinds {
				fmt.Fprintf(&out, " | %9.1f %10.1f %10.1f", k.of(first), median(soakValues(r.samples, k.of)), k.of(last))
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

func (l *soakLog) names() map[string]bool {
	names := map[string]bool{}
	for _, r := range l.all {
		names[r.name] = true
	}
	return names
}

// soakWarm is for how long a process grows as it comes to what it has in memory.
const soakWarm = 5 * time.Minute

// grown tells what grew. Of each process that ran for 20 minutes after it was warm, the samples of the last quarter of that time are compared with
// those of the first; and of each that was restarted, those of its last run with those of its first, at like age. What may be more is in soakKinds.
// The slopes in the second half are logged.
func (l *soakLog) grown(half time.Time) (what []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	compared := 0
	for _, name := range slices.Sorted(maps.Keys(l.names())) {
		var first, last []soakSample // at an age of 5 to 10 minutes
		for _, r := range l.all {
			if r.name != name {
				continue
			}
			warm := slices.IndexFunc(r.samples, func(s soakSample) bool { return s.at.Sub(r.began) >= soakWarm })
			if warm < 0 {
				continue
			}
			aged := r.samples[warm:]
			young := slices.DeleteFunc(slices.Clone(aged), func(s soakSample) bool { return s.at.Sub(r.began) > 2*soakWarm })
			if len(young) >= 3 {
				if first == nil {
					first = young
				} else {
					last = young
				}
			}
			if n := len(aged); n >= 20 {
				compared++
				what = append(what, soakGrown(fmt.Sprintf("%s, %.0f minutes, the last quarter beside the first", name, aged[n-1].at.Sub(r.began).Minutes()), aged[:n/4], aged[n-n/4:])...)
				late := slices.DeleteFunc(slices.Clone(aged), func(s soakSample) bool { return s.at.Before(half) })
				if len(late) >= 15 {
					text := ""
					for _, k := range soakKinds {
						text += fmt.Sprintf(", %s %+.2f", k.name, slope(late, k.of))
					}
					l.t.Logf("%s grows in an hour, over its last %d samples, by%s", name, len(late), text[1:])
				}
			}
		}
		if last != nil {
			compared++
			what = append(what, soakGrown(name+" after its last restart beside its first, at like age", first, last)...)
		}
	}
	if compared == 0 {
		what = append(what, "no process ran for long enough to tell whether it grows")
	}
	return what
}

// soakGrown compares two times of a process.
func soakGrown(name string, before, after []soakSample) (what []string) {
	for _, k := range soakKinds {
		x, y := median(soakValues(before, k.of)), median(soakValues(after, k.of))
		if y > x*(1+k.part)+k.more {
			what = append(what, fmt.Sprintf("%s: %s from %.1f to %.1f in the median, which is beyond %.1f", name, k.name, x, y, x*(1+k.part)+k.more))
		}
	}
	return what
}
