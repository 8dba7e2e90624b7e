package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// Problem is something that Verify found wrong.
type Problem struct {
	Space string `json:"space,omitempty"` // its name; empty where the fault is the home's
	Where string `json:"where"`           // what is damaged: a batch, a block, an inode, a file of the home
	Text  string `json:"text"`
}

// maxProblems bounds what Verify lists.
const maxProblems = 1000

// verifier collects what one run finds.
type verifier struct {
	h        *Home
	space    string
	problems []Problem
	done     int64
	total    int64
	progress func(done, total int64)
}

func (v *verifier) found(where string, err error) {
	if len(v.problems) < maxProblems {
		v.problems = append(v.problems, Problem{Space: v.space, Where: where, Text: err.Error()})
	}
}

func (v *verifier) step() {
	if v.done++; v.done%64 == 0 && v.progress != nil {
		v.progress(v.done, max(v.done, v.total))
	}
}

// Verify checks everything that the home keeps against everything else: each signature and link of the access lists and the
// batches from the space's root on, each change's seal, each block against its CID, and the index against the fold of the
// history. It publishes what is dirty first. An error means that it could not go on; what is wrong is in the list.
// progress, if not nil, is called now and then, with a total that may grow.
func (h *Home) Verify(ctx context.Context, progress func(done, total int64)) ([]Problem, error) {
	v := &verifier{h: h, progress: progress}
	if err := h.Flush(ctx); err != nil {
		v.found("publication", err)
	}
	if err := h.jr.Damage(); err != nil {
		v.found("journal", err)
	}
	if err := h.jr.Verify(); err != nil {
		v.found("journal", err)
	}
	names := map[*space]string{h.home: ""}
	infos, err := h.Spaces()
	if err != nil {
		v.found("root of the home", err)
	}
	for _, i := range infos {
		if s, err := h.spaceNamed(i.Name); err == nil {
			names[s] = i.Name
		} else {
			v.space = i.Name
			v.found("space", err)
		}
	}
	for _, s := range h.each() {
		batches, changes, _ := s.graph.Counters()
		v.total += int64(batches+changes) + 1
	}
	for _, s := range h.all() {
		v.space = names[s]
		if s.sick != nil {
			v.found(s.dir, s.sick)
			continue
		}
		if err := s.verify(ctx, v); err != nil {
			return v.problems, fmt.Errorf("verify: %w", err)
		}
	}
	if progress != nil {
		progress(v.done, v.done)
	}
	return v.problems, nil
}

// verify checks one space.
func (s *space) verify(ctx context.Context, v *verifier) error {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	before := len(v.problems)
	if err := s.acl.Verify(); err != nil {
		v.found("access list", err)
	}
	if c, ok := s.db.(interface{ Check() error }); ok {
		if err := c.Check(); err != nil {
			v.found(s.dir+"/"+dbFile, err)
		}
	}
	if err := s.verifyBatches(ctx, v); err != nil {
		return err
	}
	if err := s.blocks.Verify(ctx, func(id block.ID, err error) {
		v.step()
		if err != nil {
			v.found("block "+id.String(), err)
		}
	}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		v.found("blocks", err)
	}
	s.verifyContents(ctx, v)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(v.problems) == before {
		s.verifyIndex(ctx, v)
	}
	v.step()
	return ctx.Err()
}

