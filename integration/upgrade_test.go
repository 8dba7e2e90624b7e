package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nextBinary is the command as a next version may be: it speaks version 2 of the protocol, in which there is one message more, tells the earlier one only
// what that knows, and writes operations and access records of kinds that this version does not know and need not understand.
func nextBinary(t *testing.T) string {
	t.Helper()
	files := map[string]string{
		"sync/wire/next.go": `package wire

import "errors"

// KindNext is a message of version 2.
const KindNext Kind = 60

// Next has an item that no message of version 1 has.
type Next struct {
	_    struct{} ` + "`cbor:\",toarray\"`" + `
	T    head[Next]
	Text string
}

func (Next) kind() Kind { return KindNext }

func (m *Next) check() error {
	if m.Text == "" {
		return errors.New("no text")
	}
	return nil
}
`,
		"sync/exchange/next.go": `package exchange

import (
	"os"

	"github.com/anyfs/anyfs/integration/next"
	"github.com/anyfs/anyfs/sync/wire"
)

// greetNext tells who speaks version 2 what is of that version.
func greetNext(t *stream, r *remote) error {
	if r.version < 2 && os.Getenv("ANYFS_NEXT_RUDE") == "" {
		next.Did("spares " + r.id.String())
		return nil
	}
	next.Did("tells " + r.id.String())
	return t.write(&wire.Next{Text: "of version 2"})
}

func heardNext(t *stream) { next.Did("hears " + t.Conn().RemotePeer().String()) }
`}
	for _, change := range []struct{ path, was, now string }{
		{"sync/wire/wire.go", "\tVersion    = 1\n", "\tVersion    = 2\n"},
		{"sync/wire/messages.go", "\tcase KindHello:\n", "\tcase KindNext:\n\t\treturn &Next{}\n\tcase KindHello:\n"},
		{"sync/exchange/hello.go", "theirs.Nonce, ours.Nonce)\n\treturn nil\n", "theirs.Nonce, ours.Nonce)\n\treturn greetNext(t, r)\n"},
		{"sync/exchange/stream.go", "\treturn t.in.Read()\n", `	m, err := t.in.Read()
	if _, ok := m.(*wire.Next); ok {
		heardNext(t)
		return t.read(first)
	}
	return m, err
`},
		{"fs/publish.go", "\tb, err := p.Encode(h.Parents)\n", `	if len(p.Ops) > 0 {
		p.Ops = append(p.Ops, tree.Op{Kind: 100 << 1, Raw: []byte{0x82, 0x18, 200, 0x01}})
		next.Did("an operation")
	}
	b, err := p.Encode(h.Parents)
`},
		{"fs/publish.go", "\n\t\"github.com/anyfs/anyfs/fs/tree\"\n", "\n\t\"github.com/anyfs/anyfs/fs/tree\"\n\t\"github.com/anyfs/anyfs/integration/next\"\n"},
		{"acl/share.go", "\trec.Must = true\n", `	if _, err := s.list.Append(s.k.Author(), &list.Record{Kind: 99, Body: []byte{0xa0}}); err != nil {
		return dag.ID{}, err
	}
	next.Did("a record")
	rec.Must = true
`},
		{"acl/share.go", "\n\t\"github.com/anyfs/anyfs/dag\"\n", "\n\t\"github.com/anyfs/anyfs/dag\"\n\t\"github.com/anyfs/anyfs/integration/next\"\n"},
	} {
		text := files[change.path]
		if text == "" {
			text = string(must(t)(os.ReadFile(filepath.Join("..", change.path))))
		}
		if n := strings.Count(text, change.was); n != 1 {
			t.Fatalf("%s has %q %d times: say here what a next version changes", change.path, change.was, n)
		}
		files[change.path] = strings.Replace(text, change.was, change.now, 1)
	}
	return overlay(t, "next", files)
}

// upgrading is the processes of TestRollingUpgrade.
type upgrading struct {
	t    *testing.T
	next string // the binary
	log  string
	w    *Network
	d    *Devices
	n    int

	began time.Time
}

// env is what a process of the next version gets.
func (u *upgrading) env() []string { return []string{"ANYFS_NEXT_LOG=" + u.log} }

// node replaces the binary of a node; "": that of this version.
func (u *upgrading) node(n *Node, binary string) {
	u.t.Helper()
	n.Stop()
	n.binary, n.env = binary, u.env()
	n.Start()
	u.goesOn(fmt.Sprintf("a %s node was replaced", n.Kind))
}

// device replaces the binary of a device.
func (u *upgrading) device(h *Home, binary string) {
	u.t.Helper()
	h.Unmount()
	h.binary, h.env = binary, u.env()
	h.Mount("--no-discovery")
	u.goesOn("a device was replaced")
}

// goesOn has each device write something, and waits until the other shows it.
func (u *upgrading) goesOn(what string) {
	u.t.Helper()
	u.n++
	for i, h := range u.d.All {
		name := fmt.Sprint(u.n, " by ", i)
		text := noise(uint64(10*u.n+i), 100_000)
		check(u.t, os.WriteFile(h.Personal(name), text, 0o644))
		other := u.d.All[1-i]
		other.eventually(fmt.Sprintf("after %s the other device has what one wrote", what), func() error { return wantBytes(other.Personal(name), text) })
	}
	u.step(what)
}

func (u *upgrading) step(what string) { u.t.Logf("%6.1f s: %s", time.Since(u.began).Seconds(), what) }

