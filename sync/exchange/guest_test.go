package exchange_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/exchange"
)

// TestGuest: a peer that is in no space proves an invitation, gets the access list as it grows, writes its record, and is a peer
// of the space from the moment on that it has its tags.
func TestGuest(t *testing.T) {
	host := newDevice(t, 1, 1)
	space := newReplica(t, host, "space")
	invitation := key('i', 1)
	var revoked atomic.Bool
	space.Invited = func(k, _ dag.PublicKey) bool { return k == public(invitation) && !revoked.Load() }
	host.e.Add(space.Replica)
	other := newReplica(t, host, "another")
	host.e.Add(other.Replica)
	put := func(g *dag.Graph, d *device, text string) *dag.Batch {
		b, err := g.Begin(d.author, nil, dag.ID{})
		must(t, err)
		_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte(text), nil })
		must(t, err)
		done, err := b.Commit()
		must(t, err)
		return done
	}
	put(space.ACL, host, "root")
	put(space.Files, host, "secret")

	guest := newDevice(t, 2, 2, host.addr("/tcp/"))
	mine := newReplica(t, guest, "space")
	var mu sync.Mutex
	var out [][]byte
	var asked, refused atomic.Int64
	g := &exchange.Guest{
		Space: mine.ID, Key: invitation, Peers: []string{host.addr("/tcp/")},
		Take: func(frames [][]byte, last bool) error {
			for _, f := range frames {
				if _, err := mine.ACL.Ingest(f); err != nil {
					return err
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if last && out == nil {
				b := put(mine.ACL, guest, "let me in")
				f, err := mine.ACL.Frame(b.ID())
				if err != nil {
					return err
				}
				out = append(out, f)
				asked.Add(1)
			}
			return nil
		},
		Answer:  func() [][]byte { mu.Lock(); defer mu.Unlock(); return out },
		Refused: func() { refused.Add(1) },
	}
	must(t, guest.e.Seek(g))
	batches := func(g *dag.Graph) uint64 { n, _, _ := g.Counters(); return n }
	eventually(t, func() bool { return batches(space.ACL) == 2 && batches(mine.ACL) == 2 })
	if batches(mine.Files) != 0 {
		t.Fatal("a guest got files")
	}
	put(space.ACL, host, "you are in")
	eventually(t, func() bool { return batches(mine.ACL) == 3 })
	guest.e.Add(mine.Replica)
	guest.e.Unseek(mine.ID)
	eventually(t, func() bool { return batches(mine.Files) == 1 })
	if refused.Load() > 0 {
		t.Error("refused")
	}

	// One whose invitation ends hears that, and nothing that comes later, on the connection that it has.
	late := newDevice(t, 4, 4, host.addr("/tcp/"))
	its := newReplica(t, late, "space")
	var turned atomic.Int64
	g = &exchange.Guest{
		Space: its.ID, Key: invitation, Peers: []string{host.addr("/tcp/")},
		Take: func(frames [][]byte, _ bool) error {
			for _, f := range frames {
				if _, err := its.ACL.Ingest(f); err != nil {
					return err
				}
			}
			return nil
		},
		Answer:  func() [][]byte { return nil },
		Refused: func() { turned.Add(1) },
	}
	must(t, late.e.Seek(g))
	before := batches(space.ACL)
	eventually(t, func() bool { return batches(its.ACL) == before })
	revoked.Store(true)
	put(space.ACL, host, "the invitation is revoked")
	eventually(t, func() bool { return batches(its.ACL) == before+1 && turned.Load() > 0 })
	put(space.ACL, host, "not for you")
	eventually(t, func() bool { return batches(mine.ACL) == before+2 })
	if n := batches(its.ACL); n != before+1 {
		t.Errorf("a guest whose invitation is revoked has %d records of %d", n, before+2)
	}
	revoked.Store(false)

	// One with another key gets nothing.
	stranger := newDevice(t, 3, 3, host.addr("/tcp/"))
	g = &exchange.Guest{
		Space: space.ID, Key: key('i', 2), Peers: []string{host.addr("/tcp/")},
		Take:    func([][]byte, bool) error { t.Error("a stranger got the access list"); return nil },
		Answer:  func() [][]byte { return nil },
		Refused: func() { refused.Add(1) },
	}
	must(t, stranger.e.Seek(g))
	eventually(t, func() bool { return refused.Load() > 0 })
}

// TestGuestThatWritesOn: of a guest nothing is taken once its invitation shows the list no more, on the stream that it has, and it is told so.
func TestGuestThatWritesOn(t *testing.T) {
	host := newDevice(t, 1, 1)
	space := newReplica(t, host, "space")
	batches := func(g *dag.Graph) uint64 { n, _, _ := g.Counters(); return n }
	space.Invited = func(_, _ dag.PublicKey) bool { return batches(space.ACL) < 3 }
	host.e.Add(space.Replica)
	put := func(g *dag.Graph, d *device) *dag.Batch {
		b, err := g.Begin(d.author, nil, dag.ID{})
		must(t, err)
		_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte("me"), nil })
		must(t, err)
		done, err := b.Commit()
		must(t, err)
		return done
	}
	put(space.ACL, host)
	guest := newDevice(t, 2, 2, host.addr("/tcp/"))
	mine := newReplica(t, guest, "space")
	var out [][]byte
	var refused atomic.Int64
	must(t, guest.e.Seek(&exchange.Guest{
		Space: mine.ID, Key: key('i', 1), Peers: []string{host.addr("/tcp/")},
		Take: func(frames [][]byte, last bool) error {
			for _, f := range frames {
				if _, err := mine.ACL.Ingest(f); err != nil {
					return err
				}
			}
			for last && len(out) < 6 {
				f, err := mine.ACL.Frame(put(mine.ACL, guest).ID())
				must(t, err)
				out = append(out, f)
			}
			return nil
		},
		Answer:  func() [][]byte { return out },
		Refused: func() { refused.Add(1) },
	}))
	eventually(t, func() bool { return refused.Load() > 0 })
	if n := batches(space.ACL); n != 3 {
		t.Errorf("the host has %d records", n)
	}
}

// TestRefusedGuest: who is connected anyway and proves an invitation that is none is told at once, and of a space that is not there as fast as
// of one that is.
func TestRefusedGuest(t *testing.T) {
	t.Parallel()
	host := newDevice(t, 1, 1)
	guest := newDevice(t, 2, 2, host.addr("/tcp/"))
	secret := newReplica(t, host, "secret")
	secret.Invited = func(_, _ dag.PublicKey) bool { return false }
	host.e.Add(secret.Replica)
	for _, d := range []*device{host, guest} {
		d.e.Add(newReplica(t, d, "common").Replica)
	}
	time.Sleep(11 * time.Second) // it might be about to open its spaces
	for _, space := range []dag.ID{secret.ID, dag.Sum([]byte("nowhere"))} {
		var refused atomic.Int64
		began := time.Now()
		must(t, guest.e.Seek(&exchange.Guest{
			Space: space, Key: key('i', 2), Peers: []string{host.addr("/tcp/")},
			Take:    func([][]byte, bool) error { t.Error("a stranger got the access list"); return nil },
			Answer:  func() [][]byte { return nil },
			Refused: func() { refused.Add(1) },
		}))
		eventually(t, func() bool { return refused.Load() > 1 })
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("refused twice after %v", took)
		}
		guest.e.Unseek(space)
	}
}
