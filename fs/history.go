package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// Version is one change of one object.
type Version struct {
	ID      string     `json:"id"`    // the change's CID
	Short   string     `json:"short"` // its last characters, as the views of history show it
	Time    time.Time  `json:"time"`  // by the clock of the device that made it
	Device  DeviceInfo `json:"device"`
	Account string     `json:"account"`
	Object  string     `json:"object"`
	Kind    string     `json:"kind"` // file, directory, symlink, fifo, socket, char or block
	Path    string     `json:"path"` // that it had then, its directory as that is called now: of several the one asked for; empty: none
	Size    int64      `json:"size"` // of the content then; -1: not a file, or not known
	Content bool       `json:"content"`
	Current bool       `json:"current"` // its content is what the path shows now
	Pruned  bool       `json:"pruned"`  // its content is not on this device any more
	Lapsed  bool       `json:"lapsed"`  // its author had lost the right to write, and it counts since others built on it before they heard of that

	Changes []VersionChange `json:"changes"`

	id dag.ID
	at tree.Ref // of the content operation, where Content is set
}

// VersionChange is one thing that a change did.
type VersionChange struct {
	What string `json:"what"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// What a VersionChange can say, with what From and To hold.
const (
	didCreate  = "created"       // To: path
	didContent = "content"       //
	didRename  = "renamed"       // From, To: paths
	didRestore = "restored"      // To: path; a removed name came back
	didLink    = "linked"        // To: path; one more name
	didRemove  = "removed"       // From: path
	didMode    = "mode"          // To: octal
	didOwner   = "owner"         // To: uid:gid
	didMtime   = "mtime"         // To: RFC 3339
	didTarget  = "target"        // To: of a symlink
	didXattr   = "xattr"         // To: name
	didNoXattr = "xattr removed" // From: name
)

// Summary says on one line what the change did.
func (v *Version) Summary() string {
	out := make([]string, 0, len(v.Changes))
	for _, c := range v.Changes {
		switch {
		case c.What == didCreate || c.What == didContent || c.What == didRemove:
			out = append(out, c.What)
		case c.From != "" && c.To != "":
			out = append(out, c.What+" "+c.From+" → "+c.To)
		default:
			out = append(out, c.What+" "+c.From+c.To)
		}
	}
	return strings.Join(out, ", ")
}

// shortLen is how many characters of a change's CID name it in lists: its last ones, since all begin alike.
const shortLen = 8

func shortID(id string) string { return id[max(0, len(id)-shortLen):] }

// Log lists the versions of the object at a path, the newest first: every change of it, after publishing what is pending. A
// path that was deleted lists the last object that had it. It returns at most LogMax; LogEach has no limit.
func (h *Home) Log(path string) ([]Version, error) {
	var out []Version
	err := h.LogEach(context.Background(), path, func(v Version) bool {
		out = append(out, v)
		return len(out) < LogMax
	})
	return out, err
}

// LogEach calls fn for the versions that Log lists, one by one, until fn returns false. Memory does not grow with their number.
func (h *Home) LogEach(ctx context.Context, path string, fn func(Version) bool) error {
	w, err := h.where(path)
	if err != nil {
		return err
	}
	if err := w.s.published(ctx, &w.step); err != nil {
		return err
	}
	l, err := w.s.newLog(w)
	if err != nil {
		return err
	}
	return l.walk(ctx, w.object, fn)
}

// logWalk goes through an object's changes from the newest back. What a version says of the time before it, as its size where
// it was not written, is in an older change: versions wait for it in held.
type logWalk struct {
	s     *space
	space string // its name
	kind  tree.Kind
	live  bool // the object has the path that was asked for
	shown bool // the content that is shown was met

	// The names of the object, each where it was at this point of the walk.
	links []tree.Link           // in order of creation; those that the walk did not come to the making of
	at    map[tree.Ref]logPlace // of these
	link  tree.Ref              // the one that the walk follows; zero: there is none
	asked tree.Ref              // the one that was asked for, where it was removed

	held     []Version
	object   string
	dirs     map[dag.ID]string
	devices  map[dag.PublicKey]DeviceInfo
	accounts map[dag.PublicKey]string
	lapsed   lapses
}

// logPlace is where a link is. The path is that of the names, unless it is set.
type logPlace struct {
	parent dag.ID
	name   string
	path   string
}

// maxHeld bounds how many versions wait for an older one that says what they were called and how long they were.
const maxHeld = 1024

func (s *space) newLog(w *where) (*logWalk, error) {
	l := &logWalk{
		s: s, space: w.s.h.spaceName(s), live: w.live, object: w.object.String(), at: map[tree.Ref]logPlace{},
		dirs: map[dag.ID]string{}, devices: map[dag.PublicKey]DeviceInfo{}, accounts: map[dag.PublicKey]string{},
	}
	var err error
	if l.kind, err = s.kindOf(w.object); err != nil {
		return nil, err
	}
	st, err := s.fold(w.object, nil)
	if err != nil || st == nil {
		return l, err
	}
	l.links = st.Links
	for i := range st.Links {
		p := st.Links[i].Shown()
		l.at[st.Links[i].ID] = logPlace{p.Parent, p.Name, ""}
	}
	if w.live {
		l.link, err = s.linkOf(w, st)
	} else if k := removedLink(st, w.parent().object, w.name); k != nil {
		l.link, l.asked = k.ID, k.ID
		if live := st.LiveLinks(); len(live) > 0 {
			l.link = live[len(live)-1].ID // it went on under another name
		}
	}
	if l.link == l.asked || w.live {
		p := l.at[l.link]
		p.path = w.path // which may be that of a conflict copy
		l.at[l.link] = p
	}
	return l, err
}

// linkOf gives the link by which a live path names its object; zero where there is none, as of the root.
func (s *space) linkOf(w *where, st *tree.State) (tree.Ref, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.ix.Inode(w.ino)
	if err != nil {
		return tree.Ref{}, s.damaged(err)
	}
	if n != nil { // which may show another name than the link says, as that of a conflict copy
		for i := range n.Links {
			if k := &n.Links[i]; k.Parent == w.parent().ino && k.Name == w.name {
				return k.ID, nil
			}
		}
	}
	var last tree.Ref
	for _, k := range st.LiveLinks() { // another inode took the name meanwhile
		if p := k.Shown(); p.Parent == w.parent().object && p.Name == w.name {
			return k.ID, nil
		}
		last = k.ID
	}
	return last, nil
}

// kindOf gives the kind of an object, from its root.
func (s *space) kindOf(object dag.ID) (tree.Kind, error) {
	if object == tree.RootObject(s.id) {
		return tree.KindDir, nil
	}
	e, err := s.graph.Change(object)
	if err != nil {
		if errors.Is(err, dag.ErrNotFound) {
			return tree.KindNone, nil
		}
		return tree.KindNone, s.damaged(err)
	}
	if p := s.opened(&e); p != nil {
		return p.Kind, nil
	}
	return tree.KindNone, nil
}

func (l *logWalk) walk(ctx context.Context, object dag.ID, fn func(Version) bool) error {
	err := l.s.graph.ChangesBack(object, func(e dag.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		l.add(&e)
		return l.release(fn, false)
	})
	if err == nil {
		err = l.release(fn, true)
	}
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// release hands out the versions that wait for nothing more.
func (l *logWalk) release(fn func(Version) bool, all bool) error {
	n := 0
	for n < len(l.held) && (all || len(l.held)-n > maxHeld || !l.waits(&l.held[n])) {
		v := &l.held[n]
		if v.Size == sizeUnknown {
			v.Size = -1
		}
		n++
		if !fn(*v) {
			return errStop
		}
	}
	l.held = append(l.held[:0], l.held[n:]...)
	return nil
}

// sizeUnknown is the size of a version that an older change tells.
const sizeUnknown = -2

func (l *logWalk) waits(v *Version) bool { return v.Size == sizeUnknown }

// add turns a change into a version and tells those that wait what it knows.
func (l *logWalk) add(e *dag.Entry) {
	v := Version{
		id: e.ID, ID: e.ID.String(), Device: l.device(e.Change.Device), Account: l.account(e.Batch.Account),
		Object: l.object, Kind: kindName(l.kind), Size: -1, Path: l.path(), Lapsed: l.s.hasLapsed(e.Batch, &l.lapsed),
	}
	v.Short = shortID(v.ID)
	if l.kind == tree.KindFile {
		v.Size = sizeUnknown
	}
	p := l.s.opened(e)
	if p == nil {
		v.Changes = []VersionChange{{What: "unreadable"}}
		l.held = append(l.held, v)
		return
	}
	v.Time = time.Unix(0, p.Time)
	for i := len(p.Ops) - 1; i >= 0; i-- {
		l.op(&v, e, &p.Ops[i], uint32(i))
	}
	root := e.Change.Object.IsZero()
	if root {
		v.Changes = creation(v.Changes, &v)
		l.tell(func(w *Version) {
			if w.Size == sizeUnknown {
				w.Size = 0 // a file that was never written
			}
		})
		if v.Size == sizeUnknown {
			v.Size = 0
		}
	} else {
		for i, j := 0, len(v.Changes)-1; i < j; i, j = i+1, j-1 {
			v.Changes[i], v.Changes[j] = v.Changes[j], v.Changes[i]
		}
	}
	l.held = append(l.held, v)
}

// creation sums up what the first change of an object did: what it sets is part of the creation.
func creation(changes []VersionChange, v *Version) []VersionChange {
	out := []VersionChange{{What: didCreate, To: v.Path}}
	for i := len(changes) - 1; i >= 0; i-- {
		c := &changes[i]
		switch {
		case c.What == didContent:
			out = append(out, *c)
		case c.What == didLink && v.Path == "":
			v.Path, out[0].To = c.To, c.To // a name that the state has forgotten
		case c.What == didLink && c.To != v.Path:
			out = append(out, *c)
		}
	}
	return out
}

func (l *logWalk) tell(fn func(*Version)) {
	for i := range l.held {
		fn(&l.held[i])
	}
}

// path gives the path of the link that the walk follows.
func (l *logWalk) path() string {
	p, ok := l.at[l.link]
	switch {
	case !ok:
		return ""
	case p.path == "":
		p.path = l.pathOf(p.parent, p.name)
		l.at[l.link] = p
	}
	return p.path
}

// made goes back beyond the making of a link, by the change e. If it is the one that the walk follows, the walk goes on with
// another that the object had before: as far as is known, one that was not removed then.
func (l *logWalk) made(ref tree.Ref, e *dag.Entry) {
	i := slices.IndexFunc(l.links, func(k tree.Link) bool { return k.ID == ref })
	if i < 0 {
		return
	}
	delete(l.at, ref)
	l.links = l.links[:i]
	if ref != l.link {
		return
	}
	l.link = tree.Ref{}
	for i--; i >= 0; i-- {
		if k := &l.links[i]; !k.Removed || k.Mark.Pos.Compare(e.Pos) >= 0 {
			l.link = k.ID
			return
		}
	}
}

// op notes one operation; they come from the last to the first.
func (l *logWalk) op(v *Version, e *dag.Entry, o *tree.Op, place uint32) {
	did := func(what, from, to string) { v.Changes = append(v.Changes, VersionChange{what, from, to}) }
	switch o.Kind {
	case tree.OpLink:
		did(didLink, "", l.pathOf(o.Parent, o.Name))
		l.made(tree.Ref{Change: e.ID, Place: place}, e)
	case tree.OpMove:
		path, from := l.pathOf(o.Parent, o.Name), ""
		if p, ok := l.placed(o.Over); ok {
			from = l.pathOf(p.parent, p.name)
			if _, ok := l.at[o.Link]; ok {
				l.at[o.Link] = p
			}
		}
		if from == path {
			did(didRestore, "", path)
		} else {
			did(didRename, from, path)
		}
	case tree.OpUnlink:
		from := ""
		if p, ok := l.placed(o.Over); ok {
			from = l.pathOf(p.parent, p.name)
		}
		if o.Link == l.asked {
			l.link = l.asked
			v.Path = l.path()
		}
		did(didRemove, from, "")
	case tree.OpContent:
		l.content(v, e, o, place)
		did(didContent, "", "")
	case tree.OpMode:
		did(didMode, "", fmt.Sprintf("%04o", o.Mode))
	case tree.OpMtime:
		did(didMtime, "", time.Unix(0, o.Mtime).Format(time.RFC3339Nano))
	case tree.OpOwner:
		did(didOwner, "", fmt.Sprintf("%d:%d", o.UID, o.GID))
	case tree.OpTarget:
		v.Content = true
		did(didTarget, "", o.Target)
	case tree.OpXattr:
		switch {
		case strings.HasPrefix(o.Name, internalPrefix):
		case o.Remove:
			did(didNoXattr, o.Name, "")
		default:
			did(didXattr, "", o.Name)
		}
	}
}

func (l *logWalk) content(v *Version, e *dag.Entry, o *tree.Op, place uint32) {
	size := o.Content.Size
	v.Content, v.Size, v.at = true, size, tree.Ref{Change: e.ID, Place: place}
	if !l.shown {
		l.shown, v.Current = true, l.live
	}
	if o.Content.Root.Defined() {
		if listed, err := l.s.isPruned(o.Content.Root); err == nil && listed {
			v.Pruned = !l.s.isWhole(context.Background(), o.Content.Root)
		}
	}
	l.tell(func(w *Version) {
		if w.Size == sizeUnknown {
			w.Size = size
		}
	})
}

// placed gives the highest of some placements.
func (l *logWalk) placed(over []tree.Ref) (logPlace, bool) {
	if len(over) == 0 {
		return logPlace{}, false
	}
	r := over[len(over)-1]
	p, err := l.s.payload(r.Change)
	if err != nil || int(r.Place) >= len(p.Ops) {
		return logPlace{}, false
	}
	o := &p.Ops[r.Place]
	if o.Kind != tree.OpLink && o.Kind != tree.OpMove {
		return logPlace{}, false
	}
	return logPlace{o.Parent, o.Name, ""}, true
}

// pathOf gives the path of a name in a directory.
func (l *logWalk) pathOf(dir dag.ID, name string) string {
	path, ok := l.dirs[dir]
	if !ok {
		if len(l.dirs) > 1024 {
			clear(l.dirs)
		}
		path = l.s.objectPath(l.space, dir)
		l.dirs[dir] = path
	}
	return path + "/" + name
}

func (l *logWalk) device(key dag.PublicKey) DeviceInfo {
	d, ok := l.devices[key]
	if !ok {
		d = DeviceInfo{PeerID: acl.PeerID(key)}
		d.Name, _ = l.s.acl.DeviceName(key)
		l.devices[key] = d
	}
	return d
}

func (l *logWalk) account(key dag.PublicKey) string {
	a, ok := l.accounts[key]
	if !ok {
		a = acl.FormatIdentity(key)
		l.accounts[key] = a
	}
	return a
}
