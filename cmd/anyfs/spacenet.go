package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

func spaceNetworkCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "network", Usage: "show which networks a space is on, put it on one, or take it off", ArgsUsage: "SPACE [list | add NETWORK | remove NETWORK]",
		Description: `A space can be on several networks at once. To move it to another one, put it on that too, wait until that holds everything, and take it off the
old one. That needs nothing of the old one: it may be gone for good. NETWORK is an ID as 'anyfs network list' shows it, or its beginning.

--wait returns when the network (without add: each network of the space) holds all changes and all content, also that of old versions. Where the space is on the network already,
add does nothing but that.

remove is refused where it might lose content: where no other network of the space holds all of it yet, and where this device let content go that nobody
else has promised to keep. --force has it taken off all the same.

The nodes of the network that a space is taken off remove what they hold of it, where this device reaches one, and you own the space.

Of a space that you share, the networks that you put it on are known to its members, and used by their devices.

Examples:
  anyfs space network Work
  anyfs space network Work add z6Mk... --wait
  anyfs space network Work --wait --timeout 1h
  anyfs space network Work remove z6MkOLD...`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "wait", Usage: "wait until the network holds everything"},
			&cli.StringFlag{Name: "timeout", Usage: "wait at most `DURATION`, as in 30s or 5m; then exit with 4"},
			&cli.BoolFlag{Name: "force", Usage: "with remove: also where content may be lost"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 3)
			if err != nil {
				return err
			}
			p := spaceNetworkParams{Space: a[0], Force: c.Bool("force")}
			switch {
			case len(a) == 1, len(a) == 2 && a[1] == "list":
			case len(a) == 3 && (a[1] == "add" || a[1] == "remove"):
				p.Do, p.Network = a[1], a[2]
			default:
				return failf(exitUsage, "after the space comes list, add NETWORK or remove NETWORK")
			}
			if p.Force && p.Do != "remove" {
				return failf(exitUsage, "--force goes with remove")
			}
			var timeout time.Duration
			if c.IsSet("timeout") {
				if timeout, err = parseAge(c.String("timeout")); err != nil {
					return err
				}
				timeout = max(timeout, 10*time.Millisecond)
			}
			if wait := c.Bool("wait"); wait && p.Do == "remove" || timeout > 0 && !wait {
				return failf(exitUsage, "--wait goes with list and add, and --timeout with --wait")
			}
			return runSpaceNetwork(c.Context, e, p, c.Bool("wait"), timeout)
		},
	}
}

type spaceNetworkParams struct {
	Space   string `json:"space"`
	Do      string `json:"do,omitempty"` // add, remove, or "": nothing
	Network string `json:"network,omitempty"`
	Force   bool   `json:"force,omitempty"`
}

// spaceNetwork is how far a space is on a network, as space network --json and status --json print it.
type spaceNetwork struct {
	ID        string `json:"id"`
	Nodes     int    `json:"nodes"`                // that have the space by the configuration
	Connected int    `json:"connected"`            // of these
	Holds     bool   `json:"holds_everything"`     // as far as is known
	ToSend    int    `json:"pending_send_batches"` // that no node of it is known to hold
	Contents  int    `json:"pending_contents"`     // files whose content its nodes are not known to hold
	Past      int    `json:"pending_old_contents"` // of replaced and deleted files, that this device can give
	Problem   string `json:"problem,omitempty"`    // why nothing more goes there, and what to do
}

