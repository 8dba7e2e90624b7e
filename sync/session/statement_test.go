package session_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// statementOf is what a replica states to whoever connects.
func statementOf(t *testing.T, r *replica) *wire.Statement {
	s := r.space.New(session.Peer{Name: "listener", Wake: func() {}})
	defer s.Close()
	r.settle()
	for {
		m, err := s.Next()
		must(t, err)
		if st, ok := m.(*wire.Statement); ok {
			return st
		}
		if m == nil {
			t.Fatal("nothing is stated")
		}
	}
}

func tick(links []*link) {
	for _, l := range links {
		for _, s := range l.s {
			s.Tick()
		}
	}
}

// Who heard what a device holds, and gets it from nobody, reports it missing, and so does whoever hears of it from him; until it comes.
func TestMissing(t *testing.T) {
	a, b, c := newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)
	all := []*replica{a, b, c}
	a.write(1)
	ab := connect(t, a, b)
	settle(t, all, []*link{ab})
	same(t, all[:2])
	for range 20 {
		a.write(1)
	}
	a.step()
	st := statementOf(t, a)
	must(t, ab.s[1].Receive(st)) // and nothing else comes
	ab.close()

	links := []*link{connect(t, b, c)}
	settle(t, all, links)
	same(t, []*replica{b, c})
	device := author(0).Device
	for n := range 6 {
		if len(b.space.Missing()) > 0 && n < 3 {
			t.Errorf("it is missing after %d ticks", n)
		}
		tick(links)
		settle(t, all, links)
	}
	for _, r := range []*replica{b, c} {
		if m := r.space.Missing(); !slices.Equal(m, []dag.PublicKey{device}) {
			t.Errorf("%d reports %v", r.n, m)
		}
	}
	// What others come to know by their batches is not told by statements, so equal replicas state little.
	if n := links[0].kinds["*wire.Statement"]; n != 3 {
		t.Errorf("%d statements", n)
	}
	links = append(links, connect(t, a, c))
	settle(t, all, links)
	same(t, all)
	tick(links)
	for _, r := range all {
		if m := r.space.Missing(); len(m) > 0 {
			t.Errorf("%d reports %v when all is there", r.n, m)
		}
	}
}

func TestHostileStatements(t *testing.T) {
	a, b := newReplica(t, 0), newReplica(t, 1)
	b.write(1)
	b.step()
	good := statementOf(t, b)
	for name, c := range map[string]struct {
		change func(m *wire.Statement)
		fault  bool
	}{
		"another counter":   {func(m *wire.Statement) { m.Counter++ }, true},
		"another head":      {func(m *wire.Statement) { m.Files[0][0]++ }, true},
		"fewer heads":       {func(m *wire.Statement) { m.Files = nil }, true},
		"in another graph":  {func(m *wire.Statement) { m.ACL, m.Files = m.Files, m.ACL }, true},
		"of another device": {func(m *wire.Statement) { m.Device = author(7).Device }, true},
		"by a stranger":     {func(m *wire.Statement) { *m = *statementOf(t, stranger(t)) }, false},
	} {
		s := a.space.New(session.Peer{Name: "hostile", Device: author(1).Device, Wake: func() {}})
		p := wire.Append(nil, good)
		m, err := wire.Decode(p[4:])
		must(t, err)
		c.change(m.(*wire.Statement))
		if err := s.Receive(m); errors.Is(err, session.ErrPeer) != c.fault {
			t.Errorf("%s: %v", name, err)
		}
		for range 5 {
			s.Tick()
		}
		if m := a.space.Missing(); len(m) > 0 {
			t.Errorf("%s: %v", name, m)
		}
		s.Close()
	}
	s := a.space.New(session.Peer{Name: "hostile", Device: author(1).Device, Wake: func() {}})
	defer s.Close()
	n := 0
	for ; n < 1000 && s.Receive(good) == nil; n++ {
	}
	if n == 1000 {
		t.Error("statements without end are taken")
	}
}

func stranger(t *testing.T) *replica {
	r := newReplica(t, 9)
	r.write(1)
	r.step()
	return r
}
