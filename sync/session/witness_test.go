package session_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// member is a replica to which number 0 is a node.
func member(t rapid.TB, n int) *replica {
	r := newReplica(t, n)
	r.reopen(nil)
	return r
}

// reopen starts a replica anew, with what is durable and what it kept of the words of nodes.
func (r *replica) reopen(words []*wire.Statement) {
	r.node = func(d dag.PublicKey) bool { return d == author(0).Device }
	r.words = words
	r.space.Close()
	r.open()
}

// copyOf is another replica with the device and the durable batches of r, as a copy of its folder is.
func copyOf(r *replica) *replica {
	c := newReplica(r.t, r.n)
	for kind := range r.durable {
		for id, frame := range r.durable[kind] {
			c.durable[kind][id] = frame
		}
		c.order[kind] = slices.Clone(r.order[kind])
	}
	c.space.Close()
	c.open()
	return c
}

func ticks(t rapid.TB, n int, all []*replica, links ...*link) {
	for range n {
		tick(links)
		settle(t, all, links)
	}
}

// A node that lost what it had signed for is found by whom it signed to, also after a start of that; the batches come back to it.
func TestNodePutBack(t *testing.T) {
	for _, again := range []bool{false, true} {
		node, a := newReplica(t, 0), member(t, 1)
		a.write(0)
		a.write(1)
		l := connect(t, node, a)
		settle(t, []*replica{node, a}, []*link{l})
		backup := copyOf(node)
		a.write(1)
		ticks(t, 2, []*replica{node, a}, l)
		l.close()
		if again {
			a.reopen(a.space.Words())
		}
		l = connect(t, node, a)
		ticks(t, 4, []*replica{node, a}, l)
		if d := a.space.Doubts(); len(d) > 0 {
			t.Fatalf("of a node that holds everything: %+v", d)
		}
		l.close()

		all := []*replica{backup, a}
		l = connect(t, backup, a)
		ticks(t, 3, all, l)
		if d := a.space.Doubts(); !slices.Equal(d, []session.Doubt{{Node: author(0).Device}}) {
			t.Errorf("started again %v: %+v", again, d)
		}
		same(t, all)
	}
}

// A node that shows two members different things is found when these meet, by statements that exclude each other.
func TestNodeWithTwoViews(t *testing.T) {
	node, a, b := newReplica(t, 0), member(t, 1), member(t, 2)
	a.write(0)
	toA := connect(t, node, a)
	settle(t, []*replica{node, a}, []*link{toA})
	other := copyOf(node)
	toB := connect(t, other, b)
	all, links := []*replica{node, other, a, b}, []*link{toA, toB}
	for range 3 {
		a.write(1)
		b.write(1)
		b.write(1)
		ticks(t, 1, all, links...)
	}
	if d := slices.Concat(a.space.Doubts(), b.space.Doubts()); len(d) > 0 {
		t.Fatalf("before they met: %+v", d)
	}
	toA.close()
	toB.close()
	ab := connect(t, a, b)
	ticks(t, 3, []*replica{a, b}, ab)
	for _, r := range []*replica{a, b} {
		if d := r.space.Doubts(); !slices.Equal(d, []session.Doubt{{Node: author(0).Device, Split: true}}) {
			t.Errorf("%d: %+v", r.n, d)
		}
	}
}

// Who only reads finds by a member, which has what the node signed for, that the node kept it from him: it asks for it.
func TestNodeHidesFromReader(t *testing.T) {
	node, a, b := newReplica(t, 0), member(t, 1), member(t, 2)
	a.write(0)
	toA := connect(t, node, a)
	settle(t, []*replica{node, a}, []*link{toA})
	other := copyOf(node)
	toB := connect(t, other, b)
	all, links := []*replica{node, other, a, b}, []*link{toA, toB}
	settle(t, all, links)
	a.write(1)
	ticks(t, 3, all, links...)
	ab := connect(t, a, b)
	settle(t, all, append(links, ab))
	if d := b.space.Doubts(); !slices.Equal(d, []session.Doubt{{Node: author(0).Device}}) {
		t.Errorf("%+v", d)
	}
	same(t, all)
}

// An honest node is never doubted, whatever is lost, late, or crashes: also it, with what was not durable.
func TestHonestNodeKeepsItsWord(t *testing.T) {
	words, crashes := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "replicas")
		all := []*replica{newReplica(t, 0)}
		for i := 1; i < n; i++ {
			all = append(all, member(t, i))
		}
		var links []*link
		cut := func(i int) {
			links[i].close()
			links = slices.Delete(links, i, i+1)
		}
		for range rapid.IntRange(10, 300).Draw(t, "steps") {
			r := all[rapid.IntRange(0, n-1).Draw(t, "replica")]
			switch rapid.IntRange(0, 11).Draw(t, "step") {
			case 0, 1:
				if r.n > 0 {
					r.write(rapid.SampledFrom([]int{0, 1, 1, 1}).Draw(t, "graph"))
				}
			case 2:
				o := all[rapid.IntRange(0, n-1).Draw(t, "other")]
				i := slices.IndexFunc(links, func(l *link) bool { return l.ends == [2]*replica{r, o} || l.ends == [2]*replica{o, r} })
				if o != r && i < 0 {
					links = append(links, connect(t, r, o))
				} else if i >= 0 && rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
					cut(i)
				}
			case 3:
				if rapid.IntRange(0, 5).Draw(t, "crash") > 0 {
					break
				}
				for i := len(links) - 1; i >= 0; i-- {
					if slices.Contains(links[i].ends[:], r) {
						cut(i)
					}
				}
				crashes++
				r.life = crashes
				kept := r.space.Words()
				if r.n == 0 {
					r.space.Close()
					r.open()
				} else {
					r.reopen(kept)
				}
			case 4:
				r.step()
			case 5:
				r.settle()
			case 6:
				for _, l := range links {
					for end := range 2 {
						if l.ends[end] == r {
							l.s[end].Tick()
						}
					}
				}
			default:
				if len(links) > 0 {
					l := rapid.SampledFrom(links).Draw(t, "link")
					end := rapid.IntRange(0, 1).Draw(t, "end")
					if rapid.Bool().Draw(t, "send") {
						l.send(end)
					} else {
						l.receive(end)
					}
				}
			}
		}
		ticks(t, 3, all, links...)
		for _, r := range all[1:] {
			words += len(r.space.Words())
			if d := r.space.Doubts(); len(d) > 0 {
				t.Fatalf("%d doubts %+v", r.n, d)
			}
		}
	})
	if words == 0 || crashes == 0 {
		t.Errorf("%d words, %d crashes", words, crashes)
	}
}
