// Package sim simulates devices that share a space: real homes, graphs and sessions in one process, on disks in memory, that do what
// a seed says and nothing else.
//
// A World has 2 to 7 devices of one account. Its steps are operations on files, publications, arrivals, messages that are carried or
// are late, connections that come and end with what is on the way, batches that come twice, early or not at all, kills, power losses
// that take what was not synced, and clocks that are years off. Nothing runs beside a step, so a seed gives the same bytes each time.
// At the end all are connected: then they have to agree within MaxRounds rounds, and what was acknowledged has to be there.
package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// MaxRounds is within how many rounds devices that are all connected agree. In a round each takes in what came, publishes, and all
// that it has to say is carried.
const MaxRounds = 6

// Faults are how often what was made to go wrong did.
type Faults struct {
	Cuts       int // connections that ended with messages on the way
	Dropped    int // messages that were lost so
	Late       int // messages that were overtaken by something else
	Duplicated int // batches that came again
	Early      int // batches that came before their past
	Kills      int
	Losses     int // power losses
	Clocks     int // clocks that were set
	Absent     int // blocks that nobody who was reached had
}

// Landed is how many faults there were.
func (f *Faults) Landed() int {
	return f.Cuts + f.Dropped + f.Late + f.Duplicated + f.Early + f.Kills + f.Losses + f.Clocks + f.Absent
}

// Add adds another run's.
func (f *Faults) Add(o Faults) {
	f.Cuts, f.Dropped, f.Late = f.Cuts+o.Cuts, f.Dropped+o.Dropped, f.Late+o.Late
	f.Duplicated, f.Early, f.Kills = f.Duplicated+o.Duplicated, f.Early+o.Early, f.Kills+o.Kills
	f.Losses, f.Clocks, f.Absent = f.Losses+o.Losses, f.Clocks+o.Clocks, f.Absent+o.Absent
}

// Result is what a run came to.
type Result struct {
	Faults  Faults
	Devices int
	Done    int    // operations that had an effect
	Rounds  int    // until all agreed
	Values  int    // written
	Copies  int    // conflict copies at the end
	Digest  string // of all messages, heads and trees
}

// World is the devices of a run.
type World struct {
	seed   uint64
	rnd    *rand.Rand
	now    time.Time
	nodes  []*node
	links  []*link
	stray  []stray // batches on other ways than a connection
	values []value
	losses []loss
	groups map[string]string
	sum    hash.Hash
	result Result
	log    []string
}

// stray is a batch that comes by itself.
type stray struct {
	space dag.ID
	kind  int
	from  int
	may   []int // the values that it may bring
	frame []byte
}

// Steps are the numbers of n steps.
func Steps(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// Shrink gives fewer steps, with which a run fails still.
func Shrink(steps []int, fails func(steps []int) bool) []int {
	for n := len(steps) / 2; n > 0; {
		fewer := false
		for at := 0; at+n <= len(steps); {
			if less := slices.Delete(slices.Clone(steps), at, at+n); fails(less) {
				steps, fewer = less, true
			} else {
				at += n
			}
		}
		if !fewer || n > 1 {
			n /= 2
		}
	}
	return steps
}

// Run runs those of a seed's steps. Each has random numbers of its own, so that leaving out one leaves the others as they are. What it
// returns as an error tells the last steps.
func Run(seed uint64, steps []int) (r Result, err error) {
	w := &World{
		seed: seed, rnd: rand.New(rand.NewPCG(seed, 0)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		groups: map[string]string{}, sum: sha256.New(),
	}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("seed %d: %w\nthe last steps:\n%s", seed, f.err, bytes.Join(w.tail(), []byte("\n")))
		}
		for _, n := range w.nodes {
			n.close()
		}
	}()
	w.begin()
	for _, k := range steps {
		w.rnd = rand.New(rand.NewPCG(seed, uint64(k)+1))
		w.now = w.now.Add(time.Duration(w.rnd.IntN(3000)) * time.Millisecond)
		w.step()
	}
	w.rest()
	w.judge()
	w.result.Values = len(w.values)
	w.result.Devices = len(w.nodes)
	w.result.Digest = hex.EncodeToString(w.sum.Sum(nil))
	return w.result, nil
}

// failure is what ends a run.
type failure struct{ err error }

func failf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

func must(err error) {
	if err != nil {
		failf("%w", err)
	}
}

func must2[T any](v T, err error) T {
	must(err)
	return v
}

func (w *World) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *World) tail() (out [][]byte) {
	for _, l := range w.log[max(0, len(w.log)-400):] {
		out = append(out, []byte("  "+l))
	}
	return out
}

// begin makes the devices, which agree on a first tree.
func (w *World) begin() {
	count := 2
	for count < 7 && w.rnd.IntN(2) == 0 {
		count++
	}
	account := must2(acl.NewAccount(newRand(w.seed, -1)))
	for i := range count {
		n := &node{w: w, i: i, rnd: newRand(w.seed, i), disk: disk.NewSim(rand.New(rand.NewPCG(w.seed, uint64(i))))}
		n.keys = must2(acl.InitKeys(n.disk, account, fmt.Sprintf("device %d", i), nil, n.rnd))
		w.nodes = append(w.nodes, n)
		n.start()
		must2(n.home.CreatePersonal())
		must(n.home.Flush(ctx))
		n.attach()
		for _, o := range w.nodes[:i] {
			w.links = append(w.links, &link{a: o, b: n})
		}
	}
	first := w.nodes[0]
	first.mkdir("", "d1")
	first.mkdir("", "d2")
	for _, f := range []string{"f1", "d1/f3", "d2/f5"} {
		first.write(f, 0, false)
	}
	w.rest()
	w.result = Result{}
}

var ctx = context.Background()

// line is what value writes.
var line = regexp.MustCompile(`<\d+ by \d+>`)
