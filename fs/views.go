package fs

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/tree"
)

// views serves the read-only directories under .anyfs, which is in every directory and in no listing:
//
//	.anyfs/versions/NAME/TIME-ID.EXT  each content that the file NAME had
//	.anyfs/at/TIME/…                  everything below as it was at a time
//	.anyfs/trash/NAME                 what was deleted from the directory, directories as they were then
//
// Its inodes are virtual: their numbers are a keyed hash of what they show, so that they need no room before someone looks
// one up, and are the same each time. A node is kept while it is referenced, and for a while after.
type views struct {
	h *Home

	mu     sync.Mutex
	nodes  map[Ino]*viewNode
	idle   list.List // of *viewNode without references, the last used first
	listed list.List // of *viewNode with a listing, the last used first
	names  int       // in these listings together
}

const (
	maxIdleViews = 4096
	maxViewNames = 64 << 10 // in the listings that are kept, together
)

// viewNode is one virtual inode.
type viewNode struct {
	ino Ino
	up  Ino // the directory above
	s   *space
	dir viewDir // of a directory

	attr    Attr
	target  string
	at      tree.Ref     // of a file: the operation that holds its content
	file    *VersionFile // of one that shows a merge
	xattrs  map[string][]byte
	waits   bool // of a file: at is in the history, which may not be here yet
	absent  bool // of a file: what it has is not known yet
	object  dag.ID
	version dag.ID // the change whose content a file shows; may be zero

	// Under views.mu.
	refs   int64
	idle   *list.Element
	listed *list.Element
	names  *viewList

	listing sync.Mutex // one listing at a time is made
}

// viewDir is what a virtual directory holds.
type viewDir interface {
	// find gives the entry of a name, or nil.
	find(ctx context.Context, name string) (*viewNode, error)
	// list lists the names.
	list(ctx context.Context) ([]viewEntry, error)
	// stamp changes whenever a listing may change.
	stamp() uint64
}

// viewEntry is one name of a virtual directory. Off is its place in the listing.
type viewEntry struct {
	name string
	typ  uint32
	ino  Ino
	off  uint64
	what any // the directory's own
}

type viewList struct {
	entries []viewEntry // by off
	stamp   uint64
}

// find gives the entry of a name.
func (l *viewList) find(hash uint64, name string) *viewEntry {
	i, _ := slices.BinarySearchFunc(l.entries, hash, func(e viewEntry, h uint64) int {
		switch {
		case e.off < h:
			return -1
		case e.off > h:
			return 1
		}
		return 0
	})
	for ; i < len(l.entries) && l.entries[i].off-hash < 64; i++ {
		if l.entries[i].name == name {
			return &l.entries[i]
		}
	}
	return nil
}

func newViews(h *Home) *views { return &views{h: h, nodes: map[Ino]*viewNode{}} }

// viewKey says what a virtual inode shows.
type viewKey struct {
	what   byte
	slot   uint16
	ino    uint64
	object dag.ID
	id     dag.ID
	time   int64
	name   string
}

// number gives the inode number of what a key names.
func (v *views) number(k *viewKey) Ino {
	b := make([]byte, 0, 96+len(k.name))
	b = append(b, k.what)
	b = binary.LittleEndian.AppendUint16(b, k.slot)
	b = binary.LittleEndian.AppendUint64(b, k.ino)
	b = append(b, k.object[:]...)
	b = append(b, k.id[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(k.time))
	b = append(b, k.name...)
	return viewBit | Ino(v.h.local.Hash64(b))
}

func (v *views) nameHash(name string) uint64 { return max(v.h.local.Hash64([]byte(name))>>1, 16) }

// keep registers a node that was looked up; one that is there already stays.
func (v *views) keep(n *viewNode) *viewNode {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.nodes[n.ino]; old != nil {
		if old.idle != nil {
			v.idle.MoveToFront(old.idle)
		}
		return old
	}
	v.nodes[n.ino] = n
	n.idle = v.idle.PushFront(n)
	for v.idle.Len() > maxIdleViews {
		v.dropLocked(v.idle.Back().Value.(*viewNode))
	}
	return n
}

func (v *views) dropLocked(n *viewNode) {
	if n.idle != nil {
		v.idle.Remove(n.idle)
		n.idle = nil
	}
	v.forgetLocked(n)
	delete(v.nodes, n.ino)
}

func (v *views) forgetLocked(n *viewNode) {
	if n.listed != nil {
		v.listed.Remove(n.listed)
		v.names -= len(n.names.entries)
		n.listed, n.names = nil, nil
	}
}

func (v *views) node(ino Ino) (*viewNode, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[ino]
	if n == nil {
		return nil, ErrStale
	}
	return n, nil
}

func (v *views) ref(ino Ino) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[ino]
	if n == nil {
		return
	}
	n.refs++
	if n.idle != nil {
		v.idle.Remove(n.idle)
		n.idle = nil
	}
}

