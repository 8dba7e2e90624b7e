package preview

import (
	"fmt"
	"math"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/tree"
)

const (
	// MaxEntries is how many names a page has at most, and MaxPage how many bytes. A writer ends a page before either is exceeded.
	MaxEntries = 1024
	MaxPage    = 512 << 10
	// maxLayout is how many chunks of a content a page says itself; of more the content's layout block does.
	maxLayout = 64
	maxTarget = 4095
)

// Entry is one name in a directory.
type Entry struct {
	Name  string
	Mode  uint32 // type and permission bits, as st_mode
	Mtime int64  // Unix nanoseconds; 0 of a directory
	Size  int64  // of a file

	// Of a directory: its pages in order. Unlisted says that they are not in the preview.
	Pages    []block.ID
	Unlisted bool

	Target string // of a symbolic link

	// Of a file that is not empty, one of these: its content by root and layout, or the operation that has it, which can be read when
	// that is here. Neither: it can't be read before the history is here.
	Content *tree.Content
	At      tree.Ref
}

type page struct {
	_       struct{} `cbor:",toarray"`
	Version uint
	Entries []rawEntry
}

// rawEntry is an entry as it is written: the items that its type has no use for are zero or empty.
type rawEntry struct {
	_      struct{} `cbor:",toarray"`
	Name   []byte
	Mode   uint32
	Mtime  int64
	Size   int64
	Refs   []byte   // of a directory its pages, of a link the target, of a file the change that has its content
	Place  uint32   // of a file: in that change; of a directory: 1 where its pages are not in the preview
	Root   []byte   // of a content: the CID
	Layout []uint64 // gaps and lengths of its chunks
	Block  []byte   // or the layout block
}

func (e *Entry) kind() uint32 { return e.Mode & syscall.S_IFMT }

// check says whether an entry is within the bounds.
func (e *Entry) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s of %.40q", ErrFormat, what, e.Name) }
	if !tree.ValidName(e.Name) {
		return bad("the name")
	}
	if e.Mode&^(syscall.S_IFMT|07777) != 0 || e.Size < 0 {
		return bad("the mode or size")
	}
	kind := e.kind()
	switch kind {
	case syscall.S_IFDIR, syscall.S_IFREG, syscall.S_IFLNK, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
	default:
		return bad("the type")
	}
	switch {
	case kind != syscall.S_IFDIR && (len(e.Pages) > 0 || e.Unlisted) || len(e.Pages) > MaxPages || e.Unlisted && len(e.Pages) > 0,
		kind == syscall.S_IFDIR && (e.Mtime != 0 || e.Size != 0):
		return bad("the pages")
	case (kind == syscall.S_IFLNK) != (e.Target != "") || len(e.Target) > maxTarget:
		return bad("the target")
	case kind != syscall.S_IFREG && (e.Content != nil || e.At != (tree.Ref{})) || e.Content != nil && e.At != (tree.Ref{}):
		return bad("the content")
	case e.At.Change.IsZero() && e.At.Place != 0:
		return bad("the change")
	}
	if c := e.Content; c != nil {
		if c.Size != e.Size || !c.Root.Defined() || len(c.Inline) > 0 || c.Patch != nil || len(c.Layout) > maxLayout ||
			(len(c.Layout) == 0) == c.LayoutBlock.IsZero() {
			return bad("the content")
		}
		if _, _, err := block.IDFromCID(c.Root); err != nil {
			return bad("the content's root")
		}
		end := int64(0)
		for _, l := range c.Layout {
			if l.Off < end || l.Len <= 0 || l.Len > c.Size || l.Off > c.Size-l.Len {
				return bad("the layout")
			}
			end = l.Off + l.Len
		}
	}
	return nil
}

// Fits reports whether a content can stand in an entry.
func Fits(c *tree.Content) bool {
	return c != nil && c.Root.Defined() && len(c.Layout) <= maxLayout && (len(c.Layout) == 0) != c.LayoutBlock.IsZero() && len(c.Inline) == 0 && c.Patch == nil
}

func (e *Entry) raw() rawEntry {
	r := rawEntry{Name: []byte(e.Name), Mode: e.Mode, Mtime: e.Mtime, Size: e.Size}
	switch {
	case e.kind() == syscall.S_IFDIR:
		if r.Refs = joinIDs(e.Pages); e.Unlisted {
			r.Place = 1
		}
	case e.kind() == syscall.S_IFLNK:
		r.Refs = []byte(e.Target)
	case e.Content != nil:
		r.Root = e.Content.Root.Bytes()
		end := int64(0)
		for _, l := range e.Content.Layout {
			r.Layout = append(r.Layout, uint64(l.Off-end), uint64(l.Len))
			end = l.Off + l.Len
		}
		if b := e.Content.LayoutBlock; !b.IsZero() {
			r.Block = b[:]
		}
	case !e.At.Change.IsZero():
		r.Refs, r.Place = e.At.Change[:], e.At.Place
	}
	return r
}

