package kv

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// A checker walks a bbolt file page by page, trusting nothing: bbolt's own check follows damaged pages wherever they
// point. Numbers are in the machine's byte order, as bbolt writes them.
type checker struct {
	file io.ReaderAt
	top  bool     // only the tree of buckets
	high uint64   // pages
	used []uint64 // a bit for each page that something refers to
	todo []pageRef
}

// pageRef is a page that is still to be looked at. Its first key is low, and all are below high; nil where that is not known.
type pageRef struct {
	id        uint64
	low, high []byte
	depth     int
	top       bool // in the tree of buckets
	inline    bool // the page of a small bucket, in a value
}

const (
	pageSize   = 4096
	pageHeader = 16
	element    = 16
	maxDepth   = 32
	maxRun     = 3*MaxValue + 4<<20 // of pages that belong together
	flagBranch = 1
	flagLeaf   = 2
	flagMeta   = 4
	flagFree   = 16
	metaBytes  = 64
	noFreelist = ^uint64(0)
)

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// checkFile returns the first thing that is wrong with the structure of a database of size bytes. Nobody may write meanwhile.
//
// With top it looks at the tree of buckets alone, which is a page or few, and takes a root that does not hold for none. What this
// passes, bbolt may read: it follows what pages say within the map, where a fault is no more than an error, but copies small
// buckets out of their pages into Go's heap, and would follow them there.
func checkFile(file io.ReaderAt, size int64, top bool) error {
	c := &checker{file: file, top: top}
	var root, freelist, txid uint64
	for id := range uint64(2) {
		b := make([]byte, pageHeader+metaBytes)
		if _, err := file.ReadAt(b, int64(id)*pageSize); err == io.EOF {
			return corrupt("the file was cut")
		} else if err != nil {
			return err
		}
		m := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:metaBytes-8])
		n := binary.NativeEndian
		if n.Uint64(m[56:]) != sum.Sum64() && top {
			continue
		}
		if n.Uint64(m[56:]) != sum.Sum64() {
			// A root fits into one sector, which no crash tears. The update before, whose root this one took the place of, is
			// what the database shows.
			return corrupt("page %d: a root that does not hold", id)
		}
		if n.Uint64(b) != id || n.Uint16(b[8:]) != flagMeta || !top && (n.Uint16(b[10:]) != 0 || n.Uint32(b[12:]) != 0) {
			return corrupt("page %d is no root", id)
		}
		if n.Uint64(m[48:]) < txid {
			continue // the root of the update before
		}
		root, freelist, c.high, txid = n.Uint64(m[16:]), n.Uint64(m[32:]), n.Uint64(m[40:]), n.Uint64(m[48:])
	}
	if c.high < 2 || c.high > uint64(size)/pageSize {
		return corrupt("no root, or a file that was cut")
	}
	c.used = make([]uint64, c.high/64+1)
	c.used[0] = 3
	c.todo = []pageRef{{id: root, top: true}}
	for len(c.todo) > 0 {
		ref := c.todo[len(c.todo)-1]
		c.todo = c.todo[:len(c.todo)-1]
		b, err := c.read(ref.id)
		if err != nil {
			return err
		}
		if err := c.tree(b, ref); err != nil {
			return err
		}
	}
	if top {
		return nil
	}
	return c.free(freelist)
}

// take marks the pages of one run, each of which belongs to one owner.
func (c *checker) take(id, n uint64) error {
	if id < 2 || n > c.high || id > c.high-n {
		return corrupt("page %d, %d pages: beyond the end", id, n)
	}
	for p := id; p < id+n; p++ {
		if c.used[p/64]&(1<<(p%64)) != 0 {
			return corrupt("page %d has two owners", p)
		}
		c.used[p/64] |= 1 << (p % 64)
	}
	return nil
}

// read returns a page with those that overflow from it.
func (c *checker) read(id uint64) ([]byte, error) {
	if id >= c.high {
		return nil, corrupt("page %d: beyond the end", id)
	}
	head := make([]byte, pageHeader)
	if _, err := c.file.ReadAt(head, int64(id)*pageSize); err != nil {
		return nil, err
	}
	n := uint64(binary.NativeEndian.Uint32(head[12:])) + 1
	if binary.NativeEndian.Uint64(head) != id || n*pageSize > maxRun {
		return nil, corrupt("page %d: bad header", id)
	}
	if err := c.take(id, n); err != nil {
		return nil, err
	}
	b := make([]byte, n*pageSize)
	_, err := c.file.ReadAt(b, int64(id)*pageSize)
	if err == io.EOF {
		err = corrupt("page %d: beyond the end of the file", id)
	}
	return b, err
}

