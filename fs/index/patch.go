package index

import (
	"math"

	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// Patched says which published patches lie over the base content of an inode.
type Patched struct {
	At    tree.Ref // the last one; zero: there are none
	Count int
	Bytes int64 // of all their edits
	Size  int64 // of the content that the last one gives
}

// PatchEdit is an edit of a patch, without its bytes: Data bytes from Off on, and zeros behind them up to Len.
type PatchEdit struct{ Off, Len, Data int64 }

// Shown is the content operation whose value the base shows, with what is published over it.
func (n *Inode) Shown() tree.Ref {
	if n.Patched.Count > 0 {
		return n.Patched.At
	}
	return n.BaseAt
}

// ShownSize is the length of that value.
func (n *Inode) ShownSize() int64 {
	switch {
	case n.Patched.Count > 0:
		return n.Patched.Size
	case n.Base != nil:
		return n.Base.Size
	}
	return 0
}

// Unpublished gives the lowest size to which the file was cut since it was published, or its size then: above it, what
// no extent holds reads as zeros, whatever the published content has there.
func (n *Inode) Unpublished() int64 {
	for _, c := range n.Cuts {
		if c.Seq != 0 {
			return min(c.Size, n.ShownSize())
		}
	}
	return n.ShownSize()
}

// Rebase makes a published content, which holds everything up to a record, the base of the inode.
func (n *Inode) Rebase(upTo journal.Seq, base *tree.Content, at tree.Ref) {
	n.Base, n.BaseAt, n.Patched = base, at, Patched{}
	if n.Ext != nil {
		n.Ext.Drop(upTo)
		if n.Ext.Len() == 0 {
			n.Ext = nil
		}
	}
	var cuts []Cut
	for _, c := range n.Cuts {
		if c.Seq > upTo && c.Size < base.Size {
			cuts = append(cuts, c)
		}
	}
	n.Cuts = cuts
}

// Patch notes that a patch, which holds what was done up to a record, was published over what the inode shows.
func (n *Inode) Patch(upTo journal.Seq, at tree.Ref, size int64, edits []PatchEdit) {
	src, zeros := &Source{Kind: SourcePatch, At: at}, &Source{Kind: SourceZero}
	var pos int64 // of an edit's bytes among those of all
	for _, e := range edits {
		n.publishEdit(upTo, e, Extent{Skip: pos - e.Off, Src: src}, zeros)
		pos += e.Data
	}
	var cuts []Cut
	for _, c := range n.Cuts {
		switch {
		case c.Seq > upTo:
			cuts = append(cuts, c)
		case len(cuts) == 0 && c.Size < n.Base.Size:
			cuts = append(cuts, Cut{Size: c.Size}) // the lowest of those: it hides all that the others do
		}
	}
	n.Cuts = cuts
	n.Patched.At, n.Patched.Size = at, size
	n.Patched.Count++
	n.Patched.Bytes += pos
}

// publishEdit turns what is left of an edit into extents of the patch. x.Skip is relative to the offset in the file.
func (n *Inode) publishEdit(upTo journal.Seq, e PatchEdit, x Extent, zeros *Source) {
	if n.Ext == nil {
		return
	}
	type run struct{ off, end int64 }
	var runs []run
	n.Ext.Range(e.Off, e.Len, func(off int64, old Extent) bool {
		if old.Src.Seq <= upTo && !old.Src.Published() {
			runs = append(runs, run{off, off + old.Len})
		}
		return true
	})
	data := e.Off + e.Data
	for _, r := range runs {
		if r.off < data {
			n.Ext.Put(r.off, Extent{Len: min(r.end, data) - r.off, Skip: x.Skip + r.off, Src: x.Src})
		}
		if r.end > data {
			from := max(r.off, data)
			n.Ext.Put(from, Extent{Len: r.end - from, Skip: from, Src: zeros})
		}
	}
}

// Edits gives the ranges in which the file differs from what it shows as published, as the edits of a patch, and how many bytes
// they have. ok is false when there are more than maxEdits or maxBytes.
func (n *Inode) Edits(maxEdits int, maxBytes int64) (edits []PatchEdit, bytes int64, ok bool) {
	hidden, shown := n.Unpublished(), min(n.Size, n.ShownSize())
	ok = true
	add := func(off, end int64, data bool) bool {
		if off >= end {
			return ok
		}
		if data {
			bytes += end - off
		}
		k := len(edits) - 1
		switch {
		case k >= 0 && edits[k].Off+edits[k].Len == off && !data:
			edits[k].Len += end - off
		case k >= 0 && edits[k].Off+edits[k].Len == off && edits[k].Len == edits[k].Data:
			edits[k].Len += end - off
			edits[k].Data = edits[k].Len
		default:
			e := PatchEdit{Off: off, Len: end - off}
			if data {
				e.Data = e.Len
			}
			edits = append(edits, e)
		}
		ok = ok && len(edits) <= maxEdits && bytes <= maxBytes
		return ok
	}
	at := int64(0)
	if n.Ext != nil {
		n.Ext.Range(0, n.Size, func(off int64, x Extent) bool {
			add(max(at, hidden), min(off, shown), false)
			at = off + x.Len
			return x.Src.Published() || add(off, at, x.Src.Kind != SourceZero)
		})
	}
	add(max(at, hidden), shown, false)
	return edits, bytes, ok
}

// Written is how many bytes were written since the file was published: at most, since some may have been written twice.
func (n *Inode) Written() int64 {
	var sum int64
	if n.Ext != nil {
		n.Ext.Range(0, math.MaxInt64, func(_ int64, x Extent) bool {
			if !x.Src.Published() && x.Src.Kind != SourceZero {
				sum += x.Len
			}
			return true
		})
	}
	return sum
}
