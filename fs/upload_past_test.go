package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anyfs/anyfs/dag/block"
)

// nodeOf is what the nodes of a network hold of the space Personal.
type nodeOf map[block.ID][]byte

// Fetch gives a block as who asks the node gets it.
func (n nodeOf) Fetch(_ context.Context, id block.ID) ([]byte, error) {
	if b := n[id]; b != nil {
		return b, nil
	}
	return nil, block.ErrAbsent
}

// take takes what is to be given to a network: what is here of it.
func (n nodeOf) take(th *testHome, network string, list func(context.Context, string, uint64, int) ([]Upload, uint64, error)) (contents int) {
	th.t.Helper()
	_, r := th.personal()
	for after := uint64(0); ; {
		some, next, err := list(context.Background(), network, after, 2)
		th.must(err)
		for _, d := range some {
			whole := true
			for _, id := range d.Blocks {
				if b, err := r.Blocks.GetLocal(id); err == nil {
					n[id] = b
				} else if n[id] == nil {
					whole = false
				}
			}
			if whole {
				r.Uploaded(network, []Upload{d})
				contents++
			}
		}
		if after = next; after == 0 {
			return contents
		}
	}
}

// give gives a network what it lacks: current content, then what history shows.
func (th *testHome) give(n nodeOf, network string) (current, past int) {
	th.t.Helper()
	th.lookAtPast()
	_, r := th.personal()
	current = n.take(th, network, r.Uploads)
	return current, n.take(th, network, r.PastUploads)
}

func (th *testHome) lookAtPast() {
	th.t.Helper()
	_, r := th.personal()
	for more := true; more; {
		more = must2(r.LookAtPast(context.Background()))
	}
}

func (th *testHome) uploadTo(networks ...string) {
	th.t.Helper()
	_, r := th.personal()
	th.must(r.UploadTo(networks))
}

// isOn puts the space Personal on networks, and has it written down that all that was there then is listed.
func (th *testHome) isOn(networks ...string) {
	th.t.Helper()
	th.uploadTo(networks...)
	th.lookAtPast()
	th.must(th.checkpoint(context.Background()))
}

// toUpload is what a network is not known to hold.
func (th *testHome) toUpload(network string) (current, past int) {
	th.t.Helper()
	th.lookAtPast()
	_, r := th.personal()
	current, known := r.ToUpload(network)
	past, looked := r.PastToUpload(network)
	if !known || !looked {
		th.t.Fatalf("what %s lacks is not known: %v, %v", network, known, looked)
	}
	return current, past
}

// oldWays are ways in which a content of a file gets to be one that only history shows.
var oldWays = map[string]func(th *testHome, name string){
	"replaced":         func(th *testHome, name string) { th.save(th.look(th.root, name), random(90, 200<<10)) },
	"replaced by less": func(th *testHome, name string) { th.save(th.look(th.root, name), []byte("in the change")) },
	"emptied":          func(th *testHome, name string) { th.trunc(th.look(th.root, name), 0) },
	"saved by rename": func(th *testHome, name string) {
		th.create(th.root, "temporary", random(91, 100<<10))
		th.must(th.Rename(th.root, "temporary", th.root, name, 0))
	},
	"saved by rename of what was published": func(th *testHome, name string) {
		th.create(th.root, "published", random(92, 100<<10))
		th.flush()
		th.must(th.Rename(th.root, "published", th.root, name, 0))
	},
	"deleted": func(th *testHome, name string) { th.must(th.Unlink(th.root, name)) },
	"patched, then replaced": func(th *testHome, name string) {
		th.write(th.look(th.root, name), []byte("a patch"), 1000)
		th.flush()
		th.save(th.look(th.root, name), random(93, 100<<10))
	},
	"in parts, then replaced": func(th *testHome, name string) {
		ino, data := th.look(th.root, name), random(96, 3<<20)
		th.save(ino, data)
		th.flush()
		th.randomWrites(ino, data, rand.New(rand.NewPCG(7, 8)), 2, 60)
		if b := (&contentModel{th: th}).inode(name).Base; b.LayoutBlock.IsZero() {
			th.t.Fatal("the file is not in parts")
		}
		th.save(ino, random(97, 100<<10))
	},
	"restored over": func(th *testHome, name string) {
		th.save(th.look(th.root, name), random(94, 100<<10))
		th.flush()
		vs := th.contents("Personal/" + name)
		th.restore("Personal/"+name, vs[len(vs)-1].ID, "")
		th.flush()
		th.save(th.look(th.root, name), random(95, 100<<10))
	},
}

