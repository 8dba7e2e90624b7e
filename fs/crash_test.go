package fs_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
)

var crashRuns = flag.Int("crashes", 30, "runs of the crash test")

// TestCrashLeavesAPrefix does random operations and, beside them, opens what a kill or a power loss would leave. That must be
// the tree after some prefix of the operations: after a kill one that holds every namespace operation that returned, after a
// power loss one that holds everything before the last sync.
func TestCrashLeavesAPrefix(t *testing.T) {
	kills, losses, partial := 0, 0, 0
	runs := *crashRuns
	if testing.Short() {
		runs = min(runs, 4)
	}
	for run := range runs {
		seed := *modelSeed + uint64(run)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			th := fs.NewTestHome(t)
			m := memfs.New(memfs.Options{UID: 1000, GID: 1000})
			a, b := walker{th.Home, th.Root()}, walker{m, fs.RootIno}
			if err := th.SyncAll(ctx); err != nil {
				t.Fatal(err)
			}
			// states[i] is the tree after the i-th operation since the last sync; named is the last of them that was durable
			// against a kill when it returned.
			states, named := []string{b.dump(t)}, 0
			var script []string
			compare := func(how string, c fs.TestHome, atLeast int) {
				t.Helper()
				got := walker{c.Home, c.Root()}.dump(t)
				for i := len(states) - 1; i >= atLeast; i-- {
					if states[i] == got {
						if i < len(states)-1 {
							partial++
						}
						c.Abandon()
						return
					}
				}
				from := max(0, len(script)-40)
				t.Fatalf("%s left a tree that is none of the last %d:\n%s\nafter:\n%s", how, len(states)-atLeast,
					diffLines(got, states[len(states)-1]), strings.Join(script[from:], "\n"))
			}
			for range 120 {
				switch r.IntN(25) {
				case 0:
					script = append(script, "kill")
					kills++
					compare("a kill", th.Killed(), named)
				case 1, 2:
					script = append(script, "power loss")
					losses++
					compare("a power loss", th.PowerLoss(rand.New(rand.NewPCG(r.Uint64(), 1))), 0)
				case 3, 4:
					script = append(script, "sync")
					if err := th.SyncAll(ctx); err != nil {
						t.Fatal(err)
					}
					states, named = []string{b.dump(t)}, 0
				case 5:
					script = append(script, "flush")
					if err := th.Flush(ctx); err != nil {
						t.Fatal(err)
					}
					states, named = []string{b.dump(t)}, 0
				case 6:
					script = append(script, "checkpoint")
					if err := th.Checkpoint(); err != nil {
						t.Fatal(err)
					}
					states, named = []string{b.dump(t)}, 0
				}
				what, x, _ := step(r, a, b, 40<<10)
				script = append(script, fmt.Sprintf("%s: %s", what, errnoOf(x)))
				if x != nil {
					continue
				}
				states = append(states, b.dump(t))
				if !strings.HasPrefix(what, "write") && !strings.HasPrefix(what, "copy") {
					named = len(states) - 1
				}
			}
		})
	}
	t.Logf("%d kills, %d power losses; %d left less than everything", kills, losses, partial)
	if !t.Failed() && (kills == 0 || losses == 0 || partial == 0) {
		t.Fatal("no crash took anything: the test proves nothing")
	}
}
