package fs

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// The trash of a directory lists what left it: names whose published link was removed, and, not shown to anyone, those that
// moved to another directory, so that the directory can be shown as it was. It is kept in the space's index as the entries of
// a directory of its own, whose number is the directory's with trashBit set, the newest first: the place of an entry is
// trashEnd less the time of removal. So a removal costs one entry, and a listing costs what it lists. HISTORY.md has the form.

const (
	trashBit = 1 << 63
	trashEnd = math.MaxInt64
)

type trashKind byte

const (
	trashRemoved trashKind = 1 // the link was removed
	trashMoved   trashKind = 2 // it went to another directory, or its object took another's place
	trashBefore  trashKind = 3 // the directory had the number ino before it was deleted and came back: its trash goes on there
)

// trashed is one entry of a directory's trash.
type trashed struct {
	kind   trashKind
	dir    uint64 // whose trash it is in
	at     uint64 // its place there
	object dag.ID
	ino    uint64 // that it had
	typ    uint32 // type bits of its mode
	size   int64
	name   string
}

// time is when it left, in Unix nanoseconds.
func (t *trashed) time() int64 { return trashEnd - int64(t.at) }

// noteTrash puts an inode's object into the trash of a directory. Under mu; it goes the same way in a replay.
func (s *space) noteTrash(kind trashKind, n *index.Inode, object dag.ID, dir uint64, name string, t int64) {
	if s.slot == 0 {
		return // spaces do not come back
	}
	if c := n.Ctime; c > t && c-maxAhead <= t {
		t = c // the clock was set back since its last change: a moment sees the removal no earlier than that
	}
	b := make([]byte, 0, 48+len(name))
	b = append(b, byte(kind))
	b = append(b, object[:]...)
	b = binary.AppendVarint(b, n.Size)
	b = append(b, name...)
	e := index.Entry{Name: string(b), Ino: n.Ino, Type: n.Type()}
	if err := s.ix.AddEntry(dir|trashBit, uint64(trashEnd-max(t, 1)), e); err != nil {
		_ = s.damaged(err) // the listing lacks it; the history does not
	}
	if kind == trashRemoved && n.IsDir() && !object.IsZero() {
		s.noteGrave(object, n.Ino)
	}
}

// graves is the number of the directory that lists deleted directories by their objects, with the numbers that they had: the trash of
// one that comes back from elsewhere goes on there.
const graves = trashBit

func graveAt(object dag.ID) uint64 { return binary.BigEndian.Uint64(object[:]) >> 1 }

// noteGrave notes the number of a directory that is deleted. Under mu.
func (s *space) noteGrave(object dag.ID, ino uint64) {
	e := index.Entry{Name: string(object[:]), Ino: ino, Type: typeDir}
	old, at, err := s.ix.Lookup(graves, graveAt(object), e.Name)
	switch {
	case err != nil:
	case old != nil:
		e.Next = old.Next
		s.ix.SetEntry(graves, at, e)
	default:
		err = s.ix.AddEntry(graves, graveAt(object), e)
	}
	if err != nil {
		_ = s.damaged(err)
	}
}

// grave gives the number that a directory had when it was deleted; 0 when it was not. Under mu.
func (s *space) grave(object dag.ID) (uint64, error) {
	e, _, err := s.ix.Lookup(graves, graveAt(object), string(object[:]))
	if err != nil || e == nil {
		return 0, err
	}
	return e.Ino, nil
}

// noteBefore lets the trash of a directory go on at the number that it had before. Under mu.
func (s *space) noteBefore(dir, before uint64) error {
	e := index.Entry{Name: string(append([]byte{byte(trashBefore)}, make([]byte, 33)...)), Ino: before, Type: typeDir}
	return s.ix.AddEntry(dir|trashBit, trashEnd, e)
}

// noteMove notes that the link at place i of an inode leaves the directory where it was published. Under mu.
func (s *space) noteMove(n *index.Inode, i int, to uint64, t int64) {
	if l := &n.Links[i]; l.Parent != to && l.Dirty == 0 && !l.ID.Change.IsZero() {
		s.noteTrash(trashMoved, n, n.Object, l.Parent, l.Name, t)
	}
}

