package block_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	chunker "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	mdtest "github.com/ipfs/boxo/ipld/merkledag/test"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-car/v2"
	mh "github.com/multiformats/go-multihash"

	"github.com/anyfs/anyfs/dag/block"
)

// boxoRoot imports content with boxo's balanced layout, in leaves of `size` bytes.
func boxoRoot(t *testing.T, content []byte, size int64) (cid.Cid, ipld.DAGService) {
	t.Helper()
	ds := mdtest.Mock()
	params := helpers.DagBuilderParams{
		Maxlinks: block.MaxLinks, RawLeaves: true, Dagserv: ds,
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.BLAKE3, MhLength: 32},
	}
	db, err := params.New(chunker.NewSizeSplitter(bytes.NewReader(content), size))
	if err != nil {
		t.Fatal(err)
	}
	n, err := balanced.Layout(db)
	if err != nil {
		t.Fatal(err)
	}
	return n.Cid(), ds
}

// nodes is a block store of the simplest kind.
type nodes map[block.ID][]byte

func (m nodes) put(data []byte) (block.ID, error) {
	id := block.Sum(data)
	m[id] = bytes.Clone(data)
	return id, nil
}

func (m nodes) get(_ context.Context, c cid.Cid) ([]byte, error) {
	id, _, err := block.IDFromCID(c)
	if err != nil {
		return nil, err
	}
	if data, ok := m[id]; ok {
		return data, nil
	}
	return nil, fmt.Errorf("%w: %s", block.ErrAbsent, c)
}

// cut stores content in leaves of `size` bytes.
func (m nodes) cut(content []byte, size int) (leaves []block.Leaf) {
	for len(content) > 0 {
		n := min(size, len(content))
		id, _ := m.put(content[:n])
		leaves = append(leaves, block.Leaf{ID: id, Size: uint64(n)})
		content = content[n:]
	}
	return leaves
}

func random(seed uint64, n int) []byte {
	p := make([]byte, n)
	rnd := rand.New(rand.NewPCG(seed, 99))
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

// TestTreeIsBoxos builds trees of all shapes that matter and wants the very root of boxo's importer.
func TestTreeIsBoxos(t *testing.T) {
	for _, c := range []struct{ leaves, size int }{
		{2, 10}, {173, 3}, {174, 3}, {175, 3}, {348, 2}, {349, 2}, {2, 300_000}, {20, 70_000},
		{174 * 174, 1}, {174*174 + 1, 1}, {174*174 + 175, 1}, {174 * 175, 2},
	} {
		t.Run(fmt.Sprintf("%dx%d", c.leaves, c.size), func(t *testing.T) {
			content := random(uint64(c.leaves), c.leaves*c.size-c.size/2)
			m := nodes{}
			leaves := m.cut(content, c.size)
			root, err := block.BuildTree(m.put, leaves)
			if err != nil {
				t.Fatal(err)
			}
			want, ds := boxoRoot(t, content, int64(c.size))
			if root != want {
				t.Fatalf("the root is %s, boxo's %s", root, want)
			}
			var got []block.Leaf
			err = block.Leaves(t.Context(), func(ctx context.Context, c cid.Cid) ([]byte, error) {
				n, err := ds.Get(ctx, c)
				if err != nil {
					return nil, err
				}
				return n.RawData(), nil
			}, want, func(l block.Leaf) error { got = append(got, l); return nil })
			if err != nil || fmt.Sprint(got) != fmt.Sprint(leaves) {
				t.Fatalf("%d leaves of boxo's tree, want %d; %v", len(got), len(leaves), err)
			}
		})
	}
}

func TestSmallTrees(t *testing.T) {
	m := nodes{}
	root, err := block.BuildTree(m.put, nil)
	if err != nil || root.String() != emptyFile {
		t.Fatalf("the empty file is %s, %v", root, err)
	}
	empty := unixfs.EmptyFileNode()
	empty.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.BLAKE3, MhLength: 32})
	if root != empty.Cid() {
		t.Fatalf("the empty file is %s, boxo's %s", root, empty.Cid())
	}
	if err := block.Leaves(t.Context(), m.get, root, func(block.Leaf) error { return fmt.Errorf("a leaf") }); err != nil {
		t.Fatal(err)
	}
	leaf := m.cut([]byte("one"), 10)[0]
	if root, err = block.BuildTree(m.put, []block.Leaf{leaf}); err != nil || root != leaf.ID.CID() {
		t.Fatalf("the tree of one leaf is %s, %v", root, err)
	}
	var got []block.Leaf
	if err := block.Leaves(t.Context(), m.get, root, func(l block.Leaf) error { got = append(got, l); return nil }); err != nil ||
		len(got) != 1 || got[0] != (block.Leaf{ID: leaf.ID}) {
		t.Fatal(got, err)
	}
	if want, _ := boxoRoot(t, []byte("one"), 10); root != want {
		t.Fatalf("the root is %s, boxo's %s", root, want)
	}
	for _, sizes := range [][]uint64{{0}, {1, 0}, {1 << 63}, {1 << 62, 1 << 62}} {
		var leaves []block.Leaf
		for _, n := range sizes {
			leaves = append(leaves, block.Leaf{Size: n})
		}
		if _, err := block.BuildTree(m.put, leaves); err == nil {
			t.Errorf("leaves of sizes %d were accepted", sizes)
		}
	}
}

