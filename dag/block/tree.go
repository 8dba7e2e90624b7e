package block

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/ipfs/go-cid"
)

// MaxDepth is how many levels of nodes a tree has at most: enough for 174^8 leaves.
const MaxDepth = 8

// Leaf is a block of content under a file's tree. Size is the block's length in bytes as it is stored, sealed.
type Leaf struct {
	ID   ID
	Size uint64
}

// BuildTree puts the leaves, in order, under a balanced UnixFS tree and returns its root. put stores a node's block and
// returns its ID.
//
// The tree is boxo's balanced layout with raw leaves: all leaves are equally deep, each node has MaxLinks children but
// for the last of a level. So it is a function of the leaves alone, and a tree that is built for an edited file puts the
// nodes again that did not change. One leaf needs no node: the root is its raw CID. No leaf gives an empty file's node.
// It returns put's error, or an error when a leaf is empty or the sizes exceed 2^63-1 in all.
func BuildTree(put func(data []byte) (ID, error), leaves []Leaf) (cid.Cid, error) {
	if len(leaves) == 1 && leaves[0].Size-1 < math.MaxInt64 {
		return leaves[0].ID.CID(), nil
	}
	level, sum := make([]link, 0, MaxLinks), uint64(0)
	var b treeBuilder
	b.put = put
	for _, l := range leaves {
		if l.Size == 0 || l.Size > math.MaxInt64-sum {
			return cid.Undef, errors.New("block: the size of a leaf")
		}
		sum += l.Size
		level = append(level, link{id: l.ID, size: l.Size, total: l.Size})
		if len(level) == MaxLinks {
			if err := b.add(0, level); err != nil {
				return cid.Undef, err
			}
			level = level[:0]
		}
	}
	return b.finish(level)
}

// treeBuilder holds the nodes of each level that have no parent yet, at most MaxLinks of them.
type treeBuilder struct {
	put    func([]byte) (ID, error)
	levels [][]link
}

// add makes a node of the children and gives it to the level.
func (b *treeBuilder) add(level int, children []link) error {
	l, err := b.node(children)
	if err != nil {
		return err
	}
	if level == len(b.levels) {
		b.levels = append(b.levels, nil)
	}
	b.levels[level] = append(b.levels[level], l)
	if full := b.levels[level]; len(full) == MaxLinks {
		b.levels[level] = full[:0]
		return b.add(level+1, full)
	}
	return nil
}

func (b *treeBuilder) node(children []link) (link, error) {
	n := node{links: children}
	data := n.encode()
	id, err := b.put(data)
	if err != nil {
		return link{}, err
	}
	l := link{id: id, node: true, size: n.size(), total: uint64(len(data))}
	for i := range children {
		l.total += children[i].total
	}
	return l, nil
}

// finish makes nodes of what is left on each level, from the bottom, until one is the root.
func (b *treeBuilder) finish(leaves []link) (cid.Cid, error) {
	if len(leaves) > 0 || len(b.levels) == 0 {
		if err := b.add(0, leaves); err != nil {
			return cid.Undef, err
		}
	}
	for level := 0; ; level++ {
		left := b.levels[level]
		if level == len(b.levels)-1 && len(left) == 1 {
			return left[0].id.NodeCID(), nil
		}
		if len(left) > 0 {
			b.levels[level] = nil
			if err := b.add(level+1, left); err != nil {
				return cid.Undef, err
			}
		}
	}
}

// GetFunc returns the block that a CID names, verified against it, as Store.Get does.
type GetFunc func(context.Context, cid.Cid) ([]byte, error)

// GetCID is a GetFunc over the store.
func (s *Store) GetCID(ctx context.Context, c cid.Cid) ([]byte, error) {
	id, _, err := IDFromCID(c)
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, id)
}

// Leaves calls fn for each leaf of a tree in order, and gets the nodes on the way but no leaf. Of a root that is a leaf
// itself the CID does not tell the size: it is 0.
//
// A tree that BuildTree would not have made, by its nodes' encoding, sizes or depth, is refused where that shows, which
// may be after some leaves. It holds at most MaxDepth nodes in memory. A hostile tree may name more leaves than there
// are blocks: fn sees their sizes, none 0, and stops it. It returns get's error, fn's, or ctx's cause.
func Leaves(ctx context.Context, get GetFunc, root cid.Cid, fn func(Leaf) error) error {
	return walkTree(ctx, get, root, nil, fn)
}

// walkTree is Leaves that also shows the nodes, each before what is under it.
func walkTree(ctx context.Context, get GetFunc, root cid.Cid, node func(ID, []byte) error, leaf func(Leaf) error) error {
	id, isNode, err := IDFromCID(root)
	if err != nil {
		return err
	}
	if !isNode {
		return leaf(Leaf{ID: id})
	}
	w := treeWalk{ctx, get, node, leaf}
	_, err = w.walk(id, nil, MaxDepth)
	return err
}

type treeWalk struct {
	ctx  context.Context
	get  GetFunc
	node func(ID, []byte) error
	leaf func(Leaf) error
}

// walk goes through the node that id names, which is to be what its parent's link says (nil: it is the root) and at
// most depth levels high, and returns how high it is.
func (w *treeWalk) walk(id ID, as *link, depth int) (int, error) {
	if depth == 0 {
		return 0, fmt.Errorf("%w: %s: deeper than %d", errNode, id, MaxDepth)
	}
	if err := w.ctx.Err(); err != nil {
		return 0, context.Cause(w.ctx)
	}
	data, err := w.get(w.ctx, id.NodeCID())
	if err != nil {
		return 0, err
	}
	n, err := decodeNode(data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", id, err)
	}
	if as == nil && len(n.links) == 1 || as != nil && len(n.links) == 0 {
		return 0, fmt.Errorf("%w: %s: a node too many", errNode, id)
	}
	total := uint64(len(data))
	for i := range n.links {
		total += min(n.links[i].total, math.MaxInt64-min(total, math.MaxInt64))
	}
	if as != nil && (as.size != n.size() || as.total != total) {
		return 0, fmt.Errorf("%w: %s: not of the size that its parent says", errNode, id)
	}
	if w.node != nil {
		if err := w.node(id, data); err != nil {
			return 0, err
		}
	}
	height := 1
	for i := range n.links {
		l, h := &n.links[i], 1
		if !l.node {
			err = w.leaf(Leaf{ID: l.id, Size: l.size})
		} else if h, err = w.walk(l.id, l, depth-1); err == nil {
			h++
		}
		if err != nil {
			return 0, err
		}
		if i > 0 && h != height {
			return 0, fmt.Errorf("%w: %s: leaves of unequal depth", errNode, id)
		}
		height = h
	}
	return height, nil
}
