package dag

import "encoding/binary"

// vector says what lies in the past of a batch: for each chain the clock of its last batch there, the batch itself
// included. A chain is linear and its clocks ascend, so a batch of chain c with clock k is in the past if vector[c] >= k.
// Missing entries are 0. Vectors are not changed once made.
type vector []uint64

func (v vector) at(chain uint32) uint64 {
	if int(chain) < len(v) {
		return v[chain]
	}
	return 0
}

// join raises v to the maximum of v and w. It may reuse v.
func (v vector) join(w vector) vector {
	for len(v) < len(w) {
		v = append(v, 0)
	}
	for i, k := range w {
		v[i] = max(v[i], k)
	}
	return v
}

func (v vector) with(chain uint32, clock uint64) vector {
	for len(v) <= int(chain) {
		v = append(v, 0)
	}
	v[chain] = clock
	return v
}

func (v vector) encode() []byte {
	p := binary.AppendUvarint(make([]byte, 0, 4+len(v)*4), uint64(len(v)))
	for _, k := range v {
		p = binary.AppendUvarint(p, k)
	}
	return p
}

func decodeVector(p []byte) (vector, error) {
	d := decoder{b: p}
	v := make(vector, d.count(1))
	for i := range v {
		v[i] = d.uvarint()
	}
	return v, d.err("vector")
}

// known is what the index says of a batch that is held.
type known struct {
	at    uint64
	chain uint32
	clock uint64
}

// find looks a batch up.
func (g *Graph) find(id ID) (known, bool, error) {
	for _, n := range g.frontier {
		c := g.chains[n]
		if c.counted.id == id {
			return known{c.counted.at, c.num, c.counted.clock}, true, nil
		}
	}
	var buf [4]Value
	vs, err := g.store.Find(SetBatches, id.Prefix(), buf[:0])
	if err != nil {
		return known{}, false, err
	}
	for _, v := range vs {
		at, chain := unpackAt(v.A)
		if int(chain) >= len(g.chains) {
			return known{}, false, errIndex("chain of a batch")
		}
		h, err := g.headAt(at)
		if err != nil {
			return known{}, false, err
		}
		if h.id == id {
			return known{at, chain, v.B}, true, nil
		}
	}
	return known{}, false, nil
}

const pastEvery = 64 // of how many batches of a chain one has its vector in the index

// vectorOf returns the vector of a batch that is held. What is not in the cache is put together from the nearest batches whose
// vectors are there or in the index: at most 64 of each chain lie before them. It takes the memory of one vector, and some bytes
// for each batch that it comes by.
func (g *Graph) vectorOf(k known) (vector, error) {
	if v, ok := g.vectors.get(k.at); ok {
		return v, nil
	}
	v := make(vector, 0, len(g.chains))
	seen := make(map[uint64]struct{})
	for todo := []known{k}; len(todo) > 0; {
		b := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if _, twice := seen[b.at]; twice {
			continue
		}
		seen[b.at] = struct{}{}
		past, err := g.knownVector(b)
		if err != nil {
			return nil, err
		}
		if past != nil {
			v = v.join(past)
			continue
		}
		v = v.with(b.chain, max(v.at(b.chain), b.clock))
		if todo, err = g.appendNamed(todo, b); err != nil {
			return nil, err
		}
	}
	g.vectors.put(k.at, v, 8*len(g.chains))
	return v, nil
}

// knownVector returns the vector of a batch from the cache or the index, nil where neither has it.
func (g *Graph) knownVector(k known) (vector, error) {
	if v, ok := g.vectors.get(k.at); ok {
		return v, nil
	}
	p, err := g.store.Get(TablePasts, key64(k.at))
	if err != nil || p == nil {
		return nil, err
	}
	return decodeVector(p)
}

// appendNamed appends what a batch names.
func (g *Graph) appendNamed(to []known, b known) ([]known, error) {
	h, err := g.headAt(b.at)
	if err != nil {
		return nil, err
	}
	for _, id := range h.batch.named() {
		n, ok, err := g.find(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, errIndex("a batch whose past is not held")
		}
		to = append(to, n)
	}
	return to, nil
}

// named returns the batches that b names: prev and deps.
func (b *Batch) named() []ID {
	ids := make([]ID, 0, len(b.Deps)+1)
	if !b.Prev.IsZero() {
		ids = append(ids, b.Prev)
	}
	return append(ids, b.Deps...)
}

// head is the cached head of a batch: all but the links to its changes.
type head struct {
	id    ID
	batch *Batch
}

func (h *head) bytes() int { return 400 + linkCost*(len(h.batch.Deps)+len(h.batch.ACL)) }

func (g *Graph) headAt(at uint64) (*head, error) {
	if h, ok := g.headsAt.get(at); ok {
		return h, nil
	}
	rec, err := g.store.ReadHead(at)
	if err != nil {
		return nil, err
	}
	return g.keepHead(at, rec.ID, rec.Frame)
}

func (g *Graph) keepHead(at uint64, id ID, frame []byte) (*head, error) {
	b, err := parseHead(frame)
	if err != nil {
		return nil, errCorrupt(at, err)
	}
	b.id = id
	h := &head{id, b}
	g.headsAt.put(at, h, h.bytes())
	return h, nil
}
