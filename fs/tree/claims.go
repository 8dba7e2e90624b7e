package tree

import (
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// placedClaim is a claim and where it is.
type placedClaim struct {
	dir  dag.ID
	name string
	c    Claim
}

// fileClaims returns the claims of an object that is no directory.
func fileClaims(o *Object) []placedClaim {
	if o == nil || o.State.Kind == KindNone || o.State.Kind == KindDir {
		return nil
	}
	split := o.State.Kind == KindFile && o.State.candidates() > 1
	var out []placedClaim
	for i, l := range o.State.LiveLinks() {
		p := l.Shown()
		c := claimBy(o.State, l.ID, p)
		c.Split = split && i == 0
		out = append(out, placedClaim{p.Parent, p.Name, c})
	}
	return out
}

func claimBy(s *State, link Ref, p *Placement) Claim {
	return Claim{
		Object: s.Object, Kind: s.Kind, Link: link, Place: p.Ref, Pos: p.Pos, Device: p.Device, Time: p.Time,
	}
}

// claim brings the claims of a folded object up to date; those of directories are left to settle.
func (u *update) claim(id dag.ID) error {
	now, err := u.t.store.Object(id)
	if err != nil {
		return err
	}
	if now.State.Kind == KindDir || now.Claimed != nil {
		u.queue = append(u.queue, id)
		if now.Claimed != nil {
			u.touch(now.Claimed.Parent, now.Claimed.Name)
		}
	}
	before, after := fileClaims(u.old[id]), fileClaims(now)
	for _, c := range before {
		u.touch(c.dir, c.name)
		if !slices.ContainsFunc(after, func(d placedClaim) bool {
			return d.dir == c.dir && d.name == c.name && d.c.Link == c.c.Link
		}) {
			if err := u.set(c.dir, c.name, c.c, false); err != nil {
				return err
			}
		}
	}
	for _, c := range after {
		u.touch(c.dir, c.name)
		if !slices.Contains(before, c) {
			if err := u.set(c.dir, c.name, c.c, true); err != nil {
				return err
			}
		}
	}
	return u.twins(id, now)
}

// touch notes that the entry of a name may have changed. A name that a conflict copy could have changes what the copies of the
// name it lost are called.
func (u *update) touch(dir dag.ID, name string) {
	u.names[DirName{dir, name}] = struct{}{}
	for {
		lost, whole, ok := lostName(name)
		if !ok || !whole {
			return
		}
		u.names[DirName{dir, lost}] = struct{}{}
		name = lost
	}
}

// set adds, replaces or removes a claim, and keeps the sets that depend on it.
func (u *update) set(dir dag.ID, name string, c Claim, on bool) error {
	st := u.t.store
	before, err := st.Claims(dir, name)
	if err != nil {
		return err
	}
	was := tally(before)
	after := make([]Claim, 0, len(before)+1)
	for _, b := range before {
		if b.Object != c.Object || b.Link != c.Link {
			after = append(after, b)
		}
	}
	if on {
		after = append(after, c)
		err = st.SetClaim(dir, name, c)
	} else {
		err = st.DeleteClaim(dir, name, c.Object, c.Link)
	}
	if err != nil {
		return err
	}
	now := tally(after)
	// Where any directories are merged, this one may be merged with one below another of its directory's class.
	if c.Kind == KindDir && (was.dirs > 1 || now.dirs > 1 || u.t.merged > 0) {
		u.merges[DirName{dir, name}] = struct{}{}
	}
	if was.dirs > 1 != (now.dirs > 1) {
		if now.dirs > 1 {
			u.t.merged++
		} else {
			u.t.merged--
		}
		if err := st.SetMark(SetMerged, dir, name, now.dirs > 1); err != nil {
			return err
		}
	}
	if was.rivals != now.rivals {
		if err := st.SetMark(SetRivals, dir, name, now.rivals); err != nil {
			return err
		}
	}
	u.touch(dir, name)
	u.queue = append(u.queue, dir)
	return nil
}

type count struct {
	dirs   int
	rivals bool
}

func tally(claims []Claim) (n count) {
	for i := range claims {
		if claims[i].Kind == KindDir {
			n.dirs++
		}
		n.rivals = n.rivals || claims[i].Split
	}
	n.rivals = n.rivals || len(claims) > 1 && n.dirs < len(claims)
	return n
}

// settle looks at each queued directory: whether it is live, and whether its claim is where it is placed. What changes queues
// the directory above. Places make no cycle, so it ends.
func (u *update) settle() error {
	for len(u.queue) > 0 {
		id := u.queue[len(u.queue)-1]
		u.queue = u.queue[:len(u.queue)-1]
		if id == u.t.root {
			continue
		}
		o, err := u.t.store.Object(id)
		if err != nil {
			return err
		}
		if o == nil || o.State.Kind != KindDir && o.Claimed == nil {
			continue
		}
		want := o.Place
		if want != nil {
			live, err := u.t.live(o)
			if err != nil {
				return err
			}
			if !live {
				want = nil
			}
		}
		if samePlace(o.Claimed, want) {
			continue
		}
		next := *o
		next.Claimed = want
		if err := u.t.store.SetObject(id, &next); err != nil {
			return err
		}
		if was := o.Claimed; was != nil && (want == nil || was.Parent != want.Parent || was.Name != want.Name) {
			link := Ref{id, 0}
			if len(o.State.Links) > 0 {
				link = o.State.Links[0].ID
			} else if old := u.old[id]; old != nil && len(old.State.Links) > 0 {
				link = old.State.Links[0].ID
			}
			if err := u.set(was.Parent, was.Name, Claim{Object: id, Kind: KindDir, Link: link}, false); err != nil {
				return err
			}
		}
		if want != nil {
			if err := u.set(want.Parent, want.Name, claimBy(o.State, o.State.Links[0].ID, want), true); err != nil {
				return err
			}
		}
	}
	return nil
}

// live reports whether a directory is shown where it is placed: it is not removed, or something in it is live.
func (t *Tree) live(o *Object) (bool, error) {
	if o.State.Kind != KindDir || len(o.State.Links) == 0 {
		return false, nil
	}
	if !o.State.Links[0].Removed {
		return true, nil
	}
	live := false
	err := t.store.Children(o.State.Object, func(_ string, c Claim) bool {
		live = o.State.Birth.Compare(c.Pos) < 0
		return !live
	})
	return live, err
}
