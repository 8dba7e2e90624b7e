package index

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// The first byte of every stored record is its version.
const (
	inodeVersion = 1
	entryVersion = 1
)

// Limits of a stored inode; what exceeds them is damage.
const (
	maxString = 1 << 20
	maxList   = 1 << 22
)

type encoder struct{ b []byte }

func (e *encoder) uint(v uint64)  { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)    { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) str(s string)   { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) bytes(s []byte) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) seq(s journal.Seq) {
	e.uint(uint64(s))
}
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

// ref writes a Ref; those of the object's own root change, the most common, cost two bytes.
func (e *encoder) ref(r tree.Ref, object dag.ID) {
	switch {
	case r.Change.IsZero():
		e.uint(0)
	case r.Change == object:
		e.uint(uint64(r.Place)<<2 | 1)
	default:
		e.uint(uint64(r.Place)<<2 | 2)
		e.b = append(e.b, r.Change[:]...)
	}
}

func (e *encoder) refs(rs []tree.Ref, object dag.ID) {
	e.uint(uint64(len(rs)))
	for _, r := range rs {
		e.ref(r, object)
	}
}

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = ErrCorrupt
	}
	d.b = nil
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) raw(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n > maxString {
		d.fail()
		return nil
	}
	v := d.raw(n)
	if len(v) == 0 {
		return nil
	}
	return append([]byte(nil), v...)
}

func (d *decoder) str() string {
	n := d.uint()
	if n > maxString {
		d.fail()
		return ""
	}
	return string(d.raw(n))
}

func (d *decoder) seq() journal.Seq { return journal.Seq(d.uint()) }

func (d *decoder) bool() bool {
	v := d.raw(1)
	if len(v) == 0 {
		return false
	}
	if v[0] > 1 {
		d.fail()
	}
	return v[0] == 1
}

func (d *decoder) id() (id [32]byte) {
	copy(id[:], d.raw(32))
	return id
}

func (d *decoder) ref(object dag.ID) tree.Ref {
	v := d.uint()
	place := uint32(v >> 2)
	switch v & 3 {
	case 0:
		return tree.Ref{}
	case 1:
		return tree.Ref{Change: object, Place: place}
	case 2:
		return tree.Ref{Change: d.id(), Place: place}
	}
	d.fail()
	return tree.Ref{}
}

