package index

import (
	"syscall"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// Link is one name of an inode.
type Link struct {
	Key    uint32   // names the link within the inode, from 1; never reused
	Parent uint64   // the directory's inode number
	Name   string   // the name in it
	ID     tree.Ref // the published link; zero when it was not published yet
	Val    tree.Ref // its published placement: the link's creation or its last move
	Dirty  journal.Seq

	WasParent uint64 // the published place, of a published link that is dirty
	WasName   string
}

// Move puts the link at another place. One that comes back to its published place has nothing to publish.
func (l *Link) Move(seq journal.Seq, parent uint64, name string) {
	if !l.ID.Change.IsZero() && l.Dirty == 0 {
		l.WasParent, l.WasName = l.Parent, l.Name
	}
	l.Parent, l.Name, l.Dirty = parent, name, seq
	l.settle()
}

func (l *Link) settle() {
	if !l.ID.Change.IsZero() && l.WasParent == l.Parent && l.WasName == l.Name {
		l.Dirty, l.WasParent, l.WasName = 0, 0, ""
	}
}

// Place gives the published place of a published link.
func (l *Link) Place() (parent uint64, name string) {
	if l.Dirty == 0 {
		return l.Parent, l.Name
	}
	return l.WasParent, l.WasName
}

// Published notes that a change placed the link at parent and name, by the value val (and made it, where id is not zero).
// seq marks the link dirty when it has moved on since.
func (l *Link) Published(seq journal.Seq, id, val tree.Ref, parent uint64, name string) {
	if !id.Change.IsZero() {
		l.ID = id
	}
	l.Val = val
	if l.Dirty == 0 {
		l.Dirty = seq
	}
	l.WasParent, l.WasName = parent, name
	l.settle()
}

// Gone is a published link that was removed here, and whose mark is not published yet.
type Gone struct {
	Key      uint32 // the link's
	Object   dag.ID
	Link     tree.Ref
	Over     []tree.Ref // the placements that the removal saw
	Contents []tree.Ref // the content values that it saw
	Seq      journal.Seq
}

// Also is what a name stands for besides its link's placement: other placements of that link, which were made concurrently, or of a
// directory the link of another that it shows too. What removes or moves the name concerns them as well.
type Also struct {
	Object dag.ID
	Link   tree.Ref
	Over   []tree.Ref // placements
}

// Xattr is one extended attribute.
type Xattr struct {
	Name  string
	Value []byte
}

// XattrDirty names an attribute that was set or removed since the last publication.
type XattrDirty struct {
	Name string
	Seq  journal.Seq
}

// Cut is a truncation of the base content: nothing at or above Size shows through from it.
type Cut struct {
	Seq  journal.Seq
	Size int64
}

// Inode is one file, directory or other object as this device shows it: its published state and what was done to it since.
//
// A journal.Seq in a Dirty field is the record that last changed that aspect; zero means that it is as published.
type Inode struct {
	Ino                 uint64
	Mode                uint32
	Rdev                uint32
	UID, GID            uint32
	Owned               bool // UID and GID were set by someone; else they are the mounting user's
	Size                int64
	Mtime, Ctime, Btime int64
	Subdirs, Entries    uint32 // of a directory
	Target              string
	Xattrs              []Xattr // sorted by name
	Links               []Link
	NextKey             uint32
	Parent              uint64 // of a directory: the same as its link's, kept while it is removed

	Object   dag.ID // zero until published
	Also     []Also
	Contents []tree.Ref // the content values that are shown, and that the next one replaces
	Base     *tree.Content
	BaseAt   tree.Ref // the change that holds Base.Inline, when Base is inline and not held here
	Patched  Patched  // the published patches over Base; what they hold is in Ext and Cuts
	Cuts     []Cut    // sizes strictly growing with Seq; the first one may be published (Seq 0)
	Ext      *Extents // nil when nothing was written since the base

	DirtyNew, DirtyMode, DirtyOwner, DirtyMtime, DirtyContent, DirtyTarget journal.Seq
	DirtyXattrs                                                            []XattrDirty
	Gone                                                                   []Gone
}

// Over gives the placements of a published link that its next one replaces.
func (n *Inode) Over(l *Link) []tree.Ref {
	over := []tree.Ref{l.Val}
	for i := range n.Also {
		if a := &n.Also[i]; a.Link == l.ID {
			over = append(over, a.Over...)
		}
	}
	return over
}

// IsDir, IsRegular and Type look at the mode.
func (n *Inode) IsDir() bool     { return n.Mode&syscall.S_IFMT == syscall.S_IFDIR }
func (n *Inode) IsRegular() bool { return n.Mode&syscall.S_IFMT == syscall.S_IFREG }
func (n *Inode) Type() uint32    { return n.Mode & syscall.S_IFMT }

// Nlink is what stat shows.
func (n *Inode) Nlink() uint32 {
	if n.IsDir() {
		if len(n.Links) == 0 && n.Parent != 0 {
			return 0
		}
		return 2 + n.Subdirs
	}
	return uint32(len(n.Links))
}

// Dirty reports whether anything is to be published.
func (n *Inode) Dirty() bool {
	if len(n.Gone) > 0 {
		return true
	}
	if n.DirtyNew|n.DirtyMode|n.DirtyOwner|n.DirtyMtime|n.DirtyContent|n.DirtyTarget != 0 || len(n.DirtyXattrs) > 0 {
		return true
	}
	for i := range n.Links {
		if n.Links[i].Dirty != 0 {
			return true
		}
	}
	return false
}

// Limit is how much of the base content still shows: the lowest size that the file had since.
func (n *Inode) Limit() int64 {
	if n.Base == nil {
		return 0
	}
	limit := n.Base.Size
	if len(n.Cuts) > 0 && n.Cuts[0].Size < limit {
		limit = n.Cuts[0].Size
	}
	return limit
}

// AddCut notes that the file was cut to size. It is kept though the base may be shorter: a content that is being published
// may become the base, and is cut too.
func (n *Inode) AddCut(seq journal.Seq, size int64) {
	cuts := make([]Cut, 0, len(n.Cuts)+1)
	for _, c := range n.Cuts {
		if c.Size < size {
			cuts = append(cuts, c)
		}
	}
	n.Cuts = append(cuts, Cut{seq, size})
}

// Xattr gives the value of an attribute.
func (n *Inode) Xattr(name string) ([]byte, bool) {
	for i := range n.Xattrs {
		if n.Xattrs[i].Name == name {
			return n.Xattrs[i].Value, true
		}
	}
	return nil, false
}

// Clamp lowers the records that the inode's unpublished changes carry to at most seq: those that come from now on are later.
func (n *Inode) Clamp(seq journal.Seq) {
	for _, d := range n.dirtySeqs() {
		*d = min(*d, seq)
	}
	for i := range n.Links {
		n.Links[i].Dirty = min(n.Links[i].Dirty, seq)
	}
	n.DirtyXattrs = append([]XattrDirty(nil), n.DirtyXattrs...)
	for i := range n.DirtyXattrs {
		n.DirtyXattrs[i].Seq = min(n.DirtyXattrs[i].Seq, seq)
	}
	n.Cuts = append([]Cut(nil), n.Cuts...)
	for i := range n.Cuts {
		n.Cuts[i].Seq = min(n.Cuts[i].Seq, seq)
	}
	n.Gone = append([]Gone(nil), n.Gone...)
	for i := range n.Gone {
		n.Gone[i].Seq = min(n.Gone[i].Seq, seq)
	}
	if n.Ext == nil {
		return
	}
	lower := map[*Source]*Source{}
	ext := &Extents{}
	n.Ext.Range(0, 1<<63-1, func(off int64, x Extent) bool {
		to, ok := lower[x.Src]
		if !ok {
			c := *x.Src
			if c.Seq > seq {
				c.Seq = seq
				if c.Kind == SourceJournal {
					// Its record is lost: it pins nothing, and reading it fails. No use of a file has the number 0; the one that it
					// had may be given to a use that comes.
					c.Seq, c.Loc.File = 0, 0
				}
			}
			to = &c
			lower[x.Src] = to
		}
		x.Src = to
		ext.Put(off, x)
		return true
	})
	n.Ext = ext
}

// Clone returns a copy that may be changed while readers keep the original. What is behind slices is replaced, never
// changed in place, except Links and Ext, which are copied here.
func (n *Inode) Clone() *Inode {
	c := *n
	c.Links = append([]Link(nil), n.Links...)
	c.Xattrs, c.Cuts, c.Gone = clip(n.Xattrs), clip(n.Cuts), clip(n.Gone)
	c.DirtyXattrs, c.Contents, c.Also = clip(n.DirtyXattrs), clip(n.Contents), clip(n.Also)
	if n.Ext != nil {
		c.Ext = n.Ext.Clone()
	}
	return &c
}

// clip makes an append to the slice copy it first.
func clip[T any](s []T) []T { return s[:len(s):len(s)] }

// Entry is one name in a directory.
type Entry struct {
	Name string // empty: a place that later ones were stepped over, and that holds no entry any more
	Ino  uint64
	Type uint32 // type bits of the mode
	Next bool   // an entry whose hash was the same, or stepped over this one, may lie behind
}