// parseTrash reads an entry of a directory's trash; ok is false when it is none.
func parseTrash(dir, at uint64, e *index.Entry) (t trashed, ok bool) {
	b := []byte(e.Name)
	if len(b) < 34 {
		return t, false
	}
	t = trashed{kind: trashKind(b[0]), dir: dir, at: at, ino: e.Ino, typ: e.Type}
	copy(t.object[:], b[1:])
	size, k := binary.Varint(b[33:])
	if k <= 0 {
		return t, false
	}
	t.size, t.name = size, string(b[33+k:])
	return t, true
}

// trashStep is how many entries are read under the lock at a time.
const trashStep = 512

// maxBefore bounds how many earlier numbers of a directory are followed.
const maxBefore = 64

// scanTrash calls fn for what left a directory, the newest first, until fn returns false. It takes mu in steps; fn runs
// without it.
func (s *space) scanTrash(dir uint64, fn func(trashed) bool) error {
	for range maxBefore {
		before, err := s.scanTrashOf(dir, fn)
		if err != nil || before == 0 {
			return err
		}
		dir = before
	}
	return nil
}

func (s *space) scanTrashOf(dir uint64, fn func(trashed) bool) (before uint64, err error) {
	var step []trashed
	for after := uint64(0); ; after = step[len(step)-1].at {
		step = step[:0]
		s.mu.Lock()
		err := s.ix.Scan(dir|trashBit, after, func(at uint64, e *index.Entry) bool {
			t, ok := parseTrash(dir, at, e)
			if !ok {
				t = trashed{at: at}
			}
			step = append(step, t)
			return len(step) < trashStep
		})
		s.mu.Unlock()
		if err != nil {
			return 0, s.damaged(err)
		}
		for _, t := range step {
			switch {
			case t.kind == trashBefore:
				before = t.ino
			case t.kind != 0 && !fn(t):
				return 0, nil
			}
		}
		if len(step) < trashStep {
			return before, nil
		}
	}
}

// findTrash finds the newest entry of a directory's trash that match accepts.
func (s *space) findTrash(dir uint64, match func(*trashed) bool) (found trashed, ok bool, err error) {
	err = s.scanTrash(dir, func(t trashed) bool {
		if t.kind == trashRemoved && match(&t) {
			found, ok = t, true
		}
		return !ok
	})
	return found, ok, err
}

// inTrash reports whether an entry is in its place still.
func (s *space) inTrash(t *trashed) (there bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.ix.Scan(t.dir|trashBit, t.at-1, func(at uint64, e *index.Entry) bool {
		now, ok := parseTrash(t.dir, at, e)
		there = ok && now.at == t.at && now.object == t.object
		return false
	})
	if err != nil {
		err = s.damaged(err)
	}
	return there, err
}

// dropTrash takes an entry off the list: its object is back, in the directory numbered to. Where that is another one than it
// left, the entry stays as that of a move, or the directory could not be shown as it was. Under mu.
func (s *space) dropTrash(dir, at uint64, object dag.ID, to uint64) {
	var old *index.Entry
	if err := s.ix.Scan(dir|trashBit, at-1, func(k uint64, e *index.Entry) bool {
		if t, ok := parseTrash(dir, k, e); ok && k == at && t.object == object {
			old = e
		}
		return false
	}); err != nil {
		_ = s.damaged(err)
		return
	}
	if old == nil {
		return
	}
	if dir == to {
		s.ix.RemoveEntry(dir|trashBit, at, old)
		return
	}
	moved := *old
	moved.Name = string([]byte{byte(trashMoved)}) + old.Name[1:]
	s.ix.SetEntry(dir|trashBit, at, moved)
}

