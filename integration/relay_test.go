package integration

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// netDevices makes devices of one account on hosts of an internet, each of which uses the node's network and looks for nobody else.
func netDevices(t *testing.T, n *Node, hosts ...*Host) *Devices {
	t.Helper()
	NeedFUSE(t)
	d := &Devices{t: t}
	for i, host := range hosts {
		h := NewHome(t)
		h.Host, h.Listen = host, "/ip4/0.0.0.0/tcp/7327,/ip4/0.0.0.0/udp/7327/quic-v1"
		if i > 0 {
			d.login(h, i)
		}
		h.Mount()
		h.Must("network", "add", n.Link)
		d.All = append(d.All, h)
	}
	return d
}

// peered waits until two devices are connected, through a relay or directly.
func (d *Devices) peered(a, b *Home, relayed bool) {
	d.t.Helper()
	id := b.peerID()
	d.Eventually(fmt.Sprintf("the devices are connected, through a relay: %v", relayed), func() error {
		s := a.SyncStatus()
		for _, p := range s.Peers {
			if p.PeerID == id && p.Relayed == relayed && len(p.Spaces) > 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", s.Peers)
	})
}

func (h *Home) peerID() string {
	h.t.Helper()
	return fromJSON[struct {
		Device struct {
			ID string `json:"peer_id"`
		} `json:"device"`
	}](h, "status").Device.ID
}

// TestThroughRelay: two devices behind routers through which no hole can be made exchange over the relay of a node that keeps no content for them,
// also after the node was killed.
func TestThroughRelay(t *testing.T) {
	net := NewInternet(t, NoNAT, Symmetric, Symmetric)
	n := NewNodeOn(t, net.Hosts[0])
	n.Admin("quota", "default", "1")
	d := netDevices(t, n, net.Hosts[1], net.Hosts[2])
	a, b := d.All[0], d.All[1]
	d.peered(a, b, true)
	d.peered(b, a, true)
	for _, args := range [][]string{{"peer", "list"}, {"status"}} {
		if out := a.Must(args...); !strings.Contains(out, "through the relay at /ip4/11.77.0.1/") {
			t.Errorf("%v: %s", args, out)
		}
	}
	const planted = "planted: neither the relay nor who takes its disk reads this"
	text := append(bytes.Repeat([]byte(planted), 1000), noise(1, 6<<20)...)
	began := time.Now()
	if err := os.WriteFile(a.Personal("large"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Eventually("the content comes over the relay", func() error { return wantBytes(b.Personal("large"), text) })
	t.Logf("6 MiB within %v", time.Since(began))
	looked := n.Memory(func(where string, b []byte) {
		if bytes.Contains(b, []byte(planted)) {
			t.Errorf("the node's memory has the content, in %s", where)
		}
	})
	n.Disk(func(name string, b []byte) {
		if bytes.Contains(b, []byte(planted)) {
			t.Errorf("the node's disk has the content, in %s", name)
		}
	})
	if s := n.Status(); looked < 10<<20 || s.RelayBytes < 6<<20 || s.RelayConnections == 0 {
		t.Errorf("%d bytes were looked at; %+v", looked, s)
	}
	for _, s := range n.Status().Spaces {
		if s.Blocks > 0 {
			t.Errorf("the node holds content: %+v", s)
		}
	}
	n.Kill()
	if err := os.WriteFile(b.Personal("later"), text[:1<<20], 0o644); err != nil {
		t.Fatal(err)
	}
	n.Start()
	d.Eventually("the content comes after the node was away", func() error { return wantBytes(a.Personal("later"), text[:1<<20]) })
	d.peered(a, b, true)
	d.Same()
}

func wantBytes(file string, want []byte) error {
	got, err := os.ReadFile(file)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d other bytes, not %d", len(got), len(want))
	}
	return err
}

// TestHolePunched: two devices behind routers through which a hole can be made connect directly, and go on without the node.
func TestHolePunched(t *testing.T) {
	net := NewInternet(t, NoNAT, Cone, Cone)
	n := NewNodeOn(t, net.Hosts[0])
	d := netDevices(t, n, net.Hosts[1], net.Hosts[2])
	a, b := d.All[0], d.All[1]
	began := time.Now()
	d.peered(a, b, false)
	d.peered(b, a, false)
	t.Logf("directly connected within %v", time.Since(began))
	n.Kill()
	text := noise(2, 3<<20)
	if err := os.WriteFile(a.Personal("x"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	d.Eventually("it goes directly", func() error { return wantBytes(b.Personal("x"), text) })
}

// TestRelayAndBack: devices that are kept apart by a firewall use the relay, connect directly within a while when it is gone, and use the relay again
// when it is back; what they write meanwhile comes.
func TestRelayAndBack(t *testing.T) {
	t.Parallel() // it mostly waits
	net := NewInternet(t, NoNAT, Cone, Cone)
	net.Shut(1, true)
	n := NewNodeOn(t, net.Hosts[0])
	n.Admin("quota", "default", "1")
	d := netDevices(t, n, net.Hosts[1], net.Hosts[2])
	a, b := d.All[0], d.All[1]
	for i, closed := range []bool{true, false, true} {
		net.Shut(1, closed)
		began := time.Now()
		d.peered(a, b, closed)
		d.peered(b, a, closed)
		t.Logf("shut: %v: connected so within %v", closed, time.Since(began))
		text := noise(uint64(i), 1<<20)
		if err := os.WriteFile(a.Personal(fmt.Sprint(i)), text, 0o644); err != nil {
			t.Fatal(err)
		}
		d.Eventually("it comes", func() error { return wantBytes(b.Personal(fmt.Sprint(i)), text) })
	}
}

// TestRelayInviteOnly: the relay of an invitation-only node serves nobody whom the operator does not know, with an invitation neither.
func TestRelayInviteOnly(t *testing.T) {
	t.Parallel() // it mostly waits
	net := NewInternet(t, NoNAT, Symmetric, Symmetric)
	n := NewNodeOn(t, net.Hosts[0], "--invite-only")
	alice, bob := NewHome(t), NewHome(t)
	s := &sharing{Devices: &Devices{t: t, All: []*Home{alice, bob}}, t: t}
	for i, h := range s.All {
		h.Host, h.Listen = net.Hosts[i+1], "/ip4/0.0.0.0/tcp/7327,/ip4/0.0.0.0/udp/7327/quic-v1"
		h.Mount()
	}
	n.Admin("account add", account(alice))
	alice.Must("network", "add", n.Link)
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/plan", "plan")
	var link string
	s.Eventually("the invitation names the node", func() error {
		if link = strings.TrimSpace(alice.Must("invite", "Team")); !strings.Contains(link, "/p2p-circuit/") {
			return fmt.Errorf("%s", link)
		}
		return nil
	})
	bob.Must("network", "add", n.Link)
	joined := make(chan error, 1)
	join := bob.Command("join", link, "--name", "Bob", "--as", "Ours")
	go func() { joined <- join.Run() }() // it ends when the request is on its way
	time.Sleep(10 * time.Second)
	if st := n.Status(); st.RelaySlots != 1 || st.RelayBytes != 0 {
		t.Errorf("the node serves a stranger: %+v", st)
	}
	if q := fromJSON[[]requestOf](alice, "requests", "Team"); len(q) > 0 {
		t.Errorf("a request came: %+v", q)
	}
	select {
	case err := <-joined:
		t.Errorf("join has ended: %v", err)
	default:
	}
	n.Admin("account add", account(bob))
	s.Eventually("Alice sees the request", func() error {
		if q := fromJSON[[]requestOf](alice, "requests", "Team"); len(q) != 1 {
			return fmt.Errorf("%+v", q)
		}
		return nil
	})
	if err := <-joined; err != nil {
		t.Errorf("join: %v", err)
	}
	alice.Must("approve", "Team", "Bob")
	s.reads(bob, "Ours/plan", "plan")
	s.peered(bob, alice, true)
}

// holdsNumber reports whether b holds a number of digits as it is, with or without the three of a code's tag before it. As a part of another, of the nanoseconds of
// a time above all, eight digits are in the memory of a process by chance.
func holdsNumber(b []byte, number string) bool {
	digit := func(i int) bool { return i >= 0 && i < len(b) && b[i] >= '0' && b[i] <= '9' }
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(number))
		if i < 0 {
			return false
		}
		at := from + i
		before := 0
		for before < 4 && digit(at-1-before) {
			before++
		}
		if !digit(at+len(number)) && (before == 0 || before == 3) {
			return true
		}
		from = at + 1
	}
}

func TestHoldsNumber(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "12345678": true, " 12345678.": true, "code=99912345678\n": true, "99-12345678": true,
		"1123456780": false, "12345678912": false, ".123456789Z": false, "0.912345678": false, ".123456789, 12345678": true,
	} {
		if holdsNumber([]byte(text), "12345678") != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// TestPairThroughNetwork: a new device that shares no local network with the one that shows the code is let in over the relay of a node, by the code
// and the network's link, or by the ticket alone. The node gets to know nothing of it.
func TestPairThroughNetwork(t *testing.T) {
	t.Parallel() // it mostly waits
	net := NewInternet(t, NoNAT, Symmetric, Symmetric, Symmetric)
	n := NewNodeOn(t, net.Hosts[0])
	d := netDevices(t, n, net.Hosts[1])
	laptop := d.All[0]
	if err := os.WriteFile(laptop.Personal("x"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	fresh := func(i int) *Home {
		h := NewHome(t)
		h.Host, h.Listen = net.Hosts[i], laptop.Listen
		return h
	}
	phone, tablet := fresh(2), fresh(3)
	d.Eventually("the laptop can be reached through the node", func() error {
		if s := n.Status(); s.RelaySlots != 1 {
			return fmt.Errorf("%d slots", s.RelaySlots)
		}
		return nil
	})
	var seen bytes.Buffer
	net.Capture(func(f []byte) { seen.Write(f) })
	a := laptop.addDevice()
	if r := phone.Run("login", "--pair", "--network", n.Link, wrongCode(a.Code)); r.Code != 5 || !strings.Contains(r.Stderr, "2 times") {
		t.Fatalf("a wrong code: %d, %s", r.Code, r.Stderr)
	}
	began := time.Now()
	phone.Must("login", "--pair", "--network", n.Link, a.Code)
	t.Logf("paired within %v", time.Since(began))
	if _, code := a.wait(); code != 0 {
		t.Fatal(a.log.String())
	}
	net.Capture(nil)
	for _, secret := range []string{a.Code[4:], strings.ReplaceAll(a.Code[4:], "-", "")} {
		if bytes.Contains(seen.Bytes(), []byte(secret)) {
			t.Error("the wire has the code")
		}
		n.Memory(func(where string, b []byte) {
			if holdsNumber(b, secret) {
				t.Errorf("the node's memory has the code, in %s", where)
			}
		})
	}
	if seen.Len() < 10_000 {
		t.Errorf("%d bytes were seen", seen.Len())
	}
	phone.Mount()
	d.Eventually("the phone has the file", func() error { return wantFile(phone.Personal("x"), "x") })

	a = laptop.addDevice()
	if !strings.Contains(a.Ticket, "/p2p-circuit/") {
		t.Fatal(a.Ticket)
	}
	tablet.Must("login", "--pair", a.Ticket)
	if _, code := a.wait(); code != 0 {
		t.Fatal(a.log.String())
	}
	tablet.Mount()
	d.Eventually("the tablet has the file", func() error { return wantFile(tablet.Personal("x"), "x") })
}

// TestJoinThroughNode: somebody behind another router, who uses no network, joins a space by its link alone, and stays in touch with who is in it, also
// after a restart. The one who invites may be away when the request is made.
func TestJoinThroughNode(t *testing.T) {
	net := NewInternet(t, NoNAT, Symmetric, Symmetric)
	n := NewNodeOn(t, net.Hosts[0])
	d := netDevices(t, n, net.Hosts[1])
	alice := d.All[0]
	bob := NewHome(t)
	bob.Host, bob.Listen = net.Hosts[2], alice.Listen
	bob.Mount()
	s := &sharing{Devices: &Devices{t: t, All: []*Home{alice, bob}}, t: t}
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/plan", "plan")
	alice.Must("status", "--wait", "--timeout", "60s")
	var link string
	s.Eventually("the invitation names the node", func() error {
		if link = strings.TrimSpace(alice.Must("invite", "Team")); !strings.Contains(link, "/ip4/11.77.0.1/") || !strings.Contains(link, "/p2p-circuit/") {
			return fmt.Errorf("%s", link)
		}
		return nil
	})
	alice.Unmount()
	before := changesOf(n)
	bob.Must("join", link, "--name", "Bob", "--as", "Ours")
	if r := bob.Run("network", "list"); strings.TrimSpace(r.Stdout) != "" {
		t.Errorf("Bob uses a network: %s", r.Stdout)
	}
	s.Eventually("the node holds the request", func() error {
		if now := changesOf(n); now <= before {
			return fmt.Errorf("%d bytes, as before", now)
		}
		return nil
	})
	alice.Mount()
	s.Eventually("Alice sees the request", func() error {
		for _, q := range fromJSON[[]requestOf](alice, "requests", "Team") {
			if q.Name == "Bob" {
				return nil
			}
		}
		return fmt.Errorf("none")
	})
	alice.Must("approve", "Team", "Bob")
	s.reads(bob, "Ours/plan", "plan")
	s.peered(bob, alice, true)
	s.write(bob, "Ours/answer", "answer")
	s.reads(alice, "Team/answer", "answer")
	bob.Remount()
	s.write(alice, "Team/later", "later")
	s.reads(bob, "Ours/later", "later")
}

// changesOf is how many bytes of access records and changes a node holds.
func changesOf(n *Node) (sum int64) {
	for _, b := range held(n, false) {
		sum += b
	}
	return sum
}