func (r *rawEntry) entry() (e Entry, err error) {
	bad := fmt.Errorf("%w: %.40q", ErrFormat, r.Name)
	e = Entry{Name: string(r.Name), Mode: r.Mode, Mtime: r.Mtime, Size: r.Size}
	switch {
	case e.kind() == syscall.S_IFDIR:
		if r.Place > 1 {
			return e, bad
		}
		e.Unlisted = r.Place == 1
		if e.Pages, err = splitIDs[block.ID](r.Refs); err != nil {
			return e, err
		}
	case e.kind() == syscall.S_IFLNK:
		e.Target = string(r.Refs)
	case len(r.Root) > 0:
		c := &tree.Content{Size: e.Size}
		if c.Root, err = cid.Cast(r.Root); err != nil || len(r.Layout)%2 != 0 || len(r.Block) != 0 && len(r.Block) != len(c.LayoutBlock) {
			return e, bad
		}
		end := int64(0)
		for l := r.Layout; len(l) > 0; l = l[2:] {
			if l[0] > math.MaxInt64 || l[1] > math.MaxInt64 || int64(l[0]) > math.MaxInt64-end {
				return e, bad
			}
			off := end + int64(l[0])
			if int64(l[1]) > math.MaxInt64-off {
				return e, bad
			}
			c.Layout = append(c.Layout, tree.Chunk{Off: off, Len: int64(l[1])})
			end = off + int64(l[1])
		}
		if len(r.Block) > 0 {
			c.LayoutBlock = block.ID(r.Block)
		}
		e.Content = c
	case len(r.Refs) == len(dag.ID{}):
		e.At = tree.Ref{Change: dag.ID(r.Refs), Place: r.Place}
	}
	return e, e.check()
}

// Writer makes the pages of one directory.
type Writer struct {
	entries []rawEntry
	bytes   int
	last    string
	some    bool
}

// Add adds the next entry of a directory: names ascend. full says that a page has as many as it holds without it: the entry was not added,
// and Page is to be called before it is added again. It fails where the entry is out of bounds.
func (w *Writer) Add(e *Entry) (full bool, err error) {
	if err := e.check(); err != nil {
		return false, err
	}
	if w.some && e.Name <= w.last {
		return false, fmt.Errorf("%w: %.40q does not follow %.40q", ErrFormat, e.Name, w.last)
	}
	r := e.raw()
	n := 64 + len(r.Name) + len(r.Refs) + len(r.Root) + len(r.Block) + 9*len(r.Layout)
	if len(w.entries) == MaxEntries || w.bytes+n > MaxPage {
		return true, nil
	}
	w.entries, w.bytes, w.last, w.some = append(w.entries, r), w.bytes+n, e.Name, true
	return false, nil
}

// Page gives the bytes of the page under way, and begins the next one; nil where nothing was added to it.
func (w *Writer) Page() ([]byte, error) {
	if len(w.entries) == 0 {
		return nil, nil
	}
	b, err := encMode.Marshal(page{Version: version, Entries: w.entries})
	w.entries, w.bytes = nil, 0
	return b, err
}

// DecodePage parses a page. Errors match ErrFormat. That names ascend from page to page is the caller's to look at.
func DecodePage(b []byte) ([]Entry, error) {
	if len(b) > MaxPage {
		return nil, fmt.Errorf("%w: a page of %d bytes", ErrFormat, len(b))
	}
	var p page
	if err := decMode.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if p.Version != version || len(p.Entries) == 0 || len(p.Entries) > MaxEntries {
		return nil, fmt.Errorf("%w: version %d with %d entries", ErrFormat, p.Version, len(p.Entries))
	}
	out := make([]Entry, len(p.Entries))
	again := make([]rawEntry, len(p.Entries))
	for i := range p.Entries {
		e, err := p.Entries[i].entry()
		if err != nil {
			return nil, err
		}
		if i > 0 && e.Name <= out[i-1].Name {
			return nil, fmt.Errorf("%w: %.40q does not follow %.40q", ErrFormat, e.Name, out[i-1].Name)
		}
		out[i], again[i] = e, e.raw()
	}
	if c, err := encMode.Marshal(page{Version: version, Entries: again}); err != nil || string(c) != string(b) {
		return nil, fmt.Errorf("%w: not canonical", ErrFormat)
	}
	return out, nil
}
