package fs

import (
	"context"
	"fmt"
	"math"

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
	type leaving struct {
		kind trashKind
		from place
		time int64
	}
	at := map[tree.Ref]place{}
	removed := map[tree.Ref]int64{} // when a link that is none now was taken away: a later mark of it, which saw more, is no removal
	var left []leaving
	m, last := moment{math.MaxInt64, b.s.h.opt.Clock().UnixNano()}, int64(math.MinInt64)
	st := tree.NewState(id)
	if id == tree.RootObject(b.s.id) {
		st = tree.NewRootState(b.s.id)
	}
	err := b.s.graph.Changes(id, func(e dag.Entry) error {
		p := b.s.opened(&e)
		if p != nil {
			m.in(p.Time, &last)
		}
		for i := 0; p != nil && i < len(p.Ops); i++ {
			o := &p.Ops[i]
			switch o.Kind {
			case tree.OpLink:
				at[tree.Ref{Change: e.ID, Place: uint32(i)}] = place{o.Parent, o.Name}
			case tree.OpMove:
				if was, ok := at[o.Link]; ok && was.parent != o.Parent {
					left = append(left, leaving{trashMoved, was, last})
				}
				at[o.Link] = place{o.Parent, o.Name}
			case tree.OpUnlink:
				if _, again := removed[o.Link]; !again || liveLinks(st)[o.Link] {
					removed[o.Link] = last
				}
			}
		}
		return st.Apply(tree.Stamp{ID: e.ID, Pos: e.Pos, Device: e.Change.Device}, p)
	})
	if err != nil || st.Kind == tree.KindNone {
		return err
	}
	live := liveLinks(st)
	for i := range st.Links {
		if l := &st.Links[i]; !live[l.ID] {
			p := l.Shown()
			left = append(left, leaving{trashRemoved, place{p.Parent, p.Name}, removed[l.ID]})
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
	for _, x := range left {
		b.s.noteTrash(x.kind, n, id, b.number(x.from.parent), x.from.name, x.time)
	}
	return nil
}

func liveLinks(st *tree.State) map[tree.Ref]bool {
	live := map[tree.Ref]bool{}
	for _, l := range st.LiveLinks() {
		live[l.ID] = true
	}
	return live
}
