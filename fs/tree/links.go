package tree

import "slices"

// linkIndex finds links of a state while one change is folded. Those that the change forgets stay in their places, without
// placements, until it is done.
type linkIndex struct {
	searches int
	at       map[Ref]int // by id; nil while there were few searches
	known    bool        // marked is filled
	marked   []int       // links with a mark that missed nothing, ascending: after forget at most maxRemoved
	gone     int         // links without placements
}

// fewSearches go through the links, since making the map costs as much.
const fewSearches = 8

// find returns the place of a link, or -1.
func (x *linkIndex) find(s *State, id Ref) int {
	if x.searches++; x.searches <= fewSearches || len(s.Links) < 64 {
		return slices.IndexFunc(s.Links, func(l Link) bool { return l.ID == id && len(l.Values) > 0 })
	}
	if x.at == nil {
		x.at = make(map[Ref]int, len(s.Links))
		for i := range s.Links {
			if len(s.Links[i].Values) > 0 {
				x.at[s.Links[i].ID] = i
			}
		}
	}
	if i, ok := x.at[id]; ok {
		return i
	}
	return -1
}

// added notes the last link, which is new.
func (x *linkIndex) added(s *State) {
	if x.at != nil {
		x.at[s.Links[len(s.Links)-1].ID] = len(s.Links) - 1
	}
}

// fill finds the marked links, the first time.
func (x *linkIndex) fill(s *State) {
	if x.known {
		return
	}
	x.known = true
	for i := range s.Links {
		if l := &s.Links[i]; l.Removed && !l.Missed {
			x.marked = append(x.marked, i)
		}
	}
}

// mark notes whether the link at i has a mark that missed nothing.
func (x *linkIndex) mark(s *State, i int) {
	x.fill(s)
	l := &s.Links[i]
	k, in := slices.BinarySearch(x.marked, i)
	switch is := l.Removed && !l.Missed; {
	case is && !in:
		x.marked = slices.Insert(x.marked, k, i)
	case !is && in:
		x.marked = slices.Delete(x.marked, k, k+1)
	}
}

// miss makes all marks ones that missed content.
func (x *linkIndex) miss(s *State) {
	x.fill(s)
	for _, i := range x.marked {
		s.Links[i].Missed = true
	}
	x.marked = x.marked[:0]
}

// forget keeps the number of removed links bounded.
func (x *linkIndex) forget(s *State) {
	x.fill(s)
	if len(x.marked) <= maxRemoved {
		return
	}
	i := x.marked[0]
	x.marked = slices.Delete(x.marked, 0, 1)
	delete(x.at, s.Links[i].ID)
	s.Links[i] = Link{}
	x.gone++
}

// done takes out of the state what was forgotten.
func (x *linkIndex) done(s *State) {
	if x.gone > 0 {
		s.Links = slices.DeleteFunc(s.Links, func(l Link) bool { return len(l.Values) == 0 })
	}
}
