package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// Which networks the account uses, and which spaces are on them, stands in the home space (fs.Networks). A device keeps beside it the newest
// configurations that it has seen, and what it was told to add but has not written there yet: one that was made for an account that there was
// does so only once it has the account's home space, or it would decide, unknowing, what the default is.

// networksName is the file of a home with that, sealed.
const networksName = "networks"

const (
	netEvery   = time.Second      // between two looks at what was said of networks
	tellConfig = 30 * time.Second // at most, before a newer configuration is written into the home space: one of several devices does so
	maxLocal   = 8 << 20          // bytes of configurations
)

// localNets is the file.
type localNets struct {
	Configs [][]byte     `json:"configs"`
	Pending []netconf.ID `json:"pending,omitempty"` // to be written into the home space, in order
	Given   []netconf.ID `json:"given,omitempty"`   // by the device that paired this one: where the home space is, until it is here
}

// readLocalNets reads the file.
func (h *home) readLocalNets() (l localNets, err error) {
	sealed, err := h.disk.ReadFile(networksName)
	if errors.Is(err, iofs.ErrNotExist) {
		return l, nil
	}
	var b []byte
	if err == nil {
		b, err = h.keys.Local.OpenLocal(nil, sealed, []byte(networksName))
	}
	if err == nil && bytes.HasPrefix(b, []byte("[")) { // of before the home space told of networks
		if err = json.Unmarshal(b, &l.Configs); err == nil {
			for _, e := range l.Configs {
				if c, err := netconf.Decode(e); err == nil {
					l.Pending = append(l.Pending, c.ID)
				}
			}
		}
	} else if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil {
		return localNets{}, fmt.Errorf("read the networks: %w", err)
	}
	return l, nil
}

func (h *home) writeLocalNets(l localNets) error {
	b, err := json.Marshal(l)
	if err == nil {
		err = h.disk.WriteFileAtomic(networksName, h.keys.Local.SealLocal(nil, b, []byte(networksName)))
	}
	if err != nil {
		return fmt.Errorf("keep the networks: %w", err)
	}
	return nil
}

// netView is what is known of networks at a moment.
type netView struct {
	configs  map[netconf.ID]*netconf.Config  // the newest that are known
	contacts map[netconf.ID]*netconf.Contact // where a newer one is asked for
	said     *fs.Networks
	local    localNets
	knows    bool // the home space is the account's, and no mere beginning
	home     dag.ID
}

