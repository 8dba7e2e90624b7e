package store

import (
	"slices"

	"github.com/tidwall/btree"

	"github.com/anyfs/anyfs/dag"
)

// overlay is a part of an index in memory: what was put since some moment.
type overlay struct {
	tables [dag.Tables]*btree.Map[string, value]
	sets   [dag.Sets]hashed
	size   int // in bytes of memory, about
}

// value is of a pair in an overlay; one of size 0 stands for a deleted key.
type value struct {
	b    []byte
	late func() []byte
	size int
}

// bytes returns the value, nil for a deleted key.
func (v *value) bytes() []byte {
	switch {
	case v.size == 0:
		return nil
	case v.late != nil:
		return v.late()
	}
	return v.b
}

func newOverlay() overlay {
	var o overlay
	for t := range o.tables {
		o.tables[t] = btree.NewMap[string, value](32)
	}
	for s := range o.sets {
		o.sets[s] = hashed{one: make(map[uint64]dag.Value)}
	}
	return o
}

// Bytes of memory that a pair takes besides key and value, and that one value of a set takes.
const (
	pairCost = 96
	addCost  = 48
)

func (o *overlay) apply(u *dag.Update) {
	for i := range u.Puts {
		p := &u.Puts[i]
		v := value{p.Value, p.Late, len(p.Value)}
		if p.Late != nil {
			v.size = max(p.Size, 1)
		}
		o.put(p.Table, p.Key, v)
	}
	for i := range u.Adds {
		a := &u.Adds[i]
		o.sets[a.Set].add(a.Prefix, a.Value)
		o.size += addCost
	}
}

func (o *overlay) put(t dag.Table, key string, v value) {
	old, replaced := o.tables[t].Set(key, v)
	o.size += v.size - old.size
	if !replaced {
		o.size += len(key) + pairCost
	}
}

func (o *overlay) empty() bool { return o.size == 0 }

// absorb puts what is in a newer layer on top.
func (o *overlay) absorb(newer *overlay) {
	for t := range o.tables {
		newer.tables[t].Scan(func(k string, v value) bool {
			o.put(dag.Table(t), k, v)
			return true
		})
	}
	for s := range o.sets {
		for prefix, v := range newer.sets[s].one {
			o.sets[s].add(prefix, v)
		}
		for prefix, vs := range newer.sets[s].more {
			for _, v := range vs {
				o.sets[s].add(prefix, v)
			}
		}
		o.size += addCost * newer.sets[s].len()
	}
}

// hashed holds the values of a set; hardly ever does a prefix have two.
type hashed struct {
	one  map[uint64]dag.Value
	more map[uint64][]dag.Value
}

func (h *hashed) add(prefix uint64, v dag.Value) {
	old, ok := h.one[prefix]
	if !ok {
		h.one[prefix] = v
		return
	}
	if old == v {
		return
	}
	if h.more == nil {
		h.more = make(map[uint64][]dag.Value)
	}
	h.more[prefix] = append(h.more[prefix], v)
}

func (h *hashed) find(prefix uint64, dst []dag.Value) []dag.Value {
	if v, ok := h.one[prefix]; ok {
		dst = append(dst, v)
	}
	return append(dst, h.more[prefix]...)
}

func (h *hashed) len() int {
	n := len(h.one)
	for _, more := range h.more {
		n += len(more)
	}
	return n
}

func (h *hashed) sorted() entries {
	all := make(entries, 0, h.len())
	for prefix, v := range h.one {
		all = append(all, entry{prefix, v})
		for _, v := range h.more[prefix] {
			all = append(all, entry{prefix, v})
		}
	}
	slices.SortFunc(all, entry.compare)
	return all
}
