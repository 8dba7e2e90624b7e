package exchange

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
)

func nodeAddr(n byte) string {
	k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	return fmt.Sprintf("/ip4/127.0.0.1/tcp/1/p2p/%s", list.PeerID(dag.PublicKey(k.Public().(ed25519.PublicKey))))
}

// A device visits the nodes that invitations named for their spaces alone, up to a bound, and until that is ended; a node of its networks is more than that.
func TestNear(t *testing.T) {
	e := engineOf(t, Options{}, 1)
	wants := func(n byte, space dag.ID) (is, wanted bool) {
		info, err := splitAddr(nodeAddr(n))
		if err != nil {
			t.Fatal(err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		u := e.nodeLocked(info.ID)
		return u != nil, u != nil && u.Wants(space)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	one, two := dag.ID{1}, dag.ID{2}
	must(e.Near(one, []string{nodeAddr(10) + "/p2p-circuit/p2p/" + e.self.String(), nodeAddr(11)}))
	must(e.Near(two, []string{nodeAddr(11)}))
	for _, x := range []struct {
		n     byte
		space dag.ID
		want  bool
	}{{10, one, true}, {10, two, false}, {11, one, true}, {11, two, true}, {11, dag.ID{3}, false}} {
		if is, wanted := wants(x.n, x.space); !is || wanted != x.want {
			t.Errorf("node %d, space %x: %v, %v", x.n, x.space[0], is, wanted)
		}
	}
	must(e.SetNodes([]Node{{Network: dag.PublicKey{9}, Addrs: []string{nodeAddr(11)}, Wants: func(s dag.ID) bool { return s == dag.ID{3} }}}))
	if _, wanted := wants(11, dag.ID{3}); !wanted {
		t.Error("a node of the networks is only near")
	}
	must(e.SetNodes(nil))
	if _, wanted := wants(11, two); !wanted {
		t.Error("a node that was of a network is not near any more")
	}
	must(e.Near(one, nil))
	if is, _ := wants(10, one); is {
		t.Error("a node is visited for nothing")
	}
	if _, wanted := wants(11, one); wanted {
		t.Error("a node is visited for a space that was ended")
	}
	must(e.Near(two, nil))
	var many []string
	for n := range byte(200) {
		many = append(many, nodeAddr(n+20))
	}
	must(e.Near(one, many))
	e.mu.Lock()
	near, dials := len(e.nearNodes), len(e.dials)
	e.mu.Unlock()
	if near != maxNear || dials != maxNear {
		t.Errorf("%d nodes, %d dials", near, dials)
	}
	must(e.Near(one, nil))
	e.mu.Lock()
	near, dials = len(e.near)+len(e.nearNodes), len(e.dials)
	e.mu.Unlock()
	if near != 0 || dials != 0 {
		t.Errorf("%d nodes, %d dials are left", near, dials)
	}
	if err := e.Near(one, []string{"/ip4/127.0.0.1/tcp/1"}); err == nil {
		t.Error("an address without a peer")
	}
}
