package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	iofs "io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// peersName is the file of a home with the addresses of peers that a person gave, sealed.
const peersName = "peers"

// network is the daemon's exchange with other devices: each space that is here is exchanged, and each that the root of the home names
// and that is not here is asked for.
type network struct {
	h      *home
	engine *exchange.Engine
	poked  chan struct{}
	asked  chan struct{} // somebody waits for deliver
	meets  time.Time     // until then the others of a device that came to an account are still being found
	guests guests
	nets   atomic.Pointer[appliedNets]

	kept pastKept

	untaken sync.Map // networks of which it was logged that a configuration was not taken

	// Of lookAtNetworks; guarded by home.nets.
	unknowing bool      // the account's home space has never been here whole
	moved     fs.Moment // how far the home was when it was last seen to what was said of networks
	netFailed string    // why that could not be carried out

	quotas uint64 // of the engine, as it was told to the spaces; run's alone

	words  map[string][]byte      // as they were written last; run's alone
	named  map[dag.ID]uint64      // how long the access list was when the names in it were remembered; run's alone, as warned is
	warned map[dag.PublicKey]bool // accounts that go by another's name
}

// meetFor is how long that may take after a start, on the local network.
const meetFor = 10 * time.Second

// askAgain is when a space that nobody had is asked for again, though nothing has changed.
const askAgain = 10 * time.Second

// listenNone is given for --listen to have no network.
const listenNone = "none"

// newNetwork makes the exchange of a home. Nil: it is to have none.
func newNetwork(h *home, listen []string, discover bool) (*network, error) {
	if len(listen) == 1 && listen[0] == listenNone {
		return nil, nil
	}
	peers, err := h.readPeers()
	if err != nil {
		h.log.Warn("the addresses of peers can't be read", "err", err)
	}
	n := &network{h: h, poked: make(chan struct{}, 1), asked: make(chan struct{}, 1), named: map[dag.ID]uint64{}, warned: map[dag.PublicKey]bool{}}
	n.engine, err = exchange.New(exchange.Options{
		Key: h.keys.Device.PrivateKey(), Certificate: h.keys.Device.Certificate, Listen: listen, Peers: peers, MDNS: discover,
		Log: h.log, Changed: n.poke, NewConfig: n.newConfig,
	})
	if err != nil {
		return nil, &failure{exitUsage, err}
	}
	h.network = n
	s, err := h.readSettings()
	if err != nil {
		// What can't be read may say that nothing is to be exchanged.
		h.log.Error("the exchange is paused", "err", err)
		s.Paused = true
	}
	n.unknowing = s.Joined && !s.KnowsHome
	if s.Joined && discover {
		n.meets = time.Now().Add(meetFor)
	}
	h.applySettings(s)
	if err := h.changeNetworks(func(*netView) error { return nil }); err != nil {
		h.log.Error("no network is used", "err", err)
	}
	return n, nil
}

func (n *network) poke() {
	select {
	case n.poked <- struct{}{}:
	default:
	}
}

// run exchanges until ctx ends. A network that fails is no reason to end the mount.
func (n *network) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if err := n.engine.Run(ctx); err != nil && ctx.Err() == nil {
			n.h.log.Error("the exchange with other devices has ended", "err", err)
		}
	})
	wg.Go(func() { n.deliver(ctx) })
	wg.Go(func() { n.upload(ctx) })
	wg.Go(func() { n.seekOneToOnes(ctx) })
	n.h.fs.WatchSpaces(n.poke)
	n.h.fs.SetKeepers(n.engine)
	defer n.h.fs.SetKeepers(nil)
	n.h.fs.SetSealed(n.engine.Sealed)
	added := map[dag.ID]bool{}
	n.seekAgain()
	n.poke()
	n.words = n.h.wordsOfNodes()
	defer n.keepWords()
	tick, nets := time.NewTicker(askAgain), time.NewTicker(netEvery)
	defer tick.Stop()
	defer nets.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-nets.C:
			n.lookAtNetworks()
			continue
		case <-tick.C:
			if n.h.fs.Heal() {
				n.engine.Announce()
			}
			n.noteNames()
			n.keepWords()
			if missing, err := n.h.fs.Missing(); err != nil || len(missing) == 0 {
				continue
			}
		case <-n.poked:
		}
		n.lookAtNetworks()
		n.lookAtQuotas()
		n.admitGuests()
		came := n.follow(added)
		n.ask(ctx)
		came = n.follow(added) || came
		if came && n.h.fs.Heal() {
			n.engine.Announce() // others wait for its keys
		}
		n.h.fs.Mirror()
		n.noteNames()
	}
}

// follow adds the spaces that came to the exchange, and takes those out that went. It reports whether any came.
func (n *network) follow(added map[dag.ID]bool) (came bool) {
	here := map[dag.ID]bool{}
	for _, r := range n.h.fs.Replicas() {
		here[r.ID] = true
		if added[r.ID] {
			continue
		}
		added[r.ID], came = true, true
		n.engine.Add(&exchange.Replica{
			ID: r.ID, ACL: r.ACL, Files: r.Files, Blocks: r.Blocks, Durable: r.Durable, Grown: r.Grown, Member: r.Member, Tags: r.Tags, Keeps: &r,
			Invited: r.Invited, Sealed: r.Sealed, Preview: r.Preview, TakePreview: r.TakePreview, Words: n.words[r.ID.String()],
		})
	}
	for id := range added {
		if !here[id] {
			delete(added, id)
			n.engine.Remove(id)
		}
	}
	return came
}

