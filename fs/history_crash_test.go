package fs

import (
	"bytes"
	"context"
	"errors"
	mrand "math/rand/v2"
	"slices"
	"testing"
	"time"
)

// on opens the home anew on a copy of its disk, as a power loss would leave it now.
func (th *testHome) on(seed uint64) *testHome {
	th.t.Helper()
	x := &testHome{t: th.t, sim: th.sim.CrashClone(mrand.New(mrand.NewPCG(seed, 1))), keys: th.keys, root: th.root, rand: th.rand}
	x.skew.Store(th.skew.Load())
	x.open()
	return x
}

// TestHistoryWorkSurvivesFailures lets the disk fail for good at the n-th operation of a restore or a prune, for every n
// until it succeeds, and then the power: what is found has all that was there, and either what was brought back or not.
func TestHistoryWorkSurvivesFailures(t *testing.T) {
	base := newTestHome(t)
	d := base.mkdir(base.root, "d")
	v1, v2, deep := random(1, 500<<10), random(2, 400<<10), random(3, 300<<10)
	ino := base.create(d, "f", v1)
	gone := base.mkdir(d, "gone")
	base.create(gone, "deep", deep)
	base.create(gone, "small", []byte("small"))
	base.flush()
	base.tick(time.Hour)
	base.save(ino, v2)
	base.flush()
	base.removeAll("Personal/d/gone")
	base.flush()
	base.tick(time.Hour)
	base.must(base.checkpoint(context.Background()))
	old := base.contents("Personal/d/f")[1].ID
	want := [][]byte{v2, v1}

	works := map[string]func(th *testHome) error{
		"restore": func(th *testHome) error {
			_, err := th.Restore(context.Background(), "Personal/d/f", old, "")
			return err
		},
		"undelete": func(th *testHome) error {
			res, err := th.Restore(context.Background(), "Personal/d/gone", "", "")
			if err == nil && len(res.Skipped) > 0 {
				err = errors.New(res.Skipped[0])
			}
			return err
		},
		"prune": func(th *testHome) error {
			_, err := th.Prune(context.Background(), PersonalName, KeepPolicy{}, false)
			return err
		},
		"prune and checkpoint": func(th *testHome) error {
			if _, err := th.Prune(context.Background(), PersonalName, KeepPolicy{Within: time.Minute}, false); err != nil {
				return err
			}
			a, err := th.Mknod(d, "after", 0100644, 0, Cred{1000, 1000})
			if err == nil {
				_, err = th.Write(context.Background(), a.Ino, v1, 0, WriteFlags{})
			}
			return errors.Join(err, th.Flush(context.Background()), th.checkpoint(context.Background()))
		},
	}
	stride := int64(1)
	if testing.Short() {
		stride = 5
	}
	for name, work := range works {
		t.Run(name, func(t *testing.T) {
			landed := int64(0)
			for n := int64(1); ; n += stride {
				th := base.on(uint64(n))
				th.t = t
				th.sim.FailFrom(n, errors.New("the disk is gone"))
				err := work(th)
				landed += th.sim.Landed()
				failed := th.sim.Landed() > 0
				th.sim.FailFrom(1<<60, nil)
				after := th.on(uint64(n) + 1000)
				th.closeSpaces()
				dir := after.at("Personal/d")
				got := after.read(after.look(dir, "f"))
				i := slices.IndexFunc(want, func(b []byte) bool { return bytes.Equal(b, got) })
				if i < 0 || i == 1 && name != "restore" {
					t.Fatalf("failure %d: f holds %d bytes", n, len(got))
				}
				if name == "undelete" {
					// What is not back yet can be brought back.
					if _, err := after.Lookup(dir, "gone"); err != nil {
						after.restore("Personal/d/gone", "", "")
					}
					for _, file := range []string{"deep", "small"} {
						if _, err := after.Lookup(after.at("Personal/d/gone"), file); err != nil {
							after.restore("Personal/d/gone/"+file, "", "")
						}
					}
					after.wantContent(after.at("Personal/d/gone"), "deep", deep)
					after.wantContent(after.at("Personal/d/gone"), "small", []byte("small"))
				}
				for _, v := range after.contents("Personal/d/f") {
					if _, err := after.OpenVersion(context.Background(), "Personal/d/f", v.ID); err != nil && !(v.Pruned && errors.Is(err, ErrPruned)) {
						t.Fatalf("failure %d: version %s: %v", n, v.ID, err)
					}
				}
				after.flush()
				after.verify()
				after.closeSpaces()
				if !failed {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				if n > 2000 {
					t.Fatal("it never succeeds")
				}
			}
			t.Logf("%d failures landed", landed)
			if landed == 0 {
				t.Fatal("no failure landed")
			}
		})
	}
}
