package fs

import (
	"context"
	"errors"
	"io"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/chunk"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// inlineMax is the largest content that sits in the change itself.
const inlineMax = 8 << 10

// assembled is a content ready to be published, and what it cost.
type assembled struct {
	content *tree.Content
	edits   []index.PatchEdit // of a patch
	sealed  int64             // bytes of plaintext that were sealed for it
}

// assemble makes the whole content of a file from a clone of its inode: inline where it is small, else in blocks. It takes no
// lock for long.
func (s *space) assemble(ctx context.Context, n *index.Inode) (*assembled, error) {
	r := &fileReader{ctx: ctx, s: s, n: n}
	if n.Size <= inlineMax {
		b := make([]byte, n.Size)
		if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return &assembled{content: &tree.Content{Size: n.Size, Inline: b}, sealed: n.Size}, nil
	}
	p, err := s.spans(ctx, n)
	if err != nil {
		return nil, err
	}
	a := &assembler{s: s, r: r, p: p, parts: make([]part, 0, len(p.list))}
	defer a.free()
	// A few runs are chunks of their own: then the operation itself says where the holes are.
	pack := len(p.list) > inlineLayout || !p.wholeLeaves()
	for rest := p.list; len(rest) > 0; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q := &rest[0]
		rest = rest[1:]
		switch {
		case q.leaf != anew:
			a.parts = append(a.parts, part{off: q.off, n: uint32(q.n), leaf: uint32(q.leaf), skip: uint32(q.skip)})
		case q.n < shortRun && pack && !q.meet:
			err = a.pack(q)
		default:
			rest, err = a.cut(q, rest)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := a.sealPack(); err != nil {
		return nil, err
	}
	return a.finish(n.Size)
}

// assembler stores what is planned.
type assembler struct {
	s      *space
	r      *fileReader
	p      *spans
	parts  []part
	sealed int64
	cutBuf *arena

	packBuf *arena
	packed  []byte // short runs that will be one block
	waits   []int  // the parts that are
}

func (a *assembler) free() {
	for _, b := range []*arena{a.cutBuf, a.packBuf} {
		if b != nil {
			a.s.h.arenas.Put(&b.b)
		}
	}
}

// put stores a chunk as a new leaf.
func (a *assembler) put(p []byte) (uint32, error) {
	id, err := a.s.putChunk(p)
	if err != nil {
		return 0, err
	}
	size, _ := a.s.blocks.Size(id)
	a.sealed += int64(len(p))
	a.p.leaves = append(a.p.leaves, leaf{id: id, sealed: uint32(size), size: uint32(len(p))})
	return uint32(len(a.p.leaves) - 1), nil
}

// pack puts a short run into the block that they share.
func (a *assembler) pack(q *span) error {
	if len(a.packed)+int(q.n) > chunk.AvgSize {
		if err := a.sealPack(); err != nil {
			return err
		}
	}
	if a.packBuf == nil {
		a.packBuf = a.s.h.newArena()
		a.packed = a.packBuf.b[:0]
	}
	at := len(a.packed)
	a.packed = a.packed[:at+int(q.n)]
	if _, err := a.r.ReadAt(a.packed[at:], q.off); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	a.waits = append(a.waits, len(a.parts))
	a.parts = append(a.parts, part{off: q.off, n: uint32(q.n), skip: uint32(at)})
	return nil
}

func (a *assembler) sealPack() error {
	if len(a.waits) == 0 {
		return nil
	}
	l, err := a.put(a.packed)
	if err != nil {
		return err
	}
	for _, i := range a.waits {
		a.parts[i].leaf = l
	}
	a.packed, a.waits = a.packed[:0], a.waits[:0]
	return nil
}

// cut cuts a run into chunks by its content and stores them. It returns what of next, the spans behind it, is left: a run that ends where
// cut points meet takes in what they pass over, up to resyncBytes of it.
func (a *assembler) cut(q *span, next []span) ([]span, error) {
	if a.cutBuf == nil {
		a.cutBuf = a.s.h.newArena()
	}
	buf := a.cutBuf.b[:0:chunk.MaxSize]
	off, end, meet := q.off, q.end(), q.meet
	at := off // file offset behind buf
	grown := int64(0)
	grows := func() bool {
		return meet && grown < resyncBytes && len(next) > 0 && next[0].off == end && (next[0].leaf == anew || a.p.wholeFresh(&next[0]))
	}
	for off < end {
		if k := int(min(end-at, int64(cap(buf)-len(buf)))); k > 0 {
			b := buf[len(buf) : len(buf)+k]
			if _, err := a.r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			buf = buf[:len(buf)+k]
			at += int64(k)
		}
		n := a.s.chunker.Next(buf, false)
		if n == 0 && grows() {
			end = next[0].end()
			if next[0].leaf != anew {
				grown += next[0].n
			}
			meet = meet || next[0].meet
			next = next[1:]
			continue
		}
		if n == 0 {
			n = len(buf)
		}
		if rest := len(buf) - n; at == end && end < a.p.n.Size && rest < chunk.MinSize && !grows() {
			n = len(buf) // what follows is stored already: no small chunk before it
		}
		l, err := a.put(buf[:n])
		if err != nil {
			return nil, err
		}
		a.parts = append(a.parts, part{off: off, n: uint32(n), leaf: l})
		off += int64(n)
		buf = buf[:copy(buf, buf[n:])]
	}
	return next, nil
}

// finish builds the tree.
func (a *assembler) finish(size int64) (*assembled, error) {
	out := &assembled{content: &tree.Content{Size: size}}
	if len(a.parts) == 0 {
		return out, nil // all hole
	}
	m := &manifest{parts: a.parts}
	a.number(m)
	leaves := make([]block.Leaf, len(m.leaves), len(m.leaves)+1)
	for i, l := range m.leaves {
		leaves[i] = block.Leaf{ID: l.id, Size: uint64(l.sealed)}
	}
	if m.plain() && len(m.parts) <= inlineLayout {
		out.content.Layout = m.chunks()
	} else {
		list := encodeLayout(m.leaves, m.parts)
		id, err := a.s.putChunk(list)
		if err != nil {
			return nil, err
		}
		n, _ := a.s.blocks.Size(id)
		leaves = append(leaves, block.Leaf{ID: id, Size: uint64(n)})
		out.content.LayoutBlock = id
		a.sealed += int64(len(list))
	}
	root, err := block.BuildTree(func(b []byte) (block.ID, error) {
		if !a.s.blocks.Has(block.Sum(b)) {
			a.sealed += int64(len(b))
		}
		return a.s.putBlock(b)
	}, leaves)
	if err != nil {
		return nil, err
	}
	out.content.Root, out.sealed = root, a.sealed
	return out, nil
}

// number gives a manifest the leaves that its parts use: in their order in the file where each is used whole and once; else those of the
// base keep their places, and new ones take the places of those that went, so that most nodes of the tree stay as they are.
func (a *assembler) number(m *manifest) {
	const none = ^uint32(0)
	to := make([]uint32, len(a.p.leaves)) // the new number of each
	for i := range to {
		to[i] = none
	}
	used := 0
	plain := true
	for i := range m.parts {
		q := &m.parts[i]
		plain = plain && to[q.leaf] == none && q.skip == 0 && q.n == a.p.leaves[q.leaf].size
		if to[q.leaf] == none {
			to[q.leaf] = uint32(used)
			used++
		}
	}
	if !plain {
		base := 0
		if a.p.m != nil {
			base = len(a.p.m.leaves)
		}
		a.slots(to, min(base, len(to)), used)
	}
	m.leaves = make([]leaf, used)
	for i, l := range a.p.leaves {
		if to[i] != none {
			m.leaves[to[i]] = l
		}
	}
	for i := range m.parts {
		m.parts[i].leaf = to[m.parts[i].leaf]
	}
}

// slots numbers the used leaves, of which the first base had their numbers before.
func (a *assembler) slots(to []uint32, base, used int) {
	const none = ^uint32(0)
	taken := make([]bool, used)
	var rest []int // without a number
	for i := range to {
		switch {
		case to[i] == none:
		case i < base && i < used:
			to[i], taken[i] = uint32(i), true
		default:
			rest = append(rest, i)
		}
	}
	free := 0
	for _, i := range rest {
		for taken[free] {
			free++
		}
		to[i] = uint32(free)
		free++
	}
}
