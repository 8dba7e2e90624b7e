package dag_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"

	"github.com/anyfs/anyfs/dag"
)

// TestIPLD: what is encoded here is DAG-CBOR to others, byte for byte, and its links are found.
func TestIPLD(t *testing.T) {
	n := 0
	for _, v := range append(changeVectors(), batchVectors()...) {
		if v.Fault != "" {
			continue
		}
		p, err := hex.DecodeString(v.Hex)
		must(t, err)
		nb := basicnode.Prototype.Any.NewBuilder()
		must(t, dagcbor.DecodeOptions{AllowLinks: true}.Decode(nb, bytes.NewReader(p)))
		node := nb.Build()
		var again bytes.Buffer
		must(t, dagcbor.Encode(node, &again))
		if !bytes.Equal(again.Bytes(), p) {
			t.Errorf("%s %s: another encoding", v.Kind, v.Name)
		}
		links, err := traversal.SelectLinks(node)
		must(t, err)
		if got, want := len(links), countLinks(t, v.Kind, p); got != want {
			t.Errorf("%s %s: %d links, want %d", v.Kind, v.Name, got, want)
		}
		for _, l := range links {
			if _, err := dag.IDFromCID(asCID(t, l)); err != nil {
				t.Errorf("%s %s: %v", v.Kind, v.Name, err)
			}
		}
		n++
	}
	if n < 8 {
		t.Error(n)
	}
}

func asCID(t *testing.T, l datamodel.Link) cid.Cid {
	c, ok := l.(cidlink.Link)
	if !ok {
		t.Fatalf("%T", l)
	}
	return c.Cid
}

func countLinks(t *testing.T, kind string, p []byte) int {
	if kind == "change" {
		c, err := dag.DecodeChange(p)
		must(t, err)
		return len(c.Parents)
	}
	b, err := dag.DecodeBatch(p)
	must(t, err)
	n := len(b.ACL) + len(b.Deps) + len(b.Changes)
	if !b.Prev.IsZero() {
		n++
	}
	return n
}

func TestIDs(t *testing.T) {
	id := dag.Sum([]byte("x"))
	for _, s := range []string{id.String(), id.CID().String()} {
		back, err := dag.ParseID(s)
		if err != nil || back != id {
			t.Error(back, err)
		}
	}
	for _, s := range []string{"", "x", "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"} {
		if _, err := dag.ParseID(s); err == nil {
			t.Errorf("%q parses", s)
		}
	}
}
