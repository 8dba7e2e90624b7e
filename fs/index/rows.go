package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"github.com/anyfs/anyfs/dag/kv"
)

// bucketRows is the bucket of Rows.
const bucketRows = "tree"

// Rows is an ordered map from keys to values, kept as an Index is: sealed in a kv.DB, and over that in memory what changed since
// the last checkpoint. Keys are not sealed: they must say nothing. It is safe for concurrent use.
type Rows struct {
	db   kv.DB
	seal Sealer

	mu     sync.RWMutex
	cur    *rowLayer
	frozen *rowLayer // being written; nil otherwise
	weight int64

	bareMu sync.Mutex      // the last of all locks
	bare   map[string]bool // of prefixes: whether nothing that begins so is stored; forgotten with each checkpoint
}

// rowLayer is what changed; an empty value stands for none. Where wiped is set, nothing counts that lies under it.
type rowLayer struct {
	rows  *btree.Map[string, []byte]
	wiped bool
}

func newRowLayer() *rowLayer { return &rowLayer{rows: btree.NewMap[string, []byte](32)} }

// OpenRows returns the rows that db holds. Nothing is read yet.
func OpenRows(db kv.DB, seal Sealer) *Rows {
	return &Rows{db: db, seal: seal, cur: newRowLayer(), bare: map[string]bool{}}
}

// Weight is about how many bytes of memory the rows take that are not checkpointed.
func (r *Rows) Weight() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.weight
}

// rowMemory is about what a changed row takes besides key and value.
const rowMemory = 64

// Set sets the value of a key, which is kept and must not change any more; an empty one removes it.
func (r *Rows) Set(key string, value []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.cur.rows.Set(key, value)
	r.weight += int64(len(value) - len(old))
	if !had {
		r.weight += int64(len(key)) + rowMemory
	}
}

// Clear removes all rows.
func (r *Rows) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cur = newRowLayer()
	r.cur.wiped = true
	r.weight = rowMemory
}

// Get returns the value of a key, nil when there is none. It must not be changed.
func (r *Rows) Get(key string) ([]byte, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, l := range []*rowLayer{r.cur, r.frozen} {
		if l == nil {
			continue
		}
		if v, ok := l.rows.Get(key); ok {
			if len(v) == 0 {
				v = nil
			}
			return v, nil
		}
		if l.wiped {
			return nil, nil
		}
	}
	var out []byte
	err := r.db.View(func(tx kv.Tx) error {
		v := tx.Get(bucketRows, []byte(key))
		if v == nil {
			return nil
		}
		var err error
		out, err = r.open([]byte(key), v)
		return err
	})
	return out, err
}

func (r *Rows) open(key, v []byte) ([]byte, error) {
	var ad [96]byte
	b, err := r.seal.OpenLocal(nil, v, appendAD(ad[:0], bucketRows, key))
	if err != nil {
		return nil, fmt.Errorf("%w: row %x: %w", ErrCorrupt, key, err)
	}
	return b, nil
}

// rowStep is how many stored rows one read transaction of a scan takes.
const rowStep = 256

// Scan calls fn for the rows whose keys begin with prefix and are from or higher, in order, until it returns false. fn may change the rows:
// what it changes behind the key that it was called for is seen or not.
func (r *Rows) Scan(prefix, from string, fn func(key string, value []byte) bool) error {
	return r.scan("", prefix, max(prefix, from), fn)
}

func (r *Rows) scan(in, prefix, next string, fn func(key string, value []byte) bool) error {
	for {
		page, last, err := r.page(in, prefix, next)
		if err != nil {
			return err
		}
		for _, p := range page {
			if !fn(p.key, p.value) {
				return nil
			}
		}
		if last == "" {
			return nil
		}
		next = last + "\x00"
	}
}

type row struct {
	key   string
	value []byte
}

// ScanIn is Scan for many prefixes that begin alike, as in does, and of which mostly nothing is there: it is remembered when nothing at all
// is stored that begins with in.
func (r *Rows) ScanIn(in, prefix string, fn func(key string, value []byte) bool) error {
	return r.scan(in, prefix, prefix, fn)
}

// isBare reports whether nothing is stored that begins with a prefix. mu is held, so that no checkpoint ends meanwhile.
func (r *Rows) isBare(prefix string) (bool, error) {
	r.bareMu.Lock()
	is, known := r.bare[prefix]
	r.bareMu.Unlock()
	if known {
		return is, nil
	}
	bare := true
	err := r.db.View(func(tx kv.Tx) error {
		return tx.Scan(bucketRows, []byte(prefix), func(k, _ []byte) bool {
			bare = !bytes.HasPrefix(k, []byte(prefix))
			return false
		})
	})
	if err != nil {
		return false, err
	}
	r.bareMu.Lock()
	defer r.bareMu.Unlock()
	if len(r.bare) >= cacheBare {
		clear(r.bare)
	}
	r.bare[prefix] = bare
	return bare, nil
}

