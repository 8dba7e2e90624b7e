package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// netInfo is a network as network list --json prints it.
type netInfo struct {
	ID      string   `json:"id"`
	Default bool     `json:"default"`
	Used    bool     `json:"used"`
	Spaces  []string `json:"spaces"`
	Epoch   uint64   `json:"epoch"`
}

func (h *Home) networks() (list []netInfo) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.Must("network", "list", "--json")), &list); err != nil {
		h.t.Fatal(err)
	}
	return list
}

// netID gives the ID of a node's network.
func (n *Node) netID() string {
	n.t.Helper()
	b, err := os.ReadFile(n.File())
	var c struct {
		Network string `json:"network"`
	}
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return c.Network
}

// onNetworks gives the networks that a device says a space is on.
func (h *Home) onNetworks(space string) (ids []string) {
	h.t.Helper()
	var list []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(h.Must("space", "network", space, "--json")), &list); err != nil {
		h.t.Fatal(err)
	}
	for _, x := range list {
		ids = append(ids, x.ID)
	}
	slices.Sort(ids)
	return ids
}

// eventually fails when fn still fails after a while.
func (h *Home) eventually(what string, fn func() error) {
	h.t.Helper()
	var err error
	for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = fn(); err == nil {
			return
		}
	}
	h.t.Fatalf("%s: %v\n%s%s", what, err, h.Run("status").Stdout, h.logTail())
}

// quickly fails where fn takes longer than a limit.
func quickly(t *testing.T, what string, limit time.Duration, fn func()) {
	t.Helper()
	began := time.Now()
	fn()
	if took := time.Since(began); took > limit {
		t.Errorf("%s took %v", what, took)
	}
}