// used gives the networks of the account: the default first.
func (v *netView) used() []netconf.ID {
	out := slices.Clone(v.said.Used)
	for _, id := range v.local.Pending {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// of gives the networks that a space is on.
func (v *netView) of(space dag.ID) []netconf.ID {
	on := v.said.Of(space)
	add := func(ids []netconf.ID) {
		for _, id := range ids {
			if !slices.Contains(on, id) {
				on = append(on, id)
			}
		}
	}
	switch {
	case space == v.home:
		add(v.local.Pending)
		if !v.knows {
			add(v.local.Given)
		}
	case v.knows && len(v.said.Used) == 0 && len(on) == 0:
		add(v.local.Pending[:min(1, len(v.local.Pending))])
	}
	return on
}

// wantsOf gives the networks that any space is on, and those that the account uses.
func (v *netView) relevant(spaces []dag.ID) map[netconf.ID]bool {
	out := map[netconf.ID]bool{}
	for _, id := range slices.Concat(v.used(), v.local.Given) {
		out[id] = true
	}
	for _, s := range spaces {
		for _, id := range v.of(s) {
			out[id] = true
		}
	}
	return out
}

// viewNetworks gathers what is known.
func (h *home) viewNetworks() (*netView, error) {
	v := &netView{configs: map[netconf.ID]*netconf.Config{}, contacts: map[netconf.ID]*netconf.Contact{}, home: h.fs.HomeID()}
	var err error
	if v.said, err = h.fs.Networks(); err != nil {
		return nil, err
	}
	if v.local, err = h.readLocalNets(); err != nil {
		return nil, err
	}
	s, err := h.readSettings()
	if err != nil {
		return nil, err
	}
	v.knows = !s.Joined || s.KnowsHome
	take := func(id netconf.ID, encoded []byte) {
		if x, err := netconf.DecodeContact(encoded); err == nil && (id == netconf.ID{} || x.ID == id) {
			if old := v.contacts[x.ID]; old == nil || x.Epoch > old.Epoch {
				v.contacts[x.ID] = x
			}
			return
		}
		c, err := netconf.Decode(encoded)
		if err != nil || id != (netconf.ID{}) && c.ID != id {
			return // whoever wrote it is a device of the account, or the owner of a space
		}
		if old := v.configs[c.ID]; old == nil || c.Epoch > old.Epoch {
			v.configs[c.ID] = c
		}
	}
	for _, b := range v.local.Configs {
		take(netconf.ID{}, b)
	}
	for id, b := range v.said.Configs {
		take(id, b)
	}
	v.said.Said(take)
	for id, c := range v.configs {
		if x := v.contacts[id]; x != nil && x.Epoch <= c.Epoch {
			delete(v.contacts, id)
		}
	}
	return v, nil
}

// kept gives what is kept of a network where others are told of it: its newest configuration, or where to ask for that, if it is longer than what has room
// there; nil where nothing is known.
func (v *netView) kept(id netconf.ID) []byte {
	if c := v.configs[id]; c != nil {
		if b := c.Encode(); len(b) <= fs.MaxNetworkConfig {
			return b
		}
		return c.Contact().Encode()
	}
	if x := v.contacts[id]; x != nil {
		return x.Encode()
	}
	return nil
}

// keptEpoch is the epoch of what kept gave; 0 of nothing.
func keptEpoch(b []byte) uint64 {
	if x, err := netconf.DecodeContact(b); err == nil {
		return x.Epoch
	}
	if c, err := netconf.Decode(b); err == nil {
		return c.Epoch
	}
	return 0
}

// settleNetworks carries out what was said of networks: it writes into the home space what is to stand there, keeps the newest configurations, and has
// the exchange, where there is one, go by them. h.nets is held.
func (h *home) settleNetworks() error {
	v, err := h.viewNetworks()
	if err != nil {
		return err
	}
	if v.knows && len(v.local.Pending)+len(v.local.Given) > 0 {
		for _, id := range v.local.Pending {
			if err := h.fs.UseNetwork(id, v.kept(id)); err != nil {
				return err
			}
		}
		v.local.Pending, v.local.Given = nil, nil
		if err := h.writeLocalNets(v.local); err != nil {
			return err
		}
		if v, err = h.viewNetworks(); err != nil {
			return err
		}
	}
	var failed error
	if v.knows {
		failed = h.fs.SettleNetworks(v.kept)
		h.tellConfigs(v)
	}
	if v, err = h.viewNetworks(); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, h.keepConfigs(v), h.applyNetworks(v))
}

// tellConfigs writes newer configurations into the home space, each after a while, so that of several devices one does.
func (h *home) tellConfigs(v *netView) {
	now := time.Now()
	for _, id := range v.said.Used {
		c := v.configs[id]
		if c == nil {
			continue
		}
		if keptEpoch(v.said.Configs[id]) >= c.Epoch {
			delete(h.tells, id)
			continue
		}
		at, waits := h.tells[id]
		if !waits {
			at = now.Add(rand.N(tellConfig))
			h.tells[id] = at
		}
		if now.Before(at) {
			continue
		}
		delete(h.tells, id)
		if err := h.fs.NetworkConfig(id, v.kept(id)); err != nil {
			h.log.Warn("the configuration of a network is not written into the home space", "network", netconf.Name(id), "err", err)
		}
	}
}

// keepConfigs writes down the newest configurations of networks that are of use.
func (h *home) keepConfigs(v *netView) error {
	wanted := v.relevant(h.fs.NamedSpaces())
	var out [][]byte
	size := 0
	for id, c := range v.configs {
		if b := c.Encode(); wanted[id] && size+len(b) <= maxLocal {
			out, size = append(out, b), size+len(b)
		}
	}
	for id, x := range v.contacts {
		if b := x.Encode(); wanted[id] && v.configs[id] == nil && size+len(b) <= maxLocal {
			out, size = append(out, b), size+len(b)
		}
	}
	slices.SortFunc(out, bytes.Compare)
	if slices.EqualFunc(out, v.local.Configs, bytes.Equal) {
		return nil
	}
	v.local.Configs = out
	return h.writeLocalNets(v.local)
}

// appliedNets is what the exchange goes by.
type appliedNets struct {
	view *netView
	on   map[netconf.ID]map[dag.ID]bool
	text string // tells two apart
}

// applyNetworks has the exchange, where there is one, use the networks.
func (h *home) applyNetworks(v *netView) error {
	n := h.network
	if n == nil {
		return nil
	}
	a := &appliedNets{view: v, on: map[netconf.ID]map[dag.ID]bool{}}
	spaces := append(h.fs.NamedSpaces(), v.home)
	slices.SortFunc(spaces, dag.ID.Compare)
	for _, s := range spaces {
		for _, id := range v.of(s) {
			if a.on[id] == nil {
				a.on[id] = map[dag.ID]bool{}
			}
			a.on[id][s] = true
			a.text += fmt.Sprintf("%s on %x\n", s, id)
		}
	}
	var ids []netconf.ID
	for id := range a.on {
		if v.configs[id] != nil || v.contacts[id] != nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b netconf.ID) int { return bytes.Compare(a[:], b[:]) })
	for _, id := range ids {
		if c := v.configs[id]; c != nil {
			a.text += fmt.Sprintf("%x epoch %d\n", id, c.Epoch)
		}
		if x := v.contacts[id]; x != nil {
			a.text += fmt.Sprintf("%x contact %d\n", id, x.Epoch)
		}
	}
	if before := n.nets.Load(); before != nil && before.text == a.text {
		n.nets.Store(a) // which of them is the default may have changed
		return nil
	}
	var nodes []exchange.Node
	type keeper struct {
		network netconf.ID
		table   *netconf.Table
	}
	keepers, of := map[dag.PublicKey]keeper{}, map[dag.PublicKey]netconf.ID{}
	for _, id := range ids {
		c, on := v.configs[id], a.on[id]
		if c == nil {
			continue
		}
		table, err := c.Table()
		if err != nil {
			h.log.Warn("a network can't be used", "network", netconf.Name(id), "err", err)
			continue
		}
		for i := range c.Nodes {
			x := &c.Nodes[i]
			if other, twice := of[x.Key]; twice {
				h.log.Warn("a node that is in two networks is used as one of the first", "node", x.Peer(), "first", netconf.Name(other), "second", netconf.Name(id))
				continue
			}
			of[x.Key] = id
			if x.Kinds&netconf.File != 0 {
				keepers[x.Key] = keeper{id, table}
			}
			nodes = append(nodes, exchange.Node{
				Network: id, Addrs: x.Multiaddrs(), Last: x.Kinds&netconf.Coordinator != 0,
				Wants: func(space dag.ID) bool { return on[space] && table.Has(space, x.Key) },
				Files: func(space dag.ID) bool { return table.HasBlocks(space, x.Key) },
				Placed: func(space dag.ID) uint64 {
					times, _ := v.said.Word(space, id)
					return times
				},
			})
		}
	}
	for _, id := range ids {
		x := v.contacts[id]
		if x == nil {
			continue
		}
		for i := range x.Nodes {
			n := &x.Nodes[i]
			if _, twice := of[n.Key]; !twice {
				of[n.Key] = id
				nodes = append(nodes, exchange.Node{Network: id, Addrs: n.Multiaddrs(), Last: true, Wants: func(dag.ID) bool { return false }})
			}
		}
	}
	h.fs.SetNodes(func(space dag.ID, node dag.PublicKey) bool {
		k, ok := keepers[node]
		return ok && a.on[k.network][space]
	})
	n.nets.Store(a)
	if err := n.engine.SetNodes(nodes); err != nil {
		return err
	}
	n.poke()
	return nil
}

