package fs

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// treeStore is what the tree of a space knows between its operations, kept in the space's database; so the tree costs no memory, and
// is there at a start.
//
// Batches come into the tree in the order of the graph's log, one after the other, and the store keeps up to where. What can be had
// from the graph is not kept a second time: the state of an object is its fold as it was there. What is kept is what the tree works
// out across objects: claims to names, places of directories, their moves, and sets of names.
//
// It is used under pubMu, and knows nothing of other locks but that the index's is held where held says so.
type treeStore struct {
	s    *space
	rows *index.Rows
	hash *seal.Local // for keys, which are not sealed
	held bool        // mu is held

	next     uint64                        // the position of the log that comes next; what stands before is in the tree
	applying uint64                        // the position of the batch that is coming in; 0 none
	set      map[dag.ID]*tree.Object       // by the batch that is coming in
	cache    map[dag.ID]*tree.Object       // as of next: those that were asked for last
	older    map[dag.ID]*tree.Object       // and those before, which go when cache is full
	bytes    int                           // of memory that cache takes, about
	devices  []dag.PublicKey               // by number
	numbers  map[dag.PublicKey]uint64      // of devices
	names    map[dag.PublicKey]string      // of devices
	placed   map[dag.ID][2]*tree.Placement // of directories in set and cache, as their rows say
	unborn   bool                          // there may be objects whose root has not come
}

var _ tree.Store = (*treeStore)(nil)

// Rows of the store. An id in a key is its first 16 bytes, a name is the keyed hash of directory and name.
//
//	a                             version, next
//	b                             the tree is being made from the start
//	c directory name object link  a claim: name, then what encodeClaim writes
//	d number                      a device
//	k set directory name          a member of a set
//	m order                       a move
//	p object                      the places of a directory
//	q position                    a batch in quarantine that was passed over
//	r                             the attributes of the root are to be looked at
//	u object                      an object that has changes, and is nothing yet: its root has not come
//	w directory name              a name to be looked at
const (
	rowAt     = "a"
	rowFresh  = "b"
	rowClaim  = "c"
	rowDevice = "d"
	rowMark   = "k"
	rowMove   = "m"
	rowPlace  = "p"
	rowHeld   = "q"
	rowRoot   = "r"
	rowUnborn = "u"
	rowLater  = "w"
)

// treeVersion is that of the rows. Rows of another are made anew.
const treeVersion = 2

// Bounds of the objects that are kept in memory: of those asked for last, and as many before. What a round brings in fits in.
const (
	cacheObjects     = 8 << 10
	cacheObjectBytes = 8 << 20
)

func (s *space) openTreeStore() (*treeStore, error) {
	st := &treeStore{s: s, rows: s.rows, hash: s.rowHash}
	st.forget()
	b, err := st.rows.Get(rowAt)
	if err != nil {
		return nil, err
	}
	if b == nil {
		return st, nil
	}
	r := &reader{b: b}
	if r.uint() != treeVersion {
		st.clear()
		return st, nil
	}
	st.next = r.uint()
	if err := r.end(); err != nil {
		return nil, fmt.Errorf("%w: position of the tree", index.ErrCorrupt)
	}
	var bad error
	err = st.rows.Scan(rowDevice, "", func(k string, v []byte) bool {
		if len(v) != 32 || k != st.deviceKey(uint64(len(st.devices))) {
			bad = fmt.Errorf("%w: a device of the tree", index.ErrCorrupt)
			return false
		}
		st.numbers[dag.PublicKey(v)] = uint64(len(st.devices))
		st.devices = append(st.devices, dag.PublicKey(v))
		return true
	})
	if err == nil {
		err = st.rows.Scan(rowUnborn, "", func(string, []byte) bool { st.unborn = true; return false })
	}
	return st, errors.Join(err, bad)
}

func (*treeStore) deviceKey(n uint64) string {
	return string(binary.BigEndian.AppendUint32([]byte(rowDevice), uint32(n)))
}

// forget drops what is in memory.
func (t *treeStore) forget() {
	t.set, t.cache, t.older, t.bytes = map[dag.ID]*tree.Object{}, map[dag.ID]*tree.Object{}, nil, 0
	t.placed = map[dag.ID][2]*tree.Placement{}
	t.unborn = false
	t.devices, t.numbers, t.names = nil, map[dag.PublicKey]uint64{}, map[dag.PublicKey]string{}
}

