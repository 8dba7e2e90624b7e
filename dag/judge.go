package dag

import "maps"

// Judged says what Rejudge changed: both in no order.
type Judged struct {
	Counted     []ID // they count now
	Quarantined []ID // they count no more
	Result           // of batches that had waited for access records
}

// Rejudge asks the Authorizer again for the batches of the accounts and devices that affects names (nil: of all), and of those of
// which some did not count, and takes out of the state what counts no more, and in what counts again. It reads every batch of
// theirs, and for each batch whose verdict changed the logs of its objects. Batches that waited for access records are tried again.
//
// So affects need only name those of whom some batch may not count now. What it did is durable with the store's next checkpoint. The
// list may have been checkpointed alone, so after a crash its owner calls it again.
func (g *Graph) Rejudge(affects func(account, device PublicKey) bool) (Judged, error) {
	j, err := g.rejudge(affects)
	g.events.deliver()
	return j, err
}

func (g *Graph) rejudge(affects func(account, device PublicKey) bool) (j Judged, err error) {
	g.write.Lock()
	defer g.write.Unlock()
	doubted := make(map[uint32]bool)
	for _, h := range g.held {
		doubted[h.chain] = true
	}
	asked := func(c *chain) bool { return affects == nil || doubted[c.num] || affects(c.account, c.device) }
	if err := g.judge(asked, &j); err != nil {
		return j, err
	}
	return j, g.release(g.pending.waitForACL(), &j.Result)
}

// judge asks for the batches of the chains that asked names, believes of the others what it knows, and settles which count
// by being named.
func (g *Graph) judge(asked func(*chain) bool, j *Judged) (err error) {
	doubt := make(heldSet)
	for at, h := range g.held {
		if !asked(g.chains[h.chain]) {
			doubt[at] = h
		}
	}
	tops := make([]spot, len(g.chains)) // the last batch of each chain that counts by itself
	for _, c := range g.chains {
		if asked(c) {
			tops[c.num], err = g.judgeChain(c, doubt)
		} else {
			tops[c.num], err = g.lastSpot(c, func(s spot) bool { _, in := g.held[s.at]; return !in })
		}
		if err != nil {
			return err
		}
	}
	return g.settle(doubt, tops, j)
}

// raiseAgain makes those count that are named by what the log had and the index had not. A checkpoint may also have taken
// in a batch, and not what came to count by it.
func (g *Graph) raiseAgain() error {
	if len(g.held) == 0 {
		return nil
	}
	return g.judge(func(*chain) bool { return false }, &Judged{})
}

// judgeChain asks for every batch of a chain, and returns the last that counts by itself. The others go into doubt.
func (g *Graph) judgeChain(c *chain, doubt heldSet) (top spot, err error) {
	for seq := c.tip.seq; seq > 0; seq-- {
		at, err := g.feedAt(c.num, seq)
		if err != nil {
			return spot{}, err
		}
		if at == 0 {
			break // what comes before is another chain's
		}
		rec, err := g.headAt(at)
		if err != nil {
			return spot{}, err
		}
		verdict := g.auth.Counts(rec.batch)
		if verdict == Counts {
			if top.at == 0 {
				top = spot{id: rec.id, seq: seq, clock: rec.batch.Clock, at: at}
			}
			continue
		}
		h, in := g.held[at]
		if !in {
			rec, err := g.store.Read(at)
			if err != nil {
				return spot{}, err
			}
			h = held{chain: c.num, bytes: uint32(len(rec.Frame))}
		}
		h.clock, h.state = rec.batch.Clock, heldBack
		if verdict == CountsIfNamed {
			h.state = unnamed
		}
		doubt[at] = h
	}
	return top, nil
}

// settle decides which of the doubtful count by being named, and brings the graph to the result.
func (g *Graph) settle(doubt heldSet, tops []spot, j *Judged) error {
	var union vector
	for n, s := range tops {
		if s.at == 0 {
			continue
		}
		v, err := g.vectorOf(known{s.at, uint32(n), s.clock})
		if err != nil {
			return err
		}
		union = union.join(v)
	}
	for at, h := range doubt {
		if h.state == heldBack {
			continue
		}
		h.state = unnamed
		if union.at(h.chain) >= h.clock {
			h.state = raised
		}
		doubt[at] = h
	}
	return g.setHeld(doubt, j)
}

// raise makes those count that count when named, and lie in the past of a batch that came to count.
func (g *Graph) raise(past vector) error {
	now := g.held
	found, copied := false, false
	for at, h := range g.held {
		if past.at(h.chain) < h.clock {
			continue
		}
		// A batch in quarantine that another names is passed on with it: the chain is to show it.
		found = found || h.state != raised && g.chains[h.chain].shown.clock < h.clock
		if h.state != unnamed {
			continue
		}
		if !copied {
			now, copied = maps.Clone(now), true
		}
		h.state = raised
		now[at] = h
		found = true
	}
	if !found {
		return nil
	}
	return g.setHeld(now, &Judged{})
}
