package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/pair"
)

// pairPatience is for how long a new device looks for the one that shows the code.
const pairPatience = 3 * time.Minute

// startPatience is for how long a command waits for a daemon that has just begun.
const startPatience = 10 * time.Second

// shownCode is a code as device add --json prints it first.
type shownCode struct {
	Code    string    `json:"code"`
	Ticket  string    `json:"ticket"` // the code with this device's addresses, which login --pair takes too
	Expires time.Time `json:"expires"`
}

func deviceAddCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "add", Usage: "let a new device into the account by a code",
		Description: `Shows a code, and waits until a new device has used it: 'anyfs login --pair CODE' there. The two find each other on the local network; elsewhere
through a network that this device uses ('anyfs login --pair --network LINK CODE'), or the new one is told by --peer an address that 'anyfs status' shows here. The code can be used once, within 10 minutes, and a wrong one tried 3
times; Ctrl-C takes it back. The new device gets the keys of all spaces, and not the recovery phrase. Only a device that has the phrase can add others.

On a terminal a QR code holds the same, with this device's addresses, also those through its network.

Examples:
  anyfs device add
  anyfs device add --qr`,
		Flags: []cli.Flag{qrFlag()},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runDeviceAdd(c.Context, e, c.Bool("qr"))
		},
	}
}

// opDeviceAdd tells the code, and of each wrong one that is tried, and gives the device that was let in.
var opDeviceAdd = operation[none, deviceInfo]{"device-add", func(ctx context.Context, h *home, _ none, out sink) (r deviceInfo, err error) {
	switch {
	case h.keys.Account == nil:
		return r, failf(exitFailed, "this device was paired by a code and does not hold the account's secret, which signs the new device's certificate; "+
			"run 'anyfs device add' on a device that made the account or logged in by its phrase, or 'anyfs login' with the 12 words on the new one")
	case h.network == nil:
		return r, failf(exitFailed, "the new device reaches this one only while it is mounted, and not with --listen none; run 'anyfs mount' first")
	case h.network.engine.Status().Paused:
		return r, failf(exitFailed, "the exchange with other devices is paused; 'anyfs resume' goes on with it")
	}
	started, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	h.network.engine.Started(started)
	code, err := pair.NewCode(rand.Reader)
	if err != nil {
		return r, err
	}
	code.Addresses = append(h.network.engine.Through(nil), inviteAddresses(h.network.engine.Status().Listen)...)
	code.Addresses = code.Addresses[:min(len(code.Addresses), pair.MaxAddresses)]
	o := pair.NewOffer(code, h.fs.Now)
	if err := out(event{Code: &shownCode{code.String(), code.Ticket(), o.Expires().UTC().Truncate(time.Second)}}); err != nil {
		return r, err
	}
	err = h.network.engine.Offer(ctx, o, func(device dag.PublicKey, request []byte) ([]byte, error) {
		spaces, err := h.fs.Secrets()
		if err != nil {
			return nil, err
		}
		networks, err := h.homeNetworks()
		if err != nil {
			return nil, err
		}
		grant, name, err := h.keys.Admit(device, request, spaces, networks...)
		r = deviceInfo{PeerID: acl.PeerID(device), Name: name}
		return grant, err
	}, func(left int) error {
		h.log.Warn("a wrong code was tried", "left", left)
		return out(event{Text: fmt.Sprintf("A wrong code was tried. Attempts that are left: %d.", left)})
	})
	switch {
	case err == nil:
		h.log.Info("a device was let in", "peer", r.PeerID)
		return r, nil
	case errors.Is(err, exchange.ErrPairing):
		return r, failf(exitBusy, "another 'anyfs device add' shows a code already; end that first")
	case errors.Is(err, exchange.ErrOffline):
		return r, failf(exitFailed, "the daemon has no network yet; try again")
	case errors.Is(err, pair.ErrSpent):
		return r, failf(exitTimeout, "nobody was let in: the code is too old, or was tried too often; run it again for a new one")
	case errors.Is(err, pair.ErrUnsure):
		return r, failf(exitFailed, "the new device (%s) got everything, and was lost before it said that it has stored it; if 'anyfs account show' works there it is "+
			"done, else run this again: %w", printable(r.Name), err)
	case ctx.Err() != nil:
		return r, ctx.Err()
	}
	return r, failf(exitFailed, "no device was let in, and the code can't be used any more; run it again for a new one: %w", err)
}}

// qrFlag asks for a QR code where there would be none.
func qrFlag() cli.Flag {
	return &cli.BoolFlag{Name: "qr", Usage: "draw a QR code on stderr, also where it is no terminal"}
}