// verifyBatches checks each batch's signature and authorisation, and opens each change.
func (s *space) verifyBatches(ctx context.Context, v *verifier) error {
	files := s.acl.Files()
	err := s.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.step()
		id := b.ID()
		if !b.Verify() {
			v.found("batch "+id.String(), errors.New("the signature is not its device's"))
		}
		changes := make([]*dag.Change, len(bodies))
		for i, body := range bodies {
			v.step()
			if dag.Sum(body) != b.Changes[i] {
				v.found("change "+b.Changes[i].String(), errors.New("its bytes are not what its CID says"))
				return nil
			}
			c, err := dag.DecodeChange(body)
			if err != nil {
				v.found("change "+b.Changes[i].String(), err)
				return nil
			}
			changes[i] = c
			if _, err := s.open(&dag.Entry{ID: b.Changes[i], Change: c, Batch: b}); err != nil {
				v.found("change "+b.Changes[i].String(), err)
			}
		}
		if err := files.Accept(b, changes); err != nil {
			v.found("batch "+id.String(), err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		v.found("batches", err)
		return nil
	}
	return err
}

// verifyContents checks that every content of the history is here whole, or was pruned; and that each present one is whole.
func (s *space) verifyContents(ctx context.Context, v *verifier) {
	err := s.eachContent(ctx, func(c *tree.Content) error {
		if pruned, err := s.isPruned(c.Root); err != nil || pruned {
			return err
		}
		err := block.Leaves(ctx, s.getNode, c.Root, func(l block.Leaf) error {
			if !s.blocks.Has(l.ID) {
				return fmt.Errorf("block %s is not here", l.ID)
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			v.found("content "+c.Root.String(), err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		v.found("contents", err)
	}
}

// verifyIndex holds what the index shows against the fold of the history. With pubMu held, what differs without being dirty
// is wrong.
func (s *space) verifyIndex(ctx context.Context, v *verifier) {
	t, st, err := s.foldAll(ctx)
	if err != nil {
		v.found("history", err)
		return
	}
	s.mu.Lock()
	var dirs []uint64
	entries := 0
	err = s.ix.Inodes(func(n *index.Inode) bool {
		if n.IsDir() && (len(n.Links) > 0 || n.Ino == rootDir) {
			dirs = append(dirs, n.Ino)
		}
		if n.Ino != rootDir {
			entries += len(n.Links)
		}
		return true
	})
	s.mu.Unlock()
	if err != nil {
		v.found("index", err)
		return
	}
	seen := 0
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return
		}
		seen += s.verifyDir(v, t, st, dir)
	}
	s.mu.Lock()
	quiet := len(s.dirty) == 0
	s.mu.Unlock()
	if quiet && seen != entries {
		v.found("index", fmt.Errorf("%d names in directories, and %d in inodes", seen, entries))
	}
}

// verifyDir checks one directory and returns how many entries it has.
func (s *space) verifyDir(v *verifier, t *tree.Tree, st *tree.MemStore, dir uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.ix.Inode(dir)
	if err != nil || d == nil {
		v.found(fmt.Sprintf("inode %d", dir), errors.Join(ErrStale, err))
		return 0
	}
	where := fmt.Sprintf("directory %d", dir)
	want := map[string]*tree.Node{}
	if !d.Object.IsZero() {
		nodes, err := t.List(d.Object)
		if err != nil {
			v.found(where, err)
			return 0
		}
		for i := range nodes {
			want[nodes[i].Name] = &nodes[i]
		}
	}
	count := 0
	err = s.ix.Scan(dir, 0, func(_ uint64, e *index.Entry) bool {
		count++
		n, err := s.ix.Inode(e.Ino)
		if err != nil || n == nil {
			v.found(where, fmt.Errorf("an entry names inode %d, which is not there: %w", e.Ino, errors.Join(ErrStale, err)))
			return true
		}
		if k := linkIndex(n, dir, e.Name); len(n.Links) == 0 || n.Links[k].Parent != dir || n.Links[k].Name != e.Name {
			v.found(where, fmt.Errorf("an entry names inode %d, which does not know of it", e.Ino))
			return true
		}
		node := want[e.Name]
		delete(want, e.Name)
		if n.Dirty() {
			return true
		}
		if node == nil {
			v.found(fmt.Sprintf("inode %d", e.Ino), errors.New("it has a name that its history does not give it"))
			return true
		}
		if err := s.verifyInode(n, node, st); err != nil {
			v.found(fmt.Sprintf("inode %d", e.Ino), err)
		}
		return true
	})
	if err != nil {
		v.found(where, err)
		return count
	}
	if uint32(count) != d.Entries {
		v.found(where, fmt.Errorf("it has %d entries and says %d", count, d.Entries))
	}
	if len(want) > 0 {
		s.leaving(want)
	}
	for _, node := range want {
		// A name that was taken away and whose removal is not published yet is still in the history.
		ino, err := s.ix.Object(node.Object)
		if err == nil && ino != 0 {
			if n, err := s.ix.Inode(ino); err == nil && n != nil && n.Dirty() {
				continue
			}
		}
		v.found(where, fmt.Errorf("object %s, which its history puts here, is missing", node.Object))
	}
	return count
}

// leaving takes out of want the entries whose removal is waiting to be published. Under mu.
func (s *space) leaving(want map[string]*tree.Node) {
	gone := map[dag.ID]bool{}
	for ino := range s.dirty {
		if n, err := s.ix.Inode(ino); err == nil && n != nil {
			for _, g := range n.Gone {
				gone[g.Object] = true
			}
		}
	}
	for name, node := range want {
		if gone[node.Object] {
			delete(want, name)
		}
	}
}

// verifyInode holds one clean inode against the state of its object.
func (s *space) verifyInode(n *index.Inode, node *tree.Node, st *tree.MemStore) error {
	if n.Object != node.Object {
		return fmt.Errorf("it stands for object %s, its history says %s", n.Object, node.Object)
	}
	o, err := st.Object(node.Object)
	if err != nil || o == nil {
		return errors.Join(errors.New("its object is not in the history"), err)
	}
	x := o.State
	switch {
	case n.Type() != x.Kind.Type():
		return errors.New("its type is not what its history says")
	case x.ModeSet && n.Mode&07777 != x.Mode:
		return fmt.Errorf("its mode is %o, its history says %o", n.Mode&07777, x.Mode)
	case n.Type() == syscall.S_IFLNK && n.Target != x.Target:
		return errors.New("its target is not what its history says")
	case len(n.Xattrs) != len(x.Xattrs):
		return errors.New("its attributes are not what its history says")
	}
	for _, a := range n.Xattrs {
		if b, ok := x.Xattrs[a.Name]; !ok || !bytes.Equal(a.Value, b) {
			return errors.New("its attributes are not what its history says")
		}
	}
	if !n.IsRegular() {
		return nil
	}
	view := x.View()
	if n.Size != view.Size() {
		return fmt.Errorf("its size is %d, its history says %d", n.Size, view.Size())
	}
	if len(n.Contents) > 0 && n.Contents[0] != view.Main.Ref {
		return errors.New("its content is not the one that its history says")
	}
	if n.Base != nil && n.Base.Root.Defined() != view.Main.Base.Root.Defined() ||
		n.Base != nil && n.Base.Root.Defined() && (!n.Base.Root.Equals(view.Main.Base.Root) ||
			n.Base.LayoutBlock != view.Main.Base.LayoutBlock || !slices.Equal(n.Base.Layout, view.Main.Base.Layout)) {
		return errors.New("its content has another root than its history says")
	}
	return nil
}
