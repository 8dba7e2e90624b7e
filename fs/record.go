package fs

import (
	"encoding/binary"
	"errors"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// errRecord is a record of the journal that does not parse. It can only come from a version of anyfs that is newer or wrong,
// since every frame of the journal is authenticated.
var errRecord = errors.New("fs: unknown record in the journal")

// recordKind is the first byte of a record; the space's slot follows. TREE.md and JOURNAL.md of this package list the fields.
type recordKind byte

const (
	recCreate    recordKind = 1
	recLink      recordKind = 2
	recUnlink    recordKind = 3
	recRename    recordKind = 4
	recSetattr   recordKind = 5
	recWrite     recordKind = 6
	recSeal      recordKind = 7
	recFallocate recordKind = 8
	recXattr     recordKind = 9
	recPublished recordKind = 10
	recRefs      recordKind = 12
	recPlace     recordKind = 13
	recArrive    recordKind = 14
)

// createRecord makes an inode, with a name or (Parent 0) without.
type createRecord struct {
	Ino, Parent uint64
	Name        string
	Mode, Rdev  uint32
	Owned       bool
	UID, GID    uint32
	Time        int64
	Target      string
	Xattr       string // the name of one internal attribute, or empty
	Value       []byte
	Takes       uint64 // the inode renamed aside whose object this one goes on with, or 0
}

// linkRecord gives an inode one more name.
type linkRecord struct {
	Ino, Parent uint64
	Name        string
	Time        int64
}

// unlinkRecord takes a name away; the inode may be a directory.
type unlinkRecord struct {
	Parent uint64
	Name   string
	Time   int64
}

// renameRecord moves a name, over another or in exchange for it.
type renameRecord struct {
	Parent    uint64
	Name      string
	NewParent uint64
	NewName   string
	Exchange  bool
	Takes     bool // the moved inode goes on with the object of the one that it replaces
	Time      int64
}

// Bits of setattrRecord.Set.
const (
	setMode = 1 << iota
	setOwner
	setSize
	setMtime
)

type setattrRecord struct {
	Ino      uint64
	Set      uint64
	Mode     uint32
	UID, GID uint32
	Size     int64
	Mtime    int64
	Time     int64
}

// writeRecord has the written bytes at its end; they stay in the journal until they are published.
type writeRecord struct {
	Ino      uint64
	Off      int64
	Time     int64
	KillPriv bool
	Data     []byte
}

// sealRecord says that [Off, Off+Len) of a file are now the bytes from Skip in a sealed block with Size bytes of plaintext.
// Time is 0 where the write itself was recorded before.
type sealRecord struct {
	Ino            uint64
	Off, Len, Skip int64
	Block          block.ID
	Size           int64
	Time           int64
}

type fallocateRecord struct {
	Ino    uint64
	Mode   uint32
	Off, N int64
	Time   int64
}

type xattrRecord struct {
	Ino    uint64
	Name   string
	Value  []byte
	Remove bool
	Time   int64
}

// publishedRecord says which changes stand for what, and ends what of the inodes was dirty up to Seq.
type publishedRecord struct {
	Seq     uint64
	Batch   dag.ID
	Mark    uint64 // the end of the space's batch log behind the batch
	Changes []publishedChange
}

type publishedChange struct {
	Ino     uint64
	Object  dag.ID // the object that the change is of
	Change  dag.ID
	New     bool     // it is the object's root
	Links   []placed // links that it made or moved
	Content int64    // place of its content operation, or -1
	Base    []byte   // the encoded content that is the base from now on, without inline bytes; empty for a patch
	Size    int64    // of the content, where it is a patch
	Edits   []index.PatchEdit
	Gone    int // how many removals it published, the first of the list
	Xattrs  bool
}

// patches reports whether the change has a patch.
func (p *publishedChange) patches() bool { return p.Content >= 0 && len(p.Base) == 0 }

type placed struct {
	Key   uint32
	Place uint32
	Made  bool // by this change; else moved
	// Where it put the link.
	Parent uint64
	Name   string
}

type writer struct{ b []byte }

func newRecord(b []byte, k recordKind, slot uint16) *writer {
	w := &writer{append(b[:0], byte(k))}
	w.uint(uint64(slot))
	return w
}

func (w *writer) uint(v uint64)  { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) int(v int64)    { w.b = binary.AppendVarint(w.b, v) }
func (w *writer) str(s string)   { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) bytes(s []byte) { w.uint(uint64(len(s))); w.b = append(w.b, s...) }
func (w *writer) id(v [32]byte)  { w.b = append(w.b, v[:]...) }
func (w *writer) bool(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.bad, r.b = true, nil }

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) raw(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) str() string   { return string(r.raw(r.uint())) }
func (r *reader) bytes() []byte { return append([]byte(nil), r.raw(r.uint())...) }

