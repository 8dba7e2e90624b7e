package index

import (
	"github.com/tidwall/btree"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// SourceKind says where the bytes of an extent are.
type SourceKind uint8

// The kinds of sources. A SourceMem exists in memory only: its bytes are on their way into a block or the journal.
const (
	SourceZero    SourceKind = 1 // reads as zeros: a hole that hides what the base has there
	SourceJournal SourceKind = 2 // in a record of the journal
	SourceBlock   SourceKind = 3 // in a sealed block that no published content names yet
	SourceMem     SourceKind = 4
	SourcePatch   SourceKind = 5 // in a published patch: the bytes of its edits, one after the other
)

// Source is a run of bytes that one write made. Extents that a later write has cut share it. It is immutable but for Mem,
// whose buffer only grows at its end, under the lock of the inode's writer.
type Source struct {
	Kind  SourceKind
	Seq   journal.Seq // the record that wrote it; 0: it is published
	Loc   journal.Loc // SourceJournal
	Block block.ID    // SourceBlock
	Size  int64       // SourceBlock: length of the plaintext
	First bool        // SourceBlock: it begins where an append did, not at a cut point; not kept across restarts
	Mem   []byte      // SourceMem
	At    tree.Ref    // SourcePatch: its operation
}

// Published reports whether a published patch has what the source gives, so that nothing needs to be said of it.
func (s *Source) Published() bool {
	return s.Kind == SourcePatch || s.Kind == SourceZero && s.Seq == 0
}

// Extent is Len bytes of a file, from Skip in Src.
type Extent struct {
	Len  int64
	Skip int64
	Src  *Source
}

// Extents maps file offsets to what was written there since the base content. Extents do not overlap.
// The zero value is empty. It is not safe for concurrent use; Clone is O(1), copies on write, and needs the same lock as a write.
type Extents struct {
	m btree.Map[int64, Extent]
}

// Len is the number of extents.
func (e *Extents) Len() int { return e.m.Len() }

// Clone returns an independent copy.
func (e *Extents) Clone() *Extents { return &Extents{m: *e.m.Copy()} }

// Put lays an extent over whatever was there.
func (e *Extents) Put(off int64, x Extent) {
	e.Cut(off, x.Len)
	// Runs of one source that touch are one extent: a buffer that grows, or a record written piece by piece.
	if k, p, ok := e.before(off); ok && k+p.Len == off && p.Src == x.Src && p.Skip+p.Len == x.Skip {
		p.Len += x.Len
		e.m.Set(k, p)
		return
	}
	e.m.Set(off, x)
}

// before gives the extent that starts at or below off.
func (e *Extents) before(off int64) (k int64, x Extent, ok bool) {
	e.m.Descend(off, func(kk int64, v Extent) bool {
		k, x, ok = kk, v, true
		return false
	})
	return k, x, ok
}

// Cut removes [off, off+n).
func (e *Extents) Cut(off, n int64) {
	if e.m.Len() == 0 || n <= 0 {
		return
	}
	end := off + n
	if end < off {
		end = 1<<63 - 1
	}
	if k, x, ok := e.before(off); ok && k < off && k+x.Len > off {
		tail := k + x.Len
		head := x
		head.Len = off - k
		e.m.Set(k, head)
		if tail > end {
			e.m.Set(end, Extent{Len: tail - end, Skip: x.Skip + end - k, Src: x.Src})
			return
		}
	}
	for {
		k, x, ok := e.at(off)
		if !ok || k >= end {
			return
		}
		e.m.Delete(k)
		if k+x.Len > end {
			e.m.Set(end, Extent{Len: k + x.Len - end, Skip: x.Skip + end - k, Src: x.Src})
			return
		}
	}
}

// at gives the first extent that starts at or above off.
func (e *Extents) at(off int64) (k int64, x Extent, ok bool) {
	e.m.Ascend(off, func(kk int64, v Extent) bool {
		k, x, ok = kk, v, true
		return false
	})
	return k, x, ok
}

// Range calls fn in order for the extents that touch [off, off+n), cut to that range, until fn returns false.
func (e *Extents) Range(off, n int64, fn func(off int64, x Extent) bool) {
	end := off + n
	if end < off {
		end = 1<<63 - 1
	}
	start := off
	if k, x, ok := e.before(off); ok && k < off && k+x.Len > off {
		start = k
	}
	e.m.Ascend(start, func(k int64, x Extent) bool {
		if k >= end {
			return false
		}
		if k < off {
			x.Skip += off - k
			x.Len -= off - k
			k = off
		}
		if k+x.Len > end {
			x.Len = end - k
		}
		return fn(k, x)
	})
}

// Drop removes the extents that were written by records up to seq: a published content holds them.
func (e *Extents) Drop(seq journal.Seq) {
	var gone []int64
	e.m.Scan(func(k int64, x Extent) bool {
		if x.Src.Seq <= seq {
			gone = append(gone, k)
		}
		return true
	})
	if len(gone) == e.m.Len() {
		e.m.Clear()
		return
	}
	for _, k := range gone {
		e.m.Delete(k)
	}
}

// Replace swaps src for another source with the same bytes, wherever extents refer to it within [off, off+n). skip is where
// src's byte 0 lies in the new source.
func (e *Extents) Replace(off, n int64, src, with *Source, skip int64) {
	type hit struct {
		k int64
		x Extent
	}
	var hits []hit
	e.Range(off, n, func(k int64, x Extent) bool {
		if x.Src == src {
			hits = append(hits, hit{k, x})
		}
		return true
	})
	for _, h := range hits {
		e.Put(h.k, Extent{Len: h.x.Len, Skip: h.x.Skip + skip, Src: with})
	}
}

// Oldest gives the lowest record that an extent in the journal refers to, or 0.
func (e *Extents) Oldest() journal.Seq {
	var low journal.Seq
	e.m.Scan(func(_ int64, x Extent) bool {
		if x.Src.Kind == SourceJournal && x.Src.Seq != 0 && (low == 0 || x.Src.Seq < low) {
			low = x.Src.Seq
		}
		return true
	})
	return low
}
