// Package index keeps the inodes and directory entries of one space.
//
// What was checkpointed lies in a kv.DB, sealed; what changed since lies in memory, in the current layer, over it. A
// checkpoint freezes the current layer, writes it in one transaction, and then drops it. Clean inodes are cached, up to a
// bound. An Index is not safe for concurrent use: its space's lock guards it. The function that Freeze returns is the one
// exception: it may run beside everything else.
package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tidwall/btree"

	"github.com/anyfs/anyfs/dag/kv"
)

// ErrCorrupt is a stored value that does not open or parse.
var ErrCorrupt = errors.New("index: damaged value")

// Sealer seals what is stored. ad binds a value to its key.
type Sealer interface {
	SealLocal(dst, plaintext, ad []byte) []byte
	OpenLocal(dst, sealed, ad []byte) ([]byte, error)
}

// The buckets of a space's database that this package uses.
const (
	bucketInodes  = "inodes"
	bucketEntries = "entries"
	bucketObjects = "objects" // of before there were generations
	bucketGens    = "generations"
	bucketNamed   = "values"
)

// Buckets lists them.
func Buckets() []string {
	return []string{bucketInodes, bucketEntries, bucketObjects, bucketGens, bucketNamed, bucketRows}
}

// cacheInodes, cacheEntries and cacheObjects bound what is kept of clean records (about 900, 100 and 60 bytes each).
const (
	cacheInodes  = 16 << 10
	cacheEntries = 64 << 10
	cacheObjects = 16 << 10
	cacheBare    = 4 << 10
)

type entryKey struct{ parent, hash uint64 }

type layer struct {
	inodes  map[uint64]*Inode // nil: removed
	dirs    map[uint64]*btree.Map[uint64, *Entry]
	objects map[[32]byte]uint64 // object to inode; 0: removed
	values  map[string][]byte   // nil: removed
}

func newLayer() *layer {
	return &layer{
		inodes: map[uint64]*Inode{}, dirs: map[uint64]*btree.Map[uint64, *Entry]{},
		objects: map[[32]byte]uint64{}, values: map[string][]byte{},
	}
}

// Index is the inodes and entries of one space.
type Index struct {
	db     kv.DB
	seal   Sealer
	cur    *layer
	frozen *layer // being written; nil otherwise

	inodes  map[uint64]*Inode
	entries map[entryKey]*Entry // nil: known to be absent
	objects map[[32]byte]uint64 // 0: known to be absent
	gens    generations         // of the stored objects
	perGen  int                 // genObjects
	bare    map[uint64]bool     // of directories: whether nothing of them is stored; forgotten with each checkpoint
	weight  int64               // of cur, roughly, in bytes
	plain   []byte              // scratch for load
}

// maxPlain bounds what is kept of that.
const maxPlain = 64 << 10

// Open returns the index that db holds. Nothing is read yet.
func Open(db kv.DB, seal Sealer) *Index {
	return &Index{db: db, seal: seal, cur: newLayer(), inodes: map[uint64]*Inode{}, entries: map[entryKey]*Entry{}, objects: map[[32]byte]uint64{}, perGen: genObjects, bare: map[uint64]bool{}}
}

// Weight is about how many bytes of memory the records take that are not checkpointed.
func (x *Index) Weight() int64 { return x.weight }

