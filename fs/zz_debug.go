package fs

import "fmt"

func (r *Replica) DebugWaits() string {
	s := r.s
	out := ""
	for n := range s.in.later {
		out += fmt.Sprintf(" later{%s %q}", n.Dir.String()[50:], n.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for ino, d := range s.dirty {
		n, _ := s.ix.Inode(ino)
		out += fmt.Sprintf(" dirty{%d seq %d links %v refs %v}", ino, d.seq, n != nil && len(n.Links) > 0, s.refs[ino])
	}
	return out
}
