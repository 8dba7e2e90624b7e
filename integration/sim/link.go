package sim

import (
	"bytes"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// Connections, and the messages on their way.

// link is a way between two nodes; it is connected or not.
type link struct {
	a, b *node
	up   bool
	ways []*way
}

// way is one direction of a session.
type way struct {
	l          *link
	from, to   *node
	space      dag.ID
	send, take *session.Session
	carried    [][]byte // on the way
	skipped    bool     // something else went first
}

func (l *link) other(n *node) *node {
	switch n {
	case l.a:
		return l.b
	case l.b:
		return l.a
	}
	return nil
}

// connect makes a connection, with a session for each space.
func (l *link) connect() {
	if l.up || l.a.home == nil || l.b.home == nil {
		return
	}
	l.up = true
	for _, s := range l.a.spaces {
		t := l.b.space(s.ID)
		if t == nil {
			continue
		}
		sa := s.ex.New(session.Peer{Name: fmt.Sprint(l.b.i), Wake: func() {}})
		sb := t.ex.New(session.Peer{Name: fmt.Sprint(l.a.i), Wake: func() {}})
		l.ways = append(l.ways,
			&way{l: l, from: l.a, to: l.b, space: s.ID, send: sa, take: sb},
			&way{l: l, from: l.b, to: l.a, space: s.ID, send: sb, take: sa})
	}
}

// down ends a connection. What is on the way is lost.
func (l *link) down() {
	if !l.up {
		return
	}
	l.up = false
	lost := 0
	for _, w := range l.ways {
		lost += len(w.carried)
		w.send.Close()
	}
	if lost > 0 {
		l.a.w.result.Faults.Cuts++
		l.a.w.result.Faults.Dropped += lost
	}
	l.ways = nil
}

// fill takes what a session has to say, at most so many messages.
func (y *way) fill(most int) {
	for range most {
		m, err := y.send.Next()
		if err != nil {
			failf("device %d to %d: %w", y.from.i, y.to.i, err)
		}
		if m == nil {
			return
		}
		y.carried = append(y.carried, wire.Append(nil, m))
	}
}

// deliver hands over messages in their order, at most so many. It reports whether there was any.
func (y *way) deliver(most int) bool {
	w := y.from.w
	any := false
	for range most {
		if len(y.carried) == 0 {
			y.fill(4)
		}
		if len(y.carried) == 0 {
			return any
		}
		b := y.carried[0]
		y.carried = y.carried[1:]
		if y.skipped {
			w.result.Faults.Late++
			y.skipped = false
		}
		any = true
		w.sum.Write(b)
		r := wire.NewReader(bytes.NewReader(b))
		r.Limit = wire.MaxBody
		m := must2(r.Read())
		w.mayHave(y.from.i, y.to.i)
		if err := y.take.Receive(m); err != nil {
			failf("device %d takes %T from %d: %w", y.to.i, m, y.from.i, err)
		}
		y.to.pump()
	}
	return any
}