func (r *reader) id() (v [32]byte) {
	copy(v[:], r.raw(32))
	return v
}

func (r *reader) bool() bool {
	v := r.raw(1)
	return len(v) == 1 && v[0] == 1
}

// end checks that the record ended here.
func (r *reader) end() error {
	if r.bad || len(r.b) != 0 {
		return errRecord
	}
	return nil
}

// owner is an owner where it is another than the space's.
func (w *writer) owner(owned bool, uid, gid uint32) {
	w.bool(owned)
	if owned {
		w.uint(uint64(uid))
		w.uint(uint64(gid))
	}
}

func (r *reader) owner() (owned bool, uid, gid uint32) {
	if owned = r.bool(); owned {
		uid, gid = uint32(r.uint()), uint32(r.uint())
	}
	return owned, uid, gid
}

func (c *createRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.uint(c.Parent)
	w.str(c.Name)
	w.uint(uint64(c.Mode))
	w.uint(uint64(c.Rdev))
	w.owner(c.Owned, c.UID, c.GID)
	w.int(c.Time)
	w.str(c.Target)
	w.str(c.Xattr)
	w.bytes(c.Value)
	w.uint(c.Takes)
}

func (c *createRecord) decode(r *reader) error {
	c.Ino, c.Parent, c.Name = r.uint(), r.uint(), r.str()
	c.Mode, c.Rdev = uint32(r.uint()), uint32(r.uint())
	c.Owned, c.UID, c.GID = r.owner()
	c.Time, c.Target, c.Xattr, c.Value, c.Takes = r.int(), r.str(), r.str(), r.bytes(), r.uint()
	return r.end()
}

func (c *linkRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.uint(c.Parent)
	w.str(c.Name)
	w.int(c.Time)
}

func (c *linkRecord) decode(r *reader) error {
	c.Ino, c.Parent, c.Name, c.Time = r.uint(), r.uint(), r.str(), r.int()
	return r.end()
}

func (c *unlinkRecord) encode(w *writer) {
	w.uint(c.Parent)
	w.str(c.Name)
	w.int(c.Time)
}

func (c *unlinkRecord) decode(r *reader) error {
	c.Parent, c.Name, c.Time = r.uint(), r.str(), r.int()
	return r.end()
}

func (c *renameRecord) encode(w *writer) {
	w.uint(c.Parent)
	w.str(c.Name)
	w.uint(c.NewParent)
	w.str(c.NewName)
	w.bool(c.Exchange)
	w.bool(c.Takes)
	w.int(c.Time)
}

func (c *renameRecord) decode(r *reader) error {
	c.Parent, c.Name, c.NewParent, c.NewName = r.uint(), r.str(), r.uint(), r.str()
	c.Exchange, c.Takes, c.Time = r.bool(), r.bool(), r.int()
	return r.end()
}

func (c *setattrRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.uint(c.Set)
	w.uint(uint64(c.Mode))
	w.uint(uint64(c.UID))
	w.uint(uint64(c.GID))
	w.int(c.Size)
	w.int(c.Mtime)
	w.int(c.Time)
}

func (c *setattrRecord) decode(r *reader) error {
	c.Ino, c.Set = r.uint(), r.uint()
	c.Mode, c.UID, c.GID = uint32(r.uint()), uint32(r.uint()), uint32(r.uint())
	c.Size, c.Mtime, c.Time = r.int(), r.int(), r.int()
	return r.end()
}

// encode writes the head of the record; the data follows it. It returns where the data begin.
func (c *writeRecord) encode(w *writer) int {
	w.uint(c.Ino)
	w.int(c.Off)
	w.int(c.Time)
	w.bool(c.KillPriv)
	head := len(w.b)
	w.b = append(w.b, c.Data...)
	return head
}

