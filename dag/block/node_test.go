package block

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestNodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &node{}
		for range rapid.IntRange(0, MaxLinks).Draw(t, "links") {
			l := link{node: rapid.Bool().Draw(t, "node"), size: rapid.Uint64Range(1, 1<<50).Draw(t, "size")}
			l.id[3] = rapid.Byte().Draw(t, "id")
			l.total = l.size
			if l.node {
				l.total += rapid.Uint64Range(0, 1<<50).Draw(t, "more")
			}
			n.links = append(n.links, l)
		}
		b := n.encode()
		if len(b) > maxNode {
			t.Fatalf("a node of %d bytes", len(b))
		}
		got, err := decodeNode(b)
		if err != nil || !bytes.Equal(got.encode(), b) || len(got.links) != len(n.links) {
			t.Fatalf("decoding what was encoded: %v", err)
		}
	})
}

// FuzzNode: what decodes encodes to the same bytes, and takes no more than twice its length.
func FuzzNode(f *testing.F) {
	two := node{links: []link{{id: ID{1}, size: 5, total: 5}, {id: ID{2}, node: true, size: 300, total: 400}}}
	seeds := [][]byte{two.encode(), (&node{}).encode(), {}, {0x12, 0}, {0x0a, 4, 8, 2, 0x18, 0x80}}
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := decodeNode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(n.encode(), b) {
			t.Fatalf("%x decodes and encodes to %x", b, n.encode())
		}
		if cap(n.links)*64 > 2*len(b) {
			t.Fatalf("%d bytes made %d links", len(b), cap(n.links))
		}
	})
}

// FuzzRecord: what decodes encodes to the same bytes, and at no other place.
func FuzzRecord(f *testing.F) {
	var h [recordHeader]byte
	for _, r := range []record{{id: ID{1}, n: 5}, {id: ID{2}, n: MaxSize, dead: true}, {}} {
		encodeRecord(&h, r, 7, 64)
		f.Add(h[:], uint32(7), int64(64))
	}
	f.Fuzz(func(t *testing.T, b []byte, seg uint32, off int64) {
		if len(b) < recordHeader {
			return
		}
		in := [recordHeader]byte(b)
		r, err := decodeRecord(&in, seg, off)
		if err != nil {
			return
		}
		var out [recordHeader]byte
		if encodeRecord(&out, r, seg, off); out != in {
			t.Fatalf("%x decodes and encodes to %x", in, out)
		}
		if _, err := decodeRecord(&in, seg+1, off); err == nil {
			t.Fatal("it decodes in another segment")
		}
		if _, err := decodeRecord(&in, seg, off+1); err == nil {
			t.Fatal("it decodes at another offset")
		}
	})
}

// FuzzIndexValue: places and marks decode to what encodes to the same bytes.
func FuzzIndexValue(f *testing.F) {
	f.Add(place{seg: 1, off: 64, n: 5}.append(nil))
	f.Add(marks{indexed: 64, synced: 100, live: 36, blocks: 1}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePlace(b); err == nil && !bytes.Equal(p.append(nil), b) {
			t.Fatalf("place %x", b)
		}
		if m, err := decodeMarks(b); err == nil && !bytes.Equal(m.append(nil), b) {
			t.Fatalf("marks %x", b)
		}
	})
}

// blocksOf is a GetFunc over a map.
type blocksOf map[ID][]byte

func (m blocksOf) put(b []byte) (ID, error) { m[Sum(b)] = b; return Sum(b), nil }

func (m blocksOf) get(_ context.Context, c cid.Cid) ([]byte, error) {
	id, _, err := IDFromCID(c)
	if err != nil {
		return nil, err
	}
	if b, ok := m[id]; ok {
		return b, nil
	}
	return nil, ErrAbsent
}

func (m blocksOf) node(links ...link) link {
	n := node{links: links}
	b := n.encode()
	id, _ := m.put(b)
	l := link{id: id, node: true, size: n.size(), total: uint64(len(b))}
	for _, c := range links {
		l.total += c.total
	}
	return l
}