// clear takes everything out: the tree is that of no batch.
func (t *treeStore) clear() {
	t.rows.Clear()
	t.forget()
	t.next, t.applying = 0, 0
}

// flag sets or removes a row that says but that it is there.
func (t *treeStore) flag(row string, on bool) {
	if on {
		t.rows.Set(row, []byte{1})
	} else {
		t.rows.Set(row, nil)
	}
}

// begin says that the batch at a position comes in now; end that it is in the tree, and where the log goes on.
func (t *treeStore) begin(at uint64) { t.applying = at }

func (t *treeStore) end(next uint64) {
	t.next, t.applying = next, 0
	for id, o := range t.set {
		t.keep(id, o)
	}
	clear(t.set)
	w := &writer{}
	w.uint(treeVersion)
	w.uint(next)
	t.rows.Set(rowAt, w.b)
}

// born says that the root of an object comes in with the batch, and that no other batch links it. Hardly ever does an object have changes
// before its root; where none has, there is nothing to be looked up.
func (t *treeStore) born(id dag.ID) error {
	if t.unborn {
		if v, err := t.rows.Get(unbornKey(id)); v != nil || err != nil {
			return err
		}
	}
	t.set[id] = nil
	return nil
}

// keep puts an object into the cache; nil takes it out.
func (t *treeStore) keep(id dag.ID, o *tree.Object) {
	if old := t.cache[id]; old != nil {
		t.bytes -= old.State.Memory()
		delete(t.cache, id)
	}
	delete(t.older, id)
	if o == nil {
		return
	}
	if len(t.cache) >= cacheObjects || t.bytes >= cacheObjectBytes {
		t.age()
	}
	t.cache[id] = o
	t.bytes += o.State.Memory()
}

// age keeps the objects that were asked for since the age before last, and no more.
func (t *treeStore) age() {
	for k := range t.older {
		if _, changing := t.set[k]; !changing {
			delete(t.placed, k)
		}
	}
	t.older, t.cache, t.bytes = t.cache, make(map[dag.ID]*tree.Object, min(2*len(t.cache), cacheObjects)), 0
}

// Object implements tree.Store.
func (t *treeStore) Object(id dag.ID) (*tree.Object, error) {
	if o, ok := t.set[id]; ok {
		return o, nil
	}
	if o := t.cache[id]; o != nil {
		return o, nil
	}
	if o := t.older[id]; o != nil {
		t.keep(id, o)
		return o, nil
	}
	if t.next == 0 {
		return nil, nil
	}
	st, _, err := t.s.machine(id).FoldTo(t.s.graph, id, t.next-1, t.trust())
	if err != nil {
		return nil, fmt.Errorf("fold object %s: %w", id, err)
	}
	if st.Top == (dag.Pos{}) {
		return nil, nil
	}
	o := &tree.Object{State: st}
	if st.Kind == tree.KindDir {
		if o.Place, o.Claimed, err = t.places(id); err != nil {
			return nil, err
		}
		t.placed[id] = [2]*tree.Placement{o.Place, o.Claimed}
	}
	t.keep(id, o)
	return o, nil
}

func (t *treeStore) trust() dag.Trust {
	if t.held {
		return heldTrust{trust{t.s}}
	}
	return trust{t.s}
}

// SetObject implements tree.Store.
func (t *treeStore) SetObject(id dag.ID, o *tree.Object) error {
	t.set[id] = o
	if nothing := o != nil && o.State.Kind == tree.KindNone; nothing || t.unborn {
		t.flag(unbornKey(id), nothing)
		t.unborn = true
	}
	if o == nil {
		t.rows.Set(placeKey(id), nil)
		delete(t.placed, id)
		return nil
	}
	now := [2]*tree.Placement{o.Place, o.Claimed}
	if t.placed[id] != now {
		t.placed[id] = now
		t.rows.Set(placeKey(id), t.encodePlaces(o.Place, o.Claimed))
	}
	return nil
}

// History implements tree.Store.
func (t *treeStore) History(id dag.ID, fn func(tree.Stamp, *tree.Payload) error) error {
	return t.s.graph.Changes(id, func(e dag.Entry) error {
		if e.At >= t.next && e.At != t.applying {
			return nil
		}
		p, err := t.s.open(&e)
		if errors.Is(err, seal.ErrNoKey) {
			return err
		}
		if err != nil {
			p = nil // an empty operation for everybody
		}
		return fn(tree.Stamp{ID: e.ID, Pos: e.Pos, Device: e.Change.Device}, p)
	})
}

