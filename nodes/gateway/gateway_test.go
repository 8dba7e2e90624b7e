package gateway_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	boxo "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"
	"github.com/ipld/go-car/v2"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/gateway"
)

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// serve serves a store that holds a tree of n leaves.
func serve(t *testing.T, n int) (url string, root cid.Cid, leaves []block.ID, s *block.Store) {
	s = must(block.Open(block.Options{Disk: disk.NewSim(nil), Dir: "blocks", DB: kv.NewMem(), Seal: store.Plain{}}))(t)
	var list []block.Leaf
	for i := range n {
		b := bytes.Repeat([]byte(fmt.Sprint(i, " ")), 300)
		id := must(s.Put(b))(t)
		leaves = append(leaves, id)
		list = append(list, block.Leaf{ID: id, Size: uint64(len(b))})
	}
	root = must(block.BuildTree(s.Put, list))(t)
	h := must(gateway.New(func(_ context.Context, id block.ID) ([]byte, error) { return s.GetLocal(id) }))(t)
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL, root, leaves, s
}

// A client of boxo's own gets and verifies each block.
func TestRawBlocks(t *testing.T) {
	url, root, leaves, s := serve(t, 400)
	remote := must(boxo.NewRemoteBlockstore([]string{url}, nil))(t)
	client := blockservice.New(remote, nil)
	for _, c := range []cid.Cid{root, leaves[0].CID(), leaves[399].CID()} {
		b := must(client.GetBlock(t.Context(), c))(t)
		id, _, _ := block.IDFromCID(c)
		if want := must(s.GetLocal(id))(t); !bytes.Equal(b.RawData(), want) {
			t.Errorf("%s is other bytes", c)
		}
	}
	if _, err := client.GetBlock(t.Context(), block.Sum([]byte("not here")).CID()); err == nil {
		t.Error("a block that is not here is given")
	}
}

// A CAR has the whole tree, each block under its CID.
func TestCAR(t *testing.T) {
	url, root, leaves, _ := serve(t, 400)
	r := must(http.Get(url + "/ipfs/" + root.String() + "?format=car"))(t)
	defer r.Body.Close()
	if r.StatusCode != 200 {
		t.Fatal(r.Status)
	}
	in := must(car.NewBlockReader(r.Body))(t) // verifies each block
	if len(in.Roots) != 1 || in.Roots[0] != root {
		t.Errorf("roots %v", in.Roots)
	}
	got := map[cid.Cid]bool{}
	for {
		b, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[b.Cid()] = true
	}
	for i, l := range leaves {
		if !got[l.CID()] {
			t.Errorf("leaf %d is not in it", i)
		}
	}
}

// What is no block, and what would have to be decoded or resolved, is refused.
func TestRefuses(t *testing.T) {
	url, root, _, _ := serve(t, 3)
	for _, c := range []struct {
		method, path string
		codes        string
	}{
		{"GET", "/ipfs/" + root.String(), "406"}, // deserialised
		{"GET", "/ipfs/" + block.Sum([]byte("none")).CID().String() + "?format=raw", "404"},
		{"GET", "/ipfs/bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi?format=raw", "404"},
		{"GET", "/ipns/example.org", "404"},
		{"GET", "/ipfs/nonsense?format=raw", "400"},
		{"POST", "/ipfs/" + root.String(), "405"},
		{"GET", "/", "404"},
	} {
		req := must(http.NewRequestWithContext(t.Context(), c.method, url+c.path, nil))(t)
		r := must(http.DefaultClient.Do(req))(t)
		r.Body.Close()
		if fmt.Sprint(r.StatusCode) != c.codes {
			t.Errorf("%s %s: %s", c.method, c.path, r.Status)
		}
	}
	r := must(http.Head(url + "/ipfs/" + root.String() + "?format=raw"))(t)
	if r.StatusCode != 200 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/vnd.ipld.raw") {
		t.Errorf("%s, %s", r.Status, r.Header.Get("Content-Type"))
	}
}
