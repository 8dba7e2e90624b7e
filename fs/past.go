package fs

import (
	"context"
	"fmt"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// pastDir is a directory as it was: in a moment, or (m nil) when it was deleted.
type pastDir struct {
	s      *space
	object dag.ID
	ino    uint64 // the number that it has, or the last it had
	m      *moment
	died   int64
}

// pastNode is an entry of one.
type pastNode struct {
	name   string
	object dag.ID
	ino    uint64
	typ    uint32
	link   tree.Ref // in a moment, the name that it is
	gone   trashed  // the entry of the trash that it was found by; its object is zero where there was none
	st     *tree.State
}

// dir gives a directory that was an entry of d.
func (d *pastDir) dir(n *pastNode) *pastDir {
	return &pastDir{s: d.s, object: n.object, ino: n.ino, m: d.m, died: n.gone.time()}
}

// state gives an entry's object as it was.
func (d *pastDir) state(n *pastNode) (*tree.State, error) {
	if n.st != nil {
		return n.st, nil
	}
	st, err := d.s.fold(n.object, d.m)
	if err == nil && st == nil {
		err = fmt.Errorf("%w: object %s is not in the history", ErrIO, n.object)
	}
	n.st = st
	return st, err
}

// each calls fn for the entries of the directory, in no order, until fn returns false. Names are unique. Nodes of a moment
// come with their state.
func (d *pastDir) each(ctx context.Context, fn func(*pastNode) bool) error {
	if d.m == nil {
		list, err := d.s.burst(d.ino, d.died)
		if err != nil {
			return err
		}
		for i := range list {
			t := &list[i]
			if !fn(&pastNode{name: t.name, object: t.object, ino: t.ino, typ: t.typ, gone: *t}) {
				return nil
			}
		}
		return nil
	}
	candidates, err := d.candidates()
	if err != nil {
		return err
	}
	taken := map[string]bool{}
	for i := range candidates {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errInterrupted, err)
		}
		more, err := d.at(&candidates[i], taken, fn)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// candidates lists the objects that may have been in the directory in the moment: those that are there now, and those that
// left it since.
func (d *pastDir) candidates() ([]pastNode, error) {
	var out []pastNode
	seen := map[dag.ID]bool{}
	for after, full := uint64(0), true; full; {
		full = false
		d.s.mu.Lock()
		count := 0
		err := d.s.ix.Scan(d.ino, after, func(at uint64, e *index.Entry) bool {
			after = at
			if n, err := d.s.ix.Inode(e.Ino); err == nil && n != nil && !n.Object.IsZero() && !seen[n.Object] {
				seen[n.Object] = true
				out = append(out, pastNode{object: n.Object, ino: n.Ino, typ: n.Type()})
			}
			count++
			full = count == trashStep
			return !full
		})
		d.s.mu.Unlock()
		if err != nil {
			return nil, d.s.damaged(err)
		}
	}
	err := d.s.scanTrash(d.ino, func(t trashed) bool {
		if t.time() <= d.m.time {
			return false
		}
		if !seen[t.object] {
			seen[t.object] = true
			out = append(out, pastNode{object: t.object, ino: t.ino, typ: t.typ, gone: t})
		}
		return true
	})
	return out, err
}

// at gives the names that a candidate had in the directory in the moment.
func (d *pastDir) at(n *pastNode, taken map[string]bool, fn func(*pastNode) bool) (more bool, err error) {
	st, err := d.s.fold(n.object, d.m)
	if err != nil || st == nil || st.Kind == tree.KindNone {
		return true, err
	}
	for _, l := range st.LiveLinks() {
		p := l.Shown()
		if p.Parent != d.object {
			continue
		}
		x := *n
		x.name, x.link, x.st, x.typ = p.Name, l.ID, st, st.Kind.Type()
		if taken[x.name] {
			x.name += "~" + shortID(n.object.String()) // two had it for a moment, or for as long as a conflict lasted
		}
		taken[x.name] = true
		if n.gone.kind != 0 && x.typ == typeDir {
			// It may have come back, or be elsewhere, under a number of its own, or have had one when it was removed for good. From that the earlier ones are found.
			d.s.mu.Lock()
			ino, err := d.s.ix.Object(n.object)
			if err == nil && ino == 0 {
				ino, err = d.s.grave(n.object)
			}
			d.s.mu.Unlock()
			if err != nil {
				return false, d.s.damaged(err)
			}
			if ino != 0 {
				x.ino = ino
			}
		}
		if !fn(&x) {
			return false, nil
		}
	}
	return true, nil
}

// findPresent gives the entry of a name that still stands for what it stood for then; nil when it can't tell so.
func (d *pastDir) findPresent(name string) (found *pastNode, err error) {
	d.s.mu.Lock()
	n, err := d.s.ix.Inode(d.ino)
	d.s.mu.Unlock()
	if err != nil {
		return nil, d.s.damaged(err)
	}
	if n == nil {
		return nil, nil
	}
	st, ok, err := d.s.liveStep(d.ino, name)
	if err != nil || !ok || st.object.IsZero() {
		return nil, err
	}
	_, err = d.at(&pastNode{object: st.object, ino: st.ino, typ: st.typ}, map[string]bool{}, func(n *pastNode) bool {
		if n.name == name {
			x := *n
			found = &x
		}
		return found == nil
	})
	return found, err
}

// stateAttr is what stat shows of an object in a version: its mode without what would allow to write.
func (s *space) stateAttr(st *tree.State) Attr {
	a := Attr{
		Mode: st.Kind.Type() | stateMode(st)&^0222, Nlink: 1, UID: s.h.opt.UID, GID: s.h.opt.GID, Rdev: st.Rdev,
		Mtime: stateMtime(st), Ctime: st.Time, Btime: st.Born,
	}
	if st.Owned {
		a.UID, a.GID = st.UID, st.GID
	}
	a.Atime = a.Mtime
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		a.Nlink, a.Size, a.Blocks = 2, 4096, 8
	case syscall.S_IFLNK:
		a.Size = int64(len(st.Target))
	case syscall.S_IFREG:
		v := st.View()
		a.Size = v.Size()
		a.Blocks = (min(a.Size, valueBytes(&v.Main)) + 511) / 512
	}
	return a
}

// valueBytes is about how many bytes of a content are not holes, as dataBytes is for an inode: programs take a file that has
// fewer than its size for sparse, and ask where the holes are.
func valueBytes(v *tree.ContentValue) int64 {
	if !v.Base.LayoutBlock.IsZero() {
		return v.Size // where its holes are stands in a block
	}
	sum := int64(len(v.Base.Inline))
	for _, c := range v.Base.Layout {
		sum += c.Len
	}
	for _, edits := range v.Patches {
		for i := range edits {
			sum += edits[i].Len
		}
	}
	return sum
}