// count reads the length of a list whose items take at least min bytes each.
func (d *decoder) count(min int) int {
	n := d.uint()
	if n > maxList || n*uint64(min) > uint64(len(d.b)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) refs(object dag.ID) []tree.Ref {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	out := make([]tree.Ref, 0, n)
	for range n {
		out = append(out, d.ref(object))
	}
	return out
}

// Bits of the head of an inode: which of the rarer parts follow.
const (
	hasOwner = 1 << iota
	hasRdev
	hasTarget
	hasXattrs
	hasObject
	hasBase
	hasCuts
	hasExt
	hasDirty
	hasGone
	isDir
	hasPatches
	hasAlso
)

// AppendInode appends the stored form of an inode; its number is the key it is stored under.
func AppendInode(b []byte, n *Inode) []byte {
	e := &encoder{append(b, inodeVersion)}
	var has uint64
	set := func(bit uint64, v bool) {
		if v {
			has |= bit
		}
	}
	set(hasOwner, n.Owned)
	set(hasRdev, n.Rdev != 0)
	set(hasTarget, n.Target != "")
	set(hasXattrs, len(n.Xattrs) > 0)
	set(hasObject, !n.Object.IsZero())
	set(hasBase, n.Base != nil)
	set(hasCuts, len(n.Cuts) > 0)
	set(hasExt, n.Ext != nil && n.Ext.Len() > 0)
	set(hasDirty, n.Dirty())
	set(hasGone, len(n.Gone) > 0)
	set(isDir, n.IsDir())
	set(hasPatches, n.Patched.Count > 0)
	set(hasAlso, len(n.Also) > 0)
	e.uint(has)
	e.uint(uint64(n.Mode))
	e.int(n.Size)
	e.int(n.Mtime)
	e.int(n.Ctime - n.Mtime)
	e.int(n.Btime - n.Mtime)
	if has&hasOwner != 0 {
		e.uint(uint64(n.UID))
		e.uint(uint64(n.GID))
	}
	if has&hasRdev != 0 {
		e.uint(uint64(n.Rdev))
	}
	if has&isDir != 0 {
		e.uint(uint64(n.Subdirs))
		e.uint(uint64(n.Entries))
		e.uint(n.Parent)
	}
	if has&hasTarget != 0 {
		e.str(n.Target)
	}
	if has&hasObject != 0 {
		e.b = append(e.b, n.Object[:]...)
	}
	if has&hasXattrs != 0 {
		e.uint(uint64(len(n.Xattrs)))
		for _, x := range n.Xattrs {
			e.str(x.Name)
			e.bytes(x.Value)
		}
	}
	e.uint(uint64(n.NextKey))
	e.uint(uint64(len(n.Links)))
	for _, l := range n.Links {
		e.uint(uint64(l.Key))
		e.uint(l.Parent)
		e.str(l.Name)
		e.ref(l.ID, n.Object)
		e.ref(l.Val, n.Object)
		e.seq(l.Dirty)
		if l.Dirty != 0 && !l.ID.Change.IsZero() {
			e.uint(l.WasParent)
			e.str(l.WasName)
		}
	}
	if has&hasAlso != 0 {
		e.uint(uint64(len(n.Also)))
		for _, a := range n.Also {
			e.b = append(e.b, a.Object[:]...)
			e.ref(a.Link, a.Object)
			e.refs(a.Over, a.Object)
		}
	}
	e.refs(n.Contents, n.Object)
	if has&hasBase != 0 {
		e.content(n.Base) // inline bytes too, where no change holds them
		e.ref(n.BaseAt, n.Object)
	}
	if has&hasPatches != 0 {
		e.patched(n)
	}
	if has&hasCuts != 0 {
		e.cuts(n.Cuts)
	}
	if has&hasExt != 0 {
		e.extents(n.Ext)
	}
	if has&hasDirty != 0 {
		for _, s := range n.dirtySeqs() {
			e.seq(*s)
		}
		e.uint(uint64(len(n.DirtyXattrs)))
		for _, x := range n.DirtyXattrs {
			e.str(x.Name)
			e.seq(x.Seq)
		}
	}
	if has&hasGone != 0 {
		e.uint(uint64(len(n.Gone)))
		for _, g := range n.Gone {
			e.b = append(e.b, g.Object[:]...)
			e.uint(uint64(g.Key))
			e.ref(g.Link, g.Object)
			e.refs(g.Over, g.Object)
			e.refs(g.Contents, g.Object)
			e.seq(g.Seq)
		}
	}
	return e.b
}

func (n *Inode) dirtySeqs() [6]*journal.Seq {
	return [6]*journal.Seq{&n.DirtyNew, &n.DirtyMode, &n.DirtyOwner, &n.DirtyMtime, &n.DirtyContent, &n.DirtyTarget}
}

// DecodeInode parses a stored inode. Errors match ErrCorrupt.
func DecodeInode(b []byte) (*Inode, error) {
	if len(b) == 0 || b[0] != inodeVersion {
		return nil, fmt.Errorf("%w: version of the inode", ErrCorrupt)
	}
	d := &decoder{b: b[1:]}
	n := &Inode{}
	has := d.uint()
	n.Mode = uint32(d.uint())
	n.Size = d.int()
	n.Mtime = d.int()
	n.Ctime = n.Mtime + d.int()
	n.Btime = n.Mtime + d.int()
	if has&hasOwner != 0 {
		n.Owned = true
		n.UID, n.GID = uint32(d.uint()), uint32(d.uint())
	}
	if has&hasRdev != 0 {
		n.Rdev = uint32(d.uint())
	}
	if has&isDir != 0 {
		n.Subdirs, n.Entries, n.Parent = uint32(d.uint()), uint32(d.uint()), d.uint()
	}
	if has&hasTarget != 0 {
		n.Target = d.str()
	}
	if has&hasObject != 0 {
		n.Object = d.id()
	}
	if has&hasXattrs != 0 {
		for range d.count(2) {
			n.Xattrs = append(n.Xattrs, Xattr{Name: d.str(), Value: d.bytes()})
		}
	}
	n.NextKey = uint32(d.uint())
	for range d.count(6) {
		l := Link{
			Key: uint32(d.uint()), Parent: d.uint(), Name: d.str(),
			ID: d.ref(n.Object), Val: d.ref(n.Object), Dirty: d.seq(),
		}
		if l.Dirty != 0 && !l.ID.Change.IsZero() {
			l.WasParent, l.WasName = d.uint(), d.str()
		}
		n.Links = append(n.Links, l)
	}
	if has&hasAlso != 0 {
		for range d.count(34) {
			a := Also{Object: d.id()}
			a.Link, a.Over = d.ref(a.Object), d.refs(a.Object)
			n.Also = append(n.Also, a)
		}
	}
	n.Contents = d.refs(n.Object)
	if has&hasBase != 0 {
		n.Base = d.content()
		n.BaseAt = d.ref(n.Object)
	}
	if has&hasPatches != 0 {
		d.patched(n)
	}
	if has&hasCuts != 0 {
		n.Cuts = d.cuts()
	}
	if has&hasExt != 0 {
		n.Ext = d.extents()
	}
	if has&hasDirty != 0 {
		for _, s := range n.dirtySeqs() {
			*s = d.seq()
		}
		for range d.count(2) {
			n.DirtyXattrs = append(n.DirtyXattrs, XattrDirty{Name: d.str(), Seq: d.seq()})
		}
	}
	if has&hasGone != 0 {
		for range d.count(36) {
			g := Gone{Object: d.id()}
			g.Key = uint32(d.uint())
			g.Link = d.ref(g.Object)
			g.Over = d.refs(g.Object)
			g.Contents = d.refs(g.Object)
			g.Seq = d.seq()
			n.Gone = append(n.Gone, g)
		}
	}
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: inode", d.err)
	}
	return n, nil
}

