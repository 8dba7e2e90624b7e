package fs

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// Change is something that happened to a name, here or on another device.
type Change struct {
	Event  string    `json:"event"`          // created, changed, removed, renamed; or overflow: changes are missing before the next
	Path   string    `json:"path,omitempty"` // from the root of the home; for renamed the new one
	From   string    `json:"from,omitempty"` // of renamed
	Dir    bool      `json:"dir,omitempty"`
	Device string    `json:"device,omitempty"` // that made it
	Local  bool      `json:"local,omitempty"`  // that is this one
	Time   time.Time `json:"time"`             // by its clock
}

// The events of a Change.
const (
	EventCreated  = "created"
	EventChanged  = "changed" // content or attributes
	EventRemoved  = "removed"
	EventRenamed  = "renamed"
	EventOverflow = "overflow"
)

// maxWatched is how many changes wait for a watcher (about 200 bytes each). What more comes is dropped, and the watcher told.
const maxWatched = 16384

// watchers are who is told of changes. Without any, a change costs a look at count.
type watchers struct {
	count atomic.Int32
	mu    sync.Mutex // comes after the locks of spaces
	all   map[*watcher]struct{}
}

type watcher struct {
	queue chan happening
	lost  atomic.Bool // something was dropped; nothing is queued until that is told
}

// happening is a change as a space knows it: with paths from its root.
type happening struct {
	s          *space
	event      string
	path, from string
	dir        bool
	device     dag.PublicKey // zero: who made the last change of object
	object     dag.ID
	time       int64
}

