package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag/kv"
)

// Which inode stands for an object. Ids are random, and a transaction has every page in memory that it changes: in one bucket by id, a
// checkpoint of a large space would change a page for each object that is new. So objects are stored in generations, of which the newest
// alone grows. A filter in memory for each says which of them may have an object.

const (
	// genObjects is how many objects a generation gets before the next one begins; a checkpoint may exceed it.
	genObjects = 64 << 10
	// filterBits is the size of a generation's filter, of which an object sets filterProbes: one in about 400 others looks as if it
	// were there.
	filterBits   = 1 << 20
	filterProbes = 4
	// maxGens bounds what a damaged database can have us load.
	maxGens = 1 << 16
)

// filter says of an id that it may be in a generation, or that it is not.
type filter []uint64

func newFilter() filter { return make(filter, filterBits/64) }

// bit gives the i-th bit of an id, which is a hash, and so random already.
func (f filter) bit(id []byte, i int) (word int, mask uint64) {
	n := binary.BigEndian.Uint32(id[4*i:]) % filterBits
	return int(n / 64), 1 << (n % 64)
}

func (f filter) add(id []byte) {
	for i := range filterProbes {
		w, m := f.bit(id, i)
		f[w] |= m
	}
}

func (f filter) has(id []byte) bool {
	for i := range filterProbes {
		if w, m := f.bit(id, i); f[w]&m == 0 {
			return false
		}
	}
	return true
}

// generations is what is known of the stored objects. It is not changed once others have it.
type generations struct {
	loaded bool
	old    bool     // some lie in the bucket of before there were generations
	of     []filter // that of generation 1 first; the last one grows
	last   int      // objects of the last one
}

// genKey is the key of an object in a generation; without an id, that of the generation's filter, which it gets when it is full.
func genKey(dst []byte, gen int, id []byte) []byte {
	return append(binary.BigEndian.AppendUint32(dst[:0], uint32(gen)), id...)
}

// loadGenerations reads the filters of the full generations, and makes that of the last one.
func (x *Index) loadGenerations(tx kv.Tx) (generations, error) {
	g := generations{loaded: true}
	if err := tx.Scan(bucketObjects, nil, func(_, _ []byte) bool { g.old = true; return false }); err != nil {
		return g, err
	}
	for len(g.of) < maxGens {
		gen := len(g.of) + 1
		key := genKey(nil, gen, nil)
		f := newFilter()
		if v := tx.Get(bucketGens, key); v != nil {
			b, err := x.seal.OpenLocal(nil, v, appendAD(nil, bucketGens, key))
			if err != nil || len(b) != filterBits/8 {
				return g, fmt.Errorf("%w: filter of objects: %w", ErrCorrupt, err)
			}
			for i := range f {
				f[i] = binary.LittleEndian.Uint64(b[8*i:])
			}
			g.of = append(g.of, f)
			continue
		}
		err := tx.Scan(bucketGens, key, func(k, _ []byte) bool {
			if !bytes.HasPrefix(k, key) || len(k) != 20 {
				return false
			}
			f.add(k[4:])
			g.last++
			return true
		})
		g.of = append(g.of, f)
		return g, err
	}
	return g, fmt.Errorf("%w: %d generations of objects", ErrCorrupt, maxGens)
}

// may reports whether an object may be stored.
func (g *generations) may(id []byte) bool {
	return !g.loaded || g.old || slices.ContainsFunc(g.of, func(f filter) bool { return f.has(id) })
}

// find gives the bucket and the key under which an object is stored; a nil value where it is not.
func (g *generations) find(tx kv.Tx, id []byte) (bucket string, key, value []byte) {
	for gen := len(g.of); gen > 0; gen-- {
		if !g.of[gen-1].has(id) {
			continue
		}
		key := genKey(nil, gen, id)
		if v := tx.Get(bucketGens, key); v != nil {
			return bucketGens, key, v
		}
	}
	if g.old {
		if v := tx.Get(bucketObjects, id); v != nil {
			return bucketObjects, id, v
		}
	}
	return "", nil, nil
}

// loadObject reads which inode stands for an object.
func (x *Index) loadObject(id []byte) (ino uint64, err error) {
	err = x.db.View(func(tx kv.Tx) error {
		if !x.gens.loaded {
			g, err := x.loadGenerations(tx)
			if err != nil {
				return err
			}
			x.gens = g
		}
		bucket, key, v := x.gens.find(tx, id)
		if v == nil {
			return nil
		}
		var ad [64]byte
		b, err := x.seal.OpenLocal(nil, v, appendAD(ad[:0], bucket, key))
		if err != nil || len(b) != 8 {
			return fmt.Errorf("%w: %w", ErrCorrupt, errors.Join(err, errors.New("the inode of an object")))
		}
		ino = binary.BigEndian.Uint64(b)
		return nil
	})
	return ino, err
}

// writeObjects puts those of a layer into a transaction, and gives the generations as they are when that has ended well. g is not changed.
func (x *Index) writeObjects(tx kv.Tx, g generations, objects map[[32]byte]uint64) (generations, error) {
	if len(objects) == 0 {
		return g, nil
	}
	if !g.loaded {
		var err error
		if g, err = x.loadGenerations(tx); err != nil {
			return g, err
		}
	}
	g.of = slices.Clone(g.of)
	grows := slices.Clone(g.of[len(g.of)-1])
	var ad, plain, sealed, fresh []byte
	put := func(bucket string, key []byte, ino uint64) error {
		ad, plain = appendAD(ad[:0], bucket, key), binary.BigEndian.AppendUint64(plain[:0], ino)
		sealed = x.seal.SealLocal(sealed[:0], plain, ad)
		return tx.Put(bucket, key, sealed)
	}
	ids := make([][16]byte, 0, len(objects))
	inos := make(map[[16]byte]uint64, len(objects))
	for id, ino := range objects {
		ids = append(ids, [16]byte(id[:]))
		inos[[16]byte(id[:])] = ino
	}
	slices.SortFunc(ids, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	for i := range ids {
		id, ino := ids[i][:], inos[ids[i]]
		bucket, key, old := g.find(tx, id)
		var err error
		switch {
		case old != nil && ino == 0:
			err = tx.Delete(bucket, key)
		case old != nil:
			err = put(bucket, key, ino)
		case ino != 0:
			grows.add(id)
			g.last++
			fresh = genKey(fresh, len(g.of), id)
			err = put(bucketGens, fresh, ino)
		}
		if err != nil {
			return g, err
		}
	}
	g.of[len(g.of)-1] = grows
	if g.last >= x.perGen {
		key := genKey(nil, len(g.of), nil)
		b := make([]byte, 0, filterBits/8)
		for _, w := range grows {
			b = binary.LittleEndian.AppendUint64(b, w)
		}
		if err := tx.Put(bucketGens, key, x.seal.SealLocal(nil, b, appendAD(nil, bucketGens, key))); err != nil {
			return g, err
		}
		g.of, g.last = append(g.of, newFilter()), 0
	}
	return g, nil
}
