package spaces

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
)

const (
	usageName   = "usage.db"
	usageBucket = "usage"
)

// Usage is what a space takes on the node.
type Usage struct {
	Owner  dag.PublicKey // whose quota counts: list.Payer
	Blocks int64         // bytes, with headers
	Log    int64         // bytes of changes and access records
}

// flight is what was charged of a space and did not land yet.
type flight struct{ blocks, log int64 }

// usage is what all spaces take, those that are not open too. In the database it is as of the last checkpoint of each; a block counts
// from when it is given.
type usage struct {
	db kv.DB

	uploads, uploaded, refused atomic.Uint64 // blocks, bytes and refusals since the start
	copies, copied             atomic.Uint64 // blocks and bytes that other nodes gave

	mu     sync.Mutex
	blocks int64 // of all, as is log
	log    int64
	of     map[dag.ID]Usage  // with what is in flight
	flying map[dag.ID]flight // spaces to which something is given at this moment
	owners map[dag.PublicKey]int64
	spaces map[dag.PublicKey]int // how many each has
	fresh  map[dag.ID]bool       // not written yet
}

// load opens the database. One that is damaged is put aside: what a space takes is known again once it has been opened.
func (u *usage) load(dir string, log *slog.Logger) error {
	path := filepath.Join(dir, usageName)
	err := u.open(path)
	if errors.Is(err, kv.ErrCorrupt) {
		log.Error("what spaces take is not known: the file is put aside, and each is counted when it is opened", "file", path+".damaged", "err", err)
		if err = os.Rename(path, path+".damaged"); err == nil {
			err = u.open(path)
		}
	}
	return err
}

func (u *usage) open(path string) (err error) {
	db, err := kv.OpenBolt(path)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	u.blocks, u.log = 0, 0
	u.db, u.of, u.flying, u.owners, u.fresh = db, make(map[dag.ID]Usage), make(map[dag.ID]flight), make(map[dag.PublicKey]int64), make(map[dag.ID]bool)
	u.spaces = make(map[dag.PublicKey]int)
	return db.View(func(tx kv.Tx) error {
		var err error
		scan := tx.Scan(usageBucket, nil, func(k, v []byte) bool {
			var id dag.ID
			var x Usage
			if len(k) != len(id) || len(v) != len(x.Owner)+16 {
				err = fmt.Errorf("%w: a usage of %d and %d bytes", kv.ErrCorrupt, len(k), len(v))
				return false
			}
			copy(id[:], k)
			copy(x.Owner[:], v)
			x.Blocks = int64(binary.BigEndian.Uint64(v[len(x.Owner):]))
			x.Log = int64(binary.BigEndian.Uint64(v[len(x.Owner)+8:]))
			u.put(id, x)
			return true
		})
		return errors.Join(err, scan)
	})
}

// put replaces what a space takes. mu is held, or nobody else has u.
func (u *usage) put(id dag.ID, x Usage) {
	if old, ok := u.of[id]; ok {
		u.count(old, -1)
	}
	u.of[id] = x
	u.count(x, 1)
}

// count adds what a space takes to what all do, or takes it off.
func (u *usage) count(x Usage, sign int64) {
	u.blocks += sign * x.Blocks
	u.log += sign * x.Log
	if u.owners[x.Owner] += sign * (x.Blocks + x.Log); u.owners[x.Owner] == 0 {
		delete(u.owners, x.Owner)
	}
	if u.spaces[x.Owner] += int(sign); u.spaces[x.Owner] == 0 {
		delete(u.spaces, x.Owner)
	}
}

// A space takes some 54 KiB and 8 inodes beside what is counted, so who has a quota brings no more spaces than such ones fill it, and fewSpaces at least. A
// list that is longer than that is taken within the quota alone.
const (
	spaceBytes = 64 << 10
	fewSpaces  = 16
)

// crowded reports whether one more space, with an access list of so many bytes, is beyond what its owner may bring; all as for charge.
func (u *usage) crowded(owner dag.PublicKey, list, all int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return all > 0 && (int64(u.spaces[owner]) >= max(fewSpaces, all/spaceBytes) || list > spaceBytes && u.owners[owner]+list > all)
}

// charge counts bytes of a block and of changes, unless that is beyond what the owner's spaces may take, or this one; 0 is no bound. They are in flight
// until the caller says that they landed.
func (u *usage) charge(id dag.ID, owner dag.PublicKey, blocks, changes, all, one int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	x, n := u.of[id], blocks+changes
	used := u.owners[owner]
	if x.Owner != owner { // it has another owner since it was settled
		used += x.Blocks + x.Log
	}
	if all > 0 && used+n > all || one > 0 && x.Blocks+x.Log+n > one {
		return false
	}
	x.Owner, x.Blocks, x.Log = owner, x.Blocks+blocks, x.Log+changes
	u.put(id, x)
	u.fresh[id] = true
	f := u.flying[id]
	u.flying[id] = flight{f.blocks + blocks, f.log + changes}
	return true
}