func (v *views) unref(ino Ino) {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := v.nodes[ino]
	if n == nil || n.refs == 0 {
		return
	}
	if n.refs--; n.refs > 0 {
		return
	}
	n.idle = v.idle.PushFront(n)
	for v.idle.Len() > maxIdleViews {
		v.dropLocked(v.idle.Back().Value.(*viewNode))
	}
}

// lookup finds a name in a virtual directory, or .anyfs in a directory that is not.
func (v *views) lookup(parent Ino, name string) (Attr, error) {
	ctx := context.Background()
	var n *viewNode
	var err error
	if !isView(parent) {
		n, err = v.top(parent)
	} else {
		var d *viewNode
		if d, err = v.node(parent); err != nil {
			return Attr{}, err
		}
		if d.dir == nil {
			return Attr{}, ErrNotDir
		}
		n, err = d.dir.find(ctx, name)
		if n != nil {
			n.up = parent
		}
	}
	if err != nil {
		return Attr{}, err
	}
	if n == nil {
		return Attr{}, ErrNotExist
	}
	n.attr.Ino = n.ino
	return v.keep(n).attr, nil
}

func (v *views) parent(dir Ino) (Ino, error) {
	n, err := v.node(dir)
	if err != nil {
		return 0, err
	}
	return n.up, nil
}

func (v *views) getattr(ino Ino) (Attr, error) {
	n, err := v.node(ino)
	if err != nil {
		return Attr{}, err
	}
	return n.attr, nil
}

// names gives the listing of a virtual directory: the kept one, unless anew asks for one that is fresh.
func (v *views) list(ctx context.Context, n *viewNode, anew bool) (*viewList, error) {
	stamp := n.dir.stamp()
	kept := func() *viewList {
		v.mu.Lock()
		defer v.mu.Unlock()
		if n.names == nil || anew && n.names.stamp != stamp {
			return nil
		}
		v.listed.MoveToFront(n.listed)
		return n.names
	}
	if l := kept(); l != nil {
		return l, nil
	}
	n.listing.Lock()
	defer n.listing.Unlock()
	if l := kept(); l != nil {
		return l, nil
	}
	entries, err := n.dir.list(ctx)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		entries[i].off = v.nameHash(entries[i].name)
	}
	slices.SortFunc(entries, func(a, b viewEntry) int {
		switch {
		case a.off != b.off && a.off < b.off:
			return -1
		case a.off != b.off:
			return 1
		case a.name < b.name:
			return -1
		}
		return 1
	})
	for i := 1; i < len(entries); i++ {
		if entries[i].off <= entries[i-1].off {
			entries[i].off = entries[i-1].off + 1
		}
	}
	l := &viewList{entries, stamp}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forgetLocked(n)
	if v.nodes[n.ino] == n {
		n.names, n.listed = l, v.listed.PushFront(n)
		v.names += len(entries)
		for v.names > maxViewNames && v.listed.Len() > 1 {
			v.forgetLocked(v.listed.Back().Value.(*viewNode))
		}
	}
	return l, nil
}

// entry finds a name in the listing of a directory, making the listing where there is none.
func (v *views) entry(ctx context.Context, n *viewNode, name string) (*viewEntry, error) {
	for _, anew := range []bool{false, true} {
		l, err := v.list(ctx, n, anew)
		if err != nil {
			return nil, err
		}
		if e := l.find(v.nameHash(name), name); e != nil {
			return e, nil
		}
	}
	return nil, nil
}