// tree checks a page of a bucket's tree, and puts those below it on the list.
func (c *checker) tree(b []byte, ref pageRef) error {
	ne := binary.NativeEndian
	flags, count := ne.Uint16(b[8:]), int(ne.Uint16(b[10:]))
	bad := func(what string) error { return corrupt("page %d: %s", ref.id, what) }
	switch {
	case flags != flagBranch && flags != flagLeaf:
		return bad("neither branch nor leaf")
	case pageHeader+count*element > len(b):
		return bad("too many elements")
	case count == 0 && (flags == flagBranch || ref.low != nil) || ref.depth > maxDepth:
		return bad("bad shape")
	}
	var last []byte
	next := uint64(pageHeader + count*element) // where the data of an element begin: bbolt leaves no gaps
	for i := range count {
		at := pageHeader + i*element
		e := b[at : at+element]
		var pos, ksize, vsize uint64
		var id uint64
		var kind uint32
		if flags == flagBranch {
			pos, ksize, id = uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:])), ne.Uint64(e[8:])
		} else {
			kind, pos = ne.Uint32(e), uint64(ne.Uint32(e[4:]))
			ksize, vsize = uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
		}
		start := uint64(at) + pos
		if start != next || start+ksize+vsize > uint64(len(b)) || ksize == 0 || ksize > MaxKey {
			return bad("an element lies outside")
		}
		next = start + ksize + vsize
		key, value := b[start:start+ksize], b[start+ksize:start+ksize+vsize]
		if i > 0 && bytes.Compare(last, key) >= 0 || i == 0 && ref.low != nil && !bytes.Equal(key, ref.low) ||
			ref.high != nil && bytes.Compare(key, ref.high) >= 0 {
			return bad("keys out of order")
		}
		last = key
		switch {
		case flags == flagBranch:
			below := pageRef{id: id, low: bytes.Clone(key), high: ref.high, depth: ref.depth + 1, top: ref.top}
			if i > 0 {
				c.todo[len(c.todo)-1].high = below.low
			}
			c.todo = append(c.todo, below)
		case !ref.top && kind != 0 || ref.top && kind != 1:
			return bad("a bucket where none may be, or none where one must be")
		case ref.top:
			if err := c.bucket(value, ref); err != nil {
				return err
			}
		}
	}
	if ref.inline && next != uint64(len(b)) {
		return bad("an inline bucket with something behind it")
	}
	return nil
}

// bucket checks the head of a bucket, and its content where that is inline.
func (c *checker) bucket(head []byte, ref pageRef) error {
	if len(head) < 16 {
		return corrupt("page %d: short bucket", ref.id)
	}
	if binary.NativeEndian.Uint64(head[8:]) != 0 {
		return corrupt("page %d: a bucket with a sequence, of which we have none", ref.id)
	}
	if root := binary.NativeEndian.Uint64(head); root != 0 {
		if c.top {
			return nil
		}
		c.todo = append(c.todo, pageRef{id: root})
		return nil
	}
	if len(head) < 16+pageHeader || binary.NativeEndian.Uint16(head[16+8:]) != flagLeaf ||
		binary.NativeEndian.Uint64(head[16:]) != 0 || binary.NativeEndian.Uint32(head[16+12:]) != 0 {
		return corrupt("page %d: bad inline bucket", ref.id)
	}
	return c.tree(head[16:], pageRef{id: ref.id, inline: true})
}

// free checks that each page which nothing refers to is in the list of free ones, and no other.
func (c *checker) free(list uint64) error {
	if list == noFreelist {
		return nil
	}
	b, err := c.read(list)
	if err != nil {
		return err
	}
	ne := binary.NativeEndian
	ids, n := b[pageHeader:], uint64(ne.Uint16(b[10:]))
	if n == 0xffff {
		n, ids = ne.Uint64(ids), ids[8:]
	}
	if ne.Uint16(b[8:]) != flagFree || n > uint64(len(ids)/8) {
		return corrupt("page %d: no list of free pages", list)
	}
	for i := range n {
		if err := c.take(ne.Uint64(ids[8*i:]), 1); err != nil {
			return err
		}
	}
	for p := uint64(0); p < c.high; p++ {
		if c.used[p/64]&(1<<(p%64)) == 0 {
			return corrupt("page %d is lost", p)
		}
	}
	return nil
}