// page gives the next rows of a scan, and the key up to which that is all of them; "" at the end.
func (r *Rows) page(in, prefix, from string) (rows []row, last string, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	bare := r.cur.wiped || r.frozen != nil && r.frozen.wiped
	if !bare && in != "" {
		if bare, err = r.isBare(in); err != nil {
			return nil, "", err
		}
	}
	if !bare {
		if rows, last, err = r.stored(prefix, from); err != nil {
			return nil, "", err
		}
	}
	layers := [2]*rowLayer{r.frozen, r.cur}
	if r.cur.wiped {
		layers[0] = nil
	}
	if len(rows) == 0 && layers[0] == nil {
		rows, last = r.cur.page(prefix, from)
		return rows, last, nil
	}
	return r.merge(layers, rows, last, prefix, from)
}

// stored is page of what the database has.
func (r *Rows) stored(prefix, from string) (rows []row, last string, err error) {
	err = r.db.View(func(tx kv.Tx) error {
		var bad error
		err := tx.Scan(bucketRows, []byte(from), func(k, v []byte) bool {
			if !bytes.HasPrefix(k, []byte(prefix)) {
				return false
			}
			var b []byte
			if b, bad = r.open(k, v); bad != nil {
				return false
			}
			rows = append(rows, row{string(k), b})
			if len(rows) == rowStep {
				last = rows[rowStep-1].key
			}
			return len(rows) < rowStep
		})
		return errors.Join(err, bad)
	})
	return rows, last, err
}

// merge is page of what layers lie over rows that are stored, up to last.
func (r *Rows) merge(layers [2]*rowLayer, rows []row, last, prefix, from string) ([]row, string, error) {
	var merged *btree.Map[string, []byte] // nil: nothing of rows changed
	for i, l := range layers {
		if l == nil {
			continue
		}
		if len(rows) == 0 && merged == nil && i == len(layers)-1 {
			rows, last := l.page(prefix, from)
			return rows, last, nil
		}
		n := 0
		l.rows.Ascend(from, func(k string, v []byte) bool {
			if !strings.HasPrefix(k, prefix) || last != "" && k > last {
				return false
			}
			if merged == nil {
				merged = btree.NewMap[string, []byte](32)
				for _, x := range rows {
					merged.Load(x.key, x.value)
				}
			}
			merged.Set(k, v)
			if n++; n == rowStep && (last == "" || k < last) {
				last = k
			}
			return n < rowStep
		})
	}
	if merged == nil {
		return rows, last, nil
	}
	rows = rows[:0]
	merged.Scan(func(k string, v []byte) bool {
		if last != "" && k > last {
			return false
		}
		if len(v) > 0 {
			rows = append(rows, row{k, v})
		}
		return true
	})
	return rows, last, nil
}

// page is that of a layer over which and under which nothing is.
func (l *rowLayer) page(prefix, from string) (rows []row, last string) {
	n := 0
	l.rows.Ascend(from, func(k string, v []byte) bool {
		if !strings.HasPrefix(k, prefix) {
			return false
		}
		if len(v) > 0 {
			rows = append(rows, row{k, v})
		}
		if n++; n == rowStep {
			last = k
		}
		return n < rowStep
	})
	return rows, last
}

// Freeze begins a checkpoint, as Index.Freeze does; done needs no lock.
func (r *Rows) Freeze() (write func(kv.Tx) error, done func(ok bool)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, weight := r.cur, r.weight
	r.frozen, r.cur, r.weight = l, newRowLayer(), 0
	write = func(tx kv.Tx) error { return r.write(tx, l) }
	done = func(ok bool) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.frozen = nil
		r.bareMu.Lock()
		clear(r.bare)
		r.bareMu.Unlock()
		if ok || r.cur.wiped {
			return
		}
		r.cur.wiped = l.wiped
		r.weight += weight
		l.rows.Scan(func(k string, v []byte) bool {
			if _, newer := r.cur.rows.Get(k); !newer {
				r.cur.rows.Set(k, v)
			}
			return true
		})
	}
	return write, done
}

func (r *Rows) write(tx kv.Tx, l *rowLayer) error {
	if l.wiped {
		if err := tx.Clear(bucketRows); err != nil {
			return err
		}
	}
	var ad, key, sealed []byte
	var err error
	l.rows.Scan(func(k string, v []byte) bool {
		key = append(key[:0], k...)
		if len(v) == 0 {
			err = tx.Delete(bucketRows, key)
		} else {
			ad = appendAD(ad[:0], bucketRows, key)
			sealed = r.seal.SealLocal(sealed[:0], v, ad)
			err = tx.Put(bucketRows, key, sealed)
		}
		return err == nil
	})
	return err
}

// VerifyStored is Index.VerifyStored for rows.
func (r *Rows) VerifyStored(ctx context.Context, report func(error)) error {
	return kv.Each(ctx, r.db, bucketRows, func(k, v []byte) {
		if _, err := r.open(k, v); err != nil {
			report(err)
		}
	})
}
