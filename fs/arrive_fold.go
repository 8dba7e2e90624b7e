package fs

import (
	"context"
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// How the tree follows the graph: batch by batch as they stand in the log, and with each the names that are to be looked at.

// foldBytes is about how many bytes of batches a round takes in, and foldChanges how many changes: no more than the tree keeps objects in
// memory of, as the plan of the round asks for each, and one that is gone is folded from its history.
const (
	foldBytes   = 1 << 20
	foldChanges = cacheObjects - cacheObjects/8
)

// errEnough ends a walk that goes on later.
var errEnough = errors.New("fs: enough for now")

// foldArrived takes what came into the tree. all says that the tree has all that this device published, and so may be held against
// the index; end that it has the whole log. Under pubMu.
func (s *space) foldArrived(ctx context.Context) (all, end bool, err error) {
	in := &s.in
	if in.t == nil {
		if err := s.openTree(); err != nil {
			return false, false, fmt.Errorf("open the tree: %w", err)
		}
	}
	if err := s.judgeAgain(); err != nil {
		return false, false, err
	}
	own, branched, err := s.feeds()
	if err != nil {
		return false, false, err
	}
	end, bytes, changes := true, 0, 0
	err = s.graph.Since(in.st.next, func(at, next uint64, b *dag.Batch, bodies [][]byte) error {
		if bytes >= foldBytes || changes >= foldChanges {
			end = false
			return errEnough
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if bytes += int(next - at); bodies == nil {
			in.st.flag(heldKey(at), true)
			in.st.end(next)
			return nil
		}
		changes += len(bodies)
		return s.foldBatch(at, next, b, bodies, branched[b.Device])
	})
	if err != nil && !errors.Is(err, errEnough) {
		return false, false, fmt.Errorf("fold: %w", err)
	}
	if all = end || in.st.next > own; all && in.fresh {
		in.setFresh(false)
		err = s.lookAtAll()
	} else {
		err = nil
	}
	return all, end, err
}

// openTree opens the tree as the last checkpoint left it, or begins one.
func (s *space) openTree() error {
	in := &s.in
	st, err := s.openTreeStore()
	if err == nil {
		in.t, err = tree.NewTree(s.id, st)
	}
	if err == nil {
		in.st, in.later, in.saved = st, map[tree.DirName]struct{}{}, map[tree.DirName]struct{}{}
		err = st.eachName(rowLater, func(dir dag.ID, name string) bool {
			in.later[tree.DirName{Dir: dir, Name: name}] = struct{}{}
			in.saved[tree.DirName{Dir: dir, Name: name}] = struct{}{}
			return true
		})
	}
	var root, fresh []byte
	if err == nil {
		root, err = st.rows.Get(rowRoot)
	}
	if err == nil {
		fresh, err = st.rows.Get(rowFresh)
	}
	if errors.Is(err, index.ErrCorrupt) {
		s.h.report(fmt.Sprintf("space %s: its tree is made anew", s.id), inDB(s.dir, err))
		s.rows.Clear()
		return s.openTree()
	}
	if err != nil {
		in.t = nil
		return err
	}
	in.root, in.fresh = root != nil, fresh != nil
	if st.next == 0 {
		in.setFresh(true)
	}
	return nil
}

// treeAnew has the tree made from the start, when something was in it that counts no more. Under pubMu.
func (s *space) treeAnew() error {
	s.rows.Clear()
	s.in.t = nil
	return s.openTree()
}

// judgeAgain looks whether a batch counts now that was passed over: its place in the log is behind the tree.
func (s *space) judgeAgain() error {
	again := false
	err := s.in.st.eachHeld(func(at uint64) bool {
		again = s.graph.Counts(at)
		return !again
	})
	if err == nil && again {
		err = s.treeAnew()
	}
	return err
}

// feeds gives the place in the log of the last batch of this device, and the devices whose feeds have branches.
func (s *space) feeds() (own uint64, branched map[dag.PublicKey]bool, err error) {
	seen := map[dag.PublicKey]bool{}
	branched = map[dag.PublicKey]bool{}
	device := dag.PublicKey(s.h.keys.Author().Device)
	for _, t := range s.graph.Tips() {
		branched[t.Device] = seen[t.Device]
		seen[t.Device] = true
		if t.Device == device {
			at, err := s.graph.Position(t.Batch)
			if err != nil {
				return 0, nil, err
			}
			own = max(own, at)
		}
	}
	return own, branched, nil
}

// foldBatch takes a batch into the tree, and notes what is to be looked at. branched says that its device has several feeds, which may
// link the same change.
func (s *space) foldBatch(at, next uint64, b *dag.Batch, bodies [][]byte, branched bool) error {
	in := &s.in
	changes, err := s.openBatch(at, b, bodies, branched)
	if err != nil {
		return err
	}
	in.st.begin(at)
	for i := range changes {
		if changes[i].Object == changes[i].At.ID && !branched {
			if err := in.st.born(changes[i].Object); err != nil {
				return err
			}
		}
	}
	links, err := s.linksBefore(b, changes)
	if err != nil {
		return err
	}
	d, err := in.t.Apply(changes...)
	if err == nil && links != nil {
		err = s.noteLeft(links, changes)
	}
	if err != nil {
		return errors.Join(err, s.treeAnew()) // what the store holds is unfinished
	}
	in.st.end(next)
	if in.fresh {
		return nil // everything is looked at in the end
	}
	for _, n := range d.Names {
		in.look(n)
	}
	for _, n := range d.Merges {
		if err := s.lookBelow(n); err != nil {
			return err
		}
	}
	for i := range changes {
		if object := changes[i].Object; object == in.t.Root() {
			in.lookAtRoot(true)
		} else if object != changes[i].At.ID {
			if err := s.lookAtObject(object); err != nil {
				return err
			}
		}
	}
	return nil
}

// openBatch opens the changes of a batch. One that another batch links too counts where it stands first in the total order.
func (s *space) openBatch(at uint64, b *dag.Batch, bodies [][]byte, branched bool) ([]tree.Change, error) {
	id := b.ID()
	changes := make([]tree.Change, 0, len(bodies))
	for i, body := range bodies {
		c, err := dag.DecodeChange(body)
		if err != nil {
			return nil, fmt.Errorf("change %s: %w", b.Changes[i], err)
		}
		e := dag.Entry{ID: b.Changes[i], Pos: dag.Pos{Clock: b.Clock, Batch: id, Place: uint32(i)}, At: at, Change: c, Batch: b}
		if branched {
			if first, err := s.graph.Change(e.ID); err != nil {
				return nil, fmt.Errorf("change %s: %w", e.ID, err)
			} else if first.Pos != e.Pos {
				continue
			}
		}
		change, err := s.openChange(&e)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// openChange opens a change for the tree. One that nobody can open is an empty operation, for everybody.
func (s *space) openChange(e *dag.Entry) (tree.Change, error) {
	p, err := s.open(e)
	if errors.Is(err, seal.ErrNoKey) {
		return tree.Change{}, fmt.Errorf("change %s: %w", e.ID, err)
	}
	if err != nil {
		p = nil
	}
	object := e.Change.Object
	if object.IsZero() {
		object = e.ID
	}
	return tree.Change{Object: object, At: tree.Stamp{ID: e.ID, Pos: e.Pos, Device: e.Change.Device}, Payload: p}, nil
}

// lookAtObject has the names looked at under which the index shows an object: they may be others than those of the tree.
func (s *space) lookAtObject(object dag.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ino, err := s.ix.Object(object)
	if err != nil || ino == 0 {
		return err
	}
	n, err := s.ix.Inode(ino)
	if err != nil || n == nil {
		return err
	}
	for i := range n.Links {
		l := &n.Links[i]
		dir := s.in.t.Root()
		if l.Parent != rootDir {
			p, err := s.inode(l.Parent)
			if err != nil {
				return err
			}
			if dir = p.Object; dir.IsZero() {
				continue // it waits anyway
			}
		}
		s.in.look(tree.DirName{Dir: dir, Name: l.Name})
	}
	return nil
}

// lookAtAll has every name of the tree looked at, and every one that the index shows.
func (s *space) lookAtAll() error {
	in := &s.in
	in.look(tree.DirName{Dir: in.t.Root()})
	in.lookAtRoot(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ix.Inodes(func(n *index.Inode) bool {
		if n.IsDir() && !n.Object.IsZero() && len(n.Links) > 0 {
			in.look(tree.DirName{Dir: n.Object})
		}
		return true
	})
}

// lookBelow has a name whose directories were or are several looked at, and all that is in them.
func (s *space) lookBelow(at tree.DirName) error {
	in := &s.in
	in.look(at)
	nodes, err := in.t.Group(at.Dir, at.Name)
	if err != nil {
		return err
	}
	for i := range nodes {
		for _, d := range nodes[i].Dirs {
			in.look(tree.DirName{Dir: d})
		}
	}
	return nil
}
