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

// minHole is the shortest run of zeros that is worth leaving out of the chunks around it.
const minHole = 64 << 10

// run is a part of a file as assemble sees it.
type run struct {
	off, n int64
	kind   runKind
	id     block.ID
	sealed uint64
}

type runKind uint8

const (
	runHole  runKind = iota
	runKeep          // a chunk that goes on as it is
	runPlace         // a chunk that was written in: sealed anew between the same cut points
	runData          // data to be cut
)

// assembled is a content ready to be published, and what it cost.
type assembled struct {
	content *tree.Content
	sealed  int64 // bytes of plaintext that were sealed for it
}

// assemble makes the content of a file from a clone of its inode: chunks that did not change are kept, those that were
// written in place are sealed between the same cut points, and what is new is cut by its content. It takes no lock for long.
func (s *space) assemble(ctx context.Context, n *index.Inode) (*assembled, error) {
	r := &fileReader{ctx: ctx, s: s, n: n}
	if n.Size <= inlineMax {
		b := make([]byte, n.Size)
		if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return &assembled{content: &tree.Content{Size: n.Size, Inline: b}, sealed: n.Size}, nil
	}
	runs, err := s.runs(ctx, n)
	if err != nil {
		return nil, err
	}
	a := &assembled{content: &tree.Content{Size: n.Size}}
	var leaves []block.Leaf
	add := func(off, n int64, id block.ID, sealed uint64) {
		leaves = append(leaves, block.Leaf{ID: id, Size: sealed})
		a.content.Layout = append(a.content.Layout, tree.Chunk{Off: off, Len: n})
	}
	put := func(off int64, p []byte) error {
		id, err := s.putChunk(p)
		if err != nil {
			return err
		}
		size, _ := s.blocks.Size(id)
		add(off, int64(len(p)), id, uint64(size))
		a.sealed += int64(len(p))
		return nil
	}
	var buf *arena
	defer func() {
		if buf != nil {
			s.h.arenas.Put(&buf.b)
		}
	}()
	for _, u := range runs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		switch u.kind {
		case runKeep:
			add(u.off, u.n, u.id, u.sealed)
		case runPlace, runData:
			if buf == nil {
				buf = s.h.newArena()
			}
			if err := s.cutRun(r, u, buf.b[:0:chunk.MaxSize], put); err != nil {
				return nil, err
			}
		}
	}
	if len(leaves) == 0 {
		return a, nil // all hole
	}
	if len(a.content.Layout) > inlineLayout {
		id, err := s.putChunk(encodeLayout(a.content.Layout))
		if err != nil {
			return nil, err
		}
		size, _ := s.blocks.Size(id)
		leaves = append(leaves, block.Leaf{ID: id, Size: uint64(size)})
		a.content.Layout, a.content.LayoutBlock = nil, id
	}
	if a.content.Root, err = block.BuildTree(s.putBlock, leaves); err != nil {
		return nil, err
	}
	return a, nil
}

// cutRun reads a run and puts its chunks. buf has room for the largest chunk.
func (s *space) cutRun(r *fileReader, u run, buf []byte, put func(off int64, p []byte) error) error {
	off, end := u.off, u.off+u.n
	buf = buf[:0]
	at := off // file offset behind buf
	for off < end {
		k := int(min(end-at, int64(cap(buf)-len(buf))))
		if k > 0 {
			b := buf[len(buf) : len(buf)+k]
			if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			buf = buf[:len(buf)+k]
			at += int64(k)
		}
		n := len(buf)
		if u.kind == runData {
			n = s.chunker.Next(buf, at == end)
			if n == 0 || n > len(buf) {
				n = len(buf)
			}
		}
		if err := put(off, buf[:n]); err != nil {
			return err
		}
		off += int64(n)
		buf = buf[:copy(buf, buf[n:])]
	}
	return nil
}

