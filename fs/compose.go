package fs

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// composer writes the payload of one inode's change: the difference between what is published and what is.
type composer struct {
	s       *space
	objects map[uint64]dag.ID
	item    *item
	now     int64
	payload tree.Payload
	others  []otherChange
	done    publishedChange
	more    bool // there are more links or removals than one change takes
}

// maxLinkOps bounds the links, and the removals, that one change holds: with the longest names it stays below the limit
// of a payload. What is beyond comes with the next batch.
const maxLinkOps = 1000

// otherChange is a change of an object that the inode stood for before.
type otherChange struct {
	object  dag.ID
	payload tree.Payload
}

// compose fills payload and done. It returns false when a directory that the inode lies in is not published yet.
func (c *composer) compose() bool {
	n := c.item.n
	c.done = publishedChange{Ino: n.Ino, Content: -1, Gone: min(len(n.Gone), maxLinkOps)}
	c.more = len(n.Gone) > maxLinkOps
	c.payload.Time = c.now
	fresh := n.Object.IsZero()
	if fresh {
		c.payload.Kind = tree.KindOf(n.Mode)
	}
	c.removals()
	for i := range c.others {
		o := &c.others[i]
		o.payload.Ops = append(o.payload.Ops, c.missed(o.object, o.payload.Ops)...)
	}
	if len(n.Links) == 0 && n.Ino != rootDir {
		if !fresh && len(c.payload.Ops) > 0 {
			c.payload.Ops = append(c.payload.Ops, c.missed(n.Object, c.payload.Ops)...)
		}
		if c.item.replaced && c.item.content != nil {
			c.content()
		}
		c.deals()
		return true // removed: the rest concerns nobody
	}
	for i := range n.Links {
		if len(c.done.Links) == maxLinkOps {
			c.more = true
			break
		}
		if !c.link(&n.Links[i]) {
			return false
		}
	}
	if fresh || n.DirtyMode != 0 {
		c.op(tree.Op{Kind: tree.OpMode, Mode: n.Mode & 07777})
	}
	if n.Owned && (fresh || n.DirtyOwner != 0) {
		c.op(tree.Op{Kind: tree.OpOwner, UID: n.UID, GID: n.GID})
	}
	if fresh && n.Target != "" || n.DirtyTarget != 0 {
		c.op(tree.Op{Kind: tree.OpTarget, Target: n.Target})
	}
	if fresh && n.Rdev != 0 {
		c.op(tree.Op{Kind: tree.OpRdev, Rdev: n.Rdev})
	}
	// The times of a file that was not written, of a symlink, and of a directory where someone set them.
	if n.DirtyMtime != 0 && c.item.content == nil || fresh && !n.IsRegular() && !n.IsDir() {
		c.op(tree.Op{Kind: tree.OpMtime, Mtime: n.Mtime})
	}
	c.xattrs(fresh)
	if c.item.content != nil {
		c.content()
	}
	c.deals()
	return true
}

// deals notes with what is removed, moved or written that a person has dealt with it, where it is a conflict copy.
func (c *composer) deals() {
	n := c.item.n
	if _, ok := n.Xattr(tree.ConflictXattr); !ok && !slices.ContainsFunc(n.DirtyXattrs, func(d index.XattrDirty) bool {
		return d.Name == tree.ConflictXattr
	}) {
		return
	}
	deal := func(object dag.ID, p *tree.Payload) {
		if object.IsZero() || len(p.Ops) == 0 {
			return
		}
		st, _, err := c.s.stateOf(object)
		if err != nil {
			return // the fold's error is reported by whoever reads the history
		}
		if o, ok := st.Deal(p.Ops); ok {
			p.Ops = append(p.Ops, o)
		}
	}
	deal(n.Object, &c.payload)
	for i := range c.others {
		deal(c.others[i].object, &c.others[i].payload)
	}
}

// content puts the content operation.
func (c *composer) content() {
	n, a := c.item.n, c.item.content
	c.done.Content = int64(len(c.payload.Ops))
	if a.content.IsPatch() {
		c.done.Size, c.done.Edits = a.content.Size, a.edits
	} else {
		c.done.Base = index.AppendContent(nil, a.content)
	}
	c.op(tree.Op{Kind: tree.OpContent, Over: n.Contents, Mtime: n.Mtime, Content: a.content})
}