// Watch calls begun, and from then on fn for what changes at path and below it, in order, until ctx ends or fn returns an error, which it returns; the empty
// path is everything. A path is a name: what is moved from it is watched no more. What this device does is told at once, but for content and attributes, which are told when they are published;
// what others did when it shows here. When fn is slow, changes are dropped, and one with EventOverflow says so.
func (h *Home) Watch(ctx context.Context, path string, begun func() error, fn func(Change) error) error {
	path = cleanPath(path)
	w := &watcher{queue: make(chan happening, maxWatched)}
	h.watch.mu.Lock()
	if h.watch.all == nil {
		h.watch.all = map[*watcher]struct{}{}
	}
	h.watch.all[w] = struct{}{}
	h.watch.count.Add(1)
	h.watch.mu.Unlock()
	defer func() {
		h.watch.mu.Lock()
		delete(h.watch.all, w)
		h.watch.count.Add(-1)
		h.watch.mu.Unlock()
	}()
	if err := begun(); err != nil {
		return err
	}
	names := map[*space]string{}
	for {
		var x happening
		select {
		case x = <-w.queue:
		default:
			if w.lost.Load() {
				if err := fn(Change{Event: EventOverflow, Time: time.Unix(0, h.now())}); err != nil {
					return err
				}
				w.lost.Store(false)
			}
			select {
			case x = <-w.queue:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		c, ok := h.changeOf(x, names)
		if !ok || !within(c.Path, path) && (c.From == "" || !within(c.From, path)) {
			continue
		}
		if err := fn(c); err != nil {
			return err
		}
	}
}

func within(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// changeOf gives a change the form for others. names are those of spaces as far as they are known.
func (h *Home) changeOf(x happening, names map[*space]string) (Change, bool) {
	c := Change{Event: x.event, Path: x.path, From: x.from, Dir: x.dir, Time: time.Unix(0, x.time)}
	if x.s == h.home {
		clear(names) // spaces came, went or have other names
	} else {
		name, ok := names[x.s]
		if !ok {
			var err error
			if name, err = h.nameOf(x.s); err != nil {
				return c, false // it is gone
			}
			names[x.s] = name
		}
		c.Path = name + "/" + c.Path
		if c.From != "" {
			c.From = name + "/" + c.From
		}
	}
	if x.device == (dag.PublicKey{}) {
		if heads, err := x.s.graph.HeadsOf(x.object); err == nil && len(heads) > 0 {
			if e, err := x.s.graph.Change(heads[len(heads)-1]); err == nil {
				x.device = e.Batch.Device
			}
		}
	}
	c.Local = x.device == h.keys.Author().Device
	c.Device, _ = x.s.acl.DeviceName(x.device)
	return c, true
}

// tell hands a change to who watches. It never waits.
func (w *watchers) tell(x happening) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		if one.lost.Load() {
			continue
		}
		select {
		case one.queue <- x:
		default:
			one.lost.Store(true)
		}
	}
}

// watched reports whether anybody watches.
func (s *space) watched() bool { return s.h.watch.count.Load() > 0 }

// happened tells of a change that this device made. Under mu.
func (s *space) happened(event string, at, from named, dir bool) {
	if !s.watched() {
		return
	}
	x := happening{s: s, event: event, dir: dir, device: s.h.keys.Author().Device, time: s.h.now()}
	var err error
	if x.path, err = s.pathOf(at); err != nil {
		return // it is in what is being removed
	}
	if from.name != "" {
		if x.from, err = s.pathOf(from); err != nil {
			return
		}
	}
	s.h.watch.tell(x)
}

// renamed tells of a rename. Under mu, after it.
func (s *space) renamed(r *renameRecord) {
	if !s.watched() {
		return
	}
	a, b := named{0, r.Parent, r.Name}, named{0, r.NewParent, r.NewName}
	is := func(at named) (dir bool) {
		e, _, err := s.lookup(at.dir, at.name)
		return err == nil && e != nil && e.Type == syscall.S_IFDIR
	}
	s.happened(EventRenamed, b, a, is(b))
	if r.Exchange {
		s.happened(EventRenamed, a, b, is(a))
	}
}

// maxWatchedNames is of how many of its names a file is told to have changed.
const maxWatchedNames = 16

// changedNames tells that an inode changed. Under mu.
func (s *space) changedNames(n *index.Inode, x happening) {
	if s == s.h.home {
		return // of a space there is a name alone
	}
	x.s, x.event, x.dir, x.object = s, EventChanged, n.IsDir(), n.Object
	for i := range n.Links[:min(len(n.Links), maxWatchedNames)] {
		path, err := s.pathOf(named{n.Ino, n.Links[i].Parent, n.Links[i].Name})
		if err == nil {
			x.path = path
			s.h.watch.tell(x)
		}
	}
}

// publishedChanges tells of the content and attributes that a publication had. Under mu.
func (s *space) publishedChanges(rec *publishedRecord) {
	if !s.watched() {
		return
	}
	for i := range rec.Changes {
		p := &rec.Changes[i]
		if p.Change.IsZero() || p.Content < 0 && (len(p.Links) > 0 || p.Gone > 0) {
			continue // names alone
		}
		if n, err := s.ix.Inode(p.Ino); err == nil && n != nil {
			s.changedNames(n, happening{device: s.h.keys.Author().Device, time: s.h.now()})
		}
	}
}

// arrivalWatch compares what was before a round of arrival with what is after it.
type arrivalWatch struct {
	a    *arrival
	gone []lostName       // in the order in which they go
	of   map[dag.ID][]int // which of these are an object's
	was  map[uint64]*index.Inode
}

// lostName is a name that an object loses.
type lostName struct {
	object dag.ID
	path   string
	at     named
	dir    bool
	used   bool // the object has another instead
}

// watchBefore notes what is to change. Nil where nobody watches. Under mu, as what follows.
func (a *arrival) watchBefore() *arrivalWatch {
	if !a.s.watched() {
		return nil
	}
	w := &arrivalWatch{a: a, of: map[dag.ID][]int{}, was: map[uint64]*index.Inode{}}
	for _, d := range a.rec.Drop {
		n, err := a.s.ix.Inode(d.Ino)
		if err != nil || n == nil {
			continue
		}
		at := named{d.Ino, d.Dir, d.Name}
		if path, err := a.s.pathOf(at); err == nil {
			w.of[n.Object] = append(w.of[n.Object], len(w.gone))
			w.gone = append(w.gone, lostName{object: n.Object, path: path, at: at, dir: n.IsDir()})
		}
	}
	for _, ino := range a.rec.Inos {
		if n, err := a.s.ix.Inode(ino); err == nil && n != nil {
			w.was[ino] = n
		}
	}
	return w
}

// tell tells of what the round did.
func (w *arrivalWatch) tell() {
	if w == nil {
		return
	}
	s := w.a.s
	told := map[uint64]bool{} // inodes that were told of
	for _, d := range w.a.rec.Add {
		n, err := s.ix.Inode(d.Ino)
		if err != nil || n == nil {
			continue
		}
		at := named{d.Ino, d.Dir, d.Name}
		x := happening{s: s, event: EventCreated, dir: n.IsDir(), object: n.Object, time: w.a.now}
		if x.path, err = s.pathOf(at); err != nil {
			continue
		}
		from := -1
		for _, i := range w.of[n.Object] {
			switch old := &w.gone[i]; {
			case old.used:
			case old.at.dir == d.Dir && old.at.name == d.Name:
				from, x.event = i, EventChanged
			case from < 0:
				from, x.event = i, EventRenamed
			}
		}
		if from >= 0 {
			w.gone[from].used = true
			if x.event == EventRenamed {
				x.from = w.gone[from].path
			}
		}
		w.author(&x, n, at)
		told[d.Ino] = true
		s.h.watch.tell(x)
	}
	// What is in a directory before the directory.
	slices.SortStableFunc(w.gone, func(x, y lostName) int { return strings.Count(y.path, "/") - strings.Count(x.path, "/") })
	for _, g := range w.gone {
		if !g.used {
			x := happening{s: s, event: EventRemoved, path: g.path, dir: g.dir, object: g.object, time: w.a.now}
			w.author(&x, nil, g.at)
			s.h.watch.tell(x)
		}
	}
	for _, ino := range w.a.rec.Inos {
		old := w.was[ino]
		n, err := s.ix.Inode(ino)
		if old == nil || err != nil || n == nil || told[ino] || !differs(old, n) {
			continue
		}
		x := happening{object: n.Object, time: w.a.now}
		x.event = EventChanged
		w.author(&x, n, named{})
		s.changedNames(n, x)
	}
}

// author finds who made a change, and when, as far as the object's state says so.
func (w *arrivalWatch) author(x *happening, n *index.Inode, at named) {
	st, err := w.a.t.State(x.object)
	if err != nil || st == nil {
		return
	}
	x.time = st.Time
	switch x.event {
	case EventRemoved:
		var top dag.Pos
		for i := range st.Links {
			if m := &st.Links[i].Mark; st.Links[i].Removed && m.Pos.Compare(top) >= 0 {
				x.device, x.time, top = m.Device, m.Time, m.Pos
			}
		}
	case EventChanged:
		if v := st.View(); st.Kind == tree.KindFile && v.Main.Pos == st.Top {
			x.device, x.time = v.Main.Device, v.Main.Time
		}
	default:
		for i := range n.Links {
			if n.Links[i].Parent != at.dir || n.Links[i].Name != at.name {
				continue
			}
			for k := range st.Links {
				if st.Links[k].ID == n.Links[i].ID {
					p := st.Links[k].Shown()
					x.device, x.time = p.Device, p.Time
				}
			}
		}
	}
}

// differs reports whether a file or directory is another one to who looks at it, but for its names and entries.
func differs(a, b *index.Inode) bool {
	if a.Mode != b.Mode || a.Owned != b.Owned || a.UID != b.UID || a.GID != b.GID || a.Size != b.Size || a.Target != b.Target ||
		len(a.Xattrs) != len(b.Xattrs) || len(a.Contents) != len(b.Contents) || !a.IsDir() && a.Mtime != b.Mtime {
		return true
	}
	for i := range a.Xattrs {
		if a.Xattrs[i].Name != b.Xattrs[i].Name || string(a.Xattrs[i].Value) != string(b.Xattrs[i].Value) {
			return true
		}
	}
	for i := range a.Contents {
		if a.Contents[i] != b.Contents[i] {
			return true
		}
	}
	return false
}