// TestPastIsGiven: whatever way a content goes, networks that lacked it get it, also where the device was stopped or killed meanwhile, and those that were
// named later. A device that has nothing but what one network holds reads every version.
func TestPastIsGiven(t *testing.T) {
	nothing := func(*testHome) {}
	for mode, m := range map[string]struct{ named, gone func(*testHome) }{
		"at once":       {func(th *testHome) { th.isOn("n0", "n1") }, nothing},
		"stopped":       {func(th *testHome) { th.isOn("n0", "n1") }, (*testHome).reopen},
		"killed":        {func(th *testHome) { th.isOn("n0", "n1") }, (*testHome).kill},
		"named later":   {nothing, nothing},
		"named, killed": {nothing, func(th *testHome) { th.uploadTo("n0", "n1"); th.must(th.checkpoint(context.Background())); th.kill() }},
		"one by one":    {func(th *testHome) { th.isOn("n0") }, (*testHome).lookAtPast},
	} {
		t.Run(mode, func(t *testing.T) {
			d := newDevices(t, 2)
			a, b := d.all[0], d.all[1]
			m.named(a)
			want := map[string][]byte{}
			seed := uint64(0)
			for way := range oldWays {
				seed++
				want[way] = random(seed, 300<<10)
				a.create(a.root, way, want[way])
			}
			a.flush()
			for way, do := range oldWays {
				do(a, way)
				a.flush()
			}
			m.gone(a)
			a.uploadTo("n0", "n1")
			for _, network := range []string{"n0", "n1"} {
				current, past := a.toUpload(network)
				if past == 0 || past+current < len(oldWays) {
					t.Errorf("%s lacks %d contents and %d old ones", network, current, past)
				}
				n := nodeOf{}
				a.give(n, network)
				if current, past := a.toUpload(network); current+past > 0 {
					t.Errorf("%s lacks %d contents and %d old ones in the end", network, current, past)
				}
				d.settle()
				s, _ := b.personal()
				s.blocks.SetFetcher(n)
				for way, w := range want {
					vs := b.contents("Personal/" + way)
					if got := b.versionBytes("Personal/"+way, vs[len(vs)-1].ID); !bytes.Equal(got, w) {
						t.Errorf("%s, from %s: the first version reads otherwise", way, network)
					}
					for i, v := range vs {
						if !bytes.Equal(b.versionBytes("Personal/"+way, v.ID), a.versionBytes("Personal/"+way, v.ID)) {
							t.Errorf("%s, from %s: version %d reads otherwise", way, network, i)
						}
					}
				}
			}
			a.reopen()
			a.uploadTo("n0", "n1")
			for _, network := range []string{"n0", "n1"} {
				if current, past := a.toUpload(network); current+past > 0 {
					t.Errorf("%s lacks %d contents and %d old ones after a restart", network, current, past)
				}
			}
			a.verify()
		})
	}
}

// TestPastOfOthers: what another device replaces or deletes before a network has it is given by who holds it, and who does not leaves it be.
func TestPastOfOthers(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed: ", killed), func(t *testing.T) {
			d := newDevices(t, 3)
			d.connect()
			a, b, c := d.all[0], d.all[1], d.all[2]
			b.isOn("n")
			c.isOn("n")
			one, two := random(1, 300<<10), random(2, 300<<10)
			a.create(a.root, "replaced", one)
			a.create(a.root, "deleted", two)
			d.settle()
			b.mirror()
			a.save(a.look(a.root, "replaced"), random(3, 100<<10))
			a.must(a.Unlink(a.root, "deleted"))
			a.flush()
			d.settle()
			if killed {
				b.kill()
				b.uploadTo("n")
				s, _ := b.personal()
				s.blocks.SetFetcher(nodeOf{})
			}
			n := nodeOf{}
			if _, past := b.toUpload("n"); past != 2 {
				t.Errorf("%d old contents of another device are to be given", past)
			}
			if _, past := b.give(n, "n"); past != 2 {
				t.Errorf("%d old contents of another device were given", past)
			}
			// It never had the old ones.
			c.give(n, "n")
			if _, past := c.toUpload("n"); past != 0 {
				t.Errorf("%d old contents are to be given by who lacks them", past)
			}
			s, _ := c.personal()
			s.blocks.SetFetcher(n)
			for name, want := range map[string][]byte{"replaced": one, "deleted": two} {
				vs := c.contents("Personal/" + name)
				if got := c.versionBytes("Personal/"+name, vs[len(vs)-1].ID); !bytes.Equal(got, want) {
					t.Errorf("%s reads otherwise", name)
				}
			}
		})
	}
}

