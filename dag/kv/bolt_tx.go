package kv

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The values of a transaction are kept in pieces of so many bytes: most transactions of a small space have little, and with many spaces there are many of them.
const (
	firstArena = 2 << 10
	maxArena   = 64 << 10
)

type boltTx struct {
	tx      *bbolt.Tx
	buckets []*boltBucket // few: found by a walk
	reads   int64
	touches int64  // reads and writes
	arena   []byte // values until the commit
	inBolt  bool   // bbolt's code runs, not the caller's: a panic then means a damaged file
	damage  error  // what reads met
	faults  bool   // whether faults were panics before
}

type boltBucket struct {
	name         string
	b            *bbolt.Bucket
	last         []byte // the highest key so far, known after the first Put
	known        bool
	atEnd, other int // Puts beyond the highest key, and others

	// Of a transaction that reads, which no write makes stale. A cursor that a scan uses is not there.
	get, scan *bbolt.Cursor
}

// value is what bbolt's Get returns, without a cursor for each call.
func (b *boltBucket) value(key []byte) []byte {
	if b.b.Writable() {
		return b.b.Get(key)
	}
	if b.get == nil {
		b.get = b.b.Cursor()
	}
	if k, v := b.get.Seek(key); bytes.Equal(k, key) {
		return v
	}
	return nil
}

// cursor gives one for a scan, which returns it when it has ended.
func (b *boltBucket) cursor() *bbolt.Cursor {
	c := b.scan
	if b.scan = nil; c == nil {
		c = b.b.Cursor()
	}
	return c
}

func (b *boltBucket) giveBack(c *bbolt.Cursor) {
	if !b.b.Writable() {
		b.scan = c
	}
}

// run calls the caller's function.
func (t *boltTx) run(tx *bbolt.Tx, fn func(Tx) error) error {
	t.tx, t.inBolt = tx, false
	err := fn(t)
	t.inBolt = true
	if err == nil {
		err = t.damage
	}
	return err
}

// guard ends a transaction: damage that bbolt met becomes an error, a panic of the caller goes on. Faults in the map are
// panics meanwhile, since a damaged page may point out of the file and an unreadable one raises a signal.
func (t *boltTx) guard(err *error) {
	debug.SetPanicOnFault(t.faults)
	if r := recover(); r != nil {
		if !t.inBolt && !isFault(r) {
			panic(r)
		}
		*err = fmt.Errorf("%w: %v", ErrCorrupt, r)
	}
}

// guarded runs what consists of bbolt's code alone.
func guarded(fn func() error) (err error) {
	t := boltTx{faults: debug.SetPanicOnFault(true), inBolt: true}
	defer t.guard(&err)
	return fn()
}

func isFault(r any) bool {
	f, ok := r.(runtime.Error)
	if !ok {
		return false
	}
	_, ok = f.(interface{ Addr() uintptr })
	return ok
}

