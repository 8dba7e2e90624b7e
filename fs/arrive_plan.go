package fs

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// arrival is one round: what the index shows is held against the tree, name by name, and what differs is changed. Under pubMu and
// mu.
//
// A name waits while something here that concerns it is not published: an entry that was made, moved or removed, or an inode that
// was changed. A directory that goes waits until nothing is in it.
type arrival struct {
	s   *space
	t   *tree.Tree
	st  *tree.MemStore
	now int64
	seq journal.Seq // what becomes dirty carries it

	work   []tree.DirName
	seen   map[tree.DirName]bool
	listed map[dag.ID]bool   // directories that were not shown so, and are looked at as a whole
	inos   map[dag.ID]uint64 // of objects that get an inode, or another one
	want   map[spot]*tree.Node
	order  []spot
	inodes map[uint64]*index.Inode // as they are to be
	fresh  map[uint64]bool         // of these, those that are not in the index
	size   int                     // about the bytes of the record
	next   uint64                  // inode number

	empty map[uint64]bool // directories that others take the place of
	stays map[uint64]bool // directories that can't move yet
	wait  map[tree.DirName]struct{}
	rec   arriveRecord
	out   []Event
}

// spot is a name in a directory of the index.
type spot struct {
	dir  uint64
	name string
}

// maxArrival is about how long the record of a round may get. A single change is below it.
const maxArrival = 2 << 20

// errWaits says that something has to be published first.
var errWaits = errors.New("fs: it waits for a publication")

// planArrival plans a round and carries it out. It returns what to tell the kernel once the record seq is written; more says that
// another round is due. published says that the round has published something itself, which is to stay.
func (s *space) planArrival(published bool) (events []Event, seq journal.Seq, more bool, err error) {
	in := &s.in
	a := &arrival{
		s: s, t: in.f.t, st: in.f.st, now: s.h.now(), seq: max(s.last, 1),
		seen: map[tree.DirName]bool{}, inos: map[dag.ID]uint64{}, want: map[spot]*tree.Node{},
		inodes: map[uint64]*index.Inode{}, fresh: map[uint64]bool{}, stays: map[uint64]bool{}, empty: map[uint64]bool{}, listed: map[dag.ID]bool{}, wait: map[tree.DirName]struct{}{}, next: s.nextIno,
	}
	for object := range in.objs {
		n, err := a.owner(object)
		if err == nil && n != nil {
			err = a.lookAtLinks(n)
		}
		if err != nil {
			return nil, 0, false, err
		}
	}
	names := append(a.work, in.sortedNames()...)
	a.work = nil
	done := 0
	for ; done < len(names) && a.size < maxArrival; done++ {
		a.work = append(a.work, names[done])
		if err := a.look(); err != nil {
			return nil, 0, false, err
		}
	}
	rest := names[done:]
	rest = append(rest, a.work...)
	if err := a.resolve(); err != nil {
		return nil, 0, false, err
	}
	root, err := a.root(in.root)
	if err != nil {
		return nil, 0, false, err
	}
	a.finish()
	if err := a.check(); err != nil {
		return nil, 0, false, err
	}
	if published || len(a.rec.Put)+len(a.rec.Drop)+len(a.rec.Add)+len(a.rec.Objs) > 0 {
		a.rec.Mark, a.rec.Time = uint64(s.log.Mark()), a.now
		w := s.record(recArrive)
		a.rec.encode(w)
		m, err := s.commit(w, true)
		if err != nil {
			return nil, 0, false, err
		}
		if err := s.applyArrive(m.seq, &a.rec); err != nil {
			return nil, 0, false, err
		}
		for ino := range a.inodes {
			if _, ok := s.orphaned[ino]; ok {
				s.reclaim(ino)
			}
		}
		seq, s.kept, s.keptBy = m.seq, a.rec.Mark, m.seq
	}
	in.later, in.root = a.wait, root
	clear(in.objs)
	for _, n := range rest {
		in.later[n] = struct{}{}
	}
	return a.out, seq, len(rest) > 0, nil
}