func (c *writeRecord) decode(r *reader) error {
	c.Ino, c.Off, c.Time, c.KillPriv = r.uint(), r.int(), r.int(), r.bool()
	c.Data = r.b
	r.b = nil
	return r.end()
}

func (c *sealRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.int(c.Off)
	w.int(c.Len)
	w.int(c.Skip)
	w.id(c.Block)
	w.int(c.Size)
	w.int(c.Time)
}

func (c *sealRecord) decode(r *reader) error {
	c.Ino, c.Off, c.Len, c.Skip = r.uint(), r.int(), r.int(), r.int()
	c.Block, c.Size, c.Time = r.id(), r.int(), r.int()
	return r.end()
}

func (c *fallocateRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.uint(uint64(c.Mode))
	w.int(c.Off)
	w.int(c.N)
	w.int(c.Time)
}

func (c *fallocateRecord) decode(r *reader) error {
	c.Ino, c.Mode, c.Off, c.N, c.Time = r.uint(), uint32(r.uint()), r.int(), r.int(), r.int()
	return r.end()
}

func (c *xattrRecord) encode(w *writer) {
	w.uint(c.Ino)
	w.str(c.Name)
	w.bytes(c.Value)
	w.bool(c.Remove)
	w.int(c.Time)
}

func (c *xattrRecord) decode(r *reader) error {
	c.Ino, c.Name, c.Value, c.Remove, c.Time = r.uint(), r.str(), r.bytes(), r.bool(), r.int()
	return r.end()
}

func (c *publishedRecord) encode(w *writer) {
	w.uint(c.Seq)
	w.id(c.Batch)
	w.uint(c.Mark)
	w.uint(uint64(len(c.Changes)))
	for i := range c.Changes {
		p := &c.Changes[i]
		w.uint(p.Ino)
		w.id(p.Object)
		w.bool(p.New)
		if !p.New {
			w.id(p.Change)
		}
		w.uint(uint64(len(p.Links)))
		for _, l := range p.Links {
			w.uint(uint64(l.Key))
			w.uint(uint64(l.Place))
			w.bool(l.Made)
			w.uint(l.Parent)
			w.str(l.Name)
		}
		w.int(p.Content)
		w.bytes(p.Base)
		if p.patches() {
			w.int(p.Size)
			w.uint(uint64(len(p.Edits)))
			end := int64(0)
			for _, e := range p.Edits {
				w.uint(uint64(e.Off - end))
				w.uint(uint64(e.Len))
				w.uint(uint64(e.Data))
				end = e.Off + e.Len
			}
		}
		w.uint(uint64(p.Gone))
		w.bool(p.Xattrs)
	}
}

func (c *publishedRecord) decode(r *reader) error {
	c.Seq, c.Batch, c.Mark = r.uint(), r.id(), r.uint()
	n := r.uint()
	if n > uint64(len(r.b)) {
		return errRecord
	}
	c.Changes = make([]publishedChange, 0, n)
	for range n {
		p := publishedChange{Ino: r.uint(), Object: r.id()}
		if p.New = r.bool(); p.New {
			p.Change = p.Object
		} else {
			p.Change = r.id()
		}
		links := r.uint()
		if links > uint64(len(r.b)) {
			return errRecord
		}
		for range links {
			p.Links = append(p.Links, placed{Key: uint32(r.uint()), Place: uint32(r.uint()), Made: r.bool(), Parent: r.uint(), Name: r.str()})
		}
		p.Content, p.Base = r.int(), r.bytes()
		if p.patches() {
			p.Size = r.int()
			edits := r.uint()
			if edits > uint64(len(r.b)) {
				return errRecord
			}
			end := int64(0)
			for range edits {
				e := index.PatchEdit{Off: end + int64(r.uint()), Len: int64(r.uint()), Data: int64(r.uint())}
				if e.Off < end || e.Len <= 0 || e.Data < 0 || e.Data > e.Len || e.Off > p.Size-e.Len {
					return errRecord
				}
				end = e.Off + e.Len
				p.Edits = append(p.Edits, e)
			}
		}
		p.Gone, p.Xattrs = int(r.uint()), r.bool()
		c.Changes = append(c.Changes, p)
	}
	return r.end()
}
