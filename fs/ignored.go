package fs

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs/ignore"
	"github.com/anyfs/anyfs/fs/index"
)

// What a file .anyfsignore names stays on this device: it is an inode like any other, in the index and the journal, and is not published. The
// rules are about what was never published; they are those of .gitignore, and so is that what was published stays so (POLICY.md).
//
// An inode that is ignored is dirty as long as it is, and in ignored in place of dirty: so that publishing, which looks at all that is dirty,
// costs nothing for what it leaves out. Its data lies in blocks before long, where the journal does not need to keep it. The list of these
// inodes, and that of the directories that hold rules, is in each checkpoint; what a replay of the journal touches is dirty, and sorted anew.
//
// A file that names what is ignored and cannot be read keeps everything below its directory that is not published unpublished.

// IgnoreName is the name of the files that hold patterns.
const IgnoreName = ".anyfsignore"

// localSuffix ends the names of what had to make way for a file of another device: that is ignored, whatever the patterns say.
const localSuffix = ".anyfs-local"

// Values of the index.
const (
	valueIgnores = "ignores" // the numbers of the directories with an IgnoreName
	valueIgnored = "ignored" // the numbers of the inodes that are ignored
)

// sealIgnoredAfter is how long what is ignored may lie in the journal.
const sealIgnoredAfter = time.Second

// ignoring is what of a space is ignored. Under the space's mu.
type ignoring struct {
	dirs    map[uint64]*ignoreFile
	inos    map[uint64]struct{} // the inodes that are ignored
	logged  map[uint64]int64    // of these, those of which data may lie in the journal, and since when
	forced  map[uint64]struct{} // directories that are published although they are named: another device has published one of that name
	changed bool                // a directory came or went
	saved   bool                // both lists are in the index as they are
}

// ignoreFile is the file of one directory.
type ignoreFile struct {
	ino, size    uint64
	mtime, ctime int64
	rules        *ignore.Rules
	failed       error // why it was not read
	looked       bool
}

// noteIgnore is told of each entry that comes into a directory, or goes. Under mu.
func (s *space) noteIgnore(dir uint64, name string, there bool) {
	if name != IgnoreName || s.slot == 0 {
		return
	}
	g := &s.ign
	if there {
		if g.dirs == nil {
			g.dirs = map[uint64]*ignoreFile{}
		}
		g.dirs[dir] = &ignoreFile{}
	} else {
		delete(g.dirs, dir)
	}
	g.changed, g.saved = true, false
}

