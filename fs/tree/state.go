package tree

import (
	"errors"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Limits of a state. What an operation would put beyond them is left out, by the same rule everywhere.
const (
	maxLinks      = 1 << 16   // links of an object; further ones are void
	maxRemoved    = 64        // removed links that are kept; the lowest goes
	maxPlacements = 64        // unreplaced placements of a link; the lowest counts as replaced
	maxXattrs     = 1024      // attributes of an object
	maxXattrBytes = 256 << 10 // of their names and values together
)

// ErrOrder is returned by Apply for a change that is not above all that the state holds: the object has to be folded again.
var ErrOrder = errors.New("tree: the change is not the highest")

// State is one object as the fold of its changes in total order.
//
// The zero fields of a new State are those of an object without changes. A state is changed by Apply alone; Clone keeps an
// older one.
type State struct {
	Object  dag.ID
	Kind    Kind    // KindNone until the root is applied, or where the root is no payload
	Unknown bool    // an operation that this version must understand and does not: the object is read-only
	Top     dag.Pos // of the highest change applied
	Birth   dag.Pos // of the root; zero for the root directory of a space
	Born    int64   // the root's time
	Time    int64   // the highest change's time

	ModeSet, Owned bool
	Mode           uint32 // permission bits
	UID, GID       uint32
	MtimeSet       bool // someone set Mtime after the last content operation
	Mtime          int64
	Target         string
	Rdev           uint32
	Xattrs         map[string][]byte
	Links          []Link // in total order of their creation

	values []*value // content values in total order, candidates and replaced ones
}

// Placement is one value of a link's register: where it is.
type Placement struct {
	Ref    Ref
	Pos    dag.Pos
	Device dag.PublicKey
	Time   int64
	Parent dag.ID
	Name   string
}

// Link is a name of an object.
type Link struct {
	ID     Ref
	Values []Placement // the placements that nothing replaced, in total order; the last is the shown one; never empty
	// Removed: the link carries a mark that saw all of Values. Missed: there is or was content that no such mark saw.
	Removed, Missed bool
	Mark            Mark // the highest such mark
}

// Mark is who removed a link, and when.
type Mark struct {
	Ref    Ref
	Pos    dag.Pos
	Device dag.PublicKey
	Time   int64
}

// Shown returns the placement that counts.
func (l *Link) Shown() *Placement { return &l.Values[len(l.Values)-1] }

// NewState returns the state of an object without changes.
func NewState(object dag.ID) *State { return &State{Object: object} }

// NewRootState returns the state of a space's root directory without changes.
func NewRootState(space dag.ID) *State { return &State{Object: RootObject(space), Kind: KindDir} }

// Apply adds a change that is above all others of the object, else it returns ErrOrder. A nil payload is one that does
// not open or parse: an empty operation. The state keeps slices of the payload, which must not change any more.
func (s *State) Apply(at Stamp, p *Payload) error {
	if at.Pos.Compare(s.Top) <= 0 {
		return ErrOrder
	}
	s.Top = at.Pos
	if p == nil {
		return nil
	}
	if at.ID == s.Object && s.Kind == KindNone && s.Birth == (dag.Pos{}) {
		s.Kind, s.Birth, s.Born = p.Kind, at.Pos, p.Time
	}
	if p.Future {
		s.Unknown = true
	}
	if s.Kind == KindNone {
		return nil
	}
	s.Time = p.Time
	f := fold{s: s, at: at, time: p.Time}
	for i := range p.Ops {
		f.place = uint32(i)
		f.apply(&p.Ops[i])
	}
	f.links.done(s)
	return nil
}

// fold is one change on its way into a state. It may hold thousands of operations on an object with thousands of links: what
// they look for is not searched each time.
type fold struct {
	s     *State
	at    Stamp
	time  int64
	place uint32
	links linkIndex

	ownXattrs  bool // the map of the state is a copy of this change's own
	xattrBytes int  // of its names and values, where it is
}

func (f *fold) ref() Ref { return Ref{f.at.ID, f.place} }

func (f *fold) apply(o *Op) {
	s := f.s
	switch o.Kind {
	case OpLink:
		f.link(o)
	case OpMove:
		f.move(o)
	case OpUnlink:
		f.unlink(o)
	case OpContent:
		f.content(o)
	case OpDrop:
		f.drop(o)
	case OpMode:
		s.ModeSet, s.Mode = true, o.Mode
	case OpMtime:
		s.MtimeSet, s.Mtime = true, o.Mtime
	case OpOwner:
		s.Owned, s.UID, s.GID = true, o.UID, o.GID
	case OpTarget:
		if s.Kind == KindSymlink {
			s.Target = o.Target
		}
	case OpRdev:
		if s.Kind == KindChar || s.Kind == KindBlock {
			s.Rdev = o.Rdev
		}
	case OpXattr:
		f.xattr(o)
	default:
		if o.Kind.MustUnderstand() {
			s.Unknown = true
		}
	}
}

// canLink says whether a change may give the object one more link. A directory has one, made by its root; the root
// directory of a space none.
func (f *fold) canLink() bool {
	if f.s.Kind == KindDir {
		return len(f.s.Links) == 0 && f.at.ID == f.s.Object
	}
	return len(f.s.Links)-f.links.gone < maxLinks
}

func (f *fold) placement(o *Op) Placement {
	return Placement{f.ref(), f.at.Pos, f.at.Device, f.time, o.Parent, o.Name}
}

func (f *fold) link(o *Op) {
	if f.canLink() {
		f.s.Links = append(f.s.Links, Link{ID: f.ref(), Values: []Placement{f.placement(o)}})
		f.links.added(f.s)
	}
}

// linkAt returns the link with the id, or nil.
func (s *State) linkAt(id Ref) *Link {
	for i := range s.Links {
		if s.Links[i].ID == id {
			return &s.Links[i]
		}
	}
	return nil
}

func (f *fold) move(o *Op) {
	i := f.links.find(f.s, o.Link)
	if i < 0 {
		return
	}
	l := &f.s.Links[i]
	kept := make([]Placement, 0, len(l.Values)+1)
	for _, v := range l.Values {
		if !slices.Contains(o.Over, v.Ref) {
			kept = append(kept, v)
		}
	}
	if len(kept) == maxPlacements {
		kept = kept[1:]
	}
	l.Values = append(kept, f.placement(o))
	l.Removed, l.Missed, l.Mark = false, false, Mark{}
	f.links.mark(f.s, i)
}

// unlink marks a link removed when the mark saw all its placements. What content it did not see is noted: the mark then
// counts only while another link holds the content.
func (f *fold) unlink(o *Op) {
	at := f.links.find(f.s, o.Link)
	if at < 0 {
		return
	}
	l := &f.s.Links[at]
	for i := range l.Values {
		if !slices.Contains(o.Over, l.Values[i].Ref) {
			return
		}
	}
	missed := false
	for i := range f.s.values {
		if v := f.s.values[i]; !v.replaced && !slices.Contains(o.Contents, v.Ref) {
			missed = true
		}
	}
	l.Missed = missed && (!l.Removed || l.Missed)
	l.Removed, l.Mark = true, Mark{f.ref(), f.at.Pos, f.at.Device, f.time}
	f.links.mark(f.s, at)
	f.links.forget(f.s)
}

func (f *fold) xattr(o *Op) {
	s := f.s
	if !f.ownXattrs {
		if s.Xattrs = maps.Clone(s.Xattrs); s.Xattrs == nil {
			s.Xattrs = make(map[string][]byte, 1)
		}
		for n, v := range s.Xattrs {
			f.xattrBytes += len(n) + len(v)
		}
		f.ownXattrs = true
	}
	old, had := s.Xattrs[o.Name]
	sum := f.xattrBytes
	if had {
		sum -= len(o.Name) + len(old)
	}
	if o.Remove {
		delete(s.Xattrs, o.Name)
		f.xattrBytes = sum
		return
	}
	sum += len(o.Name) + len(o.Value)
	if !had && len(s.Xattrs) >= maxXattrs || sum > maxXattrBytes {
		return
	}
	s.Xattrs[o.Name], f.xattrBytes = o.Value, sum
}

// LiveLinks returns the links that are names of the object, in total order of their creation: those without a mark, and
// where there is none, the one among those whose marks missed content that was placed highest. The result is new.
func (s *State) LiveLinks() []*Link {
	var live []*Link
	var back *Link
	for i := range s.Links {
		l := &s.Links[i]
		switch {
		case !l.Removed:
			live = append(live, l)
		case l.Missed && (back == nil || l.Shown().compare(back.Shown()) > 0):
			back = l
		}
	}
	if live == nil && back != nil {
		live = append(live, back)
	}
	return live
}

// compare orders placements by the total order of the operations that made them.
func (p *Placement) compare(q *Placement) int {
	if c := p.Pos.Compare(q.Pos); c != 0 {
		return c
	}
	return int(p.Ref.Place) - int(q.Ref.Place)
}

// Memory is about how many bytes of memory the state takes.
func (s *State) Memory() int {
	const state, link, placement, xattr = 400, 120, 200, 64
	n := state + link*len(s.Links) + (contentMemory+refMemory)*len(s.values)
	for i := range s.Links {
		n += placement * len(s.Links[i].Values)
	}
	for k, v := range s.Xattrs {
		n += xattr + len(k) + len(v)
	}
	return n
}

// Clone returns a copy that Apply on the original does not change. They share what no Apply writes to.
func (s *State) Clone() *State {
	c := *s
	c.Links = slices.Clone(s.Links)
	c.values = slices.Clone(s.values)
	return &c
}