// AppendEntry appends the stored form of a directory entry.
func AppendEntry(b []byte, x *Entry) []byte {
	e := &encoder{append(b, entryVersion)}
	e.uint(x.Ino)
	e.uint(uint64(x.Type >> 12))
	e.bool(x.Next)
	e.str(x.Name)
	return e.b
}

// DecodeEntry parses a stored directory entry. Errors match ErrCorrupt.
func DecodeEntry(b []byte) (*Entry, error) {
	if len(b) == 0 || b[0] != entryVersion {
		return nil, fmt.Errorf("%w: version of the entry", ErrCorrupt)
	}
	d := &decoder{b: b[1:]}
	x := &Entry{Ino: d.uint(), Type: uint32(d.uint()) << 12, Next: d.bool(), Name: d.str()}
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: entry", d.err)
	}
	return x, nil
}

// extents writes the map of what was written since the base; memory sources are never in a checkpoint, since what they hold
// is put into the journal or a block before one begins.
func (e *encoder) extents(x *Extents) {
	e.uint(uint64(x.Len()))
	var last int64
	sources := map[*Source]uint64{}
	x.m.Scan(func(k int64, v Extent) bool {
		e.int(k - last)
		last = k
		e.int(v.Len)
		e.int(v.Skip)
		if i, ok := sources[v.Src]; ok {
			e.uint(i + 1)
			return true
		}
		sources[v.Src] = uint64(len(sources))
		e.uint(0)
		e.source(v.Src)
		return true
	})
}

func (e *encoder) source(s *Source) {
	e.b = append(e.b, byte(s.Kind))
	e.seq(s.Seq)
	switch s.Kind {
	case SourceJournal:
		e.uint(uint64(s.Loc.File))
		e.uint(uint64(s.Loc.Off))
		e.uint(uint64(s.Loc.Len))
	case SourceBlock:
		e.b = append(e.b, s.Block[:]...)
		e.int(s.Size)
	case SourcePatch:
		e.b = append(e.b, s.At.Change[:]...)
		e.uint(uint64(s.At.Place))
	}
}

func (d *decoder) extents() *Extents {
	x := &Extents{}
	var last int64
	var sources []*Source
	for range d.count(4) {
		last += d.int()
		v := Extent{Len: d.int(), Skip: d.int()}
		if i := d.uint(); i == 0 {
			v.Src = d.source()
			sources = append(sources, v.Src)
		} else if i > uint64(len(sources)) {
			d.fail()
			return nil
		} else {
			v.Src = sources[i-1]
		}
		if d.err != nil || last < 0 || v.Len <= 0 || v.Skip < 0 {
			d.fail()
			return nil
		}
		x.m.Set(last, v)
	}
	return x
}

