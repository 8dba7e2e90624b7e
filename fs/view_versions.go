package fs

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// versionsView is .anyfs/versions of one directory: a directory for each name in it, deleted ones too, but for directories.
type versionsView struct{ t *topView }

// maxViewList bounds what one virtual directory lists. What is beyond can be entered by its name.
const maxViewList = 100_000

func (d *versionsView) key(name string) *viewKey {
	return &viewKey{what: keyNames, slot: d.t.s.slot, ino: d.t.ino, name: name}
}

func (d *versionsView) find(_ context.Context, name string) (*viewNode, error) {
	if d.t.s.slot == 0 {
		return nil, nil
	}
	st, ok, err := d.t.s.liveStep(d.t.ino, name)
	if err != nil {
		return nil, err
	}
	if !ok || st.typ == typeDir {
		_, ok, err = d.t.s.deadByName(d.t.ino, name, func(t *trashed) bool { return t.typ != typeDir })
	}
	if err != nil || !ok {
		return nil, err
	}
	in := &versionsOf{t: d.t, name: name}
	in.n = d.t.node(d.key(name), in, 0)
	return in.n, nil
}

func (d *versionsView) list(context.Context) ([]viewEntry, error) {
	if d.t.s.slot == 0 {
		return nil, nil
	}
	var out []viewEntry
	seen := map[string]bool{}
	add := func(name string, typ uint32) bool {
		if typ != typeDir && !seen[name] {
			seen[name] = true
			out = append(out, viewEntry{name: name, typ: syscall.S_IFDIR, ino: d.t.v.number(d.key(name))})
		}
		return len(out) < maxViewList
	}
	if err := d.t.s.scanLive(d.t.ino, func(e *index.Entry, _ *index.Inode) bool { return add(e.Name, e.Type) }); err != nil {
		return nil, err
	}
	err := d.t.s.scanTrash(d.t.ino, func(t trashed) bool { return t.kind != trashRemoved || add(t.name, t.typ) })
	return out, err
}

func (d *versionsView) stamp() uint64 { return d.t.stampNow() }

// versionsOf is .anyfs/versions/NAME.
type versionsOf struct {
	t    *topView
	n    *viewNode
	name string
}

// oldVersion is one content that a name had.
type oldVersion struct {
	object dag.ID
	change dag.ID
	at     tree.Ref // the content operation; zero of what is no file
	attr   Attr
	target string
	xattrs map[string][]byte
}

func (d *versionsOf) find(ctx context.Context, name string) (*viewNode, error) {
	e, err := d.t.v.entry(ctx, d.n, name)
	if err != nil || e == nil {
		return nil, err
	}
	o := e.what.(oldVersion)
	return &viewNode{
		ino: e.ino, s: d.t.s, attr: o.attr, target: o.target, at: o.at, xattrs: o.xattrs, object: o.object, version: o.change,
	}, nil
}

// maxVersions bounds the versions that are listed of one object: the newest. The log has all.
const maxVersions = 10_000

func (d *versionsOf) list(ctx context.Context) ([]viewEntry, error) {
	s := d.t.s
	var objects []dag.ID
	st, ok, err := s.liveStep(d.t.ino, d.name)
	if err != nil {
		return nil, err
	}
	if ok && st.typ != typeDir {
		if err := s.published(ctx, &st); err != nil {
			return nil, err
		}
		if !st.object.IsZero() {
			objects = append(objects, st.object)
		}
	}
	if err := s.scanTrash(d.t.ino, func(t trashed) bool {
		if t.kind == trashRemoved && t.name == d.name && t.typ != typeDir {
			for _, o := range objects {
				if o == t.object {
					return true
				}
			}
			objects = append(objects, t.object)
		}
		return len(objects) < 64
	}); err != nil {
		return nil, err
	}
	var out []viewEntry
	for _, o := range objects {
		list, err := d.versions(ctx, o)
		if err != nil {
			return nil, err
		}
		if out = append(out, list...); len(out) >= maxViewList {
			break
		}
	}
	return out, nil
}

// versions lists the contents of one object, the oldest first.
func (d *versionsOf) versions(ctx context.Context, object dag.ID) ([]viewEntry, error) {
	s := d.t.s
	ext := extension(d.name)
	st := tree.NewState(object)
	var out []viewEntry
	err := s.graph.Changes(object, func(e dag.Entry) error {
		p := s.opened(&e)
		if err := st.Apply(tree.Stamp{ID: e.ID, Pos: e.Pos, Device: e.Change.Device}, p); err != nil || p == nil {
			return err
		}
		for i := range p.Ops {
			op := &p.Ops[i]
			if op.Kind != tree.OpContent && op.Kind != tree.OpTarget {
				continue
			}
			o := oldVersion{object: object, change: e.ID, attr: s.stateAttr(st), target: st.Target, xattrs: shownXattrs(st)}
			if op.Kind == tree.OpContent {
				o.at = tree.Ref{Change: e.ID, Place: uint32(i)}
				if v := st.View(); v.Merged || v.Main.Ref != o.at { // not what the state shows
					o.attr.Size, o.attr.Blocks = op.Content.Size, (op.Content.Size+511)/512
				}
				if !st.MtimeSet {
					o.attr.Mtime, o.attr.Atime = op.Mtime, op.Mtime
				}
			}
			name := time.Unix(0, p.Time).UTC().Format("2006-01-02T15:04:05.000Z") + "-" + shortID(e.ID.String()) + ext
			k := viewKey{what: keyVersion, slot: s.slot, object: object, id: e.ID, time: int64(i)}
			out = append(out, viewEntry{name: name, typ: o.attr.Mode & syscall.S_IFMT, ino: d.t.v.number(&k), what: o})
		}
		if len(out) > 2*maxVersions {
			out = append(out[:0], out[len(out)-maxVersions:]...)
		}
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		err = s.damaged(err)
	}
	return out, err
}

func (d *versionsOf) stamp() uint64 { return d.t.stampNow() }

// extension gives what follows the last dot of a name that begins with something else.
func extension(name string) string {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || len(name)-i > 64 {
		return ""
	}
	return name[i:]
}