func runSpaceNetwork(ctx context.Context, e *env, p spaceNetworkParams, wait bool, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	if p.Do != "" {
		r, err := opSpaceNetwork.call(ctx, e, p)
		if err != nil {
			return err
		}
		if p.Do == "remove" && r.Dropped == 0 {
			e.say("No node of the network was told: what they hold of the space, sealed, stays there until its operator removes it.")
		}
	}
	if wait {
		b, told := newBar(e, "network"), ""
		_, err := opSpaceNetworkWait.follow(ctx, e, p, func(ev event) error {
			if ev.Text != told {
				if told = ev.Text; told != "" {
					e.say("%s", told)
				}
			}
			return b.event(ev)
		})
		b.end(err == nil)
		if err != nil {
			return inTime(ctx, timeout, err)
		}
	}
	if p.Do != "" && !e.json {
		return nil
	}
	list, err := opSpaceNetworks.call(ctx, e, nameParams{Name: p.Space})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(list)
	}
	if len(list) == 0 {
		e.say("%s is on no network.", printable(p.Space))
	}
	rows := [][]string{}
	for _, x := range list {
		rows = append(rows, []string{x.ID, fmt.Sprintf("%d of %d nodes connected", x.Connected, x.Nodes), x.text()})
	}
	return e.table(rows)
}

// text says how far it is.
func (x *spaceNetwork) text() string {
	switch {
	case x.Problem != "":
		return x.Problem
	case x.Holds:
		return "holds everything"
	case x.ToSend+x.Contents+x.Past == 0:
		return "not known to hold everything"
	}
	var of []string
	if x.ToSend > 0 {
		of = append(of, batches(x.ToSend))
	}
	if x.Contents > 0 {
		of = append(of, "the content of "+count(x.Contents, "file"))
	}
	if x.Past > 0 {
		of = append(of, "the content of "+count(x.Past, "old version"))
	}
	return strings.Join(of, ", ") + " to send"
}

// replica finds a space by its name.
func (h *home) replica(name string) (*fs.Replica, error) {
	i, err := h.fs.Space(name)
	if err != nil {
		return nil, spaceError(name, err)
	}
	for _, r := range h.fs.Replicas() {
		if r.ID.String() == i.ID {
			return &r, nil
		}
	}
	return nil, failf(exitFailed, "the space %q is not on this device", name)
}

var opSpaceNetworks = operation[nameParams, []spaceNetwork]{"space-networks", func(_ context.Context, h *home, p nameParams, _ sink) ([]spaceNetwork, error) {
	r, err := h.replica(p.Name)
	if err != nil {
		return nil, err
	}
	v, err := h.viewNetworks()
	if err != nil {
		return nil, err
	}
	return h.networksFor(v, r), nil
}}

// networksFor gives how far a space is on each of its networks.
func (h *home) networksFor(v *netView, r *fs.Replica) []spaceNetwork {
	var st exchange.Status
	if h.network != nil {
		st = h.network.engine.Status()
	}
	out := []spaceNetwork{}
	for _, id := range v.of(r.ID) {
		out = append(out, h.networkFor(v, r, id, &st))
	}
	return out
}

func (h *home) networkFor(v *netView, r *fs.Replica, id netconf.ID, st *exchange.Status) spaceNetwork {
	x := spaceNetwork{ID: netconf.Name(id)}
	has := map[string]bool{}
	if c := v.configs[id]; c == nil && v.contacts[id] != nil {
		x.Problem = "its configuration is not known on this device yet, and is asked of its nodes"
	} else if c == nil {
		x.Problem = "its configuration is not known on this device; 'anyfs network add' its file or link"
	} else if table, err := c.Table(); err == nil {
		for i := range c.Nodes {
			if n := &c.Nodes[i]; table.Has(r.ID, n.Key) {
				has[n.Peer()] = true
			}
		}
	}
	x.Nodes = len(has)
	for _, p := range st.Peers {
		if has[p.ID] && slices.Contains(p.Spaces, r.ID) {
			x.Connected++
		}
	}
	up, known := r.ToUpload(v.holder(id))
	past, looked := r.PastToUpload(v.holder(id))
	x.Contents, x.Past = up, past
	equal, least := false, -1
	for _, s := range st.Spaces {
		if s.ID != r.ID {
			continue
		}
		for _, p := range s.Peers {
			if has[p.ID] && p.Known {
				equal = equal || p.Equal
				if least < 0 || int(p.ToSend) < least {
					least = int(p.ToSend)
				}
			}
		}
	}
	if least > 0 && !equal {
		x.ToSend = least
	}
	x.Holds = known && looked && up+past == 0 && equal
	if h.network != nil && !x.Holds {
		if f, full := h.network.engine.Full(r.ID, id); full {
			x.Problem = fmt.Sprintf("it is full: %s of %s of the quota are used, and %s; ask its operator for more, or put the space on another network", formatBytes(int64(f.Used)), formatBytes(int64(f.Limit)), x.text())
			if r.OverQuota() {
				x.Problem += "; until then nothing can be written into the space here beyond its cache limit (EDQUOT)"
			}
		} else if _, text := h.network.kept.get(pastOf{r.ID, id}, past); text != "" {
			x.Problem = text + "; " + x.text()
		}
	}
	return x
}

