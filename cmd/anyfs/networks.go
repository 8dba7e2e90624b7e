package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
)

func networkCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "network",
		Usage: "add, list, show and remove networks, whose nodes hold spaces",
		Description: `A network is one provider's nodes, or one of your own ('anyfs help node'). Its nodes hold the spaces, sealed, for devices that are never on
together. The first network that is added is the default: all spaces are on it, and those to come. Of each further one you say which spaces are
to be on it: 'anyfs space create --network', 'anyfs space network', or, for all that are made from then on, 'anyfs network default'.

Your other devices learn of it by themselves. A new one that logs in with the phrase is told one of the networks, and learns of the others.

Examples:
  anyfs network add network.json
  anyfs network add anyfs://network/...
  anyfs network list
  anyfs network default z6Mk...`,
		Subcommands: []*cli.Command{
			{
				Name: "add", Usage: "use a network, by its file or its link", ArgsUsage: "FILE|LINK",
				Description: `Of a network that was added before, the configuration with the higher epoch is kept. FILE may be - for the standard input.

Examples:
  anyfs network add network.json
  anyfs network add anyfs://network/...`,
				Action: func(c *cli.Context) error {
					a, err := args(c, 1, 1)
					if err != nil {
						return err
					}
					return runNetworkAdd(c.Context, e, a[0])
				},
			},
			{
				Name: "default", Usage: "show which network new spaces are on, or choose another", ArgsUsage: "[NETWORK]",
				Description: `Spaces that there are stay where they are; 'anyfs space network' moves one.

Examples:
  anyfs network default
  anyfs network default z6Mk...`,
				Action: func(c *cli.Context) error {
					a, err := args(c, 0, 1)
					if err != nil {
						return err
					}
					return runNetworkDefault(c.Context, e, append(a, "")[0])
				},
			},
			{
				Name: "list", Usage: "list the networks that are used",
				Description: "Examples:\n  anyfs network list\n  anyfs network list --json",
				Action: func(c *cli.Context) error {
					if _, err := args(c, 0, 0); err != nil {
						return err
					}
					return runNetworkList(c.Context, e)
				},
			},
			{
				Name: "show", Usage: "show the nodes of a network, and its link", ArgsUsage: "NETWORK",
				Description: "NETWORK is an ID as 'anyfs network list' shows it, or its beginning.\n\nExamples:\n  anyfs network show z6Mk...",
				Action: func(c *cli.Context) error {
					a, err := args(c, 1, 1)
					if err != nil {
						return err
					}
					return runNetworkShow(c.Context, e, a[0])
				},
			},
			{
				Name: "remove", Usage: "use a network no more", ArgsUsage: "NETWORK",
				Description: `All your devices stop using it. Spaces that are on no other network are on the default one then, if there is one. What its nodes hold
stays there: content that is on no device but was let go here under a promise of the network can be read again when it is added again. So where it
goes on, first move each space: 'anyfs help space network'.

Examples:
  anyfs network remove z6Mk...`,
				Action: func(c *cli.Context) error {
					a, err := args(c, 1, 1)
					if err != nil {
						return err
					}
					_, err = opNetworkRemove.call(c.Context, e, nameParams{Name: a[0]})
					return err
				},
			},
		},
	}
}

// networkInfo is a network as network list --json prints it.
type networkInfo struct {
	ID      string        `json:"id"`
	Epoch   uint64        `json:"epoch"`
	Default bool          `json:"default"`
	Used    bool          `json:"used"` // by the account; else it is known through a space that others share
	Spaces  []string      `json:"spaces"`
	Nodes   []networkNode `json:"nodes"`
	Link    string        `json:"link,omitempty"` // empty: its configuration has not come here
}

type networkNode struct {
	PeerID    string   `json:"peer_id"`
	Kinds     []string `json:"kinds"`
	Addresses []string `json:"addresses"`
	Connected bool     `json:"connected"`
}

// networkIDs gives all networks that are of any use: the default first, those that the account uses, then others.
func (v *netView) networkIDs(h *home) []netconf.ID {
	out := v.used()
	var more []netconf.ID
	for id := range v.relevant(h.fs.NamedSpaces()) {
		if !slices.Contains(out, id) {
			more = append(more, id)
		}
	}
	slices.SortFunc(more, func(a, b netconf.ID) int { return strings.Compare(netconf.Name(a), netconf.Name(b)) })
	return append(out, more...)
}