// emptyFile is the CID of dag-pb 0a 04 08 02 18 00.
const emptyFile = "bafyb4icvwknbzf4e6xryxlucewpmolohxpxn6kzveuc24mpae2ytsacb4y"

// TestEditedTreeSharesNodes edits one leaf of many.
func TestEditedTreeSharesNodes(t *testing.T) {
	m := nodes{}
	leaves := m.cut(random(5, 40_000), 1)
	for i := range leaves { // distinct ones
		leaves[i].ID = block.Sum(fmt.Append(nil, i))
	}
	if _, err := block.BuildTree(m.put, leaves); err != nil {
		t.Fatal(err)
	}
	before := len(m)
	leaves[20_000].ID = block.Sum([]byte("edit"))
	if _, err := block.BuildTree(m.put, leaves); err != nil {
		t.Fatal(err)
	}
	if n := len(m) - before; n != 3 {
		t.Fatalf("an edit of one leaf made %d nodes, want the 3 above it", n)
	}
}

// TestCAR exports a tree and has go-car and boxo read it back.
func TestCAR(t *testing.T) {
	for _, c := range []struct{ size, leaf int }{{0, 1}, {100, 1000}, {1_000_000, 5000}, {40_000, 100}} {
		content := random(uint64(c.size), c.size)
		m := nodes{}
		root, err := block.BuildTree(m.put, m.cut(content, c.leaf))
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		if err := block.ExportCAR(t.Context(), &buf, root, m.get); err != nil {
			t.Fatal(err)
		}
		r, err := car.NewBlockReader(&buf, car.WithTrustedCAR(false)) // verifies each block
		if err != nil {
			t.Fatal(err)
		}
		if r.Version != 1 || len(r.Roots) != 1 || r.Roots[0] != root {
			t.Fatalf("version %d, roots %s", r.Version, r.Roots)
		}
		bs := mdtest.Bserv()
		for {
			b, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			nb, _ := blocks.NewBlockWithCid(b.RawData(), b.Cid())
			if err := bs.AddBlock(t.Context(), nb); err != nil {
				t.Fatal(err)
			}
		}
		ds := merkledag.NewDAGService(bs)
		n, err := ds.Get(t.Context(), root)
		if err != nil {
			t.Fatal(err)
		}
		f, err := uio.NewDagReader(t.Context(), n, ds)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("read %d bytes of %d back: %v", len(got), len(content), err)
		}
	}
}
