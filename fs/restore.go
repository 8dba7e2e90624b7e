package fs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// RestoreResult says what a restore brought back.
type RestoreResult struct {
	Path    string   `json:"path"`    // where it is now
	Version string   `json:"version"` // that it was restored from; empty of a directory
	Files   int      `json:"files"`   // and other objects that are no directories
	Dirs    int      `json:"dirs"`
	Bytes   int64    `json:"bytes"`             // of the files together
	Skipped []string `json:"skipped,omitempty"` // what could not be restored, each path with why
}

// Restore brings back a version of a path: the ID of a change, its end, or a time; empty for the last.
//
// In place (to empty): a file that is there gets its content, mode and attributes of then as a new version, and what it held
// stays in its history. What was deleted comes back as the same object, so that its history goes on: a directory with all that
// was deleted with it, and the directories above where they are missing. Of a directory that is there, what is below comes to
// be as it was then, but for what is newer, which stays. A path that is there needs a version: ErrInvalid.
//
// With a destination it makes a copy there, with the directories above. One that is a directory gets the copy under its
// present name; one that is a file is ErrExist.
//
// What can't be restored of a directory, as content that was pruned, is in Skipped.
func (h *Home) Restore(ctx context.Context, path, version, to string) (RestoreResult, error) {
	r := restorer{h: h, ctx: ctx}
	err := h.changePath(to, path)
	if err != nil {
		return r.res, err
	}
	for range 8 {
		// What was found may be another inode a moment later: programs save by rename.
		if err = r.run(cleanPath(path), version, to); !errors.Is(err, ErrStale) || r.res.Files+r.res.Dirs > 0 {
			break
		}
	}
	r.announce()
	return r.res, err
}

// eventStep is how many changes are told to the kernel at once.
const eventStep = 256

// changed notes what the kernel is to be told. No lock is held.
func (r *restorer) changed(ev ...Event) {
	if r.events = append(r.events, ev...); len(r.events) >= eventStep {
		r.announce()
	}
}

func (r *restorer) announce() {
	if len(r.events) > 0 {
		r.h.emit(r.events...)
	}
	r.events = nil
}

// restorer is one restore under way.
type restorer struct {
	h      *Home
	ctx    context.Context
	res    RestoreResult
	events []Event
	copies map[dag.ID]uint64   // of files with several names: the inode that copies one
	overs  map[dag.ID]restored // the same of files that are there: what was restored over one
}

// restored says what a file with several names was restored from, and by which of them.
type restored struct {
	object dag.ID
	path   string
}

// source is what a restore brings back.
type source struct {
	s      *space
	name   string
	object dag.ID
	typ    uint32
	from   dag.ID      // the directory that it was in
	gone   trashed     // the entry of the trash that it was found by, if it was
	link   tree.Ref    // in a moment, the name that it was found by
	st     *tree.State // as it was
	then   bool        // st was asked for, and is not just the last there was
	dir    *pastDir    // of a directory
}

// place is where it comes to be.
type place struct {
	s    *space
	dir  uint64
	name string
	path string // for people
}

func (r *restorer) run(path, version, to string) error {
	w, err := r.h.where(path)
	if err != nil {
		return err
	}
	if w.live && version == "" && to == "" {
		return fmt.Errorf("%s: %w: it is there; say which version to restore", path, ErrInvalid)
	}
	// What is there now becomes a version first, and what was deleted a deletion.
	if err := w.s.publishAll(r.ctx); err != nil {
		return err
	}
	if w, err = r.h.where(path); err != nil {
		return err
	}
	src, err := r.source(w, version)
	if err != nil {
		return err
	}
	if src.dir == nil {
		c, err := w.choose(r.ctx, version)
		if err != nil {
			return err
		}
		r.res.Version = c.change.String()
	}
	if to != "" {
		at, err := r.destination(to, w.name)
		if err != nil {
			return err
		}
		r.res.Path = at.path
		return r.copy(src, at)
	}
	r.res.Path = path
	switch {
	case w.live && src.dir != nil:
		return r.into(src, place{s: w.s, dir: w.ino, path: path})
	case w.live:
		return r.over(src, w.ino, path)
	}
	at, err := r.parents(w)
	if err != nil {
		return err
	}
	return r.revive(src, at)
}

// source finds what a path was in a version.
func (r *restorer) source(w *where, version string) (*source, error) {
	c, err := w.choose(r.ctx, version)
	if err != nil {
		return nil, err
	}
	src := &source{s: w.s, name: w.name, object: c.object, typ: w.typ, from: w.parent().object, gone: w.gone, then: version != ""}
	if version != "" && c.object != w.object {
		src.gone = trashed{}
	}
	if w.typ == typeDir {
		src.dir = &pastDir{s: w.s, object: w.object, ino: w.ino, m: &c.m}
		if !w.live && version == "" {
			src.dir.m, src.dir.died = nil, w.gone.time()
		}
		src.st, err = w.s.fold(w.object, src.dir.m)
	} else {
		src.st, err = w.s.foldTo(c.object, c.change)
	}
	if err == nil && src.st == nil {
		err = fmt.Errorf("%s: %w: it was not there then", w.path, ErrNotExist)
	}
	return src, err
}