// Device implements tree.Store.
func (t *treeStore) Device(key dag.PublicKey) string {
	name, known := t.names[key]
	if !known {
		name, _ = t.s.acl.DeviceName(key)
		if name != "" {
			t.names[key] = name
		}
	}
	return name
}

// Claims implements tree.Store.
func (t *treeStore) Claims(dir dag.ID, name string) (out []tree.Claim, err error) {
	in := rowClaim + string(dir[:16])
	err = t.claims(in, t.claimsKey(dir, name), func(_ string, c tree.Claim) bool {
		out = append(out, c)
		return true
	})
	return out, err
}

// Children implements tree.Store.
func (t *treeStore) Children(dir dag.ID, fn func(name string, c tree.Claim) bool) error {
	in := rowClaim + string(dir[:16])
	return t.claims(in, in, fn)
}

func (t *treeStore) claims(in, prefix string, fn func(string, tree.Claim) bool) error {
	var bad error
	err := t.rows.ScanIn(in, prefix, func(_ string, v []byte) bool {
		name, c, err := t.decodeClaim(v)
		if bad = err; err != nil {
			return false
		}
		return fn(name, c)
	})
	return errors.Join(err, bad)
}

// SetClaim implements tree.Store.
func (t *treeStore) SetClaim(dir dag.ID, name string, c tree.Claim) error {
	t.rows.Set(t.claimKey(dir, name, c.Object, c.Link), t.encodeClaim(name, &c))
	return nil
}

// DeleteClaim implements tree.Store.
func (t *treeStore) DeleteClaim(dir dag.ID, name string, object dag.ID, link tree.Ref) error {
	t.rows.Set(t.claimKey(dir, name, object, link), nil)
	return nil
}

// Moves implements tree.Store.
func (t *treeStore) Moves(from tree.Order, fn func(*tree.Move) bool) error {
	var bad error
	err := t.rows.Scan(rowMove, moveKey(from), func(_ string, v []byte) bool {
		m, err := t.decodeMove(v)
		if bad = err; err != nil {
			return false
		}
		return fn(m)
	})
	return errors.Join(err, bad)
}

// SetMove implements tree.Store.
func (t *treeStore) SetMove(m *tree.Move) error {
	t.rows.Set(moveKey(m.Order()), t.encodeMove(m))
	return nil
}

// DeleteMove implements tree.Store.
func (t *treeStore) DeleteMove(at tree.Order) error {
	t.rows.Set(moveKey(at), nil)
	return nil
}

// SetMark implements tree.Store.
func (t *treeStore) SetMark(set tree.Set, dir dag.ID, name string, on bool) error {
	t.setName(t.markKey(set, dir, name), dir, name, on)
	return nil
}

// Marked implements tree.Store.
func (t *treeStore) Marked(set tree.Set, dir dag.ID, name string) (bool, error) {
	v, err := t.rows.Get(t.markKey(set, dir, name))
	return v != nil, err
}

// Marks implements tree.Store.
func (t *treeStore) Marks(set tree.Set, fn func(dir dag.ID, name string) bool) error {
	return t.eachName(rowMark+string(byte(set)), fn)
}

// setName puts a name of a directory into a row of its own, or takes it out.
func (t *treeStore) setName(key string, dir dag.ID, name string, on bool) {
	if !on {
		t.rows.Set(key, nil)
		return
	}
	t.rows.Set(key, append(append(make([]byte, 0, 32+len(name)), dir[:]...), name...))
}

func (t *treeStore) eachName(prefix string, fn func(dir dag.ID, name string) bool) error {
	var bad error
	err := t.rows.Scan(prefix, "", func(_ string, v []byte) bool {
		if len(v) < 32 {
			bad = fmt.Errorf("%w: a name of the tree", index.ErrCorrupt)
			return false
		}
		return fn(dag.ID(v[:32]), string(v[32:]))
	})
	return errors.Join(err, bad)
}

// eachHeld calls fn for the positions of batches that were passed over since they were in quarantine.
func (t *treeStore) eachHeld(fn func(at uint64) bool) error {
	return t.rows.Scan(rowHeld, "", func(k string, _ []byte) bool {
		return fn(binary.BigEndian.Uint64([]byte(k[len(rowHeld):])))
	})
}
