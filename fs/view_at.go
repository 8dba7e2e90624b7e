package fs

import (
	"context"
	"slices"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// atView is .anyfs/at of one directory: any time can be entered. Its listing shows the days on which something happened to
// what is in the directory or was.
type atView struct{ t *topView }

func (d *atView) find(ctx context.Context, name string) (*viewNode, error) {
	m, ok := d.t.moment(name)
	if !ok {
		return nil, nil
	}
	s := d.t.s
	s.publishBefore(ctx, &m)
	s.mu.Lock()
	n, err := s.inode(d.t.ino)
	var object dag.ID
	if err == nil {
		object = n.Object
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return d.t.v.pastNode(&pastDir{s: s, object: object, ino: d.t.ino, m: &m}, nil)
}

// publishBefore publishes what is pending, where it was done before a moment or may have been. What can't be published in
// time is missing in the view.
func (s *space) publishBefore(ctx context.Context, m *moment) {
	if m.time < m.now-int64(paceMax) {
		return
	}
	s.mu.Lock()
	pending := len(s.dirty) > 0
	s.mu.Unlock()
	if !pending {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.publishAll(ctx); err != nil && ctx.Err() == nil {
		s.publishFailed(err)
	}
}

// moment reads the name of a time.
func (t *topView) moment(name string) (moment, bool) {
	now := t.v.h.opt.Clock()
	at, err := ParseVersionTime(name, now.Location())
	return moment{at.UnixNano(), now.UnixNano()}, err == nil
}

// maxDays bounds the listing of times.
const maxDays = 1000

func (d *atView) list(context.Context) ([]viewEntry, error) {
	days := map[string]bool{}
	loc := d.t.v.h.opt.Clock().Location()
	var last int64
	note := func(ns int64) {
		if ns/int64(time.Minute) != last {
			last = ns / int64(time.Minute)
			days[time.Unix(0, ns).In(loc).Format(time.DateOnly)] = true
		}
	}
	err := d.t.s.scanLive(d.t.ino, func(_ *index.Entry, n *index.Inode) bool {
		note(n.Ctime)
		note(n.Btime)
		return len(days) < maxDays
	})
	if err != nil {
		return nil, err
	}
	if err := d.t.s.scanTrash(d.t.ino, func(t trashed) bool {
		note(t.time())
		return len(days) < maxDays
	}); err != nil {
		return nil, err
	}
	var names []string
	for day := range days {
		names = append(names, day)
	}
	slices.Sort(names)
	var out []viewEntry
	for _, name := range names[max(0, len(names)-maxDays):] {
		if m, ok := d.t.moment(name); ok {
			k := viewKey{what: keyPast, slot: d.t.s.slot, ino: d.t.ino, time: m.time}
			out = append(out, viewEntry{name: name, typ: syscall.S_IFDIR, ino: d.t.v.number(&k)})
		}
	}
	return out, nil
}

func (d *atView) stamp() uint64 { return d.t.stampNow() }

// homeAtView is .anyfs/at in the root of the home.
type homeAtView struct{ t *topView }

func (d *homeAtView) find(_ context.Context, name string) (*viewNode, error) {
	m, ok := d.t.moment(name)
	if !ok {
		return nil, nil
	}
	in := &homePastView{t: d.t, m: m}
	return d.t.node(&viewKey{what: keyHomeAt, time: m.time}, in, 0), nil
}

func (d *homeAtView) list(context.Context) ([]viewEntry, error) { return nil, nil }
func (d *homeAtView) stamp() uint64                             { return d.t.stampNow() }

// homePastView shows the spaces there are as they were at a time.
type homePastView struct {
	t *topView
	m moment
}

func (d *homePastView) find(ctx context.Context, name string) (*viewNode, error) {
	if e, _, err := d.t.s.liveStep(rootDir, name); err != nil || e.ino == 0 {
		return nil, err
	}
	s, err := d.t.v.h.namedSpace(name)
	if err != nil {
		return nil, err
	}
	s.publishBefore(ctx, &d.m)
	return d.t.v.pastNode(&pastDir{s: s, object: tree.RootObject(s.id), ino: rootDir, m: &d.m}, nil)
}

func (d *homePastView) list(context.Context) ([]viewEntry, error) {
	var out []viewEntry
	err := d.t.v.h.ReadDir(RootIno, 0, func(e Dirent) bool {
		if s, local, err := d.t.v.h.space(e.Ino); err == nil {
			k := viewKey{what: keyPast, slot: s.slot, ino: local, time: d.m.time}
			out = append(out, viewEntry{name: e.Name, typ: syscall.S_IFDIR, ino: d.t.v.number(&k)})
		}
		return true
	})
	return out, err
}

func (d *homePastView) stamp() uint64 { return d.t.stampNow() }

// pastView is a directory as it was.
type pastView struct {
	v *views
	d *pastDir
	n *viewNode
}

// pastKey names a directory as it was.
func (d *pastDir) key() *viewKey {
	if d.m == nil {
		return &viewKey{what: keyDead, slot: d.s.slot, ino: d.ino, time: d.died}
	}
	return &viewKey{what: keyPast, slot: d.s.slot, ino: d.ino, time: d.m.time}
}

// pastNode makes the virtual inode of a directory as it was. st is its state then, where it is known.
func (v *views) pastNode(d *pastDir, st *tree.State) (*viewNode, error) {
	p := &pastView{v: v, d: d}
	p.n = &viewNode{ino: v.number(d.key()), s: d.s, dir: p, object: d.object}
	if st == nil && !d.object.IsZero() {
		var err error
		if st, err = d.s.fold(d.object, d.m); err != nil {
			return nil, err
		}
	}
	if st == nil || st.Kind != tree.KindDir {
		p.n.attr = v.h.dirAttr(0) // it was not there then, and has nothing in it
	} else {
		p.n.attr, p.n.xattrs = d.s.stateAttr(st), shownXattrs(st)
	}
	if a := &p.n.attr; a.Mtime == 0 && d.m != nil { // or it is the root of a space, of which the history has no times
		now := min(d.m.time, d.m.now)
		a.Atime, a.Mtime, a.Ctime, a.Btime = now, now, now, now
	}
	return p.n, nil
}

// node makes the virtual inode of an entry.
func (p *pastView) node(e *pastNode) (*viewNode, error) {
	st, err := p.d.state(e)
	if err != nil {
		return nil, err
	}
	if st.Kind == tree.KindDir {
		return p.v.pastNode(p.d.dir(e), st)
	}
	return p.v.stateNode(p.d.s, p.keyOf(e, st), st), nil
}

// keyOf names an entry that is no directory: by the state that it is in, or (dead) by its place in the trash.
func (p *pastView) keyOf(e *pastNode, st *tree.State) *viewKey {
	if p.d.m == nil {
		return &viewKey{what: keyTrash, slot: p.d.s.slot, ino: e.gone.dir, time: int64(e.gone.at), name: e.name}
	}
	return &viewKey{what: keyState, slot: p.d.s.slot, object: e.object, id: st.Top.Batch, time: int64(st.Top.Clock)}
}

func (p *pastView) find(ctx context.Context, name string) (*viewNode, error) {
	p.v.mu.Lock()
	listed := p.n.names != nil
	p.v.mu.Unlock()
	if p.d.m != nil && !listed {
		if e, err := p.d.findPresent(name); err != nil {
			return nil, err
		} else if e != nil {
			return p.node(e)
		}
	}
	e, err := p.v.entry(ctx, p.n, name)
	if err != nil || e == nil {
		return nil, err
	}
	x := e.what.(pastNode)
	if p.d.m == nil {
		if there, err := p.d.s.inTrash(&x.gone); err != nil || !there {
			return nil, err // it came back since
		}
	}
	return p.node(&x)
}

func (p *pastView) list(ctx context.Context) ([]viewEntry, error) {
	var out []viewEntry
	err := p.d.each(ctx, func(e *pastNode) bool {
		var k *viewKey
		if e.typ == typeDir {
			k = p.d.dir(e).key()
		} else {
			k = p.keyOf(e, e.st)
		}
		x := *e
		x.st = nil
		out = append(out, viewEntry{name: e.name, typ: e.typ, ino: p.v.number(k), what: x})
		return true
	})
	return out, err
}

// stamp: the past grows with the batches that tell of it, and what was deleted may come back.
func (p *pastView) stamp() uint64 {
	if p.d.m != nil {
		batches, _, _ := p.d.s.graph.Counters()
		return batches
	}
	p.d.s.mu.Lock()
	defer p.d.s.mu.Unlock()
	return uint64(p.d.s.last)
}
