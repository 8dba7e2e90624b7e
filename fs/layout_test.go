package fs

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/tree"
)

// layoutSamples are layouts of a file of layoutSize bytes.
const layoutSize = 64 << 20

func layoutSamples() map[string]manifest {
	sizes := func(n ...uint32) (out []leaf) {
		for _, n := range n {
			out = append(out, leaf{size: n})
		}
		return out
	}
	return map[string]manifest{
		"one chunk":          {leaves: sizes(5000), parts: []part{{0, 5000, 0, 0}}},
		"chunks and a hole":  {leaves: sizes(1<<20, 2<<20), parts: []part{{0, 1 << 20, 0, 0}, {3 << 20, 2 << 20, 1, 0}}},
		"a page in a chunk":  {leaves: sizes(1<<20, 4096), parts: []part{{0, 8192, 0, 0}, {8192, 4096, 1, 0}, {12288, 1<<20 - 12288, 0, 12288}}},
		"a block used twice": {leaves: sizes(100), parts: []part{{0, 100, 0, 0}, {100, 100, 0, 0}, {400, 50, 0, 25}}},
		"not in order":       {leaves: sizes(7, 8, 9), parts: []part{{0, 9, 2, 0}, {9, 7, 0, 0}, {16, 8, 1, 0}}},
		"the longest":        {leaves: sizes(seal.MaxChunk), parts: []part{{layoutSize - seal.MaxChunk, seal.MaxChunk, 0, 0}}},
	}
}

// TestLayoutVectors pins the layout block.
func TestLayoutVectors(t *testing.T) {
	const file = "testdata/layouts.json"
	got := map[string]string{}
	for name, m := range layoutSamples() {
		b := encodeLayout(m.leaves, m.parts)
		got[name] = hex.EncodeToString(b)
		leaves := make([]leaf, len(m.leaves))
		parts, err := decodeLayout(b, layoutSize, leaves)
		if err != nil || !slices.Equal(parts, m.parts) || !slices.Equal(leaves, m.leaves) {
			t.Errorf("%s came back as %v of %v: %v", name, parts, leaves, err)
		}
	}
	if *update {
		b, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s is %s, pinned is %s", name, got[name], want[name])
		}
	}
}

// TestBadLayouts names what a reader refuses.
func TestBadLayouts(t *testing.T) {
	two := []leaf{{size: 10}, {size: 10}}
	for name, b := range map[string][]byte{
		"empty":                        {},
		"another version":              {2, 2, 10, 10, 0, 0, 0, 0},
		"another number of leaves":     {1, 1, 10, 0, 0},
		"no parts":                     {1, 2, 10, 10},
		"a leaf that nothing uses":     {1, 2, 10, 10, 0, 0},
		"an empty leaf":                {1, 2, 10, 0, 0, 0, 0, 2, 0, 0},
		"an empty part":                {1, 2, 10, 10, 0, 0, 0, 0, 0, 1, 3, 0},
		"a part behind its leaf":       {1, 2, 10, 10, 0, 0, 0, 2, 5, 6},
		"a leaf that is not there":     {1, 2, 10, 10, 0, 0, 0, 3, 0, 1},
		"the leaf behind the last":     {1, 2, 10, 10, 0, 0, 0, 0, 0, 0},
		"the next leaf by its number":  {1, 2, 10, 10, 0, 1, 0, 10, 0, 0},
		"a number longer than need be": {1, 2, 10, 10, 0x80, 0, 0, 0, 0},
		"a part behind the end":        {1, 2, 10, 10, 90, 0, 0, 0},
		"a gap beyond the end":         {1, 2, 10, 10, 0, 0, 120, 0},
		"cut short":                    {1, 2, 10, 10, 0, 0, 0},
	} {
		if parts, err := decodeLayout(b, 100, slices.Clone(two)); !errors.Is(err, errLayout) {
			t.Errorf("%s: %v, %v", name, parts, err)
		}
	}
	if _, err := decodeLayout([]byte{1, 2, 10, 10, 0, 0, 0, 0}, 100, slices.Clone(two)); err != nil {
		t.Error("the good one:", err)
	}
}

