package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"
)

// Clients of IPFS, as they are, get the blocks of a file from a node by the CID of its root, verify them, and read nothing in them.
func TestNodeGateway(t *testing.T) {
	NeedFUSE(t)
	node := NewNode(t, "--gateway", "127.0.0.1:0")
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	content := bytes.Repeat([]byte(plantedContent), 60_000)
	check(t, os.WriteFile(a.Personal("large"), content, 0o644))
	plant(t, a) // other spaces, other files
	a.Sync()
	var s struct {
		CID string `json:"cid"`
	}
	check(t, json.Unmarshal([]byte(a.Must("status", a.Personal("large"), "--json")), &s))
	root, err := cid.Decode(s.CID)
	check(t, err)
	if out := a.Must("status", a.Personal("large")); !strings.Contains(out, s.CID) {
		t.Errorf("status does not show %s: %s", s.CID, out)
	}
	base := "http://" + node.Logged(t, "gateway", "address")
	sealed := func(b []byte) {
		t.Helper()
		if bytes.Contains(b, []byte(plantedContent[:20])) {
			t.Error("a block has the content in it")
		}
	}

	// Block by block.
	remote, err := gateway.NewRemoteBlockstore([]string{base}, nil)
	check(t, err)
	files := merkledag.NewReadOnlyDagService(merkledag.NewDAGService(blockservice.New(remote, nil)))
	blocks, total := map[cid.Cid]bool{}, 0
	err = merkledag.Walk(t.Context(), merkledag.GetLinksDirect(files), root, func(c cid.Cid) bool {
		if blocks[c] {
			return false
		}
		n, err := files.Get(context.Background(), c)
		if err != nil {
			t.Errorf("%s: %v", c, err)
			return false
		}
		blocks[c], total = true, total+len(n.RawData())
		sealed(n.RawData())
		return true
	})
	check(t, err)
	if len(blocks) < 3 {
		t.Errorf("the file has %d blocks with %d bytes", len(blocks), total)
	}

	// As a CAR.
	r, err := http.Get(base + "/ipfs/" + root.String() + "?format=car")
	check(t, err)
	defer r.Body.Close()
	in, err := car.NewBlockReader(r.Body)
	check(t, err)
	for {
		b, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		sealed(b.RawData())
		delete(blocks, b.Cid())
	}
	if len(blocks) > 0 {
		t.Errorf("%d blocks are not in the CAR", len(blocks))
	}
}
