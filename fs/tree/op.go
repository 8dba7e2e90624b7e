package tree

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// OpKind is the code of an operation as it stands in a payload. Its lowest bit is the must-understand bit: an unknown
// kind with it makes the object read-only for this version, one without it is kept and left out of the fold.
type OpKind uint16

// The kinds of operations, and the fields of Op that each uses.
const (
	OpLink    OpKind = 1<<1 | 1  // Parent, Name: a new link, whose id and first placement are this operation
	OpMove    OpKind = 2<<1 | 1  // Link, Over, Parent, Name: a new placement, replacing those in Over
	OpUnlink  OpKind = 3<<1 | 1  // Link, Over, Contents: marks the link removed; counts against what it names only
	OpContent OpKind = 4<<1 | 1  // Over, Mtime, Content: a new content value, replacing those in Over
	OpDrop    OpKind = 5<<1 | 1  // Over: takes content values away (they became an object of their own)
	OpMode    OpKind = 6<<1 | 1  // Mode: the permission bits, 07777
	OpMtime   OpKind = 7<<1 | 1  // Mtime: set by utimens
	OpOwner   OpKind = 8<<1 | 1  // UID, GID
	OpTarget  OpKind = 9<<1 | 1  // Target: of a symlink
	OpRdev    OpKind = 10<<1 | 1 // Rdev: of a device
	OpXattr   OpKind = 11 << 1   // Name, Value, Remove
)

// MustUnderstand reports whether a version that does not know the kind may not change the object.
func (k OpKind) MustUnderstand() bool { return k&1 == 1 }

func (k OpKind) known() bool { return k >= OpLink && k <= OpRdev && k&1 == 1 || k == OpXattr }

// Op is one operation of a change. Kind says which fields count; the others are zero.
type Op struct {
	Kind     OpKind
	Remove   bool
	Link     Ref
	Over     []Ref
	Contents []Ref
	Parent   dag.ID
	Name     string
	Mode     uint32
	UID, GID uint32
	Rdev     uint32
	Mtime    int64 // Unix nanoseconds
	Target   string
	Value    []byte
	Content  *Content
	Raw      []byte // of an unknown kind: the whole encoded operation
}

// Limits of the format. What exceeds them is no payload. Sizes are in bytes.
const (
	MaxPayload  = 1 << 20
	MaxOps      = 1 << 14 // of a change
	MaxRefs     = 1 << 17 // of the operations of a change together
	MaxName     = 255
	MaxTarget   = 4095
	MaxXattr    = 64 << 10
	MaxInline   = 64 << 10 // content that sits in the change; writers put more than 8 KiB into blocks
	MaxPatch    = 64 << 10 // written bytes of one patch
	MaxEdits    = 4096     // of one patch
	MaxFileSize = 1<<63 - 1
)

// Content is the content of a file as one operation gives it. It has one of three forms:
//   - inline: Inline, and zeros behind it up to Size;
//   - blocks: Root, the UnixFS tree, and where each of its leaves lies in the file: Layout, or LayoutBlock when that is large;
//   - a patch: Patch, the ranges that differ from the one value that the operation names in Over, and the Size after it.
type Content struct {
	Size        int64
	Inline      []byte
	Root        cid.Cid
	Layout      []Chunk  // ascending, not overlapping
	LayoutBlock block.ID // zero: Layout has it
	Epoch       dag.ID   // the epoch under whose key LayoutBlock is sealed; zero: that of the batch
	Patch       []Edit   // ascending, not overlapping
}

// Chunk is a leaf's place in the file. What lies between chunks is a hole.
type Chunk struct{ Off, Len int64 }

// Edit says that the Len bytes from Off are now Bytes, and zeros behind them where Bytes is shorter.
type Edit struct {
	Off, Len int64
	Bytes    []byte
}

// IsPatch reports whether the content is a patch. An empty patch, which only changes the size, has a Patch of length 0
// that is not nil.
func (c *Content) IsPatch() bool { return c.Patch != nil }

// ErrInvalid is returned for operations and payloads that break the rules of the format.
var ErrInvalid = errors.New("tree: not a valid payload")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// ViewName is the name under which every directory shows its past: no entry of one has it.
const ViewName = ".anyfs"

// ValidName reports whether a directory entry can have the name: 1 to 255 bytes, not ".", ".." or ViewName, no '/' and no NUL.
func ValidName(name string) bool {
	return len(name) > 0 && len(name) <= MaxName && name != "." && name != ".." && name != ViewName && !strings.ContainsAny(name, "/\x00")
}

// check says what is wrong with a known operation.
func (o *Op) check() error {
	switch o.Kind {
	case OpLink, OpMove:
		if !ValidName(o.Name) {
			return invalid("name")
		}
		if o.Parent.IsZero() {
			return invalid("no parent")
		}
	case OpContent:
		if o.Content == nil {
			return invalid("no content")
		}
		if o.Content.IsPatch() && len(o.Over) != 1 {
			return invalid("a patch over %d values", len(o.Over))
		}
		return o.Content.check()
	case OpDrop:
		if len(o.Over) == 0 {
			return invalid("drops nothing")
		}
	case OpMode:
		if o.Mode&^0o7777 != 0 {
			return invalid("mode %o", o.Mode)
		}
	case OpTarget:
		if len(o.Target) == 0 || len(o.Target) > MaxTarget || strings.IndexByte(o.Target, 0) >= 0 {
			return invalid("target")
		}
	case OpXattr:
		if len(o.Name) == 0 || len(o.Name) > MaxName || strings.IndexByte(o.Name, 0) >= 0 {
			return invalid("attribute name")
		}
		if len(o.Value) > MaxXattr || o.Remove && len(o.Value) > 0 {
			return invalid("attribute value")
		}
	}
	return nil
}

func (c *Content) check() error {
	if c.Size < 0 {
		return invalid("size")
	}
	forms := 0
	if c.Root.Defined() {
		forms++
		if _, _, err := block.IDFromCID(c.Root); err != nil {
			return invalid("root: %v", err)
		}
		if len(c.Layout) == 0 == c.LayoutBlock.IsZero() {
			return invalid("layout")
		}
		end := int64(0)
		for _, l := range c.Layout {
			if l.Off < end || l.Len <= 0 || l.Len > c.Size-l.Off {
				return invalid("layout")
			}
			end = l.Off + l.Len
		}
	} else if len(c.Layout) > 0 || !c.LayoutBlock.IsZero() || !c.Epoch.IsZero() {
		return invalid("layout of nothing")
	}
	if c.Patch != nil {
		forms++
		if err := c.checkPatch(); err != nil {
			return err
		}
	}
	if len(c.Inline) > 0 {
		forms++
	}
	if forms > 1 {
		return invalid("content of two forms")
	}
	if len(c.Inline) > MaxInline || int64(len(c.Inline)) > c.Size {
		return invalid("inline content")
	}
	return nil
}

func (c *Content) checkPatch() error {
	if len(c.Patch) > MaxEdits {
		return invalid("%d edits", len(c.Patch))
	}
	end, sum := int64(0), 0
	for _, e := range c.Patch {
		if e.Off < end || e.Len <= 0 || e.Len > c.Size-e.Off || int64(len(e.Bytes)) > e.Len {
			return invalid("patch")
		}
		end = e.Off + e.Len
		sum += len(e.Bytes)
	}
	if sum > MaxPatch {
		return invalid("patch of %d bytes", sum)
	}
	return nil
}