// Inode returns an inode for reading, or nil when there is none. The record must not be changed.
func (x *Index) Inode(ino uint64) (*Inode, error) {
	if n, ok := x.cur.inodes[ino]; ok {
		return n, nil
	}
	if x.frozen != nil {
		if n, ok := x.frozen.inodes[ino]; ok {
			return n, nil
		}
	}
	if n, ok := x.inodes[ino]; ok {
		return n, nil
	}
	var key [8]byte
	binary.BigEndian.PutUint64(key[:], ino)
	var n *Inode
	err := x.load(bucketInodes, key[:], func(b []byte) (err error) {
		n, err = DecodeInode(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", ino, err)
	}
	if n != nil {
		n.Ino = ino
		x.cacheInode(n)
	}
	return n, nil
}

// prefetchMost bounds what Prefetch reads at a time.
const prefetchMost = 1024

// Prefetch reads inodes that are about to be asked for in one transaction, in the order in which they are stored. What is
// absent or damaged is left for Inode to tell.
func (x *Index) Prefetch(inos []uint64) {
	var want []uint64
	for _, ino := range inos {
		if !x.inMemory(ino) && len(want) < prefetchMost {
			want = append(want, ino)
		}
	}
	if len(want) < 2 {
		return
	}
	slices.Sort(want)
	var key [8]byte
	var ad, plain []byte
	_ = x.db.View(func(tx kv.Tx) error {
		for _, ino := range want {
			binary.BigEndian.PutUint64(key[:], ino)
			ad = appendAD(ad[:0], bucketInodes, key[:])
			b, err := x.seal.OpenLocal(plain[:0], tx.Get(bucketInodes, key[:]), ad)
			if err != nil {
				continue
			}
			plain = b
			if n, err := DecodeInode(b); err == nil {
				n.Ino = ino
				x.cacheInode(n)
			}
		}
		return nil
	})
}

func (x *Index) inMemory(ino uint64) bool {
	if _, ok := x.cur.inodes[ino]; ok {
		return true
	}
	if x.frozen != nil {
		if _, ok := x.frozen.inodes[ino]; ok {
			return true
		}
	}
	_, ok := x.inodes[ino]
	return ok
}

// cacheInode keeps a clean record. Beyond the bound it drops what the map's order offers first, which is as good as random.
func (x *Index) cacheInode(n *Inode) {
	for k := range x.inodes {
		if len(x.inodes) < cacheInodes {
			break
		}
		delete(x.inodes, k)
	}
	x.inodes[n.Ino] = n
}

// Age drops half of the clean records, whichever: who calls it now and then has memory follow what is used, as what is comes back.
func (x *Index) Age() {
	x.inodes, x.entries, x.objects = half(x.inodes), half(x.entries), half(x.objects)
}

// half is a map with half of what m holds: one that loses entries stays as large as it was.
func half[K comparable, V any](m map[K]V) map[K]V {
	to := make(map[K]V, len(m)/2)
	for k, v := range m {
		if len(to) >= len(m)/2 {
			break
		}
		to[k] = v
	}
	return to
}

func (x *Index) cacheEntry(k entryKey, e *Entry) {
	for kk := range x.entries {
		if len(x.entries) < cacheEntries {
			break
		}
		delete(x.entries, kk)
	}
	x.entries[k] = e
}

// Change returns an inode for changing: the record in the current layer, copied there first where needed. Nil when there is none.
func (x *Index) Change(ino uint64) (*Inode, error) {
	if n, ok := x.cur.inodes[ino]; ok {
		return n, nil
	}
	n, err := x.Inode(ino)
	if n == nil || err != nil {
		return nil, err
	}
	n = n.Clone()
	x.put(n)
	return n, nil
}

func (x *Index) put(n *Inode) {
	x.cur.inodes[n.Ino] = n
	delete(x.inodes, n.Ino)
	x.weight += 900
}

// Add puts a new inode.
func (x *Index) Add(n *Inode) { x.put(n) }

// Remove forgets an inode.
func (x *Index) Remove(ino uint64) {
	x.cur.inodes[ino] = nil
	delete(x.inodes, ino)
	x.weight += 32
}

// Object gives the inode that stands for an object, or 0.
func (x *Index) Object(id [32]byte) (uint64, error) {
	if n, ok := x.cur.objects[id]; ok {
		return n, nil
	}
	if x.frozen != nil {
		if n, ok := x.frozen.objects[id]; ok {
			return n, nil
		}
	}
	if ino, ok := x.objects[id]; ok {
		return ino, nil
	}
	return x.stored(id)
}

// stored is Object of what is not in memory.
func (x *Index) stored(id [32]byte) (uint64, error) {
	if !x.gens.may(id[:16]) {
		return 0, nil
	}
	key := [16]byte(id[:]) // a copy goes onto the heap, not id itself: most that are asked for are not stored
	ino, err := x.loadObject(key[:])
	if err == nil {
		for k := range x.objects {
			if len(x.objects) < cacheObjects {
				break
			}
			delete(x.objects, k)
		}
		x.objects[id] = ino
	}
	return ino, err
}

// SetObject notes which inode stands for an object; 0 none.
func (x *Index) SetObject(id [32]byte, ino uint64) {
	x.cur.objects[id] = ino
	delete(x.objects, id)
	x.weight += 48
}

// Value gives a named value of the space, or nil.
func (x *Index) Value(name string) ([]byte, error) {
	if v, ok := x.cur.values[name]; ok {
		return v, nil
	}
	if x.frozen != nil {
		if v, ok := x.frozen.values[name]; ok {
			return v, nil
		}
	}
	var out []byte
	err := x.load(bucketNamed, []byte(name), func(b []byte) error {
		out = append([]byte{}, b...)
		return nil
	})
	return out, err
}

// SetValue sets a named value; nil removes it.
func (x *Index) SetValue(name string, v []byte) {
	x.cur.values[name] = v
	x.weight += int64(len(v)) + 32
}

// entryAt gives what stands at one place of a directory: nil when nothing does.
func (x *Index) entryAt(parent, hash uint64) (*Entry, error) {
	if d, ok := x.cur.dirs[parent]; ok {
		if e, ok := d.Get(hash); ok {
			return e, nil
		}
	}
	if x.frozen != nil {
		if d, ok := x.frozen.dirs[parent]; ok {
			if e, ok := d.Get(hash); ok {
				return e, nil
			}
		}
	}
	k := entryKey{parent, hash}
	if e, ok := x.entries[k]; ok {
		return e, nil
	}
	bare, err := x.isBare(parent)
	if err != nil || bare {
		return nil, err
	}
	key := appendEntryKey(nil, parent, hash)
	var e *Entry
	err = x.load(bucketEntries, key, func(b []byte) (err error) {
		e, err = DecodeEntry(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("entry of directory %d: %w", parent, err)
	}
	x.cacheEntry(k, e)
	return e, nil
}

// isBare reports whether no entry of a directory is stored, as long as that is known: one that is new gets many names, and none of them is
// worth a look.
func (x *Index) isBare(dir uint64) (bool, error) {
	if bare, known := x.bare[dir]; known {
		return bare, nil
	}
	bare := true
	err := x.db.View(func(tx kv.Tx) error {
		return tx.Scan(bucketEntries, appendEntryKey(nil, dir, 0), func(k, _ []byte) bool {
			bare = binary.BigEndian.Uint64(k) != dir
			return false
		})
	})
	if err != nil {
		return false, err
	}
	if len(x.bare) >= cacheBare {
		clear(x.bare)
	}
	x.bare[dir] = bare
	return bare, nil
}

func (x *Index) setEntry(parent, hash uint64, e *Entry) {
	d := x.cur.dirs[parent]
	if d == nil {
		d = btree.NewMap[uint64, *Entry](32)
		x.cur.dirs[parent] = d
	}
	d.Set(hash, e)
	delete(x.entries, entryKey{parent, hash})
	x.weight += 120
}

// EntryAt gives what stands at a place of a directory that holds no names; nil when nothing does.
func (x *Index) EntryAt(parent, at uint64) (*Entry, error) { return x.entryAt(parent, at) }

// Lookup finds a name in a directory. hash is the keyed hash of the name; at is where the entry stands, its place in listings.
func (x *Index) Lookup(parent, hash uint64, name string) (e *Entry, at uint64, err error) {
	for at = hash; ; at++ {
		e, err = x.entryAt(parent, at)
		if err != nil || e == nil {
			return nil, 0, err
		}
		if e.Name == name {
			return e, at, nil
		}
		if !e.Next {
			return nil, 0, nil
		}
	}
}

// AddEntry puts a name that is not there yet.
func (x *Index) AddEntry(parent, hash uint64, e Entry) error {
	for at := hash; ; at++ {
		old, err := x.entryAt(parent, at)
		if err != nil {
			return err
		}
		if old == nil || old.Name == "" {
			if old != nil {
				e.Next = old.Next
			}
			x.setEntry(parent, at, &e)
			return nil
		}
		if !old.Next {
			step := *old
			step.Next = true
			x.setEntry(parent, at, &step)
		}
	}
}

// SetEntry changes the entry that stands at a place; RemoveEntry takes it away.
func (x *Index) SetEntry(parent, at uint64, e Entry) { x.setEntry(parent, at, &e) }

// RemoveEntry takes away the entry that stands at a place.
func (x *Index) RemoveEntry(parent, at uint64, old *Entry) {
	if old.Next {
		x.setEntry(parent, at, &Entry{Next: true})
		return
	}
	x.setEntry(parent, at, nil)
}

// changed reports whether a directory has entries that are not stored yet.
func (x *Index) changed(dir uint64) bool {
	return x.cur.dirs[dir] != nil || x.frozen != nil && x.frozen.dirs[dir] != nil
}

// scanStep is how many stored entries one read transaction of a listing takes.
const scanStep = 256

// Scan calls fn for the entries of a directory at places above after, in order, until fn returns false.
func (x *Index) Scan(parent, after uint64, fn func(at uint64, e *Entry) bool) error {
	type item struct {
		at uint64
		e  *Entry
	}
	next := after + 1
	var stored []item
	var ad, plain []byte
	for {
		// What is stored, a step at a time.
		stored = stored[:0]
		full := false
		err := x.db.View(func(tx kv.Tx) error {
			var bad error
			prefix := appendEntryKey(nil, parent, next)
			err := tx.Scan(bucketEntries, prefix, func(k, v []byte) bool {
				if len(k) != 16 || binary.BigEndian.Uint64(k) != parent {
					return false
				}
				if len(stored) == scanStep {
					full = true
					return false
				}
				ad = appendAD(ad[:0], bucketEntries, k)
				b, err := x.seal.OpenLocal(plain[:0], v, ad)
				if err == nil {
					plain = b
					var e *Entry
					if e, err = DecodeEntry(b); err == nil {
						stored = append(stored, item{binary.BigEndian.Uint64(k[8:]), e})
						return true
					}
				}
				bad = fmt.Errorf("%w: entry of directory %d: %w", ErrCorrupt, parent, err)
				return false
			})
			return errors.Join(err, bad)
		})
		if err != nil {
			return err
		}
		end := ^uint64(0)
		if full {
			end = stored[len(stored)-1].at
		}
		stop := false
		if !x.changed(parent) {
			for _, s := range stored {
				if s.e.Name != "" && !fn(s.at, s.e) {
					stop = true
					break
				}
			}
			if stop || !full {
				return nil
			}
			next = end + 1
			continue
		}
		merged := btree.NewMap[uint64, *Entry](32)
		for _, s := range stored {
			merged.Load(s.at, s.e)
		}
		for _, l := range []*layer{x.frozen, x.cur} {
			if l == nil {
				continue
			}
			if d := l.dirs[parent]; d != nil {
				d.Ascend(next, func(at uint64, e *Entry) bool {
					if at > end {
						return false
					}
					merged.Set(at, e)
					return true
				})
			}
		}
		merged.Scan(func(at uint64, e *Entry) bool {
			if e == nil || e.Name == "" {
				return true
			}
			if !fn(at, e) {
				stop = true
				return false
			}
			return true
		})
		if stop || !full {
			return nil
		}
		next = end + 1
	}
}

// Inodes calls fn for every inode, in order of number, until fn returns false.
func (x *Index) Inodes(fn func(n *Inode) bool) error { return x.InodesFrom(0, fn) }

// InodesFrom is Inodes from a number on.
func (x *Index) InodesFrom(next uint64, fn func(n *Inode) bool) error {
	for {
		type item struct {
			ino uint64
			n   *Inode
		}
		var stored []item
		full := false
		err := x.db.View(func(tx kv.Tx) error {
			var bad error
			var from [8]byte
			binary.BigEndian.PutUint64(from[:], next)
			err := tx.Scan(bucketInodes, from[:], func(k, v []byte) bool {
				if len(stored) == scanStep {
					full = true
					return false
				}
				b, err := x.seal.OpenLocal(nil, v, appendAD(nil, bucketInodes, k))
				if err == nil {
					var n *Inode
					if n, err = DecodeInode(b); err == nil {
						n.Ino = binary.BigEndian.Uint64(k)
						stored = append(stored, item{n.Ino, n})
						return true
					}
				}
				bad = fmt.Errorf("%w: inode %x: %w", ErrCorrupt, k, err)
				return false
			})
			return errors.Join(err, bad)
		})
		if err != nil {
			return err
		}
		end := ^uint64(0)
		if full {
			end = stored[len(stored)-1].ino
		}
		merged := btree.NewMap[uint64, *Inode](32)
		for _, s := range stored {
			merged.Load(s.ino, s.n)
		}
		for _, l := range []*layer{x.frozen, x.cur} {
			if l == nil {
				continue
			}
			for ino, n := range l.inodes {
				if ino >= next && ino <= end {
					merged.Set(ino, n)
				}
			}
		}
		stop := false
		merged.Scan(func(_ uint64, n *Inode) bool {
			if n != nil && !fn(n) {
				stop = true
				return false
			}
			return true
		})
		if stop || !full {
			return nil
		}
		next = end + 1
	}
}

// VerifyStored opens all that is stored, and calls report, with an error that matches ErrCorrupt, for what does not open. It needs
// no lock; ctx ends it.
func (x *Index) VerifyStored(ctx context.Context, report func(error)) error {
	for _, bucket := range []string{bucketInodes, bucketEntries, bucketObjects, bucketGens, bucketNamed} {
		if err := kv.Each(ctx, x.db, bucket, func(k, v []byte) {
			if _, err := x.seal.OpenLocal(nil, v, appendAD(nil, bucket, k)); err != nil {
				report(fmt.Errorf("%w: value in %s, key %x: %w", ErrCorrupt, bucket, k, err))
			}
		}); err != nil {
			return err
		}
	}
	return nil
}

// load reads one stored value, if it is there. fn must not keep the bytes.
func (x *Index) load(bucket string, key []byte, fn func([]byte) error) error {
	return x.db.View(func(tx kv.Tx) error {
		v := tx.Get(bucket, key)
		if v == nil {
			return nil
		}
		var ad [64]byte
		b, err := x.seal.OpenLocal(x.plain[:0], v, appendAD(ad[:0], bucket, key))
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if cap(b) <= maxPlain {
			x.plain = b
		}
		return fn(b)
	})
}

func appendEntryKey(b []byte, parent, hash uint64) []byte {
	b = binary.BigEndian.AppendUint64(b, parent)
	return binary.BigEndian.AppendUint64(b, hash)
}

func appendAD(b []byte, bucket string, key []byte) []byte {
	b = append(b, bucket...)
	b = append(b, 0)
	return append(b, key...)
}
