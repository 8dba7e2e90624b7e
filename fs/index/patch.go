package index

import (
	"math"
	"slices"

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

// AddPatch lays a published patch over an inode to which nothing was done since.
func (n *Inode) AddPatch(at tree.Ref, c *tree.Content) {
	if n.Ext == nil {
		n.Ext = &Extents{}
	}
	if size := n.ShownSize(); c.Size < size {
		n.Ext.Cut(c.Size, math.MaxInt64-c.Size)
		if c.Size < n.Limit() {
			n.Cuts = []Cut{{Size: c.Size}}
		}
	}
	src, zeros := &Source{Kind: SourcePatch, At: at}, &Source{Kind: SourceZero}
	var pos int64
	for _, e := range c.Patch {
		k := int64(len(e.Bytes))
		if k > 0 {
			n.Ext.Put(e.Off, Extent{Len: k, Skip: pos, Src: src})
		}
		if e.Len > k {
			n.Ext.Put(e.Off+k, Extent{Len: e.Len - k, Skip: e.Off + k, Src: zeros})
		}
		pos += k
	}
	if n.Ext.Len() == 0 {
		n.Ext = nil
	}
	n.Patched = Patched{At: at, Count: n.Patched.Count + 1, Bytes: n.Patched.Bytes + pos, Size: c.Size}
	n.Size = c.Size
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

// ShowsLike reports whether two inodes of one base, to which nothing was done since, show the same published content.
func (n *Inode) ShowsLike(o *Inode) bool {
	return n.Patched == o.Patched && n.Size == o.Size && slices.Equal(n.runs(), o.runs())
}

// shownRun is a run of a file that comes from one place: zeros, a patch, or (no kind) the base.
type shownRun struct {
	off, n, skip int64
	kind         SourceKind
	at           tree.Ref
}

func (n *Inode) runs() (out []shownRun) {
	add := func(r shownRun) {
		if r.kind != SourcePatch {
			r.skip = r.off
		}
		if k := len(out) - 1; k >= 0 && out[k].kind == r.kind && out[k].at == r.at && out[k].skip+out[k].n == r.skip {
			out[k].n += r.n
		} else if r.n > 0 {
			out = append(out, r)
		}
	}
	limit := n.Limit()
	base := func(from, to int64) {
		if cut := min(to, max(from, limit)); from < to {
			add(shownRun{off: from, n: cut - from})
			add(shownRun{off: cut, n: to - cut, kind: SourceZero})
		}
	}
	at := int64(0)
	if n.Ext != nil {
		n.Ext.Range(0, n.Size, func(off int64, x Extent) bool {
			base(at, off)
			add(shownRun{off, x.Len, x.Skip, x.Src.Kind, x.Src.At})
			at = off + x.Len
			return true
		})
	}
	base(at, n.Size)
	return out
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

// Written is how many bytes of what the file holds were written since it was published, and how many of these are in the
// journal.
func (n *Inode) Written() (all, logged int64) {
	if n.Ext != nil {
		n.Ext.Range(0, math.MaxInt64, func(_ int64, x Extent) bool {
			if !x.Src.Published() && x.Src.Kind != SourceZero {
				all += x.Len
				if x.Src.Kind == SourceJournal {
					logged += x.Len
				}
			}
			return true
		})
	}
	return all, logged
}
