package dag

import "slices"

// A Keeper is an Authorizer that has batches count on this device which count nowhere else, with what counts by being named by these alone.
type Keeper interface {
	Authorizer
	// Keeps gives the account whose batches may so count; false: nothing may.
	Keeps() (account PublicKey, ok bool)
	// Heard reports whether a batch of such an account, which counts here, counts by itself elsewhere too. b may lack its Changes.
	Heard(b *Batch) bool
}

// elsewhere gives the past of all that counts elsewhere too; all: there is nothing else that counts here. It reads of each chain that is kept as many batches as
// count here alone, and one more. mu is held.
func (g *Graph) elsewhere() (past vector, all bool, err error) {
	k, ok := g.auth.(Keeper)
	if !ok {
		return nil, true, nil
	}
	account, ok := k.Keeps()
	if !ok {
		return nil, true, nil
	}
	tops := make([]spot, len(g.chains)) // the last batch of each chain that counts by itself
	all = true
	for i, c := range g.chains {
		tops[i] = c.counted
		if c.counted.at == 0 || c.account != account {
			continue
		}
		var failed error
		tops[i], err = g.lastSpot(c, func(s spot) bool {
			if _, in := g.held[s.at]; in || failed != nil {
				return failed != nil
			}
			h, err := g.headAt(s.at)
			failed = err
			return err != nil || k.Heard(h.batch)
		})
		if err == nil {
			err = failed
		}
		if err != nil {
			return nil, false, err
		}
		all = all && tops[i].id == c.counted.id
	}
	if all {
		return nil, true, nil
	}
	for i, c := range g.chains {
		s := tops[i]
		if c.account != account {
			if s, err = g.lastSpot(c, func(s spot) bool { _, in := g.held[s.at]; return !in }); err != nil {
				return nil, false, err
			}
		}
		if s.at == 0 || past.at(c.num) >= s.clock {
			continue
		}
		v, err := g.vectorOf(known{s.at, c.num, s.clock})
		if err != nil {
			return nil, false, err
		}
		past = past.join(v)
	}
	return past, false, nil
}

// Alone returns the batches that count here and, by what a Keeper says, nowhere else, in total order.
func (g *Graph) Alone() (ids []ID, err error) {
	g.mu.RLock()
	past, all, err := g.elsewhere()
	g.mu.RUnlock()
	if all || err != nil {
		return nil, err
	}
	err = g.merge(past, false, func(at uint64) error {
		h, err := g.headAt(at)
		if err == nil {
			ids = append(ids, h.id)
		}
		return err
	})
	return ids, err
}

// AloneSince returns how many of those that CountSince counts are passed on only since something names them that counts here alone, or do so themselves.
func (g *Graph) AloneSince(have []ID) (n uint64, err error) {
	g.mu.RLock()
	out, all, err := g.elsewhere()
	g.mu.RUnlock()
	if all || err != nil {
		return 0, err
	}
	past, err := g.pastOf(have)
	if err != nil {
		return 0, err
	}
	return g.countAbove(out.join(past))
}

// HeadsElsewhere are the heads of what counts elsewhere too; all: they are those of the graph.
func (g *Graph) HeadsElsewhere() (ids []ID, all bool, err error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	past, all, err := g.elsewhere()
	if all || err != nil {
		return nil, all, err
	}
	last := make([]spot, len(g.chains))
	others := make(vector, len(g.chains)) // of each chain the last batch that lies in the past of another chain's last
	for i, c := range g.chains {
		if last[i], err = g.lastSpot(c, func(s spot) bool { return past.at(c.num) >= s.clock && !g.held.hides(s.at) }); err != nil {
			return nil, false, err
		}
		if last[i].at == 0 {
			continue
		}
		v, err := g.vectorOf(known{last[i].at, c.num, last[i].clock})
		if err != nil {
			return nil, false, err
		}
		own := others.at(c.num)
		others = others.join(v)
		others[c.num] = own
	}
	for i, c := range g.chains {
		if s := last[i]; s.at != 0 && others.at(c.num) < s.clock {
			ids = append(ids, s.id)
		}
	}
	sortIDs(ids)
	return slices.Compact(ids), false, nil
}

// CountsElsewhere reports whether a batch that is held counts, and not here alone.
func (g *Graph) CountsElsewhere(id ID) (bool, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	k, ok, err := g.find(id)
	if err != nil || !ok || g.held.hides(k.at) {
		return false, err
	}
	past, all, err := g.elsewhere()
	return all || past.at(k.chain) >= k.clock, err
}