// parents gives the directory that a deleted path is to come back in, reviving the directories above that were deleted too.
func (r *restorer) parents(w *where) (place, error) {
	at := place{s: w.s, dir: rootDir, path: strings.SplitN(w.path, "/", 2)[0]}
	for i, st := range w.steps {
		at.name = st.name
		path := at.path + "/" + st.name
		if i == len(w.steps)-1 {
			at.path = path
			return at, nil
		}
		if !st.live {
			// Another one may have that name by now: then it comes back there.
			now, ok, err := w.s.liveStep(at.dir, st.name)
			if err != nil {
				return at, err
			}
			if ok && now.typ != typeDir {
				return at, fmt.Errorf("%s: %w: it is a %s now", path, ErrExist, kindName(tree.KindOf(now.typ)))
			}
			if ok {
				st = now
			}
		}
		if !st.live {
			old, err := w.s.fold(st.object, nil)
			if err != nil {
				return at, err
			}
			if old == nil {
				return at, fmt.Errorf("%s: %w", path, ErrNotExist)
			}
			src := &source{s: w.s, name: st.name, object: st.object, typ: st.typ, gone: st.gone, st: old}
			at.path = path
			ino, err := r.reviveOne(src, at)
			if err != nil {
				return at, fmt.Errorf("%s: %w", path, err)
			}
			r.res.Dirs++
			st.ino = ino
		}
		at.dir, at.path = st.ino, path
	}
	return at, fmt.Errorf("%s: %w", w.path, ErrInvalid)
}

// skip notes what could not be restored, and reports whether the restore goes on.
func (r *restorer) skip(path string, err error) error {
	if r.ctx.Err() != nil || errors.Is(err, ErrNoSpace) || r.h.fail.Load() != nil {
		return err
	}
	if len(r.res.Skipped) < 1000 {
		r.res.Skipped = append(r.res.Skipped, path+": "+err.Error())
	}
	return nil
}

func (r *restorer) cred(st *tree.State) Cred {
	if st.Owned {
		return Cred{st.UID, st.GID}
	}
	return Cred{r.h.opt.UID, r.h.opt.GID}
}

// appeared notes for the kernel that a name is there now.
func (r *restorer) appeared(at place) {
	if at.s.watched() {
		at.s.mu.Lock()
		if e, _, err := at.s.lookup(at.dir, at.name); err == nil && e != nil {
			at.s.happened(EventCreated, named{e.Ino, at.dir, at.name}, named{}, e.Type == syscall.S_IFDIR)
		}
		at.s.mu.Unlock()
	}
	r.changed(Event{Parent: at.s.ino(at.dir), Name: at.name, Kind: EventMade})
}

// destination finds where a copy goes, making the directories above.
func (r *restorer) destination(to, name string) (place, error) {
	to = cleanPath(to)
	parts := strings.Split(to, "/")
	if to == "" {
		return place{}, fmt.Errorf("%w: the root holds spaces alone", ErrInvalid)
	}
	s, err := r.h.namedSpace(parts[0])
	if err != nil {
		return place{}, err
	}
	at := place{s: s, dir: rootDir, path: parts[0]}
	for i, part := range parts[1:] {
		st, ok, err := s.liveStep(at.dir, part)
		if err != nil {
			return at, err
		}
		last := i == len(parts)-2
		switch {
		case !ok && last:
			at.name, at.path = part, at.path+"/"+part
			return at, checkName(part)
		case !ok:
			a, err := r.h.Mkdir(s.ino(at.dir), part, 0755, Cred{r.h.opt.UID, r.h.opt.GID})
			if err != nil {
				return at, fmt.Errorf("%s/%s: %w", at.path, part, err)
			}
			at.name = part
			r.appeared(at)
			if _, st.ino, err = r.h.space(a.Ino); err != nil {
				return at, err
			}
		case st.typ != typeDir && last:
			return at, fmt.Errorf("%s: %w", to, ErrExist)
		case st.typ != typeDir:
			return at, fmt.Errorf("%s/%s: %w", at.path, part, ErrNotDir)
		}
		at.dir, at.path = st.ino, at.path+"/"+part
	}
	if name == "" {
		return at, fmt.Errorf("%s: %w", to, ErrExist)
	}
	if _, ok, err := s.liveStep(at.dir, name); err != nil || ok {
		if err == nil {
			err = fmt.Errorf("%s/%s: %w", at.path, name, ErrExist)
		}
		return at, err
	}
	at.name, at.path = name, at.path+"/"+name
	return at, nil
}

// over restores a version over an inode that is there.
func (r *restorer) over(src *source, ino uint64, path string) error {
	if err := r.sameType(src, ino); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := r.renew(src, ino); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	r.res.Files++
	return nil
}

// renew lets a new inode, as a source was, take the place of one that is there.
func (r *restorer) renew(src *source, ino uint64) error {
	n, size, err := r.make(src, src.s)
	if err != nil {
		return err
	}
	defer src.s.unref(n)
	names, err := r.replace(src.s, n, ino)
	if err != nil {
		return err
	}
	r.changed(names...)
	r.res.Bytes += size
	return nil
}

func (r *restorer) sameType(src *source, ino uint64) error {
	src.s.mu.Lock()
	defer src.s.mu.Unlock()
	n, err := src.s.inode(ino)
	if err == nil && n.Type() != src.typ {
		err = syscall.EEXIST
	}
	return err
}