// networkOp finds what an operation on a space and a network is about. h.nets is held.
func (h *home) networkOp(v *netView, p spaceNetworkParams) (r *fs.Replica, id netconf.ID, err error) {
	if r, err = h.replica(p.Space); err == nil {
		id, err = v.pick(h, p.Network)
	}
	return r, id, err
}

var opSpaceNetwork = operation[spaceNetworkParams, spaceNetworkResult]{"space-network", func(ctx context.Context, h *home, p spaceNetworkParams, _ sink) (out spaceNetworkResult, err error) {
	if p.Do == "remove" && !p.Force {
		if err := h.mayLeave(ctx, p); err != nil {
			return out, err
		}
	}
	err = h.changeNetworks(func(v *netView) error {
		r, id, err := h.networkOp(v, p)
		if err != nil {
			return err
		}
		if !v.knows {
			return failf(exitBusy, "the home space of the account has not come yet, and with it which networks it uses; try again when 'anyfs status --wait' has returned")
		}
		on := slices.Contains(v.of(r.ID), id)
		if p.Do == "remove" && !on {
			return failf(exitNotFound, "%s is not on %s", p.Space, netconf.Name(id))
		}
		if p.Do == "add" && !slices.Contains(v.said.Used, id) && !on {
			return v.usedOnly(id)
		}
		if p.Do == "add" && on {
			return nil
		}
		if err := h.fs.ChooseNetwork(r.ID, id, p.Do == "add"); err != nil || p.Do == "add" {
			return err
		}
		// It is written down: whatever becomes of the telling, no device of the account uses the network for it any more.
		now, err := h.fs.Networks()
		if err != nil || h.network == nil {
			return err
		}
		if times, ok := now.Word(r.ID, id); ok {
			out.Dropped, out.Asked = h.network.engine.Place(ctx, r.ID, id, false, times)
		}
		return nil
	})
	return out, err
}}

// spaceNetworkResult says what the nodes of a network that a space left said to that.
type spaceNetworkResult struct {
	Asked   int `json:"asked"`   // nodes that were connected
	Dropped int `json:"dropped"` // of these, those that remove what they hold
}

// leaveLook is for how long a network may not be known to hold everything before a space does not leave another for it.
const leaveLook = 5 * time.Second

// leavePatience is for how long content is sought elsewhere that may be on a network alone which a space leaves.
const leavePatience = time.Minute