// drawManifest draws a file in parts of blocks.
func drawManifest(t *rapid.T) *manifest {
	m := &manifest{}
	for range rapid.IntRange(1, 5).Draw(t, "leaves") {
		m.leaves = append(m.leaves, leaf{id: block.ID{byte(len(m.leaves))}, size: uint32(rapid.IntRange(1, 300).Draw(t, "size"))})
	}
	off := int64(0)
	add := func(l int) {
		p := part{off: off + int64(rapid.IntRange(0, 2).Draw(t, "gap")*rapid.IntRange(0, 300).Draw(t, "bytes")), leaf: uint32(l), n: m.leaves[l].size}
		if rapid.Bool().Draw(t, "part") {
			p.skip = uint32(rapid.IntRange(0, int(p.n)-1).Draw(t, "skip"))
			p.n = uint32(rapid.IntRange(1, int(p.n-p.skip)).Draw(t, "n"))
		}
		m.parts = append(m.parts, p)
		off = p.end()
	}
	for range rapid.IntRange(0, 6).Draw(t, "parts") {
		add(rapid.IntRange(0, len(m.leaves)-1).Draw(t, "leaf"))
	}
	for l := range m.leaves {
		if !slices.ContainsFunc(m.parts, func(p part) bool { return int(p.leaf) == l }) {
			add(l)
		}
	}
	return m
}

func TestLayoutRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawManifest(t)
		leaves := make([]leaf, len(m.leaves))
		size := m.parts[len(m.parts)-1].end()
		parts, err := decodeLayout(encodeLayout(m.leaves, m.parts), size, leaves)
		if err != nil || !slices.Equal(parts, m.parts) {
			t.Fatalf("%v came back as %v: %v", m.parts, parts, err)
		}
		for i := range leaves {
			if leaves[i].size != m.leaves[i].size {
				t.Fatalf("leaf %d of %d bytes came back with %d", i, m.leaves[i].size, leaves[i].size)
			}
		}
		if _, err := decodeLayout(encodeLayout(m.leaves, m.parts), size-1, leaves); err == nil {
			t.Fatal("a layout was taken for a file that is shorter")
		}
	})
}

func FuzzLayout(f *testing.F) {
	for _, m := range layoutSamples() {
		f.Add(encodeLayout(m.leaves, m.parts), uint8(len(m.leaves)))
	}
	f.Fuzz(func(t *testing.T, b []byte, n uint8) {
		leaves := make([]leaf, n)
		parts, err := decodeLayout(b, layoutSize, leaves)
		if err != nil {
			return
		}
		if again := encodeLayout(leaves, parts); !bytes.Equal(again, b) {
			t.Fatalf("%x came back as %x", b, again)
		}
		end := int64(0)
		for _, p := range parts {
			if p.off < end || p.n == 0 || p.skip+p.n > leaves[p.leaf].size || p.end() > layoutSize {
				t.Fatalf("%+v", p)
			}
			end = p.end()
		}
	})
}

// TestContentWithoutEnd: a few blocks that name more chunks than any file has cost no more than a file of the largest size.
func TestContentWithoutEnd(t *testing.T) {
	ctx := context.Background()
	th := newTestHome(t)
	s := th.spaceOf(th.root)
	id, err := s.putChunk([]byte("a chunk"))
	th.must(err)
	size, _ := s.blocks.Size(id)
	leaves := slices.Repeat([]block.Leaf{{ID: id, Size: uint64(size)}}, maxLeaves+block.MaxLinks)
	before := s.blocks.Len()
	root, err := block.BuildTree(s.putBlock, leaves)
	th.must(err)
	if n := s.blocks.Len() - before; n > 100 {
		t.Fatalf("it takes %d nodes", n)
	}
	seen := 0
	if err := s.eachBlock(ctx, root, func(block.ID) bool { seen++; return true }); !errors.Is(err, errLeaves) || seen > maxLeaves*102/100 {
		t.Fatalf("%d blocks are seen: %v", seen, err)
	}
	reads := 0
	get := func(ctx context.Context, c cid.Cid) ([]byte, error) { reads++; return s.getNode(ctx, c) }
	if err := eachLeaf(ctx, get, root, func(block.Leaf) error { return nil }); !errors.Is(err, errLeaves) {
		t.Fatalf("after %d nodes: %v", reads, err)
	}
	for _, c := range []*tree.Content{
		{Size: 7, Root: root, Layout: []tree.Chunk{{Off: 0, Len: 7}}},
		{Size: 1 << 40, Root: root, LayoutBlock: id},
	} {
		if _, err := s.manifest(ctx, c); !errors.Is(err, ErrIO) {
			t.Fatal(err)
		}
		p := pruner{s: s, dry: true, doomed: map[block.ID]int64{}}
		th.must(p.spareContent(ctx, c))
	}
}
