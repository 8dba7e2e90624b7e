package journal

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

// TestFirstFileIsLost: nothing was synced, and a loss of power keeps a later file and takes the first. What is there lies behind a hole, and is
// no damage. Where records of the first were synced, and are gone, it is.
func TestFirstFileIsLost(t *testing.T) {
	for _, synced := range []bool{false, true} {
		held, lost := 0, 0
		for seed := range uint64(60) {
			sim := disk.NewSim(rand.New(rand.NewPCG(seed, 1)))
			o := testOptions(sim)
			o.FileBytes = 16 << 10
			j, _ := sequence(t, o, 0)
			last := Seq(0)
			for i := range 30 {
				seq, _, err := j.Append(fmt.Appendf(make([]byte, 2000), "%d", i))
				must(t, err)
				must(t, j.Write(seq))
				last = seq
			}
			if synced {
				must(t, j.Sync(t.Context(), last))
				seq, _, err := j.Append([]byte("says so"))
				must(t, err)
				must(t, j.Sync(t.Context(), seq))
			}
			names, err := sim.ReadDir(o.Dir)
			must(t, err)
			o.Disk = sim.CrashClone(rand.New(rand.NewPCG(seed, 2)))
			if synced {
				must(t, o.Disk.Remove(o.Dir+"/"+names[0]))
			}
			again, err := Open(o, 0, func(Seq, []byte, Loc) error { return nil })
			switch {
			case synced && err == nil:
				t.Fatalf("seed %d: the loss of what was synced is not noticed", seed)
			case synced:
				continue
			case err != nil:
				t.Fatalf("seed %d: %v", seed, err)
			}
			if again.Next() == 1 {
				lost++
			} else {
				held++
			}
			seq, _, err := again.Append([]byte("next"))
			must(t, err)
			must(t, again.Sync(t.Context(), seq))
			must(t, again.Close())
			must(t, j.Close())
		}
		if !synced && (held == 0 || lost == 0) {
			t.Errorf("%d journals kept records, and %d did not: the test proves nothing", held, lost)
		}
	}
}