// TestHostileTrees walks trees that nobody builds.
func TestHostileTrees(t *testing.T) {
	m := blocksOf{}
	leaf := link{id: ID{1}, size: 7, total: 7}
	other := link{id: ID{2}, size: 9, total: 9}
	pair := m.node(leaf, other)
	deep := pair
	for range MaxDepth {
		deep = m.node(deep, deep)
	}
	lied, less := pair, pair
	lied.size++
	less.total--
	for name, root := range map[string]link{
		"uneven":          m.node(leaf, pair),
		"uneven the deep": m.node(pair, leaf),
		"too deep":        deep,
		"lies about size": m.node(pair, lied),
		"and about total": m.node(pair, less),
		"one leaf":        m.node(leaf),
		"one node":        m.node(pair),
		"empty inside":    m.node(pair, link{id: m.node().id, node: true, size: 16, total: pair.total}),
		"absent":          m.node(pair, link{id: ID{9}, node: true, size: 16, total: 100}),
	} {
		seen := 0
		err := Leaves(t.Context(), m.get, root.id.NodeCID(), func(Leaf) error { seen++; return nil })
		if err == nil || !errors.Is(err, errNode) && name != "absent" {
			t.Errorf("%s: %d leaves, %v", name, seen, err)
		}
	}
	// A tree of few blocks and many leaves is stopped by who looks.
	bomb, stop := pair, errors.New("enough")
	for range MaxDepth - 1 {
		bomb = m.node(bomb, bomb, bomb, bomb, bomb, bomb, bomb, bomb)
	}
	sum := uint64(0)
	if err := Leaves(t.Context(), m.get, bomb.id.NodeCID(), func(l Leaf) error {
		if sum += l.Size; sum > 1000 {
			return stop
		}
		return nil
	}); err != stop {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Leaves(ctx, m.get, bomb.id.NodeCID(), func(Leaf) error { return nil }); err != context.Canceled {
		t.Error(err)
	}
	for name, b := range map[string][]byte{
		"a name":              bytes.Replace(m[pair.id], []byte{tagName, 0}, []byte{tagName, 1, 'x'}, 1),
		"sha2-256":            bytes.Replace(m[pair.id], []byte("\x01\x55\x1e\x20"), []byte("\x01\x55\x12\x20"), 1),
		"a directory":         {tagData, 4, tagType, 1, tagFilesize, 0},
		"inline data":         {tagData, 7, tagType, typeFile, 0x12, 1, 'x', tagFilesize, 1},
		"a size too long":     {tagData, 5, tagType, typeFile, tagFilesize, 0x80, 0},
		"more behind":         {tagData, 4, tagType, typeFile, tagFilesize, 0, 0},
		"no data":             m[pair.id][:2*(2+int(m[pair.id][1]))],
		"too many links":      (&node{links: make([]link, MaxLinks+1)}).encode(),
		"a leaf of nothing":   (&node{links: []link{leaf, {id: ID{3}}}}).encode(),
		"sizes that wrap":     (&node{links: []link{{size: 1 << 63, total: 1 << 63}, {size: 1 << 63, total: 1 << 63}}}).encode(),
		"a leaf of two sizes": (&node{links: []link{leaf, {id: ID{3}, size: 3, total: 4}}}).encode(),
	} {
		if _, err := decodeNode(b); err == nil {
			t.Errorf("a node with %s was accepted", name)
		}
	}
}

// golden is testdata/vectors.json: all bytes in hex.
type golden struct {
	Segment string // the header of segment 7
	Records []goldenRecord
	Index   []goldenIndex
	Trees   []goldenTree
	CAR     string // of the tree of the leaves "a" and "bc"
}

type goldenRecord struct {
	Segment uint32
	Offset  int64
	Block   string // the block's bytes
	Dead    bool
	ID      string // as a CID
	Header  string
}

type goldenIndex struct {
	Key, Value, AD string // the value before it is sealed
	Says           string
}

type goldenTree struct {
	Says  string
	Root  string
	Nodes []string `json:",omitempty"` // in the order they are put
}

func makeGolden(t *testing.T) (g golden) {
	var sh [segmentHeader]byte
	encodeSegment(&sh, 7)
	g.Segment = hex.EncodeToString(sh[:])
	for _, r := range []struct {
		seg   uint32
		off   int64
		block string
		dead  bool
	}{{7, 64, "a block", false}, {7, 64, "a block", true}, {8, 64, "a block", false}, {7, 4096, "", false}} {
		var h [recordHeader]byte
		id := Sum([]byte(r.block))
		encodeRecord(&h, record{id: id, n: uint32(len(r.block)), dead: r.dead}, r.seg, r.off)
		g.Records = append(g.Records, goldenRecord{r.seg, r.off, hex.EncodeToString([]byte(r.block)), r.dead, id.String(), hex.EncodeToString(h[:])})
	}
	id := Sum([]byte("a block"))
	key := []byte{0, 0, 0, 7}
	g.Index = []goldenIndex{
		{hex.EncodeToString(id[:]), hex.EncodeToString(place{7, 64, 7}.append(nil)), hex.EncodeToString(placeAD(id)),
			"bucket blocks: 'a block' lies in segment 7 at 64"},
		{hex.EncodeToString(key), hex.EncodeToString(marks{indexed: 119, synced: 119, live: 55, blocks: 1}.append(nil)), hex.EncodeToString(marksAD(key)),
			"bucket blocks.segments: segment 7 holds that block alone"},
	}
	leaf := func(s string) Leaf { return Leaf{Sum([]byte(s)), uint64(len(s))} }
	many := make([]Leaf, 0, 400)
	for i := range 400 {
		many = append(many, leaf(string(bytes.Repeat([]byte{'x'}, i+1))))
	}
	for _, c := range []struct {
		says   string
		leaves []Leaf
	}{
		{"no leaf", nil}, {"the leaf 'a'", []Leaf{leaf("a")}}, {"the leaves 'a' and 'bc'", []Leaf{leaf("a"), leaf("bc")}},
		{"174 leaves: 'x' to 'x' 174 times", many[:174]}, {"175 of them", many[:175]}, {"400 of them", many},
	} {
		tree := goldenTree{Says: c.says}
		root, err := BuildTree(func(b []byte) (ID, error) {
			if len(c.leaves) < 10 {
				tree.Nodes = append(tree.Nodes, hex.EncodeToString(b))
			}
			return Sum(b), nil
		}, c.leaves)
		if err != nil {
			t.Fatal(err)
		}
		tree.Root = root.String()
		g.Trees = append(g.Trees, tree)
	}
	m := blocksOf{}
	m.put([]byte("a"))
	m.put([]byte("bc"))
	root, err := BuildTree(m.put, []Leaf{leaf("a"), leaf("bc")})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := ExportCAR(t.Context(), &buf, root, m.get); err != nil {
		t.Fatal(err)
	}
	g.CAR = hex.EncodeToString(buf.Bytes())
	return g
}

func TestVectors(t *testing.T) {
	const file = "testdata/vectors.json"
	got, err := json.MarshalIndent(makeGolden(t), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the formats differ from testdata/vectors.json")
	}
}
