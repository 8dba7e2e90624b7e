package fs

import (
	"context"
	"fmt"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// rebuildTrash fills the trash of every directory, deleted ones included, from the changes of the graph, for an index that is
// made anew. inodes has the directories that there are. Under mu.
func (s *space) rebuildTrash(ctx context.Context, inodes map[dag.ID]*index.Inode) error {
	b := trashBuilder{s: s, numbers: map[dag.ID]uint64{tree.RootObject(s.id): rootDir}}
	for id, n := range inodes {
		b.numbers[id] = n.Ino
	}
	err := s.graph.Objects(func(id dag.ID) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		return b.object(id)
	})
	if err != nil {
		return fmt.Errorf("trash: %w", err)
	}
	return nil
}

type trashBuilder struct {
	s       *space
	numbers map[dag.ID]uint64 // of directories, and of what was deleted
}

// number gives the number of an object, a new one to what is not there any more.
func (b *trashBuilder) number(id dag.ID) uint64 {
	n, ok := b.numbers[id]
	if !ok {
		n = b.s.nextIno
		b.s.nextIno++
		b.numbers[id] = n
	}
	return n
}

// object notes where one object was and is not any more.
func (b *trashBuilder) object(id dag.ID) error {
	type place struct {
		parent dag.ID
		name   string
	}
	at := map[tree.Ref]place{}
	var left []func(n *index.Inode)
	leave := func(kind trashKind, from place, t int64) {
		left = append(left, func(n *index.Inode) {
			b.s.noteTrash(kind, n, id, b.number(from.parent), from.name, t)
		})
	}
	st, err := b.s.foldWhile(id, func(e *dag.Entry, p *tree.Payload) bool {
		if p == nil {
			return true
		}
		for i := range p.Ops {
			o := &p.Ops[i]
			switch o.Kind {
			case tree.OpLink:
				at[tree.Ref{Change: e.ID, Place: uint32(i)}] = place{o.Parent, o.Name}
			case tree.OpMove:
				if was, ok := at[o.Link]; ok && was.parent != o.Parent {
					leave(trashMoved, was, p.Time)
				}
				at[o.Link] = place{o.Parent, o.Name}
			}
		}
		return true
	})
	if err != nil || st == nil || st.Kind == tree.KindNone {
		return err
	}
	live := map[tree.Ref]bool{}
	for _, l := range st.LiveLinks() {
		live[l.ID] = true
	}
	for i := range st.Links {
		if l := &st.Links[i]; !live[l.ID] {
			leave(trashRemoved, place{l.Shown().Parent, l.Shown().Name}, l.Mark.Time)
		}
	}
	if len(left) == 0 {
		return nil
	}
	n := &index.Inode{Ino: b.number(id), Mode: st.Kind.Type()}
	if st.Kind == tree.KindFile {
		v := st.View()
		n.Size = v.Size()
	}
	for _, note := range left {
		note(n)
	}
	return nil
}