// ask gets the spaces that the root names and that are not here.
func (n *network) ask(ctx context.Context) {
	missing, err := n.h.fs.Missing()
	if err != nil {
		n.h.log.Error("spaces of other devices", "err", err)
		return
	}
	for _, id := range missing {
		frames, err := n.engine.FetchACL(ctx, id)
		if errors.Is(err, exchange.ErrOffline) {
			return
		}
		if err == nil {
			err = n.h.fs.TakeIn(ctx, id, frames)
		}
		if errors.Is(err, fs.ErrNoKey) {
			continue // this device was paired by a code: one that has the key brings it in
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, dag.ErrNotFound) {
			n.h.log.Warn("a space of another device", "err", err)
		}
	}
}

// readPeers reads the addresses of peers that were added.
func (h *home) readPeers() (peers []string, err error) {
	sealed, err := h.disk.ReadFile(peersName)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := h.keys.Local.OpenLocal(nil, sealed, []byte(peersName))
	if err != nil {
		return nil, err
	}
	return peers, json.Unmarshal(b, &peers)
}

// changePeers changes the addresses of peers.
func (h *home) changePeers(change func([]string) []string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	peers, err := h.readPeers()
	if err != nil {
		return err
	}
	b, err := json.Marshal(change(slices.Clone(peers)))
	if err != nil {
		return err
	}
	return h.disk.WriteFileAtomic(peersName, h.keys.Local.SealLocal(nil, b, []byte(peersName)))
}

// peerStatus is a connected peer as status shows it.
type peerStatus struct {
	PeerID string   `json:"peer_id"`
	Device string   `json:"device"`
	Addr   string   `json:"addr"`
	Spaces []string `json:"spaces"`
	Node   bool     `json:"node,omitempty"` // a network's, and no device
	Relay  bool     `json:"relayed"`        // connected through the relay of a node, whose address Addr is

	// Bytes of the protocol's messages since the daemon began, over all connections.
	Sent     uint64 `json:"bytes_sent"`
	Received uint64 `json:"bytes_received"`
}

// where is how a peer is connected, in words.
func (p *peerStatus) where() string {
	if !p.Relay {
		return p.Addr
	}
	node, _, _ := strings.Cut(p.Addr, "/p2p/")
	return "through the relay at " + node
}

// addTo adds to a status what the network knows.
func (n *network) addTo(r *statusResult) {
	st := n.engine.Status()
	r.Listen, r.Paused = st.Listen, st.Paused
	names := map[string]string{}
	for _, s := range r.Spaces {
		names[s.ID] = s.Name
	}
	replicas := n.h.fs.Replicas()
	for _, p := range st.Peers {
		s := peerStatus{PeerID: p.ID, Addr: p.Addr, Device: deviceName(replicas, p.Device), Node: p.Node, Relay: p.Relayed, Spaces: []string{}, Sent: p.Sent, Received: p.Received}
		if p.Node {
			if s.Device = "node of " + netconf.Name(p.Network); p.Network == (dag.PublicKey{}) {
				s.Device = "node that an invitation names"
			}
		}
		for _, id := range p.Spaces {
			if name := names[id.String()]; name != "" {
				s.Spaces = append(s.Spaces, name)
			}
		}
		slices.Sort(s.Spaces)
		r.Peers = append(r.Peers, s)
		for i := range r.Spaces {
			if x := &r.Spaces[i]; slices.Contains(s.Spaces, x.Name) {
				x.Peers = append(x.Peers, cmp.Or(s.Device, s.PeerID))
			}
		}
	}
	for _, s := range st.Spaces {
		for i := range r.Spaces {
			x := &r.Spaces[i]
			if x.ID != s.ID.String() {
				continue
			}
			if x.State == fs.StateLeft || x.State == fs.StateRevoked || x.State == fs.StateAsked {
				continue
			}
			x.ToSend, x.FetchChanges = int(s.ToSend), int(s.ToFetch)
			for _, d := range s.Missing {
				x.Missing = append(x.Missing, cmp.Or(deviceName(replicas, d), list.PeerID(d)))
			}
			for _, d := range s.Doubts {
				x.Doubts = append(x.Doubts, doubt{list.PeerID(d.Node), d.Split})
			}
			for _, p := range s.Peers {
				if p.Equal {
					x.Synced++
				}
			}
			if x.State == "local" && x.Synced > 0 && x.SendBlocks == 0 {
				x.State = "synced"
			} else if x.State == "local" && len(s.Peers) > 0 {
				x.State = "syncing"
			}
		}
	}
}

func deviceName(replicas []fs.Replica, device dag.PublicKey) string {
	for i := range replicas {
		if name := replicas[i].DeviceName(device); name != "" {
			return name
		}
	}
	return ""
}
