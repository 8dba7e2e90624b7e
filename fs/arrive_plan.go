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
	st  tree.Store
	now int64
	seq journal.Seq // what becomes dirty carries it

	work   []tree.DirName
	seen   map[tree.DirName]bool
	listed map[dag.ID]bool   // directories that were not shown so, and are looked at as a whole
	inos   map[dag.ID]uint64 // of objects that get an inode, or another one
	want   map[spot]*tree.Node
	order  []spot
	shows  map[spot]*index.Entry   // what the index shows at a name, which the round does not change before the end
	inodes map[uint64]*index.Inode // as they are to be
	fresh  map[uint64]bool         // of these, those that are not in the index
	size   int                     // about the bytes of the record
	next   uint64                  // inode number

	empty map[uint64]bool // directories that others take the place of
	stays map[uint64]bool // directories that can't move yet
	wait  map[tree.DirName]struct{}
	deals map[dag.ID]bool // unpublishedNames; nil: not looked up yet
	leave map[spot]bool   // what is ignored here, and nobody else has a say in
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
	in.st.held = true
	defer func() { in.st.held = false }()
	names := in.sortedNames()
	n := min(len(names), foldChanges) // most names are of one object, in a round that takes much in
	a := &arrival{
		s: s, t: in.t, st: in.st, now: s.h.now(), seq: max(s.last, 1),
		seen: make(map[tree.DirName]bool, n), inos: make(map[dag.ID]uint64, n), want: make(map[spot]*tree.Node, n), shows: map[spot]*index.Entry{},
		inodes: make(map[uint64]*index.Inode, n), fresh: make(map[uint64]bool, n), stays: map[uint64]bool{}, empty: map[uint64]bool{}, listed: map[dag.ID]bool{}, wait: map[tree.DirName]struct{}{}, leave: map[spot]bool{}, next: s.nextIno,
	}
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
		watched := a.watchBefore()
		if err := s.applyArrive(m.seq, &a.rec, a.inodes); err != nil {
			return nil, 0, false, err
		}
		watched.tell()
		for ino := range a.inodes {
			if _, ok := s.orphaned[ino]; ok {
				s.reclaim(ino)
			}
		}
		seq, s.kept, s.keptBy = m.seq, a.rec.Mark, m.seq
	}
	more = false
	for _, n := range rest {
		if n.Name != "" && a.whole(n.Dir) && a.inodes[a.inos[n.Dir]] != nil {
			continue // it came with its directory
		}
		a.wait[n] = struct{}{}
		more = true
	}
	in.looked(a.wait)
	in.lookAtRoot(root)
	return a.out, seq, more, nil
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
		if waits[e] && !a.leave[e] {
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
// put them below themselves or into one that is not shown, since another move is not published.
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
				placed, err := a.placed(to[d.e.Ino], to)
				if err != nil {
					return nil, err
				}
				if stays = cycle || !placed; stays {
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
				// The one that is to have its name waits too, where it is.
				if n := a.want[d.at]; n != nil && n.Kind == tree.KindDir && to[a.inos[n.Object]] == d.at.dir {
					delete(to, a.inos[n.Object])
				}
			}
		}
	}
	return kept, nil
}

// placed reports whether a directory is shown with the places that directories get.
func (a *arrival) placed(dir uint64, to map[uint64]uint64) (bool, error) {
	for range maxDepth {
		next, ok := to[dir]
		if !ok {
			return a.hasPlace(dir)
		}
		if dir = next; dir == rootDir {
			return true, nil
		}
	}
	return false, nil
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
			shown, err := a.hasPlace(at.dir)
			if err != nil {
				return err
			}
			if !shown {
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
			return a.lookLater(left)
		}
		adds = left
	}
	return nil
}

// lookLater has names looked at again that could not be put in: the directory that they are in may be another one then.
func (a *arrival) lookLater(names []spot) error {
	for _, at := range names {
		n := a.want[at]
		st, err := a.t.State(n.Object)
		if err != nil {
			return err
		}
		if st == nil {
			continue
		}
		for _, l := range st.LiveLinks() {
			if l.ID == n.Link {
				p := l.Shown()
				a.wait[tree.DirName{Dir: p.Parent, Name: p.Name}] = struct{}{}
			}
		}
	}
	return nil
}