// changeNetworks changes what is known of networks by fn, and carries it out.
func (h *home) changeNetworks(fn func(*netView) error) error {
	h.nets.Lock()
	defer h.nets.Unlock()
	if h.network != nil { // what it is refused for may have come since the last look
		if _, err := h.network.learnHome(); err != nil {
			return err
		}
	}
	v, err := h.viewNetworks()
	if err == nil {
		err = fn(v)
	}
	if err != nil {
		return err
	}
	return h.settleNetworks()
}

// lookAtNetworks does so where something may have changed since it was done last. Where somebody changes it now, it is left to the next time.
func (n *network) lookAtNetworks() {
	h := n.h
	if !h.nets.TryLock() {
		return
	}
	defer h.nets.Unlock()
	if _, err := n.learnHome(); err != nil {
		h.log.Error("that the home space is here is not written down", "err", err)
		return
	}
	moved := h.fs.Moved()
	if moved == n.moved && len(h.tells) == 0 {
		return
	}
	if err := h.settleNetworks(); err != nil {
		if text := err.Error(); text != n.netFailed {
			n.netFailed = text
			h.log.Error("what was said of networks is not carried out", "err", err)
		}
		return
	}
	n.moved, n.netFailed = moved, ""
}

// learnHome writes down, once it is so, that the account's home space is here, and with it what it says of networks. It reports whether it became so
// now. h.nets is held.
func (n *network) learnHome() (learned bool, err error) {
	h := n.h
	if !n.unknowing || h.fs.HomeArriving() {
		return false, nil
	}
	if equal, _ := n.equal(h.fs.HomeID()); !equal {
		return false, nil
	}
	if _, err := h.changeSettings(func(s *settings) { s.KnowsHome = true }, func(settings) {}); err != nil {
		return false, err
	}
	n.unknowing, n.moved = false, fs.Moment{}
	return true, nil
}