// cameBack reports whether what a directory's trash calls removed came back by what another device did: it is there again under another name, or
// under the same one by a change that its removal did not see; or it was, and left from elsewhere. at is the number of the directory, which its trash
// may not have.
func (s *space) cameBack(at uint64, t *trashed) (bool, error) {
	s.mu.Lock()
	n, here, dir, err := s.isAlive(at, t)
	s.mu.Unlock()
	if err != nil {
		return false, s.damaged(err)
	}
	if here || n != nil && t.typ == typeDir {
		return true, nil
	}
	st, err := s.fold(t.object, nil)
	if err != nil || st == nil {
		return false, err
	}
	if n == nil {
		return leftElsewhere(st, dir, t.name), nil
	}
	for i := range st.Links {
		l := &st.Links[i]
		if p := l.Shown(); p.Name != t.name || !dir.IsZero() && p.Parent != dir {
			continue
		}
		if !slices.ContainsFunc(n.Links, func(x index.Link) bool { return x.ID == l.ID }) {
			return false, nil // it has others: this one is removed
		}
	}
	return true, nil
}

// leftElsewhere reports whether an object is removed, and from other places than this name, of which the directory may not be known. (One that is
// alive here still was removed by what is not published yet.)
func leftElsewhere(st *tree.State, dir dag.ID, name string) bool {
	if len(st.LiveLinks()) > 0 {
		return false
	}
	for i := range st.Links {
		if p := st.Links[i].Shown(); p.Name == name && (dir.IsZero() || p.Parent == dir) {
			return false
		}
	}
	return len(st.Links) > 0
}

// isAlive gives the inode of an object that is shown, or nil; here says that it has the name, in the directory at, that it was removed
// from; and the object of that directory, where it is shown. Under mu.
func (s *space) isAlive(at uint64, t *trashed) (n *index.Inode, here bool, dir dag.ID, err error) {
	if at == rootDir {
		dir = tree.RootObject(s.id)
	} else if d, err := s.ix.Inode(at); err != nil {
		return nil, false, dir, err
	} else if d != nil {
		dir = d.Object
	}
	ino, err := s.ix.Object(t.object)
	if err != nil || ino == 0 {
		return nil, false, dir, err
	}
	if n, err = s.ix.Inode(ino); err != nil || n == nil || len(n.Links) == 0 {
		return nil, false, dir, err
	}
	return n, linkIn(n, spot{at, t.name}) != nil, dir, nil
}

// graveOf finds the entry of a removed link, wherever its directory is.
func (s *space) graveOf(object dag.ID, l *tree.Link) (trashed, bool, error) {
	dir, ok, err := s.numberOf(l.Shown().Parent, 0)
	if err != nil || !ok {
		return trashed{}, false, err
	}
	return s.deadByName(dir, l.Shown().Name, func(t *trashed) bool { return t.object == object })
}

// numberOf gives the number of a directory, or the one that it had when it was deleted, which its own entry tells.
func (s *space) numberOf(object dag.ID, depth int) (ino uint64, ok bool, err error) {
	s.mu.Lock()
	ino, err = s.ix.Object(object)
	s.mu.Unlock()
	if err != nil {
		return 0, false, s.damaged(err)
	}
	if ino != 0 || depth > maxDepth {
		return ino, ino != 0, nil
	}
	st, err := s.fold(object, nil)
	if err != nil || st == nil || len(st.Links) == 0 {
		return 0, false, err
	}
	p := st.Links[0].Shown()
	up, ok, err := s.numberOf(p.Parent, depth+1)
	if err != nil || !ok {
		return 0, false, err
	}
	t, ok, err := s.deadByName(up, p.Name, func(t *trashed) bool { return t.object == object })
	return t.ino, ok, err
}

// burstGap is the longest pause within the removal of one directory with all that is in it: what was removed from it with
// longer pauses before its end was deleted before, on its own.
const burstGap = 5 * time.Second

// burst lists what was in a directory when it was deleted: what was removed from it in one go with it. died is when the
// directory itself was removed. Of a name that was removed twice the last counts. The result is in no order.
func (s *space) burst(dir uint64, died int64) ([]trashed, error) {
	b := burstScan{s: s, began: died, died: died, seen: map[string]bool{}}
	err := b.scan(dir)
	return b.out, err
}

// burstScan walks the trash of one directory back from its end.
type burstScan struct {
	s     *space
	depth int
	died  int64
	began int64     // when the removal began, as far as it was looked at
	dirs  []trashed // whose own removal may have begun before began
	seen  map[string]bool
	out   []trashed
}

