package exchange

import (
	"bytes"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// What the nodes of a space signed of themselves outlives a start, or a node that lost what it had acknowledged would be found only by who
// never stops. It is a list of wire.Statement as they go over a stream.

// isNode reports whether a device is a node that this one uses.
func (e *Engine) isNode(device dag.PublicKey) bool {
	keys := e.keys.Load()
	return keys != nil && (*keys)[device]
}

// Words gives what nodes stated of a space, to be given back as Replica.Words; nil where there is nothing.
func (e *Engine) Words(space dag.ID) (words []byte) {
	e.mu.Lock()
	sp := e.spaces[space]
	e.mu.Unlock()
	if sp == nil {
		return nil
	}
	for _, m := range sp.session.Words() {
		words = wire.Append(words, m)
	}
	return words
}

// readWords reads what Words gave. What is damaged, and all behind it, is as if nothing had been stated.
func readWords(words []byte) (all []*wire.Statement) {
	r := wire.NewReader(bytes.NewReader(words))
	for {
		m, err := r.Read()
		s, ok := m.(*wire.Statement)
		if err != nil || !ok {
			return all
		}
		all = append(all, s)
	}
}
