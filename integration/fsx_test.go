package integration

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// TestFsx does random reads, writes, truncations, holes, copies, maps, saves and renames on files of a mount, and compares all
// that can be seen of them with a model in memory. Meanwhile the daemon publishes; between rounds it is asked to settle,
// unmounted and mounted, or killed.
//
// ANYFS_OPS sets the number of operations, ANYFS_SEED repeats a run.
func TestFsx(t *testing.T) {
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	total := int(envNumber("ANYFS_OPS", 20_000))
	t.Logf("ANYFS_SEED=%d", seed)
	h := Mounted(t)
	const workers = 2
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	var xs []*fsx
	for i := range workers {
		x, err := newFsx(h.Personal(fmt.Sprintf("fsx%d", i)), rand.New(rand.NewPCG(seed, uint64(i))))
		check(t, err)
		xs = append(xs, x)
	}
	failed := false
	each := func(what string, do func(*fsx) error) {
		t.Helper()
		errs := make([]error, workers)
		var wg sync.WaitGroup
		for i, x := range xs {
			wg.Go(func() { errs[i] = do(x) })
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil {
				failed = true
				t.Errorf("%s, worker %d (ANYFS_SEED=%d): %v\nits last operations:\n%s", what, i, seed, err, &xs[i].log)
			}
		}
		if failed {
			for _, x := range xs {
				x.close()
			}
			t.FailNow()
		}
	}
	// A round is long enough for publications to come in between, and short enough that many are made.
	round := min(2000, max(200, total/workers/20))
	counts := map[string]int{}
	var slowest time.Duration
	for done := 0; done < total; done += round * workers {
		each("in a round", func(x *fsx) error { return x.run(round) })
		what := []string{"settle", "settle", "pause", "remount", "kill synced", "kill"}[rnd.IntN(6)]
		counts[what]++
		switch what {
		case "settle": // beside the operations that come
			x := xs[rnd.IntN(workers)]
			wait := make(chan Result, 1)
			go func() { r, _ := run(h.Command("status", "--wait", "--timeout", "60s")); wait <- r }()
			each("while the daemon settles", func(y *fsx) error {
				if x != y {
					return nil // what is written without a pause would keep it from settling
				}
				return y.run(round / 4)
			})
			if r := <-wait; r.Code != 0 {
				t.Fatalf("status --wait: exit %d: %s", r.Code, r.Stderr)
			}
		case "pause": // until a publication is under way
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
		case "remount":
			each("closing", func(x *fsx) error { x.close(); return nil })
			h.Remount()
			each("after unmount and mount", func(x *fsx) error { return x.verify(false) })
			each("after unmount and mount", (*fsx).open)
		default:
			pid := h.PID()
			if what == "kill" {
				each("before the kill", (*fsx).syncPieces)
				each("before the kill", func(x *fsx) error { return x.runWhole(rnd.IntN(30)) })
			} else {
				each("before the kill", (*fsx).syncAll)
			}
			h.KillPID(pid)
			each("closing", func(x *fsx) error { x.close(); return nil })
			start := time.Now()
			h.Mount()
			slowest = max(slowest, time.Since(start))
			each("after the kill", func(x *fsx) error { return x.verify(true) })
			each("after the kill", (*fsx).open)
		}
	}
	each("at the end", func(x *fsx) error { return x.verify(false) })
	each("closing", func(x *fsx) error { x.close(); return nil })
	h.Remount()
	each("at the end", func(x *fsx) error { return x.verify(false) })
	ops, kinds := 0, map[string]int{}
	for _, x := range xs {
		ops += x.ops
		for k, n := range x.kinds {
			kinds[k] += n
		}
	}
	t.Logf("%d operations, no difference: %v; between: %v; the slowest mount after a kill took %v", ops, kinds, counts, slowest.Round(time.Millisecond))
	for _, op := range fsxOps {
		if kinds[op.name] == 0 {
			t.Errorf("no %s was done", op.name)
		}
	}
	if r := h.Run("verify"); r.Code != 0 {
		t.Errorf("verify: exit %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
}