// TestRollingUpgrade replaces each process of a network and its devices by one of a next version, one after the other, while a device writes, and some by
// this version again. Each goes on with what the other has: no call fails, nobody is told to have broken the protocol, what the next version alone knows goes
// to none that does not, and all devices end equal.
// ANYFS_OTHER is a binary of another version to do the same with.
func TestRollingUpgrade(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	other := os.Getenv("ANYFS_OTHER") // a build of another version, in the place of the next
	if other == "" {
		other = nextBinary(t)
	}
	u := &upgrading{t: t, next: other, log: filepath.Join(t.TempDir(), "did"), began: time.Now()}
	did := func(what string) int { b, _ := os.ReadFile(u.log); return strings.Count(string(b), what) }
	u.w = &Network{t: t, next: 61, flags: []string{"--no-relay"}} // or devices would meet without them
	u.w.Coordinator = runNode(&Node{t: t, Kind: "coordinator", listen: []string{"/ip4/127.0.0.60/tcp/0"}, flags: u.w.flags})
	for range 3 {
		u.w.Sync = append(u.w.Sync, u.w.Join("sync"))
	}
	for range 2 {
		u.w.File = append(u.w.File, u.w.Join("file"))
	}
	u.d = &Devices{t: t}
	for i := range 2 {
		h := NewHome(t)
		h.Listen = "/ip4/127.0.0.1/tcp/0"
		if i > 0 {
			u.d.login(h, i)
		}
		h.Mount("--no-discovery")
		h.Must("network", "add", u.w.Coordinator.File())
		u.d.All = append(u.d.All, h)
	}
	a, b := u.d.All[0], u.d.All[1]
	u.goesOn("all were begun")

	stop := writerEvery(t, 250*time.Millisecond, a.Personal("written while nodes are replaced"), 1)
	u.node(u.w.Sync[0], u.next)
	u.node(u.w.File[0], u.next)
	u.device(b, u.next)
	u.node(u.w.Coordinator, u.next)
	// What the next version makes is for this one too: operations, records, and a guest that comes by it.
	b.Must("space", "create", "Team")
	check(t, os.WriteFile(filepath.Join(b.Mnt, "Team", "in it"), []byte("in it"), 0o644))
	u.step("the next version made a space")
	c := NewHome(t)
	c.Listen = "/ip4/127.0.0.1/tcp/0"
	c.Mount("--no-discovery")
	c.Must("join", strings.TrimSpace(b.Must("invite", "Team", "--open")), "--wait")
	u.step("a guest has come")
	for name, h := range map[string]*Home{"by this": a, "by a guest": c} {
		h.eventually("what the next version shares is there", func() error { return wantBytes(filepath.Join(h.Mnt, "Team", "in it"), []byte("in it")) })
		check(t, os.WriteFile(filepath.Join(h.Mnt, "Team", name), []byte("not read-only"), 0o644), os.WriteFile(filepath.Join(h.Mnt, "Team", "in it"), []byte("in it"), 0o644))
		b.eventually("the next version has what this one writes there", func() error { return wantBytes(filepath.Join(b.Mnt, "Team", name), []byte("not read-only")) })
	}
	u.step("all write there")
	late := u.w.Join("sync") // of this version, to a coordinator of the next
	u.node(u.w.Sync[1], u.next)
	u.node(u.w.Sync[0], "") // and back
	u.node(u.w.Sync[2], u.next)
	u.node(u.w.File[1], u.next)
	if n := stop(); n == 0 {
		t.Error("nothing was written meanwhile")
	}
	stop = writerEvery(t, 50*time.Millisecond, b.Personal("written by the next version"), 2)
	u.device(a, u.next)
	if n := stop(); n == 0 {
		t.Error("nothing was written meanwhile")
	}
	u.device(b, "") // and back
	u.d.WaitEqual()
	u.step("the devices are equal")
	u.w.Sync = append(u.w.Sync, late)
	u.w.equal(u.w.File, true)
	u.step("the file nodes are equal")
	want := ReadTree(t, a.Mnt, TreeOptions{})
	u.w.sees(t, a, "of this version", want).Unmount()
	u.step("a new device has it all")

	for _, h := range []*Home{a, b, c} {
		h.Must("verify")
		if log := string(must(t)(os.ReadFile(filepath.Join(h.Dir, "anyfs.log")))); strings.Contains(log, "broke the protocol") {
			t.Errorf("a device: %s", h.logTail())
		}
	}
	for _, n := range append(append(u.w.Sync, u.w.File...), u.w.Coordinator) {
		if strings.Contains(n.log.String(), "broke the protocol") {
			t.Errorf("a %s node: %s", n.Kind, tail(n.log.String()))
		}
	}
	if os.Getenv("ANYFS_OTHER") != "" {
		return
	}
	for _, what := range []string{"tells ", "hears ", "spares ", "an operation", "a record"} {
		if did(what) == 0 {
			t.Errorf("the next version never did %q: nothing was tried", what)
		}
	}

	// One that says to this version what only the next one knows is found to have broken the protocol: so nothing above did.
	n := NewNode(t)
	rude := NewHome(t)
	rude.Listen, rude.binary, rude.env = "/ip4/127.0.0.1/tcp/0", u.next, append(u.env(), "ANYFS_NEXT_RUDE=1")
	rude.Mount("--no-discovery")
	rude.Must("network", "add", n.Link)
	began := time.Now()
	rude.eventually("a message of the next version breaks the protocol", func() error {
		if !strings.Contains(n.log.String(), "broke the protocol") {
			return errors.New("the node does not say so")
		}
		return nil
	})
	t.Logf("found after %v", time.Since(began).Round(time.Millisecond))
}
