package main

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"
	"sync"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/exchange"
)

// joinsName is the file of a home with the invitations that it asks to join by, sealed.
const joinsName = "joins"

// pendingJoin is an invitation that waits for its answer.
type pendingJoin struct {
	Link string `json:"link"`
	Name string `json:"name"` // of the space in the root
	As   string `json:"as"`   // how the account is called there

	// Joined: it was answered, and stays because it names nodes through which the space's others are found.
	Joined bool `json:"joined,omitempty"`
}

// isThrough reports whether an address is one through a node.
func isThrough(addr string) bool { return strings.Contains(addr, "/p2p-circuit") }

// nodesOf gives the addresses in an invitation that lead through nodes.
func nodesOf(l *acl.Link) []string {
	return slices.DeleteFunc(slices.Clone(l.Addresses), func(a string) bool { return !isThrough(a) })
}

// maxJoined is of how many spaces that were joined the nodes in the invitation are remembered.
const maxJoined = 256

// guests are the spaces that this home asks to join.
type guests struct {
	mu      sync.Mutex
	all     map[dag.ID]*guest
	changed chan struct{} // closed and replaced when one of them has come further
}

type guest struct {
	*acl.Guest
	pending pendingJoin
	refused int    // how often a peer did not know the invitation since one gave the access list
	joined  string // the name of the space, once it is here
	failed  error
}

// How often in turn peers may not know an invitation before it is given up: a peer may be about to open its spaces. Who has asked is more patient.
const (
	maxRefused     = 2
	maxRefusedLate = 5
)

// readJoins reads the invitations that wait for an answer.
func (h *home) readJoins() (joins []pendingJoin, err error) {
	sealed, err := h.disk.ReadFile(joinsName)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := h.keys.Local.OpenLocal(nil, sealed, []byte(joinsName))
	if err != nil {
		return nil, err
	}
	return joins, json.Unmarshal(b, &joins)
}

func (h *home) changeJoins(change func([]pendingJoin) []pendingJoin) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	joins, err := h.readJoins()
	if err != nil {
		return err
	}
	b, err := json.Marshal(change(joins))
	if err != nil {
		return err
	}
	return h.disk.WriteFileAtomic(joinsName, h.keys.Local.SealLocal(nil, b, []byte(joinsName)))
}

// seekAgain goes on with what waited for an answer when the daemon ended.
func (n *network) seekAgain() {
	joins, err := n.h.readJoins()
	if err != nil {
		n.h.log.Warn("the invitations that wait for an answer can't be read", "err", err)
		return
	}
	for _, j := range joins {
		var err error
		if j.Joined {
			err = n.stayNear(j)
		} else {
			_, err = n.seek(j)
		}
		if err != nil {
			n.h.log.Warn("an invitation", "err", err)
		}
	}
}

// stayNear has the nodes visited that an invitation named by which a space was joined.
func (n *network) stayNear(j pendingJoin) error {
	l, err := acl.ParseLink(j.Link)
	if err != nil {
		return err
	}
	return n.engine.Near(l.Space, nodesOf(l))
}

// seek begins to ask for a space, or gives the asking that goes on.
func (n *network) seek(j pendingJoin) (*guest, error) {
	l, err := acl.ParseLink(j.Link)
	if err != nil {
		return nil, &failure{exitUsage, err}
	}
	if len(l.Addresses) == 0 {
		return nil, failf(exitUsage, "the invitation names no device to ask; have it made while that device is mounted and connected")
	}
	g := &n.guests
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil {
		g.all, g.changed = map[dag.ID]*guest{}, make(chan struct{})
	}
	if x := g.all[l.Space]; x != nil && x.pending.Link == j.Link && x.failed == nil && x.joined == "" {
		return x, nil
	}
	ag, err := n.h.fs.NewGuest(l, j.As)
	if err != nil {
		return nil, err
	}
	x := &guest{Guest: ag, pending: j}
	for _, a := range l.Addresses {
		if err := n.engine.AddPeer(a); err != nil {
			return nil, &failure{exitUsage, err}
		}
	}
	g.all[l.Space] = x
	err = n.engine.Seek(&exchange.Guest{
		Space: l.Space, Key: ag.Key(), Peers: l.Addresses,
		Take: func(frames [][]byte, last bool) error {
			err := ag.Take(frames, last, n.h.fs.Now())
			if last {
				g.mu.Lock()
				x.refused = 0
				g.mu.Unlock()
				n.guestMoved()
			}
			return err
		},
		Answer: ag.Answer,
		Refused: func() {
			g.mu.Lock()
			x.refused++
			g.mu.Unlock()
			n.guestMoved()
		},
	})
	return x, err
}

// guestMoved wakes who waits for a guest.
func (n *network) guestMoved() {
	g := &n.guests
	g.mu.Lock()
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
	n.poke()
}

// admitGuests makes the spaces that guests came into, and gives up what is of no use.
func (n *network) admitGuests() {
	g := &n.guests
	g.mu.Lock()
	var all []*guest
	for _, x := range g.all {
		if x.failed == nil && x.joined == "" {
			all = append(all, x)
		}
	}
	g.mu.Unlock()
	for _, x := range all {
		name, failed := n.admit(x)
		if name == "" && failed == nil {
			continue
		}
		n.engine.Unseek(x.Space())
		err := n.h.changeJoins(func(all []pendingJoin) []pendingJoin {
			all = slices.DeleteFunc(all, func(j pendingJoin) bool { return j.Link == x.pending.Link })
			if l, err := acl.ParseLink(x.pending.Link); err == nil && failed == nil && len(nodesOf(l)) > 0 {
				joined := x.pending
				joined.Joined = true
				all = append(all, joined)
			}
			return all[max(0, len(all)-maxJoined):]
		})
		if failed != nil {
			err = errors.Join(err, n.engine.Near(x.Space(), nil))
		}
		if err != nil {
			n.h.log.Error("the invitations that wait for an answer can't be written", "err", err)
		}
		if failed != nil {
			n.h.log.Warn("an invitation is given up", "space", x.Space(), "err", failed)
		}
		g.mu.Lock()
		x.joined, x.failed = name, failed
		g.mu.Unlock()
		n.guestMoved()
	}
}

func (n *network) admit(x *guest) (name string, failed error) {
	state, err := x.State()
	switch state {
	case acl.GuestIn:
		frames, err := x.Frames()
		if err != nil {
			return "", err
		}
		for i := 1; ; i++ {
			name := x.pending.Name
			if i > 1 {
				name = fmt.Sprintf("%s %d", name, i)
			}
			s, err := n.h.fs.Join(name, x.Space(), frames)
			var taken *fs.TakenError
			if errors.As(err, &taken) && i < 100 {
				continue
			}
			if err == nil {
				name = s.Name
			}
			return name, err
		}
	case acl.GuestDeclined:
		return "", failf(exitFailed, "the request was declined")
	case acl.GuestFailed:
		return "", &failure{exitFailed, err}
	}
	n.guests.mu.Lock()
	defer n.guests.mu.Unlock()
	switch {
	case state == acl.GuestWaiting && x.refused >= maxRefused:
		return "", failf(exitFailed, "the device that the invitation names does not know it: it was revoked or has expired; ask for another one")
	case state == acl.GuestAsked && x.refused >= maxRefusedLate:
		return "", failf(exitFailed, "the request waits no more: it was declined or the invitation revoked while this device did not hear it; ask for another one")
	}
	return "", nil
}