func (b *burstScan) scan(dir uint64) error {
	if b.depth > maxDepth {
		return fmt.Errorf("%w: directory %d is too deep", ErrIO, dir)
	}
	var failed error
	err := b.s.scanTrash(dir, func(t trashed) bool {
		if t.kind != trashRemoved {
			return true
		}
		// In a trash that was made anew a name of a file counts as removed with the last one. It went before its directory did.
		at := min(t.time(), b.died)
		if failed = b.reach(at); failed != nil || b.began-at > int64(burstGap) {
			return false
		}
		b.began = min(b.began, at)
		if t.typ == typeDir {
			b.dirs = append(b.dirs, t)
		}
		if !b.seen[t.name] {
			b.seen[t.name] = true
			b.out = append(b.out, t)
		}
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

// reach looks into the directories that were removed until the removal is known to have been under way shortly after t.
func (b *burstScan) reach(t int64) error {
	for len(b.dirs) > 0 && b.began-t > int64(burstGap) {
		d := b.dirs[len(b.dirs)-1]
		b.dirs = b.dirs[:len(b.dirs)-1]
		in := burstScan{s: b.s, depth: b.depth + 1, died: d.time(), began: d.time(), seen: map[string]bool{}}
		if err := in.scan(d.ino); err != nil {
			return err
		}
		if err := in.reach(t); err != nil {
			return err
		}
		b.began = min(b.began, in.began)
	}
	return nil
}

const typeDir = 0040000

// DeletedEntry is a name that was removed from a directory.
type DeletedEntry struct {
	Name   string    `json:"name"`
	Path   string    `json:"path"` // what Restore takes
	Time   time.Time `json:"time"` // of the removal
	Kind   string    `json:"kind"`
	Object string    `json:"object"`
	Size   int64     `json:"size"` // -1: no file
}

// LogMax is how many versions Log, and how many entries Deleted, returns at most.
const LogMax = 100_000

// Deleted lists what was removed from the directory at a path, the newest first. The directory may be deleted itself; of the
// root of the home the list is empty, since spaces do not come back.
func (h *Home) Deleted(dir string) ([]DeletedEntry, error) {
	dir = cleanPath(dir)
	if dir == "" {
		return nil, nil
	}
	w, err := h.where(dir)
	if err != nil {
		return nil, err
	}
	if w.typ != typeDir {
		return nil, fmt.Errorf("%s: %w", dir, ErrNotDir)
	}
	var out []DeletedEntry
	var failed error
	seen := map[goneName]bool{}
	err = w.s.scanTrash(w.ino, func(t trashed) bool {
		if t.kind == trashRemoved && !seen[goneName{t.object, t.name}] {
			seen[goneName{t.object, t.name}] = true
			back, err := w.s.cameBack(w.ino, &t)
			if failed = err; back || err != nil {
				return err == nil
			}
			e := DeletedEntry{
				Name: t.name, Path: dir + "/" + t.name, Time: time.Unix(0, t.time()), Kind: kindName(tree.KindOf(t.typ)),
				Object: t.object.String(), Size: -1,
			}
			if t.typ == typeFile {
				e.Size = t.size
			}
			out = append(out, e)
		}
		return len(out) < LogMax
	})
	if failed != nil {
		err = failed
	}
	return out, err
}

const typeFile = 0100000

// goneName is a name that an object lost. It may have lost it several times: what another device brought back leaves its entry.
type goneName struct {
	object dag.ID
	name   string
}

// kindName names a kind of object for people.
func kindName(k tree.Kind) string {
	names := [...]string{"", "file", "directory", "symlink", "fifo", "socket", "char", "block"}
	if int(k) < len(names) {
		return names[k]
	}
	return ""
}

// deadEntry is what is known of a deleted name by the trash of its directory.
func (s *space) deadByName(dir uint64, name string, want func(*trashed) bool) (trashed, bool, error) {
	return s.findTrash(dir, func(t *trashed) bool { return t.name == name && (want == nil || want(t)) })
}

// cleanPath gives a path without empty parts, "." and "..".
func cleanPath(p string) string {
	parts := strings.Split(p, "/")
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" || s == "." })
	var out []string
	for _, s := range parts {
		if s == ".." {
			out = out[:max(0, len(out)-1)]
			continue
		}
		out = append(out, s)
	}
	return strings.Join(out, "/")
}