// TestPrunedIsNotGiven: what was pruned is not given, whether it was listed before, or is met when a network is named.
func TestPrunedIsNotGiven(t *testing.T) {
	th := newTestHome(t)
	th.isOn("n0")
	ino := th.create(th.root, "f", random(1, 300<<10))
	th.flush()
	old := th.leaves("Personal/f")
	th.save(ino, random(2, 300<<10))
	th.flush()
	if _, past := th.toUpload("n0"); past != 1 {
		t.Fatalf("%d old contents to give", past)
	}
	th.prune(KeepPolicy{}, false)
	th.uploadTo("n0", "n1")
	th.lookAtPast()
	if _, past := th.toUpload("n1"); past != 0 {
		t.Errorf("%d pruned contents are to be given to a network that is new", past)
	}
	n := nodeOf{}
	th.give(n, "n0")
	if _, past := th.toUpload("n0"); past != 0 || n[old[0]] != nil {
		t.Errorf("%d pruned contents are still to be given", past)
	}
	// What is saved again is given again.
	th.save(ino, random(1, 300<<10))
	th.flush()
	th.save(ino, random(3, 300<<10))
	th.flush()
	th.give(n, "n0")
	if n[old[0]] == nil {
		t.Error("what was saved again after a prune is not given")
	}
	th.verify()
}

// TestPastNetworksChange: what one network lacked is not told of another that has its place, and none is asked for twice.
func TestPastNetworksChange(t *testing.T) {
	th := newTestHome(t)
	th.isOn("n0", "n1")
	ino := th.create(th.root, "f", random(0, 100<<10))
	th.flush()
	const n = 5
	for i := range n {
		th.save(ino, random(uint64(i+1), 100<<10))
		th.flush()
	}
	th.lookAtPast()
	if _, past := th.give(nodeOf{}, "n0"); past != n {
		t.Errorf("%d old contents given", past)
	}
	check := func(network string, want int) {
		t.Helper()
		if _, past := th.toUpload(network); past != want {
			t.Errorf("%s lacks %d old contents and not %d", network, past, want)
		}
	}
	check("n0", 0)
	check("n1", n)
	th.uploadTo("n0")
	check("n0", 0)
	th.uploadTo("n0", "n2") // in the place of n1
	th.lookAtPast()
	check("n2", n)
	th.must(th.checkpoint(context.Background()))
	th.kill()
	th.uploadTo("n0", "n2")
	th.lookAtPast()
	check("n2", n)
	if _, past := th.give(nodeOf{}, "n2"); past != n {
		t.Errorf("%d old contents given", past)
	}
	check("n2", 0)
	check("n0", 0)
}