func (c *composer) op(o tree.Op) { c.payload.Ops = append(c.payload.Ops, o) }

// removals puts the marks of links that are gone: those of the inode's own object first in its change, others apart.
func (c *composer) removals() {
	n := c.item.n
	for _, g := range n.Gone[:c.done.Gone] {
		o := tree.Op{Kind: tree.OpUnlink, Link: g.Link, Over: g.Over, Contents: g.Contents}
		if g.Object == n.Object && !n.Object.IsZero() {
			c.op(o)
			continue
		}
		placed := false
		for i := range c.others {
			if c.others[i].object == g.Object {
				c.others[i].payload.Ops = append(c.others[i].payload.Ops, o)
				placed = true
			}
		}
		if !placed {
			c.others = append(c.others, otherChange{g.Object, tree.Payload{Time: c.now, Ops: []tree.Op{o}}})
		}
	}
}

// missed gives the marks of links that were removed before, while the object had others, and whose marks did not see what was
// written since: with the last link gone, which marked are to remove, one of them would come back.
func (c *composer) missed(object dag.ID, marked []tree.Op) []tree.Op {
	if c.item.n.NextKey <= 2 {
		return nil // it never had a second link
	}
	st, _, err := c.s.stateOf(object)
	if err != nil {
		return nil // the fold's error is reported by whoever reads the history
	}
	var out []tree.Op
	for i := range st.Links {
		l := &st.Links[i]
		if slices.ContainsFunc(marked, func(o tree.Op) bool { return o.Link == l.ID }) {
			continue
		}
		if !l.Removed {
			return nil // it has a name still
		}
		if !l.Missed {
			continue
		}
		o := tree.Op{Kind: tree.OpUnlink, Link: l.ID, Contents: st.Candidates()}
		for k := range l.Values {
			o.Over = append(o.Over, l.Values[k].Ref)
		}
		if out = append(out, o); len(out) == maxLinkOps {
			break
		}
	}
	return out
}

func (c *composer) link(l *index.Link) bool {
	made := l.ID.Change.IsZero()
	if !made && l.Dirty == 0 {
		return true
	}
	parent, ok := c.object(l.Parent)
	if !ok {
		return false
	}
	c.done.Links = append(c.done.Links, placed{
		Key: l.Key, Place: uint32(len(c.payload.Ops)), Made: made, Parent: l.Parent, Name: l.Name,
	})
	if made {
		c.op(tree.Op{Kind: tree.OpLink, Parent: parent, Name: l.Name})
	} else {
		n := c.item.n
		c.op(tree.Op{Kind: tree.OpMove, Link: l.ID, Over: n.Over(l), Parent: parent, Name: l.Name})
		for _, a := range n.Also {
			if a.Object != n.Object {
				c.others = append(c.others, otherChange{a.Object, tree.Payload{Time: c.now, Ops: []tree.Op{
					{Kind: tree.OpMove, Link: a.Link, Over: a.Over, Parent: parent, Name: l.Name},
				}}})
			}
		}
	}
	return true
}

// object gives the published object of a directory.
func (c *composer) object(dir uint64) (dag.ID, bool) {
	if dir == rootDir {
		return tree.RootObject(c.s.id), true
	}
	if id, ok := c.objects[dir]; ok {
		return id, true
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	n, err := c.s.ix.Inode(dir)
	if err != nil || n == nil || n.Object.IsZero() {
		return dag.ID{}, false
	}
	return n.Object, true
}

func (c *composer) xattrs(fresh bool) {
	n := c.item.n
	if fresh {
		for _, x := range n.Xattrs {
			c.op(tree.Op{Kind: tree.OpXattr, Name: x.Name, Value: x.Value})
		}
		return
	}
	for _, d := range n.DirtyXattrs {
		v, ok := n.Xattr(d.Name)
		c.op(tree.Op{Kind: tree.OpXattr, Name: d.Name, Value: v, Remove: !ok})
	}
}
