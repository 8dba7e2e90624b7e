package exchange

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// What is sealed for a file that is still being written is told of before it is published, so that it can be fetched meanwhile.

// maxSealed bounds the blocks that a peer is to be told of and was not yet. Of more it hears when they are published.
const maxSealed = wire.MaxSealed

// sealedBlock is a block that a peer is to be told of.
type sealedBlock struct {
	l  *link
	id block.ID
}

// Sealed tells the connected devices of a space of a block that is here now and will be published.
func (e *Engine) Sealed(space dag.ID, id block.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	sp := e.spaces[space]
	if sp == nil {
		return
	}
	for _, l := range sp.links {
		if l.r.node == nil && len(l.r.sealed) < maxSealed { // a node asks for nothing
			l.r.sealed = append(l.r.sealed, sealedBlock{l, id})
			l.r.wakeTags()
		}
	}
}

// sendSealed tells a peer of blocks.
func (e *Engine) sendSealed(t *stream, r *remote) error {
	e.mu.Lock()
	todo := slices.DeleteFunc(r.sealed, func(b sealedBlock) bool { return b.l.sp.links[r.id] != b.l })
	r.sealed = nil
	e.mu.Unlock()
	for len(todo) > 0 {
		l := todo[0].l
		m := &wire.Sealed{Space: l.sp.id}
		var rest []sealedBlock
		for _, b := range todo {
			if b.l == l {
				m.IDs = append(m.IDs, b.id)
			} else {
				rest = append(rest, b)
			}
		}
		todo = rest
		if !l.member() {
			continue
		}
		if err := t.write(m); err != nil {
			return err
		}
	}
	return nil
}

// hearSealed hands on what a peer told of a space that both are in.
func (e *Engine) hearSealed(r *remote, m *wire.Sealed) {
	e.mu.Lock()
	var l *link
	if sp := e.spaces[m.Space]; sp != nil {
		l = sp.links[r.id]
	}
	account := r.account
	e.mu.Unlock()
	if l != nil && l.r == r && l.member() && l.sp.r.Sealed != nil {
		l.sp.r.Sealed(account, m.IDs)
	}
}