// root brings the attributes of the root up to date, where they are due. It returns whether they are still.
func (a *arrival) root(due bool) (bool, error) {
	if !due {
		return false, nil
	}
	st, err := a.t.State(a.t.Root())
	if err != nil || st == nil {
		return false, err
	}
	n, err := a.inode(rootDir)
	if err != nil || n.Dirty() {
		return true, err
	}
	return false, a.attributes(n, &tree.Node{Kind: tree.KindDir, Object: n.Object}, st)
}

// look finds what the names of the work list, and what they lead to, are to show. It ends early when there is too much.
func (a *arrival) look() error {
	for len(a.work) > 0 && a.size < maxArrival {
		at := a.work[len(a.work)-1]
		a.work = a.work[:len(a.work)-1]
		if a.seen[at] {
			continue
		}
		a.seen[at] = true
		dir, err := a.shown(at.Dir)
		if err != nil {
			return err
		}
		if dir == 0 {
			continue // when it comes, all that is in it does
		}
		if at.Name == "" {
			err = a.lookDir(at.Dir, dir)
		} else {
			err = a.lookName(at, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// shown gives the inode of a directory that is shown, or is to be; 0 for none.
func (a *arrival) shown(object dag.ID) (uint64, error) {
	if object == a.t.Root() {
		return rootDir, nil
	}
	if ino, ok := a.inos[object]; ok {
		return ino, nil
	}
	n, err := a.owner(object)
	if err != nil || n == nil || len(n.Links) == 0 || !n.IsDir() {
		return 0, err
	}
	return n.Ino, nil
}

// owner gives the inode that stands for an object in the index, nil for none.
func (a *arrival) owner(object dag.ID) (*index.Inode, error) {
	ino, err := a.s.ix.Object(object)
	if err != nil || ino == 0 {
		return nil, err
	}
	return a.s.ix.Inode(ino)
}

func (a *arrival) lookName(at tree.DirName, dir uint64) error {
	nodes, err := a.t.Group(at.Dir, at.Name)
	if err != nil {
		return err
	}
	a.wish(spot{dir, at.Name}, nil)
	for i := range nodes {
		if nodes[i].Loser == tree.ContentLoser {
			continue // it shows when it is a file of its own
		}
		if err := a.node(dir, &nodes[i]); err != nil {
			return err
		}
	}
	return a.lookAtOld(spot{dir, at.Name})
}

// lookDir looks at all that a directory shows, or is to.
func (a *arrival) lookDir(object dag.ID, dir uint64) error {
	if !a.fresh[dir] {
		if err := a.s.ix.Scan(dir, 0, func(_ uint64, e *index.Entry) bool {
			a.wish(spot{dir, e.Name}, nil)
			return true
		}); err != nil {
			return err
		}
	}
	nodes, err := a.t.List(object)
	if err != nil {
		return err
	}
	for i := range nodes {
		if nodes[i].Loser == tree.ContentLoser {
			continue
		}
		if err := a.node(dir, &nodes[i]); err != nil {
			return err
		}
	}
	for _, e := range slices.Clone(a.order) {
		if e.dir == dir {
			if err := a.lookAtOld(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// wish notes what a name is to show; a node counts more than none.
func (a *arrival) wish(e spot, n *tree.Node) {
	old, ok := a.want[e]
	if !ok {
		a.order = append(a.order, e)
		a.size += len(e.name) + 32
	}
	if !ok || n != nil || old == nil {
		a.want[e] = n
	}
}

// node notes an entry that is to be shown, and has what is in it looked at where it is a directory that was not shown so.
func (a *arrival) node(dir uint64, n *tree.Node) error {
	a.wish(spot{dir, n.Name}, n)
	a.size += 200
	if n.Kind != tree.KindDir {
		o, err := a.owner(n.Object)
		if err == nil && o != nil {
			err = a.lookAtLinks(o)
		}
		return err
	}
	ino, known, err := a.dirInode(dir, n)
	if err != nil {
		return err
	}
	if !a.fresh[ino] {
		o, err := a.s.inode(ino)
		if err == nil {
			err = a.lookAtLinks(o)
		}
		if err != nil {
			return err
		}
	}
	for _, d := range n.Dirs {
		if o, err := a.owner(d); err != nil {
			return err
		} else if o == nil || o.Ino != ino {
			known = false
			if o != nil && !a.fresh[o.Ino] && len(o.Links) > 0 {
				// Another inode stood for it: nothing is left there.
				a.empty[o.Ino] = true
				if err := a.s.ix.Scan(o.Ino, 0, func(_ uint64, e *index.Entry) bool {
					a.wish(spot{o.Ino, e.Name}, nil)
					return true
				}); err != nil {
					return err
				}
			}
		}
		a.inos[d] = ino
	}
	if !known && !a.listed[n.Object] {
		a.listed[n.Object] = true
		a.work = append(a.work, tree.DirName{Dir: n.Object})
		delete(a.seen, tree.DirName{Dir: n.Object})
	}
	return nil
}

// dirInode chooses the inode of a directory: the one that stands for any of its objects, and for no other entry.
func (a *arrival) dirInode(dir uint64, n *tree.Node) (ino uint64, known bool, err error) {
	if ino, ok := a.inos[n.Object]; ok {
		return ino, true, nil
	}
	for _, d := range n.Dirs {
		o, err := a.owner(d)
		if err != nil {
			return 0, false, err
		}
		if o != nil && slices.Contains(n.Dirs, o.Object) {
			return o.Ino, len(o.Links) > 0, nil
		}
	}
	ino = a.next
	a.next++
	a.fresh[ino] = true
	return ino, false, nil
}

// lookAtOld has the places looked at where what an entry shows now is to be: a name that goes and comes elsewhere is moved.
func (a *arrival) lookAtOld(at spot) error {
	if a.fresh[at.dir] {
		return nil
	}
	e, _, err := a.s.lookup(at.dir, at.name)
	if err != nil || e == nil {
		return err
	}
	n, err := a.s.inode(e.Ino)
	if err != nil {
		return err
	}
	if n.Object.IsZero() {
		return nil
	}
	if want := a.want[at]; want != nil && want.Object == n.Object {
		return nil
	}
	if n.IsDir() {
		o, err := a.st.Object(n.Object)
		if err == nil && o != nil && o.Claimed != nil {
			a.work = append(a.work, tree.DirName{Dir: o.Claimed.Parent, Name: o.Claimed.Name})
		}
		return err
	}
	st, err := a.t.State(n.Object)
	if err != nil || st == nil {
		return err
	}
	for _, l := range st.LiveLinks() {
		p := l.Shown()
		a.work = append(a.work, tree.DirName{Dir: p.Parent, Name: p.Name})
	}
	return nil
}

// lookAtLinks has the places looked at where an inode is shown now: it may be shown there no more.
func (a *arrival) lookAtLinks(n *index.Inode) error {
	for i := range n.Links {
		l := &n.Links[i]
		dir := a.t.Root()
		if l.Parent != rootDir {
			p, err := a.s.inode(l.Parent)
			if err != nil {
				return err
			}
			if dir = p.Object; dir.IsZero() {
				continue // it waits anyway
			}
		}
		a.work = append(a.work, tree.DirName{Dir: dir, Name: l.Name})
	}
	return nil
}

// inode gives the inode as it is to be, for changing.
func (a *arrival) inode(ino uint64) (*index.Inode, error) {
	if n, ok := a.inodes[ino]; ok {
		return n, nil
	}
	n, err := a.s.inode(ino)
	if err != nil {
		return nil, err
	}
	n = n.Clone()
	a.inodes[ino] = n
	return n, nil
}

// resolve turns wishes into changes: first what goes, the files before the directories and these from the bottom up, then what
// comes.
func (a *arrival) resolve() error {
	for at := range a.want {
		if a.empty[at.dir] {
			a.want[at] = nil
		}
	}
	waits, err := a.waiting()
	if err != nil {
		return err
	}
	for _, e := range a.order {
		if waits[e] {
			a.wait[a.treeName(e)] = struct{}{}
		}
	}
	var drops, stay []going
	var adds []spot
	for _, at := range a.order {
		if waits[at] {
			continue
		}
		e, err := a.entry(at)
		if err != nil {
			return err
		}
		want := a.want[at]
		if e != nil {
			same, err := a.same(e, at, want)
			if err != nil {
				return err
			}
			if same {
				stay = append(stay, going{at, e})
				continue
			}
			drops = append(drops, going{at, e})
		}
		if want != nil {
			adds = append(adds, at)
		}
	}
	kept, err := a.staying(drops, waits)
	if err != nil {
		return err
	}
	for _, d := range drops {
		if kept[d.at] {
			a.wait[a.treeName(d.at)] = struct{}{}
		} else if err := a.drop(d.at, d.e); err != nil {
			return err
		}
	}
	// Where a file gets another inode, that has the names which are left.
	for _, d := range stay {
		if err := a.renew(d.at, d.e.Ino, a.want[d.at]); errors.Is(err, errWaits) {
			a.wait[a.treeName(d.at)] = struct{}{}
		} else if err != nil {
			return err
		}
	}
	return a.addAll(slices.DeleteFunc(adds, func(at spot) bool {
		if n := a.want[at]; n.Kind == tree.KindDir && a.stays[a.inos[n.Object]] {
			a.wait[a.treeName(at)] = struct{}{}
			return true
		}
		return kept[at]
	}))
}

// going is an entry that is to go.
type going struct {
	at spot
	e  *index.Entry
}

// staying finds the entries of directories that can't go yet: of one that is removed and not empty, and of those whose move would
// put them below themselves, since another move of it is not published.
func (a *arrival) staying(drops []going, waits map[spot]bool) (map[spot]bool, error) {
	gone := map[uint64]int{}  // entries that directories lose
	to := map[uint64]uint64{} // the directories that get a place, and in which
	for _, at := range a.order {
		if n := a.want[at]; n != nil && n.Kind == tree.KindDir && !waits[at] {
			to[a.inos[n.Object]] = at.dir
		}
	}
	var dirs []going
	for _, d := range drops {
		gone[d.at.dir]++
		if d.e.Type == syscall.S_IFDIR {
			dirs = append(dirs, d)
		}
	}
	kept := map[spot]bool{}
	for changed := true; changed; { // one that stays may keep another there
		changed = false
		for _, d := range dirs {
			if kept[d.at] {
				continue
			}
			stays := false
			if _, moves := to[d.e.Ino]; moves {
				cycle, err := a.below(d.e.Ino, to)
				if err != nil {
					return nil, err
				}
				if stays = cycle; cycle {
					delete(to, d.e.Ino)
					a.stays[d.e.Ino] = true
				}
			} else {
				n, err := a.s.inode(d.e.Ino)
				if err != nil {
					return nil, err
				}
				if stays = int(n.Entries) > gone[n.Ino]; stays {
					a.wait[tree.DirName{Dir: n.Object}] = struct{}{}
				}
			}
			if stays {
				kept[d.at], changed = true, true
				gone[d.at.dir]--
			}
		}
	}
	return kept, nil
}

// below reports whether a directory would be below itself with the places that directories get.
func (a *arrival) below(dir uint64, to map[uint64]uint64) (bool, error) {
	at := dir
	for range maxDepth {
		next, ok := to[at]
		if !ok {
			n, err := a.s.ix.Inode(at)
			if err != nil {
				return false, err
			}
			if n == nil {
				return false, nil
			}
			next = n.Parent
		}
		switch at = next; at {
		case dir:
			return true, nil
		case rootDir, 0:
			return false, nil
		}
	}
	return true, nil
}

// addAll puts entries in, directories before what is in them. What is in one that can't come yet comes with it.
func (a *arrival) addAll(adds []spot) error {
	for len(adds) > 0 {
		var left []spot
		for _, at := range adds {
			if a.fresh[at.dir] && a.inodes[at.dir] == nil {
				left = append(left, at)
				continue
			}
			if err := a.add(at, a.want[at]); errors.Is(err, errWaits) {
				a.wait[a.treeName(at)] = struct{}{}
			} else if err != nil {
				return err
			}
		}
		if len(left) == len(adds) {
			return nil
		}
		adds = left
	}
	return nil
}

// treeName gives a name of the index as the tree knows it; for one that the tree lacks, the whole directory.
func (a *arrival) treeName(at spot) tree.DirName {
	object := a.t.Root()
	if at.dir != rootDir {
		n := a.inodes[at.dir]
		if n == nil {
			n, _ = a.s.ix.Inode(at.dir)
		}
		if n == nil {
			return tree.DirName{Dir: object}
		}
		object = n.Object
	}
	if n := a.want[at]; n != nil && n.Lost != "" {
		return tree.DirName{Dir: object, Name: n.Lost}
	}
	return tree.DirName{Dir: object, Name: at.name}
}

func (a *arrival) entry(at spot) (*index.Entry, error) {
	if a.fresh[at.dir] {
		return nil, nil
	}
	e, _, err := a.s.lookup(at.dir, at.name)
	return e, err
}

// waiting finds the names at which something is not published.
func (a *arrival) waiting() (map[spot]bool, error) {
	waits := map[spot]bool{}
	for _, at := range a.order {
		e, err := a.entry(at)
		if err != nil {
			return nil, err
		}
		if e != nil {
			n, err := a.s.inode(e.Ino)
			if err != nil {
				return nil, err
			}
			l := linkIn(n, at)
			if l == nil || l.ID.Change.IsZero() || l.Dirty != 0 {
				waits[at] = true
				continue
			}
			if want := a.want[at]; (want == nil || want.Object != n.Object) && a.busy(n) {
				waits[at] = true
				continue
			}
		}
		if want := a.want[at]; want != nil {
			n, err := a.owner(want.Object)
			if err != nil {
				return nil, err
			}
			if n == nil {
				continue
			}
			for i := range n.Gone {
				waits[at] = waits[at] || n.Gone[i].Link == want.Link
			}
			for i := range n.Links {
				waits[at] = waits[at] || n.Links[i].ID == want.Link && n.Links[i].Dirty != 0
			}
		}
	}
	return waits, nil
}

// busy reports whether an inode has changes that are not published, or is being written.
func (a *arrival) busy(n *index.Inode) bool {
	return n.Dirty() || a.s.streams[n.Ino] != nil
}

func linkIn(n *index.Inode, at spot) *index.Link {
	for i := range n.Links {
		if n.Links[i].Parent == at.dir && n.Links[i].Name == at.name {
			return &n.Links[i]
		}
	}
	return nil
}

// same reports whether an entry shows what it is to.
func (a *arrival) same(e *index.Entry, at spot, want *tree.Node) (bool, error) {
	if want == nil {
		return false, nil
	}
	n, err := a.s.inode(e.Ino)
	if err != nil {
		return false, err
	}
	if want.Kind == tree.KindDir {
		return a.inos[want.Object] == e.Ino, nil
	}
	l := linkIn(n, at)
	return n.Object == want.Object && l != nil && l.ID == want.Link, nil
}

// drop takes an entry away.
func (a *arrival) drop(at spot, e *index.Entry) error {
	n, err := a.inode(e.Ino)
	if err != nil {
		return err
	}
	a.rec.Drop = append(a.rec.Drop, entryAt{at.dir, at.name, e.Ino})
	n.Links = slices.DeleteFunc(n.Links, func(l index.Link) bool { return l.Parent == at.dir && l.Name == at.name })
	n.Ctime = changed(n.Ctime, a.now)
	a.tell(at, 0, false)
	return nil
}

func (a *arrival) tell(at spot, ino uint64, renewed bool) {
	e := Event{Parent: a.s.ino(at.dir), Name: at.name, Renewed: renewed}
	if ino != 0 {
		e.Inode = a.s.ino(ino)
	}
	a.out = append(a.out, e)
}

// add puts an entry in.
func (a *arrival) add(at spot, want *tree.Node) error {
	n, err := a.inodeFor(want)
	if err != nil {
		return err
	}
	link := index.Link{Key: max(n.NextKey, 1), Parent: at.dir, Name: at.name}
	n.NextKey = link.Key + 1
	link.ID = want.Link
	n.Links = append(n.Links, link)
	if err := a.placements(n, want); err != nil {
		return err
	}
	n.Parent = at.dir
	a.rec.Add = append(a.rec.Add, entryAt{at.dir, at.name, n.Ino})
	a.tell(at, n.Ino, false)
	return nil
}

// inodeFor gives the inode of a node, as it is to be.
func (a *arrival) inodeFor(want *tree.Node) (*index.Inode, error) {
	st, err := a.t.State(want.Object)
	if err != nil {
		return nil, err
	}
	if ino, ok := a.inos[want.Object]; ok {
		if a.fresh[ino] && a.inodes[ino] == nil {
			return a.make(ino, want, st)
		}
		n, err := a.inode(ino)
		if err == nil {
			err = a.attributes(n, want, st)
		}
		return n, err
	}
	if n, err := a.owner(want.Object); err != nil {
		return nil, err
	} else if n != nil && n.Object == want.Object {
		n, err := a.version(n.Ino, want, st)
		if err == nil {
			a.inos[want.Object] = n.Ino
		}
		return n, err
	}
	n, err := a.make(a.number(), want, st)
	if err == nil {
		a.inos[want.Object] = n.Ino
	}
	return n, err
}

func (a *arrival) number() uint64 {
	ino := a.next
	a.next++
	a.fresh[ino] = true
	return ino
}

// make makes the inode of a node.
func (a *arrival) make(ino uint64, want *tree.Node, st *tree.State) (*index.Inode, error) {
	n := &index.Inode{Ino: ino, Mode: st.Kind.Type(), Rdev: st.Rdev, Target: st.Target, Btime: st.Born, Object: want.Object}
	if len(st.Links) > 1 {
		n.NextKey = revivedKey // it had other links
	}
	setAttributes(n, st)
	switch n.Type() {
	case syscall.S_IFREG:
		if err := a.content(n, want, st); err != nil {
			return nil, err
		}
	case syscall.S_IFLNK:
		n.Size = int64(len(n.Target))
	}
	n.Ctime = max(n.Ctime, n.Mtime)
	a.inodes[ino], a.fresh[ino] = n, true
	return n, nil
}

// renew brings an inode that keeps its place up to date.
func (a *arrival) renew(at spot, ino uint64, want *tree.Node) error {
	st, err := a.t.State(want.Object)
	if err != nil {
		return err
	}
	old, err := a.s.inode(ino)
	if err != nil {
		return err
	}
	if a.inodes[ino] == nil && a.busy(old) {
		return errWaits
	}
	n, err := a.version(ino, want, st)
	if err != nil {
		return err
	}
	if n.Ino != ino {
		a.inos[want.Object] = n.Ino
		a.tell(at, ino, true)
		return nil
	}
	return a.placements(n, want)
}

// placements notes the placements of an inode's links, and of the directories behind it.
func (a *arrival) placements(n *index.Inode, want *tree.Node) error {
	st, err := a.t.State(want.Object)
	if err != nil {
		return err
	}
	n.Also = nil
	for i := range n.Links {
		l := &n.Links[i]
		k := slices.IndexFunc(st.Links, func(k tree.Link) bool { return k.ID == l.ID })
		if k < 0 {
			continue
		}
		values := st.Links[k].Values
		l.Val = values[len(values)-1].Ref
		if len(values) > 1 {
			n.Also = append(n.Also, also(n.Object, &st.Links[k], len(values)-1))
		}
	}
	for _, d := range want.Dirs {
		if d == n.Object {
			continue
		}
		st, err := a.t.State(d)
		if err != nil {
			return err
		}
		if st != nil && len(st.Links) > 0 {
			n.Also = append(n.Also, also(d, &st.Links[0], len(st.Links[0].Values)))
		}
	}
	return nil
}

// also names the first placements of a link.
func also(object dag.ID, l *tree.Link, count int) index.Also {
	out := index.Also{Object: object, Link: l.ID}
	for i := range count {
		out.Over = append(out.Over, l.Values[i].Ref)
	}
	return out
}

// version gives the inode of an object as the tree has it now: the one that there is, or where its content became another and the
// kernel knows it, one that takes its place. The content of an inode that is open never changes behind the kernel's back.
func (a *arrival) version(ino uint64, want *tree.Node, st *tree.State) (*index.Inode, error) {
	if now, ok := a.inos[want.Object]; ok && a.inodes[now] != nil {
		return a.inodes[now], nil // by another of its names
	}
	n, err := a.s.inode(ino)
	if err != nil {
		return nil, err
	}
	if a.busy(n) {
		return nil, errWaits
	}
	v := st.View()
	if !n.IsRegular() || shows(n, &v) {
		n, err = a.inode(ino)
		if err == nil {
			err = a.attributes(n, want, st)
		}
		return n, err
	}
	if a.s.refs[ino] == 0 {
		if n, err = a.inode(ino); err != nil {
			return nil, err
		}
		setAttributes(n, st)
		n.Base, n.BaseAt, n.Cuts, n.Ext, n.Patched, n.Size, n.Contents = nil, tree.Ref{}, nil, nil, index.Patched{}, 0, nil
		n.Ctime = changed(n.Ctime, a.now)
		return n, a.content(n, want, st)
	}
	old, err := a.inode(ino)
	if err != nil {
		return nil, err
	}
	m, err := a.make(a.number(), want, st)
	if err != nil {
		return nil, err
	}
	m.Links, m.NextKey, m.Btime, m.Ctime = old.Links, old.NextKey, old.Btime, a.now
	for _, l := range old.Links {
		a.rec.Drop = append(a.rec.Drop, entryAt{l.Parent, l.Name, old.Ino})
		a.rec.Add = append(a.rec.Add, entryAt{l.Parent, l.Name, m.Ino})
		a.tell(spot{l.Parent, l.Name}, old.Ino, true)
	}
	old.Links = nil
	a.inos[want.Object] = m.Ino
	return m, nil
}

// shows reports whether the content of an inode stands for the values that a view of its object has.
func shows(n *index.Inode, v *tree.View) bool {
	refs := slices.Clone(v.Behind)
	for _, l := range v.Losers {
		refs = append(refs, l.Ref)
		refs = append(refs, v.Equals[l.Ref]...)
	}
	have := slices.Clone(n.Contents)
	slices.SortFunc(refs, tree.Ref.Compare)
	slices.SortFunc(have, tree.Ref.Compare)
	return slices.Equal(slices.Compact(refs), slices.Compact(have))
}

// attributes brings those of an inode up to date, which has nothing to publish.
func (a *arrival) attributes(n *index.Inode, want *tree.Node, st *tree.State) error {
	if n.IsDir() {
		n.Object = want.Object
	}
	c := n.Clone()
	setAttributes(c, st)
	if n.IsRegular() {
		c.Mtime = st.View().Mtime
	}
	if n.IsDir() && !st.MtimeSet {
		c.Mtime = n.Mtime // of its entries, which is local
	}
	same := c.Mode == n.Mode && c.Owned == n.Owned && c.UID == n.UID && c.GID == n.GID && c.Mtime == n.Mtime && st.Target == n.Target &&
		slices.EqualFunc(c.Xattrs, n.Xattrs, func(x, y index.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
	if same {
		return nil
	}
	n.Mode, n.Owned, n.UID, n.GID, n.Xattrs = c.Mode, c.Owned, c.UID, c.GID, c.Xattrs
	n.Mtime, n.Ctime = c.Mtime, changed(n.Ctime, a.now)
	if n.Target != st.Target {
		n.Target, n.Size = st.Target, int64(len(st.Target))
	}
	a.out = append(a.out, Event{Inode: a.s.ino(n.Ino)})
	return nil
}

// content gives a file what its node shows.
func (a *arrival) content(n *index.Inode, want *tree.Node, st *tree.State) error {
	b := rebuilder{s: a.s, seq: a.seq}
	if err := b.content(n, want, st); err != nil {
		return err
	}
	a.s.wantContent(n.Base)
	return nil
}

// finish writes down what became of the inodes.
func (a *arrival) finish() {
	for _, ino := range slices.Sorted(maps.Keys(a.inodes)) {
		n := a.inodes[ino]
		if !a.fresh[ino] {
			old, err := a.s.ix.Inode(ino)
			if err == nil && old != nil {
				if len(n.Links) == 0 && len(old.Links) > 0 && ino != rootDir {
					a.gone(old)
				}
				if bytes.Equal(index.AppendInode(nil, old), index.AppendInode(nil, n)) {
					continue
				}
			}
		}
		a.rec.Inos = append(a.rec.Inos, ino)
		a.rec.Put = append(a.rec.Put, index.AppendInode(nil, n))
	}
	for _, object := range slices.SortedFunc(maps.Keys(a.inos), dag.ID.Compare) {
		ino := a.inos[object]
		if n := a.inodes[ino]; n == nil && a.fresh[ino] {
			continue // it could not be brought in yet
		}
		if old, err := a.s.ix.Object(object); err == nil && old == ino {
			continue
		}
		a.rec.Objs = append(a.rec.Objs, objectAt{object, ino})
	}
}

// check fails for a record that can't be applied: what is wrong is wrong before it is written.
func (a *arrival) check() error {
	dropped := map[spot]bool{}
	for _, d := range a.rec.Drop {
		at := spot{d.Dir, d.Name}
		e, err := a.entry(at)
		if err != nil {
			return err
		}
		if e == nil || e.Ino != d.Ino || dropped[at] {
			return fmt.Errorf("%w: an entry of directory %d goes that is not there", errPlan, d.Dir)
		}
		dropped[at] = true
	}
	added := map[spot]bool{}
	for _, d := range a.rec.Add {
		at := spot{d.Dir, d.Name}
		e, err := a.entry(at)
		if err != nil {
			return err
		}
		if added[at] || e != nil && !dropped[at] {
			return fmt.Errorf("%w: an entry of directory %d comes twice", errPlan, d.Dir)
		}
		if a.inodes[d.Ino] == nil {
			return fmt.Errorf("%w: an entry of directory %d has no inode", errPlan, d.Dir)
		}
		added[at] = true
	}
	return nil
}

// errPlan is a fault of the plan of an arrival.
var errPlan = errors.New("fs: what came can't be brought in")

// gone notes that an object has no name any more, where that is so.
func (a *arrival) gone(old *index.Inode) {
	st, err := a.t.State(old.Object)
	if err != nil || st == nil || len(st.LiveLinks()) > 0 {
		return
	}
	for _, l := range old.Links {
		t := a.now
		for i := range st.Links {
			if st.Links[i].ID == l.ID && st.Links[i].Removed {
				t = st.Links[i].Mark.Time
			}
		}
		a.rec.Gone = append(a.rec.Gone, goneAt{trashRemoved, entryAt{l.Parent, l.Name, old.Ino}, t})
	}
}