// hasPlace reports whether a directory is shown as the round has it so far: one that is removed here is not, while its way back waits.
func (a *arrival) hasPlace(dir uint64) (bool, error) {
	if dir == rootDir {
		return true, nil
	}
	n := a.inodes[dir]
	if n == nil && !a.fresh[dir] {
		var err error
		if n, err = a.s.inode(dir); err != nil {
			return false, err
		}
	}
	return n != nil && len(n.Links) > 0, nil
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
	if e, ok := a.shows[at]; ok {
		return e, nil
	}
	e, _, err := a.s.lookup(at.dir, at.name)
	if err == nil {
		a.shows[at] = e
	}
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
				if want := a.want[at]; !a.s.isIgnoredInode(n.Ino) {
					continue
				} else if want == nil {
					a.leave[at] = true
				} else {
					a.s.in.blocked = append(a.s.in.blocked, blockedSpot{at, want.Kind == tree.KindDir})
				}
				continue
			}
			// An entry of what has something to publish does not go, not even for another link of the same object: without a name, and
			// with nobody who has it open, the inode would be reclaimed.
			if a.busy(n) {
				same, err := a.same(e, at, a.want[at])
				if err != nil {
					return nil, err
				}
				if !same {
					waits[at] = true
					continue
				}
			}
		}
		if want := a.want[at]; want != nil {
			dealing, err := a.dealing(want)
			if err != nil {
				return nil, err
			}
			if dealing {
				waits[at] = true
				continue
			}
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

// dealing reports whether a node is a conflict copy that a person has just removed or moved, by the same object or by a twin that this
// device made, and the publication of that will say so.
func (a *arrival) dealing(want *tree.Node) (bool, error) {
	if want.Kind == tree.KindDir {
		return false, nil
	}
	twins, err := a.t.Twins(want.Object)
	if err != nil || len(twins) == 0 {
		return false, err
	}
	if a.deals == nil {
		if a.deals, err = a.s.unpublishedNames(); err != nil {
			return false, err
		}
	}
	return slices.ContainsFunc(twins, func(id dag.ID) bool { return a.deals[id] }), nil
}

// unpublishedNames gives the objects of which a name was removed or moved here, and that is not published. It looks at what was touched
// since it looked last, and what it found then: an import has much that is dirty. Under mu.
func (s *space) unpublishedNames() (map[dag.ID]bool, error) {
	out := map[dag.ID]bool{}
	for ino := range s.touched {
		n, err := s.ix.Inode(ino)
		if err != nil {
			return nil, s.damaged(err)
		}
		if n == nil || s.isIgnoredInode(ino) {
			continue
		}
		if !renamed(n) {
			delete(s.touched, ino)
			continue
		}
		for i := range n.Gone {
			out[n.Gone[i].Object] = true
		}
		if slices.ContainsFunc(n.Links, movedLink) {
			out[n.Object] = true
		}
	}
	return out, nil
}

func renamed(n *index.Inode) bool { return len(n.Gone) > 0 || slices.ContainsFunc(n.Links, movedLink) }

// movedLink reports whether a link that is published was moved, and that is not.
func movedLink(l index.Link) bool { return l.Dirty != 0 && !l.ID.Change.IsZero() }

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
	a.tell(at, 0, EventGone, n.IsDir())
	if !n.IsDir() && (len(n.Links) > 0 || a.s.refs[n.Ino] > 0) {
		a.out = append(a.out, Event{Inode: a.s.ino(n.Ino)}) // one link less
	}
	return nil
}

// tell notes an event of a name. What was written is another version of a file, which the kernel is to get anew.
func (a *arrival) tell(at spot, ino uint64, kind EventKind, dir bool) {
	e := Event{Parent: a.s.ino(at.dir), Name: at.name, Renewed: kind == EventWritten, Kind: kind, Dir: dir}
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
	a.tell(at, n.Ino, EventMade, n.IsDir())
	return nil
}

// finish writes down what became of the inodes.
func (a *arrival) finish() {
	var now, was []byte
	for _, ino := range slices.Sorted(maps.Keys(a.inodes)) {
		n := a.inodes[ino]
		now = index.AppendInode(now[:0], n)
		if !a.fresh[ino] {
			old, err := a.s.ix.Inode(ino)
			if err == nil && old != nil {
				if was = index.AppendInode(was[:0], old); bytes.Equal(was, now) {
					continue
				}
			}
		}
		a.rec.Inos = append(a.rec.Inos, ino)
		a.rec.Put = append(a.rec.Put, bytes.Clone(now))
	}
	for _, object := range slices.SortedFunc(maps.Keys(a.inos), dag.ID.Compare) {
		ino := a.inos[object]
		if n := a.inodes[ino]; n == nil && a.fresh[ino] {
			continue // it could not be brought in yet
		}
		if old, err := a.s.ix.Object(object); err == nil && (old == ino || old != 0 && a.holds(old, object)) {
			continue
		}
		a.rec.Objs = append(a.rec.Objs, objectAt{object, ino})
	}
}

// holds reports whether an inode stands for an object still, and is shown: something in it waits.
func (a *arrival) holds(ino uint64, object dag.ID) bool {
	n := a.inodes[ino]
	if n == nil {
		n, _ = a.s.ix.Inode(ino)
	}
	return n != nil && n.IsDir() && n.Object == object && len(n.Links) > 0
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
	added := make(map[spot]bool, len(a.rec.Add))
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