// refreshIgnores reads the files that changed, and has what is ignored no more published. Under pubMu.
func (s *space) refreshIgnores(ctx context.Context) {
	g := &s.ign
	s.mu.Lock()
	anew := g.changed
	g.changed = false
	dirs := make([]uint64, 0, len(g.dirs))
	for dir := range g.dirs {
		dirs = append(dirs, dir)
	}
	s.mu.Unlock()
	ctx = context.WithValue(ctx, localOnly{}, true)
	for _, dir := range dirs {
		if s.refreshIgnore(ctx, dir) {
			anew = true
		}
	}
	if !anew {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	look := s.ignoreLook()
	for ino := range g.inos {
		n, err := s.ix.Inode(ino)
		if err != nil {
			continue
		}
		if n == nil || !n.Dirty() {
			g.remove(ino)
			continue
		}
		if _, dirty := s.dirty[ino]; !dirty && look.of(n) == notIgnored {
			g.remove(ino)
			s.markDirty(n)
			s.recount(n)
		}
	}
}

// refreshIgnore reads the file of a directory, where it is another than it was, and reports whether it was read.
func (s *space) refreshIgnore(ctx context.Context, dir uint64) bool {
	s.mu.Lock()
	f := s.ign.dirs[dir]
	e, _, err := s.lookup(dir, IgnoreName)
	var n *index.Inode
	if err == nil && e != nil {
		n, err = s.ix.Inode(e.Ino)
	}
	if f == nil || err != nil || n == nil {
		s.mu.Unlock()
		return false
	}
	now := ignoreFile{ino: n.Ino, size: uint64(n.Size), mtime: n.Mtime, ctime: n.Ctime, looked: true}
	if f.looked && f.failed == nil && f.ino == now.ino && f.size == now.size && f.mtime == now.mtime && f.ctime == now.ctime {
		s.mu.Unlock()
		return false
	}
	n = n.Clone()
	s.mu.Unlock()
	if n.IsRegular() {
		b := make([]byte, min(n.Size, ignore.MaxBytes))
		got, err := (&fileReader{ctx: ctx, s: s, n: n}).ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			now.failed = err
			if f.failed == nil {
				s.h.report(fmt.Sprintf("space %s: the patterns of directory %d", s.id, dir), err)
			}
		} else {
			now.rules = ignore.Parse(b[:got])
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ign.dirs[dir] == nil {
		return true
	}
	s.ign.dirs[dir] = &now
	return true
}

// ignoredState is what the rules say of an inode.
type ignoredState uint8

const (
	notIgnored ignoredState = iota
	isIgnored
	mayBeIgnored // a file of patterns cannot be read
)

// ignoreLook looks at many inodes, with what it found of directories kept. It is good while mu is held.
type ignoreLook struct {
	s    *space
	dirs map[uint64]ignoredState
}

func (s *space) ignoreLook() *ignoreLook {
	return &ignoreLook{s: s, dirs: map[uint64]ignoredState{rootDir: notIgnored}}
}

// of says whether an inode is ignored: it was never published, and each of its names is.
func (l *ignoreLook) of(n *index.Inode) ignoredState {
	g := &l.s.ign
	if !n.Object.IsZero() || n.Ino == rootDir || len(n.Links) == 0 || l.s.slot == 0 {
		return notIgnored
	}
	if _, yes := g.forced[n.Ino]; yes {
		return notIgnored
	}
	if len(g.dirs) == 0 && len(g.inos) == 0 && !slices.ContainsFunc(n.Links, func(k index.Link) bool { return isLocalName(k.Name) }) {
		return notIgnored
	}
	state := isIgnored
	for i := range n.Links {
		k := l.name(n.Links[i].Parent, n.Links[i].Name, n.IsDir())
		if k == notIgnored {
			return notIgnored
		}
		state = max(state, k)
	}
	return state
}

// isLocalName reports whether a name is one that is given to what made way.
func isLocalName(name string) bool {
	_, tail, ok := strings.Cut(name, localSuffix)
	return ok && (tail == "" || tail[0] == '-')
}

// name says whether a name in a directory is ignored.
func (l *ignoreLook) name(dir uint64, name string, isDir bool) ignoredState {
	if above := l.dir(dir); above != notIgnored {
		return above
	}
	if isLocalName(name) {
		return isIgnored
	}
	// The rules of the nearest directory come first.
	path := name
	for at, depth := dir, 0; depth < maxDepth; depth++ {
		if f := l.s.ign.dirs[at]; f != nil {
			if f.failed != nil || !f.looked {
				return mayBeIgnored
			}
			if yes, decided := f.rules.Match(path, isDir); decided {
				if yes {
					return isIgnored
				}
				return notIgnored
			}
		}
		if at == rootDir {
			break
		}
		n, err := l.s.ix.Inode(at)
		if err != nil || n == nil || len(n.Links) == 0 {
			break
		}
		path, at = n.Links[0].Name+"/"+path, n.Links[0].Parent
	}
	return notIgnored
}

// dir says whether a directory is ignored, or one above it. One that was published is not by that free of the rules: what is new in it counts.
func (l *ignoreLook) dir(ino uint64) ignoredState {
	if k, ok := l.dirs[ino]; ok {
		return k
	}
	k := notIgnored
	n, err := l.s.ix.Inode(ino)
	if err == nil && n != nil && len(n.Links) > 0 {
		k = l.name(n.Links[0].Parent, n.Links[0].Name, true)
	}
	l.dirs[ino] = k
	return k
}

// linksAcross reports whether an inode would have one name that is ignored and one that is not. Under mu.
func (s *space) linksAcross(n *index.Inode, dir uint64, name string) bool {
	if len(s.ign.dirs) == 0 && !isLocalName(name) || len(n.Links) == 0 {
		return false
	}
	look := s.ignoreLook()
	return (look.of(n) == isIgnored) != (look.name(dir, name, false) == isIgnored)
}

// holdsIgnored reports whether something is ignored in a directory or below. Under mu.
func (s *space) holdsIgnored(dir uint64) (bool, error) {
	found := false
	for todo := []uint64{dir}; len(todo) > 0 && !found && len(s.ign.inos) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := s.ix.Scan(at, 0, func(_ uint64, e *index.Entry) bool {
			found = s.isIgnoredInode(e.Ino)
			if e.Type == syscall.S_IFDIR {
				todo = append(todo, e.Ino)
			}
			return !found
		}); err != nil {
			return false, s.damaged(err)
		}
	}
	return found, nil
}

// setIgnored takes an inode out of what is to be published. Under mu.
func (s *space) setIgnored(n *index.Inode) {
	g := &s.ign
	s.undirty(n.Ino)
	delete(g.logged, n.Ino)
	if n.Ext != nil && n.Ext.Oldest() != 0 {
		g.add(n.Ino, s.h.opt.Clock().UnixNano())
	} else {
		g.add(n.Ino, 0)
	}
}

// add adds an inode, of which data may lie in the journal since a time; 0: none does.
func (g *ignoring) add(ino uint64, since int64) {
	if g.inos == nil {
		g.inos, g.logged = map[uint64]struct{}{}, map[uint64]int64{}
	}
	if _, twice := g.inos[ino]; !twice {
		g.inos[ino] = struct{}{}
		g.saved = false
	}
	if since != 0 {
		g.logged[ino] = since
	}
}

func (g *ignoring) remove(ino uint64) {
	delete(g.inos, ino)
	delete(g.logged, ino)
	g.saved = false
}

// isIgnoredInode reports whether an inode is among those that stay here. Under mu.
func (s *space) isIgnoredInode(ino uint64) bool {
	_, yes := s.ign.inos[ino]
	return yes
}

// sealIgnored moves what is ignored from the journal into blocks, where it has been there for a while or all of it is to go. It returns when to
// look again.
func (s *space) sealIgnored(ctx context.Context, all bool) (time.Duration, error) {
	now := s.h.opt.Clock().UnixNano()
	next := time.Hour
	var inos []uint64
	s.mu.Lock()
	for ino, since := range s.ign.logged {
		_, dirty := s.dirty[ino]
		switch wait := sealIgnoredAfter - time.Duration(now-since); {
		case dirty || s.streams[ino] != nil:
		case all || wait <= 0 || since > now:
			inos = append(inos, ino)
		default:
			next = min(next, wait)
		}
	}
	s.mu.Unlock()
	for _, ino := range inos {
		if err := s.sealExtents(ctx, ino); err != nil {
			return flushEvery, err
		}
		s.mu.Lock()
		n, err := s.ix.Inode(ino)
		if err == nil && (n == nil || n.Ext == nil || n.Ext.Oldest() == 0) {
			delete(s.ign.logged, ino)
		}
		s.mu.Unlock()
	}
	return next, nil
}

// saveIgnored puts both lists into the index for the next checkpoint. Under mu.
func (s *space) saveIgnored() {
	g := &s.ign
	if g.saved {
		return
	}
	var dirs, inos []uint64
	for dir := range g.dirs {
		dirs = append(dirs, dir)
	}
	for ino := range g.inos {
		inos = append(inos, ino)
	}
	s.ix.SetValue(valueIgnores, appendNumbers(dirs))
	s.ix.SetValue(valueIgnored, appendNumbers(inos))
	g.saved = true
}

// appendNumbers writes numbers in ascending order, after a byte: no value is empty.
func appendNumbers(list []uint64) []byte {
	slices.SortFunc(list, func(a, b uint64) int { return cmp.Compare(a, b) })
	b := []byte{0}
	for _, n := range list {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func (s *space) numbers(name string) (list []uint64, known bool, err error) {
	b, err := s.ix.Value(name)
	if err != nil || len(b) == 0 {
		return nil, false, err
	}
	for b = b[1:]; len(b) > 0; {
		n, k := binary.Uvarint(b)
		if k <= 0 {
			return nil, false, fmt.Errorf("%w: value %q", index.ErrCorrupt, name)
		}
		list, b = append(list, n), b[k:]
	}
	return list, true, nil
}

// loadIgnored reads what the last checkpoint left, before the journal is replayed over it.
func (s *space) loadIgnored(fresh bool) error {
	dirs, known, err := s.numbers(valueIgnores)
	if err != nil {
		return err
	}
	inos, _, err := s.numbers(valueIgnored)
	if err != nil {
		return err
	}
	if !known && !fresh && s.slot != 0 {
		// A checkpoint of before there was such a list.
		if err := s.ix.Inodes(func(n *index.Inode) bool {
			for i := range n.Links {
				if n.Links[i].Name == IgnoreName {
					dirs = append(dirs, n.Links[i].Parent)
				}
			}
			return true
		}); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		s.noteIgnore(dir, IgnoreName, true)
	}
	for _, ino := range inos {
		s.ign.add(ino, 1) // whether data of it lies in the journal is not known
	}
	s.ign.changed, s.ign.saved = true, known
	return nil
}

// takeBlocked gives the names that the last round of arrival found to be blocked.
func (s *space) takeBlocked() []blockedSpot {
	s.pubMu.Lock()
	defer s.pubMu.Unlock()
	b := s.in.blocked
	s.in.blocked = nil
	return b
}

// makeWay gives the names back that others need, and at which something is that is ignored here: a directory is published, without what is in
// it, and so becomes one with theirs; all else gets a name of its own beside it, and stays here. No lock is held.
func (s *space) makeWay(ctx context.Context, at []blockedSpot) error {
	for _, b := range at {
		s.mu.Lock()
		e, _, err := s.lookup(b.dir, b.name)
		var n *index.Inode
		if err == nil && e != nil {
			n, err = s.inode(e.Ino)
		}
		stays := err != nil || n == nil || !s.isIgnoredInode(n.Ino)
		var ino uint64
		dir := false
		if !stays {
			ino, dir = n.Ino, n.IsDir()
			if dir && b.wantsDir {
				if s.ign.forced == nil {
					s.ign.forced = map[uint64]struct{}{}
				}
				s.ign.forced[ino] = struct{}{}
				s.ign.remove(ino)
				s.markDirty(n)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		if stays || dir && b.wantsDir {
			continue // it is published as soon as what is dirty is
		}
		if err := s.moveAside(b.dir, b.name); err != nil {
			return err
		}
	}
	return nil
}

// moveAside gives a file the first name beside its own that is free.
func (s *space) moveAside(dir uint64, name string) error {
	stem := name
	for len(stem)+len(localSuffix)+5 > MaxName {
		stem = stem[:len(stem)-1]
	}
	for i := range 1000 {
		to := stem + localSuffix
		if i > 0 {
			to = fmt.Sprintf("%s%s-%d", stem, localSuffix, i)
		}
		err := s.h.Rename(s.ino(dir), name, s.ino(dir), to, RenameNoReplace)
		if errors.Is(err, ErrExist) {
			continue
		}
		if err == nil {
			s.h.emit(Event{Parent: s.ino(dir), Name: name}, Event{Parent: s.ino(dir), Name: to})
		}
		return err
	}
	return fmt.Errorf("%w: no name is free beside an ignored file", ErrExist)
}

// blockedSpot is a name at which something is ignored, and that something of another device is to have.
type blockedSpot struct {
	spot
	wantsDir bool
}