// A space moves from one provider to another, of which the first is gone for good before it is taken off. What a new device gets with the phrase and the
// link of the second is everything.
func TestMoveBetweenNetworks(t *testing.T) {
	NeedFUSE(t)
	old, next := NewNode(t), NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", old.Link)
	plant(t, a)
	a.Sync()
	a.Must("network", "add", next.File())
	if list := a.networks(); len(list) != 2 || list[0].ID != old.netID() || !list[0].Default || list[1].Default || len(list[0].Spaces) != 2 || len(list[1].Spaces) != 0 {
		t.Fatalf("networks: %+v", list)
	}
	// A mirror that has everything may leave its only network, and come back.
	a.Must("space", "network", "Personal", "remove", old.netID())
	if got := a.onNetworks("Personal"); len(got) != 0 {
		t.Fatalf("Personal is on %q", got)
	}
	a.Must("space", "network", "Personal", "add", old.netID(), "--wait", "--timeout", "60s")
	for _, space := range []string{"Personal", plantedSpace} {
		a.Must("space", "network", space, "add", next.netID())
		if got := a.onNetworks(space); len(got) != 2 {
			t.Fatalf("%s is on %q", space, got)
		}
		a.Must("space", "network", space, "--wait", "--timeout", "60s")
	}
	old.Kill() // for good
	if err := os.WriteFile(a.Personal("after"), noise(1, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Must("space", "network", "Personal", "--timeout", "60s", "--wait", "add", next.netID())
	var status struct {
		Networks []struct {
			ID        string `json:"id"`
			Connected int    `json:"connected"`
			Nodes     int    `json:"nodes"`
		} `json:"networks"`
		Spaces []struct {
			Name     string `json:"name"`
			Networks []struct {
				ID       string `json:"id"`
				Holds    bool   `json:"holds_everything"`
				Contents int    `json:"pending_contents"`
			} `json:"networks"`
		} `json:"spaces"`
	}
	if err := json.Unmarshal([]byte(a.Must("status", "--json")), &status); err != nil {
		t.Fatal(err)
	}
	if n := status.Networks; len(n) != 2 || n[0].Connected != 0 || n[1].Connected != 1 {
		t.Errorf("status: %+v", n)
	}
	for _, s := range status.Spaces {
		for _, x := range s.Networks {
			if x.Holds != (x.ID == next.netID()) {
				t.Errorf("status of %s: %+v", s.Name, x)
			}
		}
	}
	if out := a.Must("status"); !strings.Contains(out, "0 of 1 nodes connected") || !strings.Contains(out, "1 of 1 nodes connected") {
		t.Errorf("status:\n%s", out)
	}
	for _, space := range []string{"Personal", plantedSpace} {
		quickly(t, "taking a space off a network that is gone", 5*time.Second, func() {
			a.Must("space", "network", space, "remove", old.netID())
		})
		if got := a.onNetworks(space); len(got) != 1 || got[0] != next.netID() {
			t.Fatalf("%s is on %q", space, got)
		}
	}
	a.Must("network", "default", next.netID())
	quickly(t, "removing a network that is gone", 5*time.Second, func() { a.Must("network", "remove", old.netID()) })
	if err := os.Mkdir(filepath.Join(a.Mnt, "New"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.Mnt, "New", "in it"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Must("status", "--wait", "--timeout", "60s")
	for _, space := range []string{"Personal", plantedSpace, "New"} {
		a.Must("space", "network", space, "--wait", "--timeout", "60s")
	}
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount() // for good

	b := login(t, a, "second")
	b.Must("network", "add", next.Link)
	b.Mount("--no-discovery")
	b.Sync()
	arrives(t, b, want)
	if list := b.networks(); len(list) != 1 || list[0].ID != next.netID() || !list[0].Default || len(list[0].Spaces) != 3 {
		t.Errorf("networks of the new device: %+v", list)
	}
	b.Must("verify")
}

// A device that knows the phrase and one of the networks finds the others in the home space, and what is on them alone; which one is the default stays.
// Networks that are added and removed on one device are on the other.
func TestLoginLearnsNetworks(t *testing.T) {
	NeedFUSE(t)
	one, two := NewNode(t), NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", one.Link)
	a.Must("network", "add", two.Link)
	a.Must("space", "create", "Apart", "--network", two.netID())
	content := noise(7, 2<<20)
	for _, name := range []string{"Personal", "Apart"} {
		if err := os.WriteFile(filepath.Join(a.Mnt, name, "file"), append([]byte(name), content...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.onNetworks("Apart"); len(got) != 1 || got[0] != two.netID() {
		t.Fatalf("Apart is on %q", got)
	}
	a.Must("status", "--wait", "--timeout", "60s")
	for _, name := range []string{"Personal", "Apart"} {
		a.Must("space", "network", name, "--wait", "--timeout", "60s")
	}
	a.eventually("the home space is on both", func() error {
		if one, two := len(one.Status().Spaces), len(two.Status().Spaces); one != 2 || two != 2 {
			return fmt.Errorf("%d and %d spaces are on the networks", one, two)
		}
		return nil
	})
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount()

	// It is told the second network, where Personal is not.
	b := login(t, a, "second")
	b.Must("network", "add", two.Link)
	b.Mount("--no-discovery")
	arrives(t, b, want)
	b.eventually("the networks are known", func() error {
		if list := b.networks(); len(list) != 2 || list[0].ID != one.netID() || !list[0].Default {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	if got := b.onNetworks("Personal"); len(got) != 1 || got[0] != one.netID() {
		t.Errorf("Personal is on %q", got)
	}
	b.Must("status", "--wait", "--timeout", "60s")
	if n := len(two.Status().Spaces); n != 2 {
		t.Errorf("%d spaces are on the second network", n)
	}

	// Both are on again, through the networks alone: what one does with networks, the other does.
	a.Mount("--no-discovery")
	b.Must("space", "network", "Personal", "add", two.netID())
	a.eventually("a network is added", func() error {
		if got := a.onNetworks("Personal"); len(got) != 2 {
			return fmt.Errorf("Personal is on %q", got)
		}
		return nil
	})
	a.Must("network", "default", two.netID())
	b.eventually("the default is another", func() error {
		if list := b.networks(); list[0].ID != two.netID() {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
	a.Must("network", "remove", one.netID())
	b.eventually("a network is removed", func() error {
		if list := b.networks(); len(list) != 1 {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	for _, h := range []*Home{a, b} {
		h.Must("verify")
	}
}

// A device that was let in by a code gets the networks with it, also where the other one is never on again.
func TestPairedDeviceHasNetworks(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	if err := os.WriteFile(a.Personal("file"), bytes.Repeat([]byte("content\n"), 50_000), 0o644); err != nil {
		t.Fatal(err)
	}
	a.Sync()
	want := ReadTree(t, a.Mnt, TreeOptions{})
	b := NewHome(t)
	b.Listen = "/ip4/127.0.0.1/tcp/0"
	code := a.addDevice()
	b.Must("login", "--pair", "--peer", a.address(), "--device-name", "paired", code.Code)
	if out, exit := code.wait(); exit != 0 {
		t.Fatalf("device add: %d: %s", exit, out)
	}
	a.Unmount() // for good
	b.Mount("--no-discovery")
	arrives(t, b, want)
	b.eventually("the network is known", func() error {
		if list := b.networks(); len(list) != 1 || list[0].ID != node.netID() || !list[0].Default || !list[0].Used {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	b.Must("status", "--wait", "--timeout", "60s")
	b.Must("verify")
}

// Content that a device let go under the promise of one network moves to another through that device; it does not leave the first one before.
func TestMoveWhatIsOnANetworkAlone(t *testing.T) {
	NeedFUSE(t)
	old, next := NewNode(t), NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", old.Link)
	a.Must("network", "add", next.Link)
	content := noise(3, 6<<20)
	if err := os.WriteFile(a.Personal("large"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	a.Must("status", "--wait", "--timeout", "60s")
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
	a.Must("space", "policy", "Personal", "on-demand")
	a.Must("evict", a.Personal("large"))
	if c := a.content(a.Personal("large")); c.Content == "here" {
		t.Fatalf("content: %+v", c)
	}
	for range 2 { // it is on no other network; and while the other one does not hold it
		if r := a.Run("space", "network", "Personal", "remove", old.netID()); r.Code == 0 {
			t.Fatalf("it leaves the only network that has its content: %+v", r)
		}
		a.Must("pause")
		a.Must("space", "network", "Personal", "add", next.netID())
	}
	a.Must("resume")
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
	a.Must("evict", a.Personal("large"))
	a.Must("space", "network", "Personal", "remove", old.netID())
	old.Kill()
	a.Must("evict", a.Personal("large"))
	if c := a.content(a.Personal("large")); c.Content == "here" {
		t.Errorf("it can't be let go under the promise of the new network: %+v", c)
	}
	a.eventually("it can be read from the new network", func() error {
		got, err := os.ReadFile(a.Personal("large"))
		if err == nil && !bytes.Equal(got, content) {
			err = errors.New("other bytes")
		}
		return err
	})
	a.Must("verify")
}

// A quota bounds content and changes together. A mirror goes on writing, and status says what does not go to the network, and why. A space on demand, of which
// nothing can go any more, refuses with EDQUOT what is beyond its limit; nothing that was written is lost, and with a larger quota all goes on.
func TestQuotaAtTheMount(t *testing.T) {
	t.Parallel() // it mostly waits
	NeedFUSE(t)
	const quota = 3 << 20
	node := NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Must("node", "quota", "--dir", node.Dir, "default", "3M")
	a.Mount("--no-discovery")
	time.Sleep(1500 * time.Millisecond) // it holds from a second after it was set
	a.Must("network", "add", node.Link)
	size := func() (sum int64) {
		for _, s := range node.Status().Spaces {
			sum += s.Blocks + s.Changes
		}
		return sum
	}
	problem := func() error {
		if out := a.Must("status"); !strings.Contains(out, "of the quota are used") {
			return fmt.Errorf("status does not tell of the quota:\n%s", out)
		}
		return nil
	}
	// What a mirror writes stays here.
	written := map[string][]byte{}
	write := func(name string, b []byte) error {
		err := os.WriteFile(a.Personal(name), b, 0o644)
		if err == nil {
			written[name] = b
		}
		return err
	}
	check(t, write("large", noise(1, 6<<20)))
	a.eventually("the quota shows", problem)
	if r := a.Run("space", "network", "Personal", "--wait", "--timeout", "2s"); r.Code != 4 || !strings.Contains(r.Stderr, "quota") {
		t.Errorf("a wait for what is beyond the quota: %+v", r)
	}
	// Changes count: files of which all is in the changes.
	for i := range 1200 {
		check(t, write(fmt.Sprintf("small %d", i), noise(uint64(i), 4<<10)))
	}
	a.eventually("what the mirror wrote is here alone", func() error {
		var s struct {
			Spaces []struct {
				Networks []struct {
					ToSend  int    `json:"pending_send_batches"`
					Problem string `json:"problem"`
				} `json:"networks"`
			} `json:"spaces"`
		}
		if err := json.Unmarshal([]byte(a.Must("status", "--json")), &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Spaces) != 1 || len(s.Spaces[0].Networks) != 1 || s.Spaces[0].Networks[0].ToSend == 0 || s.Spaces[0].Networks[0].Problem == "" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	time.Sleep(3 * time.Second)                       // the node counts what it really has
	if n := size(); n > quota+64<<10 || n < quota/2 { // access records are taken whatever the quota says
		t.Errorf("with a quota of %d bytes the node holds %d", quota, n)
	}

	// On demand nothing can go, as nobody promises to keep it.
	a.Must("space", "policy", "Personal", "on-demand", "--cache-limit", "8M")
	refused, total := 0, 0
	for end := time.Now().Add(time.Minute); refused == 0 && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		switch err := write(fmt.Sprintf("more %d", total), noise(uint64(100+total), 1<<20)); {
		case err == nil:
			total++
		case errors.Is(err, syscall.EDQUOT):
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused == 0 || total > 64 {
		t.Fatalf("%d MiB were written beyond the limit, none refused", total)
	}
	t.Logf("refused after %d MiB", total)
	if out := a.Must("status"); !strings.Contains(out, "EDQUOT") {
		t.Errorf("status does not say why nothing can be written:\n%s", out)
	}
	check(t, os.Mkdir(a.Personal("dir"), 0o755), os.Rename(a.Personal("small 1"), a.Personal("dir", "moved")), os.Remove(a.Personal("small 2")))
	delete(written, "small 1")
	delete(written, "small 2")
	for name, want := range written {
		a.wantContent(a.Personal(name), want)
	}

	a.Must("node", "quota", "--dir", node.Dir, "default", "none")
	a.eventually("it can be written again", func() error { return write("after", noise(99, 1<<20)) })
	a.Must("space", "network", "Personal", "--wait", "--timeout", "60s")
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Must("verify")
	a.Unmount()
	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	arrives(t, b, want)
}

// A member of a shared space, who uses no network, uses those on which its owner has put it, and follows when it moves; its own home space and spaces go
// there not.
func TestMembersFollowTheOwnersNetwork(t *testing.T) {
	s := newSharing(t, 2)
	alice, bob := s.All[0], s.All[1]
	one, two := NewNode(t), NewNode(t)
	alice.Must("network", "add", one.Link)
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/by alice", "alice")
	link := strings.TrimSpace(alice.Must("invite", "Team", "--open"))
	bob.Must("join", link, "--as", "Team", "--name", "Bob", "--wait")
	s.reads(bob, "Team/by alice", "alice")
	on := func(h *Home, want ...string) {
		t.Helper()
		slices.Sort(want)
		h.eventually("Team's networks", func() error {
			if got := h.onNetworks("Team"); !slices.Equal(got, want) {
				return fmt.Errorf("Team is on %q, not on %q", got, want)
			}
			return nil
		})
	}
	on(bob, one.netID())
	if list := bob.networks(); len(list) != 1 || list[0].Used || list[0].Default {
		t.Errorf("Bob's networks: %+v", list)
	}
	bob.Must("space", "network", "Team", "--wait", "--timeout", "60s")

	// They never meet again.
	alice.Unmount()
	s.write(bob, "Team/by bob", "bob")
	bob.Must("space", "network", "Team", "--wait", "--timeout", "60s")
	bob.Unmount()
	alice.Mount("--no-discovery")
	s.reads(alice, "Team/by bob", "bob")
	alice.Must("network", "add", two.Link)
	alice.Must("space", "network", "Team", "add", two.netID(), "--wait", "--timeout", "60s")
	alice.Must("status", "--wait", "--timeout", "60s")
	alice.Unmount()

	// Bob hears of the move over the first network, and from then on needs only the second.
	bob.Mount("--no-discovery")
	on(bob, one.netID(), two.netID())
	bob.Must("space", "network", "Team", "--wait", "--timeout", "60s")
	bob.Unmount()
	one.Kill()
	alice.Mount("--no-discovery")
	alice.Must("space", "network", "Team", "remove", one.netID())
	s.write(alice, "Team/later", "later")
	alice.Must("space", "network", "Team", "--wait", "--timeout", "60s")
	alice.Unmount()
	bob.Mount("--no-discovery")
	s.reads(bob, "Team/later", "later")
	on(bob, two.netID())
	bob.eventually("the first network is known no more", func() error {
		if list := bob.networks(); len(list) != 1 || list[0].ID != two.netID() {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	if n := len(two.Status().Spaces); n > 2 { // Team, and Alice's home space
		t.Errorf("%d spaces are on the second network", n)
	}
	// Bob's own choice goes before the owner's, for Bob alone.
	bob.Must("space", "network", "Team", "remove", two.netID())
	on(bob)
}

// What a space's owner takes off a network its nodes remove, also one that was away, and a device that has not heard of it does not bring it back; the owner
// can put it there again.
func TestNodesRemoveWhatLeaves(t *testing.T) {
	t.Parallel() // it mostly waits
	NeedFUSE(t)
	w, other := NewNetwork(t, 3, 2), NewNode(t)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", w.Coordinator.Link)
	a.Must("network", "add", other.Link)
	a.Must("space", "create", "Work")
	content := noise(5, 3<<20)
	check(t, os.WriteFile(filepath.Join(a.Mnt, "Work", "file"), content, 0o644))
	a.Must("space", "network", "Work", "--wait", "--timeout", "60s")
	var work string
	for _, s := range a.Status().Spaces {
		if s.Name == "Work" {
			work = s.ID
		}
	}
	have := func(nodes ...*Node) (n int) {
		for _, x := range nodes {
			for _, s := range x.Status().Spaces {
				if s.ID == work {
					n++
				}
			}
		}
		return n
	}
	all := slices.Concat(w.Sync, w.File)
	a.eventually("the space is on all nodes", func() error {
		if n := have(all...); n != len(all) {
			return fmt.Errorf("it is on %d", n)
		}
		return nil
	})
	b := login(t, a, "second")
	b.Must("network", "add", w.Coordinator.Link)
	b.Mount("--no-discovery")
	b.eventually("the space is on the second device", func() error {
		got, err := os.ReadFile(filepath.Join(b.Mnt, "Work", "file"))
		if err == nil && !bytes.Equal(got, content) {
			err = errors.New("other bytes")
		}
		return err
	})
	b.Unmount()

	a.Must("space", "network", "Work", "add", other.netID(), "--wait", "--timeout", "60s")
	w.Sync[0].Kill()
	a.Must("space", "network", "Work", "remove", w.Coordinator.netID())
	gone := func(what string, nodes ...*Node) {
		t.Helper()
		a.eventually(what, func() error {
			if n := have(nodes...); n > 0 {
				return fmt.Errorf("it is on %d nodes", n)
			}
			return nil
		})
	}
	gone("the nodes removed it", all[1:]...)
	w.Sync[0].Start()
	gone("a node that was away removes it when it is back", all...)
	b.Mount("--no-discovery")
	time.Sleep(5 * time.Second)
	gone("it stays away", all...)
	b.eventually("the second device uses the other network", func() error {
		if got := b.onNetworks("Work"); len(got) != 1 || got[0] != other.netID() {
			return fmt.Errorf("Work is on %q", got)
		}
		return nil
	})
	a.Must("space", "network", "Work", "add", w.Coordinator.netID(), "--wait", "--timeout", "60s")
	a.eventually("the space is on all nodes again", func() error {
		if n := have(all...); n != len(all) {
			return fmt.Errorf("it is on %d", n)
		}
		return nil
	})
	for _, h := range []*Home{a, b} {
		h.Must("verify")
	}
}