// fits reports whether n bytes more are within the bounds of charge, by what the space takes at this moment; measure as for landed.
func (u *usage) fits(id dag.ID, owner dag.PublicKey, n, all, one int64, measure func() *Usage) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	x, now := u.of[id], measure()
	if now == nil {
		return true
	}
	used := u.owners[owner]
	if x.Owner == owner {
		used -= x.Blocks + x.Log
	}
	f := u.flying[id]
	mine := now.Blocks + now.Log + f.blocks + f.log
	return (all == 0 || used+mine+n <= all) && (one == 0 || mine+n <= one)
}

// room says whether n bytes more are beyond a bound, and how much is used of that.
func (u *usage) room(id dag.ID, owner dag.PublicKey, n, all, one int64) (used, limit int64, full bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if x := u.of[id]; one > 0 && x.Blocks+x.Log+n > one {
		return x.Blocks + x.Log, one, true
	}
	if all > 0 && u.owners[owner]+n > all {
		return u.owners[owner], all, true
	}
	return 0, 0, false
}

// left says how much is used of the bound of which least is left; a limit of 0: there is none.
func (u *usage) left(id dag.ID, owner dag.PublicKey, all, one int64) (used, limit int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if all > 0 {
		used, limit = u.owners[owner], all
	}
	if x := u.of[id]; one > 0 && (limit == 0 || one-x.Blocks-x.Log < limit-used) {
		used, limit = x.Blocks+x.Log, one
	}
	return used, limit
}

// drop forgets a space.
func (u *usage) drop(id dag.ID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if x, ok := u.of[id]; ok {
		u.count(x, -1)
	}
	delete(u.of, id)
	u.fresh[id] = true
}

// landed says that bytes which charge counted are in the space or were not kept, and measure gives what it takes now, nil where that is
// not known; it is asked with mu held, so that no older answer comes last. What others have in flight counts on: it may be in there already, so that a
// bound is met early by that much, and never late.
func (u *usage) landed(id dag.ID, blocks, changes int64, measure func() *Usage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f := u.flying[id]
	f = flight{f.blocks - blocks, f.log - changes}
	if u.flying[id] = f; f == (flight{}) {
		delete(u.flying, id)
	}
	now, x := u.of[id], measure()
	if x == nil {
		now.Blocks, now.Log = now.Blocks-blocks, now.Log-changes
	} else {
		now = Usage{x.Owner, x.Blocks + f.blocks, x.Log + f.log}
	}
	if u.of[id] != now {
		u.put(id, now)
		u.fresh[id] = true
	}
}

// save writes down what has changed.
func (u *usage) save() error {
	u.mu.Lock()
	todo := make(map[dag.ID]*Usage, len(u.fresh)) // nil: it is gone
	for id := range u.fresh {
		todo[id] = nil
		if x, ok := u.of[id]; ok {
			todo[id] = &x
		}
	}
	clear(u.fresh)
	u.mu.Unlock()
	if len(todo) == 0 {
		return nil
	}
	err := u.db.Update(func(tx kv.Tx) error {
		for id, x := range todo {
			if x == nil {
				if err := tx.Delete(usageBucket, id[:]); err != nil {
					return err
				}
				continue
			}
			v := binary.BigEndian.AppendUint64(x.Owner[:], uint64(x.Blocks))
			if err := tx.Put(usageBucket, id[:], binary.BigEndian.AppendUint64(v, uint64(x.Log))); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		u.mu.Lock()
		for id := range todo {
			u.fresh[id] = true
		}
		u.mu.Unlock()
	}
	return err
}

// Totals is what all spaces take together, and what has come since the start.
type Totals struct {
	Spaces   int    `json:"spaces"`
	Open     int    `json:"open_spaces"`
	Blocks   int64  `json:"block_bytes"`
	Log      int64  `json:"change_bytes"`
	Uploads  uint64 `json:"uploaded_blocks"`
	Uploaded uint64 `json:"uploaded_bytes"`
	Refused  uint64 `json:"refused_blocks"`
	Copies   uint64 `json:"copied_blocks"`
	Copied   uint64 `json:"copied_bytes"`
}

// Totals gives that.
func (s *Set) Totals() Totals {
	s.mu.Lock()
	t := Totals{Open: len(s.open)}
	s.mu.Unlock()
	u := &s.use
	t.Uploads, t.Uploaded, t.Refused = u.uploads.Load(), u.uploaded.Load(), u.refused.Load()
	t.Copies, t.Copied = u.copies.Load(), u.copied.Load()
	u.mu.Lock()
	defer u.mu.Unlock()
	t.Spaces, t.Blocks, t.Log = len(u.of), u.blocks, u.log
	return t
}

// Usages gives what each space takes.
func (s *Set) Usages() map[dag.ID]Usage {
	u := &s.use
	u.mu.Lock()
	defer u.mu.Unlock()
	out := make(map[dag.ID]Usage, len(u.of))
	for id, x := range u.of {
		out[id] = x
	}
	return out
}
