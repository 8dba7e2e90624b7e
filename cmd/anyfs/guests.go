package main

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

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
	trouble error         // why the space could not be made, when that was tried last
	wait    time.Duration // from then on, before it is tried again
	again   time.Time     // when it is
}

// Between two attempts to make a space that could not be made; doubled each time.
const (
	madeAgain    = time.Second
	madeAgainMax = time.Minute
)

// nameless is what a space is called that an invitation gives no name that a space can have.
const nameless = "Shared"

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

// guestMoved wakes who waits for a guest, and has it looked how far it has come.
func (n *network) guestMoved() {
	n.wakeGuests()
	n.poke()
}

func (n *network) wakeGuests() {
	g := &n.guests
	g.mu.Lock()
	close(g.changed)
	g.changed = make(chan struct{})
	g.mu.Unlock()
}

// admitGuests makes the spaces that guests came into, and gives up what is of no use.
func (n *network) admitGuests() {
	g := &n.guests
	g.mu.Lock()
	var all []*guest
	for _, x := range g.all {
		if x.failed == nil && x.joined == "" && !time.Now().Before(x.again) {
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

// join makes the space of a guest that is in, under the name that was asked for, or one like it where that is taken.
func (n *network) join(x *guest, frames [][]byte) (string, error) {
	name := x.pending.Name
	if checkSpaceName(name) != nil {
		name = nameless
	}
	for i := 1; ; i++ {
		as := name
		if i > 1 {
			as = numbered(name, i)
		}
		s, err := n.h.fs.Join(as, x.Space(), frames)
		var taken *fs.TakenError
		if errors.As(err, &taken) && i < 100 {
			continue
		}
		return s.Name, err
	}
}

// numbered is a name with a number behind it, cut where it would be too long.
func numbered(name string, i int) string {
	number := fmt.Sprintf(" %d", i)
	for len(name)+len(number) > fs.MaxName {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return name + number
}

// admit says how far a guest has come: the name of its space where that is here now, or why it is given up. What can't be made is tried again: the account is in,
// and the invitation may be of no more use.
func (n *network) admit(x *guest) (name string, failed error) {
	state, err := x.State()
	switch state {
	case acl.GuestIn:
		frames, err := x.Frames()
		if err != nil {
			return "", err
		}
		name, err = n.join(x, frames)
		n.guests.mu.Lock()
		first := x.trouble == nil && err != nil
		if x.trouble = err; err != nil {
			x.wait = min(max(2*x.wait, madeAgain), madeAgainMax)
			x.again = time.Now().Add(x.wait)
			time.AfterFunc(x.wait, n.poke)
		}
		n.guests.mu.Unlock()
		if first {
			n.h.log.Error("a space that this account is in can't be made here, which is tried again", "space", x.Space(), "err", err)
			n.wakeGuests()
		}
		return name, nil
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
