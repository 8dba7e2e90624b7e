package fs

import (
	"bytes"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/fs/tree"
)

// What a restore would bring back may be there: then nothing is done, and no version is added that says what the one before does.

// sameState reports whether an inode shows the same in two states of its object, its names aside. It reads contents where their
// operations do not tell, with no lock held.
func (r *restorer) sameState(s *space, a, b *tree.State) bool {
	return stateMode(a) == stateMode(b) && a.Owned == b.Owned && a.UID == b.UID && a.GID == b.GID && a.Target == b.Target &&
		(a.Kind == tree.KindDir && !a.MtimeSet && !b.MtimeSet || stateMtime(a) == stateMtime(b)) &&
		maps.EqualFunc(a.Xattrs, b.Xattrs, bytes.Equal) && r.sameContent(s, a, b)
}

// sameContent reports whether two states show one content: by the same operation, by two of the same blocks or bytes, or, as
// patches over one base and blocks of another can say the same, when they are read. What can't be read is not the same.
func (r *restorer) sameContent(s *space, a, b *tree.State) bool {
	v, w := a.View(), b.View()
	if v.Merged || w.Merged || len(v.Losers) > 0 || len(w.Losers) > 0 {
		return false
	}
	x, y := &v.Main, &w.Main
	switch {
	case x.Ref == y.Ref:
		return true
	case x.Missing || y.Missing || x.Size != y.Size:
		return false
	case len(x.Patches) == 0 && len(y.Patches) == 0 && x.Base.Root.Equals(y.Base.Root) && x.Base.LayoutBlock == y.Base.LayoutBlock &&
		slices.Equal(x.Base.Layout, y.Base.Layout) && bytes.Equal(x.Base.Inline, y.Base.Inline):
		return true
	}
	f, err1 := s.fileOf(a)
	g, err2 := s.fileOf(b)
	return err1 == nil && err2 == nil && r.sameBytes(f, g)
}

// sameBytes compares two contents of one size.
func (r *restorer) sameBytes(f, g *VersionFile) bool {
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < f.size; {
		from, _, err1 := f.Next(off)
		other, _, err2 := g.Next(off)
		if err1 != nil || err2 != nil {
			return false
		}
		off = min(from, other) // before it both are holes
		n := min(int64(len(p)), f.size-off)
		if n == 0 {
			break
		}
		if err := f.fill(r.ctx, p[:n], off); err != nil {
			return false
		}
		if err := g.fill(r.ctx, q[:n], off); err != nil || !bytes.Equal(p[:n], q[:n]) {
			return false
		}
		off += n
	}
	return true
}