func (v *views) readDir(dir Ino, off uint64, fn func(Dirent) bool) error {
	n, err := v.node(dir)
	if err != nil {
		return err
	}
	if n.dir == nil {
		return ErrNotDir
	}
	l, err := v.list(context.Background(), n, off == 0)
	if err != nil {
		return err
	}
	for i := range l.entries {
		e := &l.entries[i]
		if e.off > off && !fn(Dirent{Name: e.name, Ino: e.ino, Mode: e.typ, Off: e.off}) {
			return nil
		}
	}
	return nil
}

func (v *views) read(ctx context.Context, ino Ino, p []byte, off int64) (int, error) {
	n, err := v.node(ino)
	if err != nil {
		return 0, err
	}
	if n.dir != nil {
		return 0, ErrIsDir
	}
	switch {
	case n.attr.Mode&syscall.S_IFMT != syscall.S_IFREG:
		return 0, ErrInvalid
	case n.attr.Size == 0:
		return 0, nil
	}
	f, err := n.content(ctx)
	if err != nil {
		return 0, err
	}
	k, err := f.readAt(ctx, p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return k, err
}

func (v *views) readlink(ino Ino) (string, error) {
	n, err := v.node(ino)
	if err != nil {
		return "", err
	}
	if n.attr.Mode&syscall.S_IFMT != syscall.S_IFLNK {
		return "", ErrInvalid
	}
	return n.target, nil
}

// content gives what a file shows. Nodes are many, and hold no content: it is found again.
func (n *viewNode) content(ctx context.Context) (*VersionFile, error) {
	if n.file != nil {
		return n.file, nil
	}
	if n.absent {
		return nil, fmt.Errorf("%w: the history of the file is not here yet", ErrIO)
	}
	if n.waits {
		if err := n.s.awaitChange(ctx, n.at.Change); err != nil {
			return nil, err
		}
	}
	return n.s.contentOf(n.at)
}

// seek finds data and holes.
func (v *views) seek(ino Ino, off int64, whence int) (int64, error) {
	n, err := v.node(ino)
	if err != nil {
		return 0, err
	}
	if n.attr.Mode&syscall.S_IFMT != syscall.S_IFREG || whence != SeekData && whence != SeekHole {
		return 0, ErrInvalid
	}
	if off < 0 || off >= n.attr.Size {
		return 0, errNoData
	}
	if n.waits { // its content may not be here, and is small
		if whence == SeekData {
			return off, nil
		}
		return n.attr.Size, nil
	}
	f, err := n.content(context.Background())
	if err != nil {
		return 0, err
	}
	from, to, err := f.Next(off)
	switch {
	case err != nil:
		return 0, err
	case whence == SeekData && from == n.attr.Size:
		return 0, errNoData
	case whence == SeekData:
		return from, nil
	case from > off:
		return off, nil
	}
	return to, nil
}

// xattr gives an attribute: one that the version had, or user.anyfs.id (its object) and user.anyfs.version (its change).
func (v *views) xattr(ino Ino, name string) ([]byte, error) {
	n, err := v.node(ino)
	if err != nil {
		return nil, err
	}
	switch {
	case name == virtualPrefix+"id" && !n.object.IsZero():
		return []byte(n.object.String()), nil
	case name == virtualPrefix+"version" && !n.version.IsZero():
		return []byte(n.version.String()), nil
	}
	if x, ok := n.xattrs[name]; ok {
		return x, nil
	}
	return nil, ErrNoAttr
}

func (v *views) listxattr(ino Ino) ([]string, error) {
	n, err := v.node(ino)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, len(n.xattrs))
	for name := range n.xattrs {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

// dirAttr is what stat shows of a virtual directory.
func (h *Home) dirAttr(mtime int64) Attr {
	return Attr{
		Mode: syscall.S_IFDIR | 0555, Nlink: 2, UID: h.opt.UID, GID: h.opt.GID, Size: 4096, Blocks: 8,
		Atime: mtime, Mtime: mtime, Ctime: mtime, Btime: mtime,
	}
}

// stampNow is the last record of the space: nothing changes without one.
func (t *topView) stampNow() uint64 {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	return uint64(t.s.last)
}