// call runs bbolt's code: a panic there is damage, and remembered.
func (t *boltTx) call(fn func()) {
	t.inBolt = true
	defer func() {
		if !t.inBolt {
			return // the caller's own panic, from within a scan
		}
		t.inBolt = false
		if r := recover(); r != nil {
			t.damage = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	fn()
}

// bucket returns nil where the bucket does not exist and is not to be made.
func (t *boltTx) bucket(name string, make bool) *boltBucket {
	for _, b := range t.buckets {
		if b.name == name {
			return b
		}
	}
	raw := t.tx.Bucket([]byte(name))
	if raw == nil && make {
		var err error
		if raw, err = t.tx.CreateBucket([]byte(name)); err != nil {
			panic(err) // the name is ours and the Tx is writable: what is left is damage
		}
	}
	if raw == nil {
		return nil
	}
	b := &boltBucket{name: name, b: raw}
	t.buckets = append(t.buckets, b)
	return b
}

// touch gives the pages of the map back where a long transaction has touched many.
func (t *boltTx) touch() {
	if t.touches++; t.touches%touchesPerLook == 0 && mapped() > maxMapped {
		unmap(t.tx.DB().Info().Data, t.tx.Size())
	}
}

func (t *boltTx) Get(bucket string, key []byte) (v []byte) {
	t.reads++
	t.touch()
	t.call(func() {
		if b := t.bucket(bucket, false); b != nil {
			v = b.value(key)
		}
	})
	return v
}

func (t *boltTx) Put(bucket string, key, value []byte) (err error) {
	if !t.tx.Writable() {
		return ErrReadOnly
	}
	if err := checkPair(key, value); err != nil {
		return err
	}
	if len(value) > cap(t.arena)-len(t.arena) {
		t.arena = make([]byte, 0, max(min(max(firstArena, 2*cap(t.arena)), maxArena), len(value)))
	}
	t.touch()
	n := len(t.arena)
	t.arena = append(t.arena, value...)
	t.call(func() {
		b := t.bucket(bucket, true)
		b.note(key)
		err = b.b.Put(key, t.arena[n:len(t.arena):len(t.arena)])
	})
	return t.failed(err)
}

func (t *boltTx) failed(err error) error {
	if err == nil {
		err = t.damage
	}
	if err == berrors.ErrIncompatibleValue {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// note counts whether keys come in order, which finish turns into how full pages are made.
func (b *boltBucket) note(key []byte) {
	if !b.known {
		b.last, b.known = bytes.Clone(highest(b.b.Cursor())), true
	}
	if bytes.Compare(key, b.last) > 0 {
		b.last = append(b.last[:0], key...)
		b.atEnd++
	} else {
		b.other++
	}
}

// highest returns the last key, nil where there is none. Deleting leaves empty pages until the commit, and where all are empty
// bbolt's Last goes around them without end; its First does not.
func highest(c *bbolt.Cursor) []byte {
	if k, _ := c.First(); k == nil {
		return nil
	}
	k, _ := c.Last()
	return k
}

func (t *boltTx) finish() {
	for _, b := range t.buckets {
		b.b.FillPercent = fillInsert
		if b.atEnd >= b.other {
			b.b.FillPercent = fillAppend
		}
	}
}

func (t *boltTx) Delete(bucket string, key []byte) (err error) {
	if !t.tx.Writable() {
		return ErrReadOnly
	}
	if err := checkPair(key, nil); err != nil {
		return err
	}
	t.call(func() {
		if b := t.bucket(bucket, false); b != nil {
			err = b.b.Delete(key)
		}
	})
	return t.failed(err)
}

func (t *boltTx) Clear(bucket string) (err error) {
	if !t.tx.Writable() {
		return ErrReadOnly
	}
	t.call(func() {
		if t.bucket(bucket, false) == nil {
			return
		}
		t.buckets = slices.DeleteFunc(t.buckets, func(b *boltBucket) bool { return b.name == bucket })
		err = t.tx.DeleteBucket([]byte(bucket))
	})
	return t.failed(err)
}

func (t *boltTx) Scan(bucket string, from []byte, fn func(k, v []byte) bool) error {
	t.call(func() {
		b := t.bucket(bucket, false)
		if b == nil {
			return
		}
		c := b.cursor()
		for k, v := c.Seek(from); k != nil && t.visit(fn, k, v); {
			k, v = c.Next()
		}
		b.giveBack(c)
	})
	return t.damage
}

func (t *boltTx) ScanBack(bucket string, from []byte, fn func(k, v []byte) bool) error {
	if t.tx.Writable() {
		return ErrUpdate // Prev stops at the empty pages that Delete leaves
	}
	t.call(func() {
		b := t.bucket(bucket, false)
		if b == nil {
			return
		}
		c := b.cursor()
		var k, v []byte
		if from == nil {
			k, v = c.Last()
		} else if k, v = c.Seek(from); k == nil {
			k, v = c.Last() // all keys are lower
		} else if !bytes.Equal(k, from) {
			k, v = c.Prev()
		}
		for k != nil && t.visit(fn, k, v) {
			k, v = c.Prev()
		}
		b.giveBack(c)
	})
	return t.damage
}

func (t *boltTx) visit(fn func(k, v []byte) bool, k, v []byte) bool {
	t.reads++
	t.touch()
	t.inBolt = false
	more := fn(k, v)
	t.inBolt = true
	return more
}