// TestPastIsCarried: with a second network a device lists history that is not here too; the blocks of what others have come, and what nobody has is known.
func TestPastIsCarried(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.isOn("n0")
	b.isOn("n0")
	old := random(1, 3<<20)
	ino := a.create(a.root, "f", old)
	a.flush()
	a.save(ino, random(2, 100<<10))
	a.flush()
	n := nodeOf{}
	a.give(n, "n0")
	d.settle()
	s, r := b.personal()
	s.blocks.SetFetcher(nodeOf{})
	b.uploadTo("n0", "n1")
	if _, past := b.toUpload("n1"); past != 1 {
		t.Fatalf("n1 lacks %d old contents", past)
	}
	if _, past := b.toUpload("n0"); past != 0 {
		t.Errorf("n0 lacks %d old contents", past)
	}
	list, next, err := r.PastUploads(context.Background(), "n1", 0, 10)
	if err != nil || next != 0 || len(list) != 1 || !list[0].Absent || len(list[0].Blocks) != 1 {
		t.Fatalf("%+v, %d, %v", list, next, err)
	}
	if err := r.PastNodes(context.Background(), &list[0]); !errors.Is(err, block.ErrAbsent) {
		t.Errorf("of what nobody gives: %v", err)
	}
	s.blocks.SetFetcher(n)
	s.lack.forget()
	b.must(r.PastNodes(context.Background(), &list[0]))
	b.must(r.Carry(context.Background(), list[0].Blocks))
	n1 := nodeOf{}
	if _, past := b.give(n1, "n1"); past != 1 {
		t.Errorf("%d old contents given", past)
	}
	s.blocks.SetFetcher(nil)
	vs := b.contents("Personal/f")
	if got := b.versionBytes("Personal/f", vs[len(vs)-1].ID); !bytes.Equal(got, old) {
		t.Error("the old version reads otherwise")
	}
	for id, data := range n1 {
		if block.Sum(data) != id {
			t.Error("other bytes")
		}
	}
	if _, past := b.toUpload("n1"); past != 0 {
		t.Errorf("n1 lacks %d old contents in the end", past)
	}
	// What was let go of here under the promise of one network goes through here to another.
	sa, ra := a.personal()
	a.isOn("n0", "n2")
	list, _, err = ra.PastUploads(context.Background(), "n2", 0, 10)
	if err != nil || len(list) != 1 || list[0].Absent {
		t.Fatalf("%+v, %v", list, err)
	}
	a.uploadTo("n0")
	a.isOn("n0")
	a.save(ino, random(3, 3<<20))
	a.flush()
	leaf := a.leaves("Personal/f")[0]
	a.save(ino, random(4, 100<<10))
	a.flush()
	for _, networks := range [][]string{{"n0"}, {"n0", "n3"}} {
		a.isOn(networks...)
		if len(networks) == 1 {
			a.must(sa.blocks.Evict(leaf))
		}
		list, _, err = ra.PastUploads(context.Background(), "n0", 0, 10)
		if err != nil || len(list) != 1 || list[0].Absent != (len(networks) == 2) || len(list[0].Blocks) != len(networks)-1 {
			t.Errorf("on %q: %+v, %v", networks, list, err)
		}
	}
	// What was pruned here is not fetched for others.
	b.prune(KeepPolicy{}, false)
	b.uploadTo("n0", "n1", "n2")
	if _, past := b.toUpload("n2"); past != 0 {
		t.Errorf("n2 is to get %d pruned contents", past)
	}
}

// TestPastIsLookedAtOnce: a restart goes on where the log was looked through before, and until all of it was, what is lacked is not known.
func TestPastIsLookedAtOnce(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "f", random(0, 100<<10))
	th.flush()
	const n = 8
	for i := range n {
		th.save(ino, random(uint64(i+1), 100<<10))
		th.flush()
	}
	th.uploadTo("n")
	steps := 0
	look := func() (more bool) {
		t.Helper()
		s, r := th.personal()
		more = must2(s.lookAtPast(context.Background(), func() bool { return true }))
		steps++
		if _, known := r.PastToUpload("n"); known == more {
			t.Fatalf("what is lacked is known: %v, and there is more to look at: %v", known, more)
		}
		return more
	}
	for range n / 2 {
		if !look() {
			t.Fatalf("all was looked at in %d steps", steps)
		}
	}
	th.must(th.checkpoint(context.Background()))
	th.kill()
	th.uploadTo("n")
	for look() {
	}
	batches, _, _ := must2(th.namedSpace(PersonalName)).graph.Counters()
	if uint64(steps) != batches {
		t.Errorf("%d batches were looked at in %d steps", batches, steps)
	}
	if _, past := th.toUpload("n"); past != n {
		t.Errorf("%d old contents to give", past)
	}
	th.reopen()
	th.uploadTo("n")
	if look() || steps != int(batches)+1 {
		t.Error("a restart looks through it again")
	}
}

// BenchmarkLookAtPast looks through the history of files that are in their changes, or (blocks) in blocks and were replaced, for a network that is new.
func BenchmarkLookAtPast(b *testing.B) {
	for name, size := range map[string]int{"small": 100, "blocks": 10 << 10} {
		b.Run(name, func(b *testing.B) {
			const n = 10_000
			th := newTestHome(b)
			for i := range n {
				ino := th.create(th.root, fmt.Sprint("file ", i), random(uint64(i), size))
				if size > 8<<10 {
					th.flush()
					th.save(ino, random(uint64(i), 100))
				}
				if i%100 == 99 {
					th.flush()
				}
			}
			th.must(th.checkpoint(context.Background()))
			network := 0
			b.ResetTimer()
			for b.Loop() {
				network++
				th.uploadTo(fmt.Sprint("n", network))
				th.lookAtPast()
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/file")
		})
	}
}
