package index

import (
	"encoding/binary"
	"slices"

	"github.com/anyfs/anyfs/dag/kv"
)

// Freeze begins a checkpoint: all changes so far go into write, which puts them into one transaction and may run beside
// everything else. done must be called under the space's lock when the transaction has ended; where it failed, the frozen
// changes are kept for the next checkpoint. Between the two no other checkpoint may begin.
func (x *Index) Freeze() (write func(kv.Tx) error, done func(ok bool)) {
	l := x.cur
	x.frozen, x.cur = l, newLayer()
	weight := x.weight
	x.weight = 0
	// The extents of a frozen inode are shared with its successor in the current layer: Change clones before it writes.
	gens := x.gens
	write = func(tx kv.Tx) error {
		err := x.write(tx, l)
		if err == nil {
			gens, err = x.writeObjects(tx, gens, l.objects)
		}
		return err
	}
	done = func(ok bool) {
		x.frozen = nil
		clear(x.bare)
		if ok {
			if gens.loaded {
				x.gens = gens
			}
			for _, n := range l.inodes {
				if n != nil {
					if _, newer := x.cur.inodes[n.Ino]; !newer {
						x.cacheInode(n)
					}
				}
			}
			return
		}
		x.weight += weight
		for k, v := range l.inodes {
			if _, newer := x.cur.inodes[k]; !newer {
				x.cur.inodes[k] = v
			}
		}
		for k, v := range l.objects {
			if _, newer := x.cur.objects[k]; !newer {
				x.cur.objects[k] = v
			}
		}
		for k, v := range l.values {
			if _, newer := x.cur.values[k]; !newer {
				x.cur.values[k] = v
			}
		}
		for parent, d := range l.dirs {
			c := x.cur.dirs[parent]
			if c == nil {
				x.cur.dirs[parent] = d
				continue
			}
			d.Scan(func(at uint64, e *Entry) bool {
				if _, newer := c.Get(at); !newer {
					c.Set(at, e)
				}
				return true
			})
		}
	}
	return write, done
}

// write puts a layer into a transaction, each bucket in the order of its keys.
func (x *Index) write(tx kv.Tx, l *layer) error {
	var ad, plain, sealed, key []byte
	put := func(bucket string, k, v []byte) error {
		ad = appendAD(ad[:0], bucket, k)
		sealed = x.seal.SealLocal(sealed[:0], v, ad)
		return tx.Put(bucket, k, sealed)
	}
	inos := make([]uint64, 0, len(l.inodes))
	for ino := range l.inodes {
		inos = append(inos, ino)
	}
	slices.Sort(inos)
	for _, ino := range inos {
		key = binary.BigEndian.AppendUint64(key[:0], ino)
		n := l.inodes[ino]
		if n == nil {
			if err := tx.Delete(bucketInodes, key); err != nil {
				return err
			}
			continue
		}
		plain = AppendInode(plain[:0], n)
		if err := put(bucketInodes, key, plain); err != nil {
			return err
		}
	}
	parents := make([]uint64, 0, len(l.dirs))
	for p := range l.dirs {
		parents = append(parents, p)
	}
	slices.Sort(parents)
	for _, p := range parents {
		var err error
		l.dirs[p].Scan(func(at uint64, e *Entry) bool {
			key = appendEntryKey(key[:0], p, at)
			if e == nil {
				err = tx.Delete(bucketEntries, key)
			} else {
				plain = AppendEntry(plain[:0], e)
				err = put(bucketEntries, key, plain)
			}
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	names := make([]string, 0, len(l.values))
	for n := range l.values {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		v := l.values[n]
		if v == nil {
			if err := tx.Delete(bucketNamed, []byte(n)); err != nil {
				return err
			}
			continue
		}
		if err := put(bucketNamed, []byte(n), v); err != nil {
			return err
		}
	}
	return nil
}

// WriteValue puts a named value into a checkpoint that is being written, beside what Freeze froze. Value does not see it
// before the index is opened again.
func (x *Index) WriteValue(tx kv.Tx, name string, v []byte) error {
	return tx.Put(bucketNamed, []byte(name), x.seal.SealLocal(nil, v, appendAD(nil, bucketNamed, []byte(name))))
}