// connectedPeers gives the peer IDs that are connected.
func (h *home) connectedPeers() map[string]bool {
	out := map[string]bool{}
	if h.network != nil {
		for _, p := range h.network.engine.Status().Peers {
			out[p.ID] = true
		}
	}
	return out
}

func (h *home) networkInfos() ([]networkInfo, error) {
	v, err := h.viewNetworks()
	if err != nil {
		return nil, err
	}
	connected := h.connectedPeers()
	spaces, err := h.fs.Spaces()
	if err != nil {
		return nil, err
	}
	out := []networkInfo{}
	used := v.used()
	for i, id := range v.networkIDs(h) {
		x := networkInfo{ID: netconf.Name(id), Default: i == 0 && len(used) > 0, Used: slices.Contains(used, id), Spaces: []string{}, Nodes: []networkNode{}}
		for _, s := range spaces {
			if space, err := dag.ParseID(s.ID); err == nil && slices.Contains(v.of(space), id) {
				x.Spaces = append(x.Spaces, s.Name)
			}
		}
		slices.Sort(x.Spaces)
		if c := v.configs[id]; c != nil {
			x.Epoch, x.Link = c.Epoch, c.Link()
			for k := range c.Nodes {
				n := &c.Nodes[k]
				x.Nodes = append(x.Nodes, networkNode{n.Peer(), n.Kinds.Names(), n.Multiaddrs(), connected[n.Peer()]})
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// textParams carry a configuration.
type textParams struct {
	Text []byte `json:"text"`
}

var opNetworkAdd = operation[textParams, none]{"network-add", func(_ context.Context, h *home, p textParams, _ sink) (none, error) {
	c, err := netconf.Parse(p.Text)
	if err != nil {
		return none{}, failf(exitUsage, "%w", err)
	}
	return none{}, h.changeNetworks(func(v *netView) error {
		used := v.used()
		if old := v.configs[c.ID]; old != nil && old.Link() != c.Link() {
			if err := c.Replaces(old); err != nil && slices.Contains(used, c.ID) {
				return fmt.Errorf("%w; the network was added before", err)
			}
		}
		if !slices.Contains(used, c.ID) {
			if len(used) >= fs.MaxNetworks {
				return failf(exitFailed, "%d networks are used, and no more can be; 'anyfs network remove' ends the use of one", len(used))
			}
			v.local.Pending = append(v.local.Pending, c.ID)
		}
		v.local.Configs = append(v.local.Configs, c.Encode())
		return h.writeLocalNets(v.local)
	})
}}

var opNetworkList = operation[none, []networkInfo]{"network-list", func(_ context.Context, h *home, _ none, _ sink) ([]networkInfo, error) {
	return h.networkInfos()
}}

// pick finds the network that a name or the beginning of one means.
func (v *netView) pick(h *home, given string) (netconf.ID, error) {
	ids := v.networkIDs(h)
	var names []string
	for _, id := range ids {
		names = append(names, netconf.Name(id))
	}
	i, err := pickNetwork(names, given)
	if err != nil {
		return netconf.ID{}, err
	}
	return ids[i], nil
}

// usedOnly refuses what concerns a network that is only known through a space.
func (v *netView) usedOnly(id netconf.ID) error {
	if !slices.Contains(v.used(), id) {
		return failf(exitNotFound, "%s is not among your networks, but known through a space that is shared with you; 'anyfs network add' adds it", netconf.Name(id))
	}
	return nil
}

var opNetworkRemove = operation[nameParams, none]{"network-remove", func(_ context.Context, h *home, p nameParams, _ sink) (none, error) {
	return none{}, h.changeNetworks(func(v *netView) error {
		id, err := v.pick(h, p.Name)
		if err == nil {
			err = v.usedOnly(id)
		}
		if err != nil {
			return err
		}
		if slices.Contains(v.local.Pending, id) {
			v.local.Pending = slices.DeleteFunc(v.local.Pending, func(o netconf.ID) bool { return o == id })
			if err := h.writeLocalNets(v.local); err != nil {
				return err
			}
		}
		return h.fs.DropNetwork(id)
	})
}}

var opNetworkDefault = operation[nameParams, none]{"network-default", func(_ context.Context, h *home, p nameParams, _ sink) (none, error) {
	return none{}, h.changeNetworks(func(v *netView) error {
		id, err := v.pick(h, p.Name)
		if err == nil {
			err = v.usedOnly(id)
		}
		if err != nil {
			return err
		}
		if !slices.Contains(v.said.Used, id) {
			return failf(exitBusy, "the home space of the account has not come yet, and with it which networks it uses; try again when 'anyfs status --wait' has returned")
		}
		return h.fs.DefaultNetwork(id)
	})
}}

func runNetworkDefault(ctx context.Context, e *env, given string) error {
	if given != "" {
		_, err := opNetworkDefault.call(ctx, e, nameParams{Name: given})
		return err
	}
	list, err := opNetworkList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(x networkInfo) bool { return x.Default })
	if i < 0 {
		return failf(exitNotFound, "no network was added; 'anyfs network add' adds one")
	}
	if e.json {
		return e.printJSON(list[i])
	}
	return writeLine(e.stdout, list[i].ID)
}

// pickNetwork finds the one network that a name or the beginning of one means.
func pickNetwork(names []string, given string) (int, error) {
	at := -1
	for i, n := range names {
		if !strings.HasPrefix(n, given) || given == "" {
			continue
		}
		if at >= 0 {
			return 0, failf(exitUsage, "%s begins the IDs of several networks; 'anyfs network list' shows them", given)
		}
		at = i
	}
	if at < 0 {
		return 0, failf(exitNotFound, "no network %s was added; 'anyfs network list' shows those that were", given)
	}
	return at, nil
}

func runNetworkAdd(ctx context.Context, e *env, given string) error {
	text, err := readNetwork(e, given)
	if err != nil {
		return err
	}
	_, err = opNetworkAdd.call(ctx, e, textParams{text})
	return err
}

// readNetwork reads a network's file, or takes its link.
func readNetwork(e *env, given string) ([]byte, error) {
	if strings.HasPrefix(given, netconf.Prefix) {
		return []byte(given), nil
	}
	f, err := e.open(given)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 2*netconf.MaxBytes+1))
}

func runNetworkList(ctx context.Context, e *env) error {
	list, err := opNetworkList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	if len(list) == 0 {
		e.say("No network is used; 'anyfs network add' adds one.")
	}
	rows := [][]string{}
	for _, x := range list {
		connected, mark := 0, ""
		for _, n := range x.Nodes {
			if n.Connected {
				connected++
			}
		}
		switch {
		case x.Default:
			mark = "default"
		case !x.Used:
			mark = "of others"
		}
		spaces := make([]string, len(x.Spaces))
		for i, s := range x.Spaces {
			spaces[i] = printable(s)
		}
		rows = append(rows, []string{x.ID, fmt.Sprintf("epoch %d", x.Epoch), fmt.Sprintf("%d of %d nodes connected", connected, len(x.Nodes)), mark,
			strings.Join(spaces, ", ")})
	}
	return e.table(rows)
}

func runNetworkShow(ctx context.Context, e *env, given string) error {
	list, err := opNetworkList.call(ctx, e, none{})
	if err != nil {
		return err
	}
	var names []string
	for _, x := range list {
		names = append(names, x.ID)
	}
	i, err := pickNetwork(names, given)
	if err != nil {
		return err
	}
	x := list[i]
	if e.json {
		return e.printJSON(x)
	}
	rows := [][]string{}
	for _, n := range x.Nodes {
		state := "not connected"
		if n.Connected {
			state = "connected"
		}
		for _, a := range n.Addresses {
			rows = append(rows, []string{strings.Join(n.Kinds, ","), a, state})
		}
	}
	if err := e.table(rows); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, x.Link)
	return err
}

// networkNames lists the networks for completion; on any trouble there are none.
func networkNames(ctx context.Context, e *env) (names []string) {
	quiet := *e
	quiet.readSecret = nil // completion asks nothing
	list, err := opNetworkList.call(ctx, &quiet, none{})
	if err != nil {
		return nil
	}
	for _, x := range list {
		names = append(names, x.ID)
	}
	return names
}