// mayLeave says why a space is not to leave a network yet.
func (h *home) mayLeave(ctx context.Context, p spaceNetworkParams) error {
	v, err := h.viewNetworks()
	if err != nil {
		return err
	}
	r, id, err := h.networkOp(v, p)
	if err != nil {
		return err
	}
	if !slices.Contains(v.of(r.ID), id) {
		return nil // it is told of that
	}
	name, force := netconf.Name(id), "; --force has it taken off all the same"
	if h.network == nil {
		return failf(exitFailed, "whether others have what %s holds is known only while the home is mounted; run 'anyfs mount' first%s", name, force)
	}
	var others []netconf.ID
	for _, o := range v.of(r.ID) {
		if o != id {
			others = append(others, o)
		}
	}
	if len(others) > 0 {
		// Right after a start it takes a moment until that is known.
		holds := false
		for end := time.Now().Add(leaveLook); ; {
			st := h.network.engine.Status()
			holds = slices.ContainsFunc(others, func(o netconf.ID) bool { x := h.networkFor(v, r, o, &st); return x.Holds })
			if holds || time.Now().After(end) {
				break
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(netWaitEvery):
			}
		}
		if !holds {
			return failf(exitBusy, "none of the other networks of %s is known to hold everything yet; 'anyfs space network %s add %s --wait' waits until that one does%s",
				p.Space, p.Space, netconf.Name(others[0]), force)
		}
	} else if i, err := h.fs.Space(p.Space); err == nil && (i.Policy == fs.ContentPolicy{OnDemand: true}.String() || r.ToFetch() > 0) {
		return failf(exitBusy, "not all content of %s is on this device, and the space is on no other network; put it on another one, or wait until it has come "+
			"('anyfs space policy %s mirror')%s", p.Space, p.Space, force)
	}
	nodes := map[dag.PublicKey]bool{}
	if c := v.configs[id]; c != nil {
		for i := range c.Nodes {
			nodes[c.Nodes[i].Key] = true
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, leavePatience, errTimeout)
	defer cancel()
	left, err := r.LetGo(ctx, func(k dag.PublicKey) bool { return nodes[k] })
	if left > 0 || err != nil && context.Cause(ctx) == errTimeout {
		return failf(exitBusy, "content of %s that this device let go (%s at least) is kept by %s alone, as far as is known, and does not come from there now; wait for a network "+
			"or device that keeps it%s", p.Space, count(max(left, 1), "block"), name, force)
	}
	return err
}

// createOn makes a space on a network, and on no other.
func (h *home) createOn(name, network string) (spaceStatus, error) {
	var out spaceStatus
	err := h.changeNetworks(func(v *netView) error {
		id, err := v.pick(h, network)
		if err == nil {
			err = v.usedOnly(id)
		}
		if err != nil {
			return err
		}
		if !v.knows {
			return failf(exitBusy, "the home space of the account has not come yet, and with it which networks it uses; try again when 'anyfs status --wait' has returned")
		}
		if !slices.Contains(v.said.Used, id) {
			if err := h.settleNetworks(); err != nil {
				return err
			}
		}
		i, err := h.fs.CreateSpaceOn(name, id)
		out = statusOf(i)
		return spaceError(name, err)
	})
	return out, err
}

const netWaitEvery = 100 * time.Millisecond

// opSpaceNetworkWait waits until a network holds everything of a space, or each of its networks.
var opSpaceNetworkWait = operation[spaceNetworkParams, none]{"space-network-wait", func(ctx context.Context, h *home, p spaceNetworkParams, out sink) (none, error) {
	if h.network == nil {
		return none{}, failf(exitFailed, "nothing goes to a network while the home is not mounted, or with --listen none; run 'anyfs mount' first")
	}
	if err := h.fs.Flush(ctx); err != nil {
		return none{}, err
	}
	most, told, text := 0, -1, ""
	for {
		v, err := h.viewNetworks()
		if err != nil {
			return none{}, err
		}
		r, err := h.replica(p.Space)
		if err != nil {
			return none{}, err
		}
		ids := v.of(r.ID)
		if p.Network != "" {
			id, err := v.pick(h, p.Network)
			if err != nil {
				return none{}, err
			}
			ids = []netconf.ID{id}
		}
		if len(ids) == 0 {
			return none{}, failf(exitNotFound, "%s is on no network; 'anyfs space network %s add NETWORK' puts it on one", p.Space, p.Space)
		}
		left, now := 0, ""
		st := h.network.engine.Status()
		for _, id := range ids {
			x := h.networkFor(v, r, id, &st)
			if x.Holds {
				continue
			}
			left += max(1, x.ToSend+x.Contents+x.Past)
			switch {
			case x.Problem != "":
				now = x.ID + ": " + x.Problem
			case st.Paused:
				now = "The exchange is paused; 'anyfs resume' goes on with it."
			case x.Connected == 0:
				now = "Waiting for a node of " + x.ID + ": none is connected."
			}
		}
		if left == 0 {
			return none{}, nil
		}
		if most = max(most, left); left != told || now != text {
			told, text = left, now
			if err := out(event{Done: int64(most - left), Total: int64(most), Text: now}); err != nil {
				return none{}, err
			}
		}
		select {
		case <-ctx.Done():
			return none{}, context.Cause(ctx)
		case <-time.After(netWaitEvery):
		}
	}
}}

// networkStatus is a network as status --json prints it.
type networkStatus struct {
	ID        string `json:"id"`
	Default   bool   `json:"default"`
	Nodes     int    `json:"nodes"`
	Connected int    `json:"connected"`
	Spaces    int    `json:"spaces"`               // that are on it, the home space too
	Behind    int    `json:"spaces_behind"`        // of these, those of which it is not known to hold everything
	ToSend    int    `json:"pending_send_batches"` // of all of them
	Contents  int    `json:"pending_contents"`
	Past      int    `json:"pending_old_contents"`
	Problem   string `json:"problem,omitempty"`
}

// addNetworks adds to a status which networks are used, and how far each space is on each of its own.
func (h *home) addNetworks(r *statusResult) error {
	v, err := h.viewNetworks()
	if err != nil {
		return err
	}
	var st exchange.Status
	if h.network != nil {
		st = h.network.engine.Status()
	}
	connected := map[string]bool{}
	for _, p := range st.Peers {
		connected[p.ID] = true
	}
	at := map[string]int{}
	r.Networks = []networkStatus{}
	for i, id := range v.networkIDs(h) {
		x := networkStatus{ID: netconf.Name(id), Default: i == 0 && slices.Contains(v.used(), id)}
		if c := v.configs[id]; c != nil {
			x.Nodes = len(c.Nodes)
			for k := range c.Nodes {
				if connected[c.Nodes[k].Peer()] {
					x.Connected++
				}
			}
		}
		at[x.ID] = len(r.Networks)
		r.Networks = append(r.Networks, x)
	}
	for _, rep := range h.fs.Replicas() {
		if rep.Left() {
			continue
		}
		on := []spaceNetwork{}
		for _, id := range v.of(rep.ID) {
			x := h.networkFor(v, &rep, id, &st)
			on = append(on, x)
			k, ok := at[x.ID]
			if !ok {
				continue
			}
			n := &r.Networks[k]
			n.Spaces++
			n.ToSend, n.Contents, n.Past = n.ToSend+x.ToSend, n.Contents+x.Contents, n.Past+x.Past
			if !x.Holds {
				n.Behind++
			}
			if n.Problem == "" {
				n.Problem = x.Problem
			}
		}
		for i := range r.Spaces {
			if r.Spaces[i].ID == rep.ID.String() {
				r.Spaces[i].Networks = on
			}
		}
	}
	return nil
}

// text says how far it is.
func (x *networkStatus) text() string {
	s := x.ID
	if x.Default {
		s += " (default)"
	}
	s += fmt.Sprintf(": %d of %d nodes connected", x.Connected, x.Nodes)
	switch one := (&spaceNetwork{Holds: x.Behind == 0 && x.Spaces > 0, ToSend: x.ToSend, Contents: x.Contents, Past: x.Past, Problem: x.Problem}); {
	case x.Spaces == 0:
		s += ", no space is on it"
	default:
		s += ", " + one.text()
	}
	return s
}
