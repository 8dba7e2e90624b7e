package dag

import "encoding/binary"

// spot is where a batch stands: its place in its chain and in the log. The zero spot is no batch.
type spot struct {
	id             ID
	seq, clock, at uint64
}

// chain is a feed, or a branch of one: batches each of which names the one before it. Numbers are this replica's own.
//
// tip is the last batch that is held, counted the last that counts, shown the last that counts or lies in the past of one
// that counts (only that much is passed on). They are the same but where a quarantine is.
type chain struct {
	num                 uint32
	feed                ID
	device, account     PublicKey
	tip, shown, counted spot
}

func (c *chain) encode() []byte {
	p := make([]byte, 0, 300)
	p = append(p, c.feed[:]...)
	p = append(p, c.device[:]...)
	p = append(p, c.account[:]...)
	spots := []spot{c.tip, c.shown, c.counted}
	if c.tip == c.shown && c.tip == c.counted {
		spots = spots[:1]
	}
	p = append(p, byte(len(spots)))
	for _, s := range spots {
		p = s.append(p)
	}
	return p
}

func (s *spot) append(p []byte) []byte {
	p = append(p, s.id[:]...)
	p = binary.AppendUvarint(p, s.seq)
	p = binary.AppendUvarint(p, s.clock)
	return binary.AppendUvarint(p, s.at)
}

func (d *decoder) spot() spot {
	return spot{id: d.id(), seq: d.uvarint(), clock: d.uvarint(), at: d.uvarint()}
}

func decodeChain(num uint32, p []byte) (*chain, error) {
	d := decoder{b: p}
	c := &chain{num: num, feed: d.id(), device: PublicKey(d.id()), account: PublicKey(d.id())}
	switch d.take(1)[0] {
	case 1:
		c.tip = d.spot()
		c.shown, c.counted = c.tip, c.tip
	case 3:
		c.tip, c.shown, c.counted = d.spot(), d.spot(), d.spot()
	default:
		d.bad = true
	}
	return c, d.err("chain")
}

const feedPage = 64 // positions in a value of TableFeeds

// putFeed notes where a batch of a chain lies. Pages of a branch begin at its first seq, with zeroes before it.
func (g *Graph) putFeed(u *Update, chain uint32, seq, at uint64) error {
	key := feedKey(chain, seq/feedPage)
	old, err := g.store.Get(TableFeeds, key)
	if err != nil {
		return err
	}
	n := int(seq%feedPage) * 8
	page := make([]byte, n+8)
	copy(page[:n], old)
	binary.BigEndian.PutUint64(page[n:], at)
	u.put(TableFeeds, key, page)
	return nil
}

// feedAt returns the position of a batch by its place in its chain, 0 when there is none.
func (g *Graph) feedAt(chain uint32, seq uint64) (uint64, error) {
	page, err := g.store.Get(TableFeeds, feedKey(chain, seq/feedPage))
	if err != nil {
		return 0, err
	}
	n := int(seq%feedPage) * 8
	if len(page) < n+8 {
		return 0, nil
	}
	return binary.BigEndian.Uint64(page[n:]), nil
}

// loadChains reads all chains.
func (g *Graph) loadChains() error {
	for from := uint32(0); ; {
		k, v, err := g.store.Ceil(TableChains, key32(from))
		if err != nil || k == nil {
			return err
		}
		if len(k) != 4 || binary.BigEndian.Uint32(k) != uint32(len(g.chains)) {
			return errIndex("chain numbers")
		}
		c, err := decodeChain(uint32(len(g.chains)), v)
		if err != nil {
			return err
		}
		g.addChain(c)
		from = c.num + 1
	}
}

func (g *Graph) addChain(c *chain) {
	g.chains = append(g.chains, c)
	g.byDevice[c.device] = append(g.byDevice[c.device], c.num)
}

// ownChain returns the chain that a device goes on with: of its chains that end in a batch that counts, the one with the
// highest clock; nil when there is none, and a new feed begins.
func (g *Graph) ownChain(a *Author) *chain {
	var best *chain
	for _, n := range g.byDevice[a.Device] {
		c := g.chains[n]
		if c.account != a.Account || c.counted.at == 0 || c.counted != c.tip {
			continue
		}
		if best == nil || c.tip.clock > best.tip.clock || c.tip.clock == best.tip.clock && c.tip.id.Compare(best.tip.id) > 0 {
			best = c
		}
	}
	return best
}