// runs splits a file for assemble.
func (s *space) runs(ctx context.Context, n *index.Inode) ([]run, error) {
	b := &runList{}
	limit := min(n.Limit(), n.Size)
	var at int64
	if n.Base != nil && n.Base.Root.Defined() {
		m, err := s.manifest(ctx, n.Base)
		if err != nil {
			return nil, err
		}
		for i, l := range m.leaves {
			if l.off >= limit {
				break
			}
			s.fresh(n, b, at, l.off, limit)
			end := min(l.off+l.n, limit)
			whole := end == l.off+l.n
			changed := touched(n, l.off, end)
			// The last chunk ended where the file did, not at a cut point: what was appended is cut on from its start.
			grown := i == len(m.leaves)-1 && dataBehind(n, end)
			switch {
			case grown:
				b.add(run{off: l.off, n: end - l.off, kind: runData})
			case whole && !changed:
				b.add(run{off: l.off, n: l.n, kind: runKeep, id: l.id, sealed: l.sealed})
			case !hidden(n, l.off, end):
				b.add(run{off: l.off, n: end - l.off, kind: runPlace})
			}
			at = end
		}
	} else if n.Base != nil && limit > 0 && len(n.Base.Inline)+len(n.Base.Layout) > 0 {
		at = min(limit, tree.MaxInline) // it was inline; what is behind is a hole
		b.add(run{off: 0, n: at, kind: runData})
	}
	s.fresh(n, b, at, n.Size, limit)
	return b.runs, nil
}

// runList collects runs; data that touches data is one run.
type runList struct{ runs []run }

func (b *runList) add(r run) {
	if r.n <= 0 || r.kind == runHole {
		return
	}
	if k := len(b.runs) - 1; k >= 0 && r.kind == runData && b.runs[k].kind == runData {
		if gap := r.off - (b.runs[k].off + b.runs[k].n); gap < minHole {
			b.runs[k].n += gap + r.n
			return
		}
	}
	b.runs = append(b.runs, r)
}

// fresh adds what was written in [from, to), where the base has no chunk.
func (s *space) fresh(n *index.Inode, b *runList, from, to, limit int64) {
	if n.Ext == nil || from >= to {
		return
	}
	n.Ext.Range(from, to-from, func(k int64, x index.Extent) bool {
		switch x.Src.Kind {
		case index.SourceZero:
		case index.SourceBlock:
			last := k+x.Len == n.Size
			if x.Skip == 0 && x.Len == x.Src.Size && (x.Len >= chunk.MinSize || last) {
				size, _ := s.blocks.Size(x.Src.Block)
				b.add(run{off: k, n: x.Len, kind: runKeep, id: x.Src.Block, sealed: uint64(size)})
				return true
			}
			b.add(run{off: k, n: x.Len, kind: runData})
		default:
			b.add(run{off: k, n: x.Len, kind: runData})
		}
		return true
	})
}

// touched reports whether anything was written in [from, to).
func touched(n *index.Inode, from, to int64) bool {
	yes := false
	if n.Ext != nil {
		n.Ext.Range(from, to-from, func(int64, index.Extent) bool {
			yes = true
			return false
		})
	}
	return yes
}

// dataBehind reports whether data was written right at an offset.
func dataBehind(n *index.Inode, at int64) bool {
	yes := false
	if n.Ext != nil && at < n.Size {
		n.Ext.Range(at, 1, func(_ int64, x index.Extent) bool {
			yes = x.Src.Kind != index.SourceZero
			return false
		})
	}
	return yes
}

// hidden reports whether [from, to) is a hole that was punched.
func hidden(n *index.Inode, from, to int64) bool {
	at := from
	if n.Ext != nil {
		n.Ext.Range(from, to-from, func(k int64, x index.Extent) bool {
			if k != at || x.Src.Kind != index.SourceZero {
				return false
			}
			at = k + x.Len
			return true
		})
	}
	return at == to
}
