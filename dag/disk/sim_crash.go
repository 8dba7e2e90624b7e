package disk

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Keep says what a power loss does to one unsynced operation.
type Keep uint8

const (
	Drop  Keep = iota // it never reached the disk
	Whole             // all of it did
	Torn              // of a write: each sector is asked for on its own (Whole: it did); of the rest: as Drop
)

// Crash returns the disk as a power loss leaves it now. keep is asked for each unsynced operation in turn: for the names
// first, then for the files in the order of their names. The Sim itself goes on as if nothing had happened. The clone
// has no fault set.
func (s *Sim) Crash(keep func() Keep) *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crash(keep)
}

// CrashClone is Crash with a random choice: sometimes nothing or all of it is kept, mostly something between.
func (s *Sim) CrashClone(rnd *rand.Rand) *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.crash(randomKeep(rnd))
	c.rnd = rand.New(rand.NewPCG(rnd.Uint64(), rnd.Uint64()))
	return c
}

// Fork returns a disk in the same state, with the same operations unsynced: what a process finds that opens it after this one
// was killed. It has no fault set.
func (s *Sim) Fork() *Sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := NewSim(rand.New(rand.NewPCG(1, 2)))
	c.total, c.used = s.total, s.used
	copies := map[*simNode]*simNode{}
	var fork func(n *simNode) *simNode
	fork = func(n *simNode) *simNode {
		if n == nil {
			return nil
		}
		if m := copies[n]; m != nil {
			return m
		}
		m := &simNode{isDir: n.isDir, cur: n.cur.share(), dur: n.dur.share(), dirty: slices.Clone(n.dirty)}
		copies[n] = m
		if n.isDir {
			m.now, m.durable = map[string]*simNode{}, map[string]*simNode{}
			for name, child := range n.now {
				m.now[name] = fork(child)
			}
			for name, child := range n.durable {
				m.durable[name] = fork(child)
			}
		}
		return m
	}
	c.root = fork(s.root)
	for _, op := range s.names {
		c.names = append(c.names, nameOp{node: fork(op.node), from: fork(op.from), to: fork(op.to), old: op.old, new: op.new})
	}
	return c
}

// Same reports whether two disks hold the same files with the same content.
func (s *Sim) Same(o *Sim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s != o {
		o.mu.Lock()
		defer o.mu.Unlock()
	}
	return s.root.same(o.root)
}

func (n *simNode) same(o *simNode) bool {
	if n.isDir != o.isDir || len(n.now) != len(o.now) || !n.isDir && !n.cur.same(&o.cur) {
		return false
	}
	for name, child := range n.now {
		if other := o.now[name]; other == nil || !child.same(other) {
			return false
		}
	}
	return true
}

func randomKeep(rnd *rand.Rand) func() Keep {
	drop := []float64{0, 0.1, 0.5, 0.9, 1}[rnd.IntN(5)]
	torn := []float64{0, 0.2, 0.8}[rnd.IntN(3)]
	return func() Keep {
		switch {
		case rnd.Float64() < drop:
			return Drop
		case drop > 0 && rnd.Float64() < torn:
			return Torn
		}
		return Whole
	}
}

func (s *Sim) crash(keep func() Keep) *Sim {
	c := NewSim(rand.New(rand.NewPCG(1, 2)))
	c.total = s.total
	// Work on copies of the durable maps, then turn them into a tree of new nodes.
	dirs := map[*simNode]map[string]*simNode{}
	side := func(n *simNode) map[string]*simNode {
		if dirs[n] == nil {
			m := make(map[string]*simNode, len(n.durable))
			for name, child := range n.durable {
				m[name] = child
			}
			dirs[n] = m
		}
		return dirs[n]
	}
	for _, op := range s.names {
		if keep() == Whole {
			op.apply(side)
		}
	}
	var clone func(n *simNode) *simNode
	clone = func(n *simNode) *simNode {
		if !n.isDir {
			m := survive(&n.dur, n.dirty, keep)
			c.used += m.size
			return &simNode{cur: m.share(), dur: m}
		}
		d := newSimDir()
		entries := side(n)
		for _, name := range slices.Sorted(maps.Keys(entries)) {
			child := clone(entries[name])
			d.now[name], d.durable[name] = child, child
		}
		return d
	}
	c.root = clone(s.root)
	return c
}

// survive returns what is on the disk after some of ops happened to a file that had the content base, which it leaves alone.
//
// A sector that survives has the content that it had after that operation, whatever became of earlier ones: it is the page
// that is written, not the operation. Changes of size by truncation survive in order.
func survive(base *image, ops []fileOp, keep func() Keep) image {
	full, left := base.share(), base.share()
	cuts := true
	for _, op := range ops {
		full.apply(op)
		k := keep()
		if op.cut {
			if cuts = cuts && k == Whole; cuts {
				left.resize(op.off)
			}
			continue
		}
		end := min(op.off+op.n, full.size)
		for at := op.off - op.off%Sector; at < end && k != Drop; at += Sector {
			if k == Torn && keep() != Whole {
				continue
			}
			last := min(at+Sector, full.size)
			if size := min(last, end); size > left.size && !op.keep {
				left.resize(size)
			}
			if at < left.size {
				left.copyFrom(&full, at, min(last, left.size))
			}
		}
	}
	return left
}
