package fs

import (
	"strings"
	"time"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
)

// database is a file NAME with its siblings NAME-wal and NAME-journal, by which programs (SQLite) keep it whole. Its content means
// something only together with theirs at the same moment: what of them is to be published goes into one batch, captured at
// once. A file without siblings is none.
type database struct {
	parent uint64
	name   string
}

var mateSuffixes = [...]string{"-wal", "-journal"}

// mateOf gives the name of the file to which a name belongs.
func mateOf(name string) (string, bool) {
	for _, x := range mateSuffixes {
		if base, ok := strings.CutSuffix(name, x); ok && base != "" {
			return base, true
		}
	}
	return "", false
}

// databaseOf gives the database that an inode with something to publish belongs to. Under mu.
func (s *space) databaseOf(n *index.Inode) (database, bool) {
	if db, ok := s.mates[n.Ino]; ok {
		return db, true
	}
	if !n.IsRegular() || len(n.Links) != 1 {
		return database{}, false
	}
	l := &n.Links[0]
	if base, ok := mateOf(l.Name); ok {
		return database{l.Parent, base}, true
	}
	db := database{l.Parent, l.Name}
	if s.lost[db] > 0 {
		return db, true
	}
	if _, ok := s.near[db]; !ok && (n.DirtyContent == 0 || n.DirtyNew != 0) {
		return database{}, false // new files are many
	}
	for _, x := range mateSuffixes {
		if e, _, err := s.lookup(l.Parent, l.Name+x); err == nil && e != nil {
			return db, true
		}
	}
	return database{}, false
}

// members lists the inodes of a database that have something to publish. Under mu.
func (s *space) members(db database) []uint64 {
	var out []uint64
	for _, x := range [...]string{"", mateSuffixes[0], mateSuffixes[1]} {
		if e, _, err := s.lookup(db.parent, db.name+x); err == nil && e != nil {
			if _, ok := s.dirty[e.Ino]; ok {
				out = append(out, e.Ino)
			}
		}
	}
	for ino, of := range s.mates {
		if _, ok := s.dirty[ino]; ok && of == db {
			out = append(out, ino)
		}
	}
	return out
}

// noteSibling remembers that a file with the name of a sibling is dirty. Under mu.
func (s *space) noteSibling(n *index.Inode) {
	if len(n.Links) != 1 || !n.IsRegular() {
		return
	}
	if base, ok := mateOf(n.Links[0].Name); ok {
		if len(s.near) >= 4096 {
			clear(s.near)
		}
		s.near[database{n.Links[0].Parent, base}] = struct{}{}
	}
}

// noteMate remembers of which database a file was whose name is removed: the removal is published with the rest. Under mu.
func (s *space) noteMate(n *index.Inode, parent uint64, name string) {
	if base, ok := mateOf(name); ok && n.IsRegular() && len(s.mates) < 4096 {
		s.forgetMate(n.Ino)
		db := database{parent, base}
		s.mates[n.Ino] = db
		s.lost[db]++
	}
}

func (s *space) forgetMate(ino uint64) {
	db, ok := s.mates[ino]
	if !ok {
		return
	}
	delete(s.mates, ino)
	if s.lost[db]--; s.lost[db] == 0 {
		delete(s.lost, db)
	}
}

// databaseIn says in how long a database is ready to be published: when all of its files have been quiet for a moment; when that
// does not come, right after an fsync of one of them; and at last at any moment, which is what a killed program would
// have left. Under mu.
func (s *space) databaseIn(now int64, db database) time.Duration {
	quiet, age, hold := time.Duration(1<<62), time.Duration(0), time.Duration(0)
	var last journal.Seq
	members := s.members(db)
	for _, ino := range members {
		d := s.dirty[ino]
		delete(s.due, ino)
		if s.streams[ino] != nil {
			return flushEvery
		}
		if h, ok := s.held[ino]; ok && h.holds(now) {
			return time.Duration(h.until - now)
		}
		q, a := time.Duration(now-d.last), time.Duration(now-d.first)
		if q < 0 { // the clock was set back
			q, a = latestOpen, latestOpen
		}
		quiet, age, hold = min(quiet, q), max(age, a), max(hold, s.hold(now, ino, d))
		last = max(last, d.newest)
	}
	wait := max(idleContent-quiet, hold)
	if wait <= 0 || hold > 0 || age < latestOpen {
		return wait
	}
	if age >= paceMax || s.moments[db] >= last {
		return 0
	}
	if len(s.moments) > 64 {
		clear(s.moments)
	}
	for _, ino := range members {
		s.due[ino] = db
	}
	return wait
}

// noteFsync tells the publisher that a file is being synced whose database waits for that. Under mu.
func (s *space) noteFsync(ino uint64) {
	if db, ok := s.due[ino]; ok {
		s.moments[db] = s.last
		s.h.hurry()
	}
}