func (d *decoder) source() *Source {
	k := d.raw(1)
	if len(k) == 0 {
		return nil
	}
	s := &Source{Kind: SourceKind(k[0]), Seq: d.seq()}
	switch s.Kind {
	case SourceZero:
	case SourceJournal:
		s.Loc = journal.Loc{File: uint32(d.uint()), Off: uint32(d.uint()), Len: uint32(d.uint())}
	case SourceBlock:
		s.Block = block.ID(d.id())
		s.Size = d.int()
	case SourcePatch:
		s.At = tree.Ref{Change: d.id(), Place: uint32(d.uint())}
	default:
		d.fail()
	}
	return s
}

// AppendPatches appends the published patches over the base of an inode, without what was done since; nothing where there are none.
func AppendPatches(b []byte, n *Inode) []byte {
	if n.Patched.Count == 0 {
		return b
	}
	e := &encoder{b}
	e.patched(n)
	e.cuts(n.Cuts)
	ext := n.Ext
	if ext == nil {
		ext = &Extents{}
	}
	e.extents(ext)
	return e.b
}

// DecodePatches sets what AppendPatches wrote. Errors match ErrCorrupt.
func (n *Inode) DecodePatches(b []byte) error {
	d := &decoder{b: b}
	d.patched(n)
	n.Cuts = d.cuts()
	n.Ext = d.extents()
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	if d.err != nil {
		return fmt.Errorf("%w: patches", d.err)
	}
	if n.Ext.Len() == 0 {
		n.Ext = nil
	}
	n.Size = n.Patched.Size
	return nil
}

func (e *encoder) patched(n *Inode) {
	e.ref(n.Patched.At, n.Object)
	e.uint(uint64(n.Patched.Count))
	e.int(n.Patched.Bytes)
	e.int(n.Patched.Size)
}

func (d *decoder) patched(n *Inode) {
	n.Patched = Patched{At: d.ref(n.Object), Count: int(d.uint()), Bytes: d.int(), Size: d.int()}
	if n.Base == nil || n.Patched.Count <= 0 || n.Patched.Bytes < 0 || n.Patched.Size < 0 {
		d.fail()
	}
}

func (e *encoder) cuts(cuts []Cut) {
	e.uint(uint64(len(cuts)))
	for _, c := range cuts {
		e.seq(c.Seq)
		e.int(c.Size)
	}
}

func (d *decoder) cuts() (cuts []Cut) {
	for range d.count(2) {
		cuts = append(cuts, Cut{Seq: d.seq(), Size: d.int()})
	}
	return cuts
}

// AppendContent appends the stored form of a content, without the bytes that a change holds: those are read from there.
func AppendContent(b []byte, c *tree.Content) []byte {
	e := &encoder{b}
	short := *c
	if len(c.Inline) > 0 {
		short.Inline, short.Layout = nil, []tree.Chunk{{Off: 0, Len: int64(len(c.Inline))}} // how much of it is no hole
	}
	e.content(&short)
	return e.b
}

// DecodeContent parses what AppendContent wrote. Errors match ErrCorrupt.
func DecodeContent(b []byte) (*tree.Content, error) {
	d := &decoder{b: b}
	c := d.content()
	if d.err == nil && len(d.b) != 0 {
		d.fail()
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: content", d.err)
	}
	return c, nil
}

func (e *encoder) content(c *tree.Content) {
	e.int(c.Size)
	e.bytes(c.Inline)
	if c.Root.Defined() {
		e.bytes(c.Root.Bytes())
	} else {
		e.uint(0)
	}
	e.uint(uint64(len(c.Layout)))
	var last int64
	for _, l := range c.Layout {
		e.int(l.Off - last)
		e.int(l.Len)
		last = l.Off + l.Len
	}
	e.b = append(e.b, c.LayoutBlock[:]...)
}

func (d *decoder) content() *tree.Content {
	c := &tree.Content{Size: d.int(), Inline: d.bytes()}
	if r := d.bytes(); len(r) > 0 {
		root, err := cid.Cast(r)
		if err != nil {
			d.fail()
			return nil
		}
		c.Root = root
	}
	var last int64
	for range d.count(2) {
		l := tree.Chunk{Off: last + d.int(), Len: d.int()}
		last = l.Off + l.Len
		c.Layout = append(c.Layout, l)
	}
	c.LayoutBlock = block.ID(d.id())
	return c
}