// newConfig takes the configuration that a node gave, where its network signed it and it is newer. An error is the node's fault. One that cannot be
// read may be of a later version, and so is passed over; the log says so once of each network.
func (n *network) newConfig(id dag.PublicKey, encoded []byte) error {
	c, err := netconf.Decode(encoded)
	if err == nil && c.ID != id {
		err = netconf.ErrOther
	}
	if errors.Is(err, netconf.ErrSignature) || errors.Is(err, netconf.ErrOther) {
		return err
	}
	if err == nil {
		if a := n.nets.Load(); a != nil && a.view.configs[id] != nil && a.view.configs[id].Epoch >= c.Epoch {
			return nil
		}
		err = n.h.changeNetworks(func(v *netView) error {
			if old := v.configs[id]; old == nil && !v.relevant(n.h.fs.NamedSpaces())[id] || old != nil && c.Replaces(old) != nil {
				return nil
			}
			v.local.Configs = append(v.local.Configs, encoded)
			return n.h.writeLocalNets(v.local)
		})
	}
	if _, told := n.untaken.LoadOrStore(id, true); err != nil && !told {
		n.h.log.Warn("the configuration that a node gave is not taken", "network", netconf.Name(id), "err", err)
	} else if err == nil {
		n.untaken.Delete(id)
	}
	return nil
}

// anyNetwork reports whether any space is on a network.
func (n *network) anyNetwork() bool {
	a := n.nets.Load()
	return a != nil && len(a.on) > 0
}

// homeNetworks gives what is kept of the networks that the home space is on.
func (h *home) homeNetworks() (out [][]byte, err error) {
	v, err := h.viewNetworks()
	if err != nil {
		return nil, err
	}
	for _, id := range v.of(v.home) {
		if b := v.kept(id); b != nil {
			out = append(out, b)
		}
	}
	return out, nil
}

// giveNetworks keeps what a device that was paired got of networks, until the home space tells of them.
func (h *home) giveNetworks(configs [][]byte) error {
	if len(configs) == 0 {
		return nil
	}
	return h.changeNetworks(func(v *netView) error {
		for _, b := range configs {
			var id netconf.ID
			if x, err := netconf.DecodeContact(b); err == nil {
				id = x.ID
			} else if c, err := netconf.Decode(b); err == nil {
				id = c.ID
			} else {
				continue
			}
			v.local.Configs, v.local.Given = append(v.local.Configs, b), append(v.local.Given, id)
		}
		return h.writeLocalNets(v.local)
	})
}

// holder names a network for the list of what it lacks of content. In another age it has another name: its nodes may hold less than they did, and are
// to have all content again.
func (v *netView) holder(id netconf.ID) string {
	if c := v.configs[id]; c != nil && c.Age() > 0 {
		return fmt.Sprintf("%s age %d", netconf.Name(id), c.Age())
	}
	return netconf.Name(id)
}

// holdersOf gives the networks that a space is on, and their names for that.
func (n *network) holdersOf(space dag.ID) (ids []netconf.ID, names []string) {
	a := n.nets.Load()
	if a == nil {
		return nil, nil
	}
	ids = a.view.of(space)
	for _, id := range ids {
		names = append(names, a.view.holder(id))
	}
	return ids, names
}

// lookAtQuotas has the spaces know of which of them a network takes no more.
func (n *network) lookAtQuotas() {
	quotas := n.engine.Quotas()
	if quotas == n.quotas {
		return
	}
	n.quotas = quotas
	n.h.fs.SetFull(func(space dag.ID) bool {
		a := n.nets.Load()
		return a != nil && slices.ContainsFunc(a.view.of(space), func(id netconf.ID) bool { _, full := n.engine.Full(space, id); return full })
	})
}