func runDeviceAdd(ctx context.Context, e *env, qr bool) error {
	r, err := opDeviceAdd.follow(ctx, e, none{}, func(ev event) error {
		switch {
		case ev.Code != nil && e.json:
			return e.printJSON(ev.Code)
		case ev.Code != nil:
			e.say("On the new device run 'anyfs login --pair' and type this code:\n")
			if err := writeLine(e.stdout, "  "+ev.Code.Code); err != nil {
				return err
			}
			if err := e.showQR(qr, ticketTexts(ev.Code.Ticket)...); err != nil {
				return err
			}
			e.say("\nIt lets one device in, until %s. Show it to nobody else. Waiting; Ctrl-C takes it back.", ev.Code.Expires.Local().Format("15:04"))
		default:
			e.say("%s", ev.Text)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	e.say("%s is one of your devices now.", printable(r.Name))
	return nil
}

// ticketTexts are a ticket, and the same with ever fewer addresses.
func ticketTexts(ticket string) []string {
	code, err := pair.ParseCode(ticket)
	if err != nil {
		return []string{ticket}
	}
	return shorter(code.Addresses, func(addresses []string) string {
		code.Addresses = addresses
		return code.Ticket()
	})
}

// runPair has this device let in by one that shows the code.
func runPair(ctx context.Context, e *env, text, peer, through string, o initOptions) error {
	var err error
	switch {
	case text == "-":
		text, err = e.readSecretFile("-", false)
	case text == "" && e.interactive():
		text, err = e.askLine("The code that 'anyfs device add' shows on the other device: ")
	case text == "":
		return failf(exitUsage, "stdin is no terminal; give the code that 'anyfs device add' shows on the other device, or - to read it from stdin")
	}
	if err != nil {
		return err
	}
	code, err := pair.ParseCode(text)
	if err != nil {
		return failf(exitUsage, "%s", strings.TrimPrefix(err.Error(), "pair: "))
	}
	a := &exchange.Asker{Code: code, MDNS: true, Found: func() { e.say("Found the device that shows the code.") }}
	if peer != "" {
		if err := checkPeer(peer); err != nil {
			return err
		}
		a.Peers, a.MDNS, a.Code.Addresses = []string{peer}, false, nil
	}
	var net pairNetwork
	if through != "" {
		text, err := readNetwork(e, through)
		if err != nil {
			return err
		}
		if net.config, err = netconf.Parse(text); err != nil {
			return failf(exitUsage, "%w", err)
		}
		for i := range net.config.Nodes {
			a.Nodes = append(a.Nodes, net.config.Nodes[i].Multiaddrs()...)
		}
	}
	a.Config = net.hear
	giver := ""
	var networks [][]byte
	made, err := fillHome(ctx, e, o, func(d disk.FS, name string, pass []byte) (k *acl.Keys, err error) {
		n, err := acl.MakeDevice(name, rand.Reader)
		if err != nil {
			return nil, err
		}
		if a.Request, err = n.Request(); err != nil {
			return nil, err
		}
		a.Key = n.PrivateKey()
		a.Store = func(grant []byte) (err error) {
			if k, giver, err = acl.InitPaired(d, n, grant, pass, rand.Reader); err == nil {
				networks, err = acl.GrantNetworks(grant)
			}
			return err
		}
		e.say("Looking for the device that shows the code …")
		ctx, cancel := context.WithTimeout(ctx, pairPatience)
		defer cancel()
		err = pairError(a.Run(ctx))
		return k, err
	}, func(h *home) error {
		if c := net.get(); c != nil { // the one that it was paired through
			networks = append(networks, c.Encode())
		}
		if err := h.giveNetworks(networks); err != nil {
			return err
		}
		known := slices.DeleteFunc(append(slices.Clone(a.Peers), a.Code.Addresses...), func(a string) bool { return strings.Contains(a, "/p2p-circuit") })
		if len(known) == 0 {
			return nil
		}
		return h.changePeers(func([]string) []string { return known })
	})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(made)
	}
	e.say("%s has let this device into the account %s. 'anyfs mount DIR' shows your spaces.", printable(giver), made.Fingerprint)
	return writeLine(e.stdout, made.Account)
}

// pairNetwork is the network through which a device is paired: it is in it from then on, as the one that lets it in.
type pairNetwork struct {
	mu     sync.Mutex
	config *netconf.Config
}

// hear takes a configuration that a node told. Where none was given, the first is it: the code named its nodes.
func (n *pairNetwork) hear(encoded []byte) {
	c, err := netconf.Decode(encoded)
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.config == nil || c.Replaces(n.config) == nil {
		n.config = c
	}
}

func (n *pairNetwork) get() *netconf.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.config
}

// pairError puts the failure of a pairing into words.
func pairError(err error) error {
	var wrong *pair.WrongError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Left == 0:
		return failf(exitPassphrase, "the code is wrong, and was tried too often; have 'anyfs device add' show a new one")
	case errors.As(err, &wrong):
		return failf(exitPassphrase, "the code is wrong; it can be tried %s more", times(wrong.Left))
	case errors.Is(err, pair.ErrWrong):
		return failf(exitPassphrase, "the device that was found does not have this code; have 'anyfs device add' show a new one")
	case errors.Is(err, pair.ErrSpent):
		return failf(exitFailed, "the code has been used, was tried too often, or is too old; have 'anyfs device add' show a new one")
	case errors.Is(err, pair.ErrRefused):
		return failf(exitFailed, "the other device could not let this one in; what it says there tells why")
	case errors.Is(err, pair.ErrNoCode):
		return failf(exitNotFound, "the device that was found does not show this code; check its first three digits, and that 'anyfs device add' is still waiting there")
	case errors.Is(err, exchange.ErrNobody):
		return failf(exitNotFound, "no device was found that shows this code; see that 'anyfs device add' is waiting there and that both are on one local network, or "+
			"name a network that the other device uses with --network, or the device with --peer MULTIADDR ('anyfs status' shows it there): %w", err)
	}
	return err
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
