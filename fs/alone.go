package fs

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// What this account published when it had not heard that it might not counts on its own devices alone. Others are not asked whether they hold it: they
// do not say, and its content they do not fetch. What they see in its place is what they are to hold.

// alone is what of a space counts on the devices of this account alone. But for what stands in others it does not change.
type alone struct {
	ids     []dag.ID
	batches map[dag.ID]bool
	changes int
	others  map[dag.ID]*otherContent // by the objects that these change; nil: not looked at yet. Under space.mu
}

// otherContent is what others see of a file, where this device shows a content that counts here alone.
type otherContent struct {
	same   bool    // the same content
	root   cid.Cid // else; undefined: none in blocks
	layout block.ID
	held   bool   // another device is known to hold it
	slots  uint32 // the networks whose nodes are
}

// alone gives what counts here alone; nil where that is nothing. It is not called under mu.
func (s *space) alone() (*alone, error) {
	ids, err := s.graph.Alone()
	if err != nil {
		return nil, s.damaged(err)
	}
	if len(ids) == 0 {
		s.lone.Store(nil)
		return nil, nil
	}
	if a := s.lone.Load(); a != nil && slices.Equal(a.ids, ids) {
		return a, nil
	}
	a := &alone{ids: ids, batches: map[dag.ID]bool{}, others: map[dag.ID]*otherContent{}}
	for _, id := range ids {
		b, bodies, err := s.graph.Batch(id)
		if err != nil {
			return nil, s.damaged(err)
		}
		a.batches[id] = true
		a.changes += len(b.Changes)
		for i := range bodies {
			c, err := dag.DecodeChange(bodies[i])
			if err != nil {
				return nil, s.damaged(err)
			}
			object := c.Object
			if object.IsZero() {
				object = b.Changes[i]
			}
			a.others[object] = nil
		}
	}
	s.lone.Store(a)
	return a, nil
}

// instead gives for the inodes that show a content which counts here alone what others see.
func (s *space) instead() (map[uint64]*otherContent, error) {
	a, err := s.alone()
	if a == nil || err != nil {
		return nil, err
	}
	type shown struct {
		ino    uint64
		object dag.ID
		root   cid.Cid
	}
	var look []shown
	out := map[uint64]*otherContent{}
	s.mu.Lock()
	for object, o := range a.others {
		ino, n, e := s.objectInode(object)
		switch {
		case e != nil:
			err = e
		case n == nil || n.Base == nil || !n.Base.Root.Defined():
		case o == nil:
			look = append(look, shown{ino, object, n.Base.Root})
		case !o.same:
			out[ino] = o
		}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, s.damaged(err)
	}
	for _, x := range look {
		o, err := s.othersSee(a, x.object, x.root)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		a.others[x.object] = o
		s.mu.Unlock()
		if !o.same {
			out[x.ino] = o
		}
	}
	return out, nil
}

// objectInode finds the inode of an object; n is nil where there is none. Under mu.
func (s *space) objectInode(object dag.ID) (ino uint64, n *index.Inode, err error) {
	if ino, err = s.ix.Object(object); err != nil || ino == 0 {
		return 0, nil, err
	}
	n, err = s.ix.Inode(ino)
	return ino, n, err
}

// othersSee folds an object without what counts here alone.
func (s *space) othersSee(a *alone, object dag.ID, shown cid.Cid) (*otherContent, error) {
	st, err := s.foldThose(object, func(e *dag.Entry, _ *tree.Payload) (bool, error) { return !a.batches[e.Batch.ID()], nil })
	if err != nil || st == nil {
		return &otherContent{}, err
	}
	v := st.View()
	if v.Merged {
		return &otherContent{}, nil
	}
	base := v.Main.Base
	return &otherContent{same: base.Root.Defined() && base.Root == shown, root: base.Root, layout: base.LayoutBlock}, nil
}
