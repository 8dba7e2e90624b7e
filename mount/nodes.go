package mount

import (
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/fs"
)

const (
	rootID     = 1 // the kernel's number for the root of a mount
	tableBits  = 6
	tableCount = 1 << tableBits // shards
	chunkSlots = 256
)

// nodes maps the nodeids that the kernel holds to handles and back.
//
// A nodeid is the number of its slot plus 1 in the low 32 bits and, above them, how often the slot was used
// before; so none comes back within a mount, and finding a handle is two loads without a lock. Memory: 32 bytes a
// slot and 4 to 8 for the index. Slots are reused and never given back. A nodeid in a request is held by the
// kernel for the request's time, so its slot cannot change under it.
type nodes struct {
	root   fs.Ino
	tables [tableCount]nodeTable
}

// nodeTable is a shard: the slots whose number ends in the shard's, and the index of the handles hashed to it.
type nodeTable struct {
	chunks atomic.Pointer[[]*[chunkSlots]nodeSlot] // replaced as it grows, chunks never move

	mu    sync.Mutex
	heads []uint32 // by hash of the handle: first slot of a chain, as index in this shard plus 1
	free  uint32   // chain of unused slots
	used  uint32   // slots ever used
	live  int
}

// nodeSlot is one nodeid. What is not atomic is guarded by the table's mu.
type nodeSlot struct {
	handle  atomic.Uint64
	lookups uint64 // what the kernel will forget
	gen     atomic.Uint32
	next    uint32
	caps    atomic.Uint32 // nodeCaps when the inode was last seen without security.capability
	kind    uint32        // type bits
}

func newNodes(root fs.Ino) *nodes {
	n := &nodes{root: root}
	for i := range n.tables {
		chunks := []*[chunkSlots]nodeSlot{}
		n.tables[i].chunks.Store(&chunks)
		n.tables[i].heads = make([]uint32, 64)
	}
	t := &n.tables[0] // slot 0 of shard 0 is the root's for ever, and in no chain
	t.growLocked()
	t.used = 1
	t.at(0).handle.Store(uint64(root))
	return n
}

// shardOf spreads handles, whose low bits count up, over shards and chains.
func shardOf(handle fs.Ino) (table int, hash uint64) {
	h := uint64(handle) * 0x9e3779b97f4a7c15
	return int(h >> (64 - tableBits)), h << tableBits >> 20
}

// slot returns the slot of a nodeid, nil when it is none of ours.
func (n *nodes) slot(id uint64) *nodeSlot {
	number := uint32(id) - 1
	t := &n.tables[number%tableCount]
	i := number / tableCount
	chunks := *t.chunks.Load()
	if int(i/chunkSlots) >= len(chunks) {
		return nil
	}
	s := &chunks[i/chunkSlots][i%chunkSlots]
	if s.gen.Load() != uint32(id>>32) {
		return nil
	}
	return s
}

// handle returns the backend's number for a nodeid.
func (n *nodes) handle(id uint64) (fs.Ino, bool) {
	s := n.slot(id)
	if s == nil {
		return 0, false
	}
	h := s.handle.Load()
	return fs.Ino(h), h != 0
}

// find returns the nodeid of a handle that the kernel holds, and its type bits.
func (n *nodes) find(handle fs.Ino) (id uint64, kind uint32, ok bool) {
	if handle == n.root {
		return rootID, 0, true
	}
	shard, hash := shardOf(handle)
	t := &n.tables[shard]
	t.mu.Lock()
	defer t.mu.Unlock()
	i, s := t.findLocked(handle, hash)
	if s == nil {
		return 0, 0, false
	}
	return nodeID(shard, i, s), s.kind, true
}

// lookup counts one more lookup of a handle. fresh says that the kernel did not hold it: it then has a new nodeid.
func (n *nodes) lookup(handle fs.Ino, kind uint32) (id uint64, fresh bool) {
	if handle == n.root {
		return rootID, false
	}
	shard, hash := shardOf(handle)
	t := &n.tables[shard]
	t.mu.Lock()
	defer t.mu.Unlock()
	i, s := t.findLocked(handle, hash)
	if s == nil {
		fresh = true
		i, s = t.takeLocked()
		s.lookups, s.kind = 0, kind
		s.caps.Store(0)
		s.handle.Store(uint64(handle))
		t.linkLocked(i, s, hash)
	}
	s.lookups++
	return nodeID(shard, i, s), fresh
}

// forget takes back n lookups. gone says that the kernel holds the nodeid no more, which ends it.
func (n *nodes) forget(id, lookups uint64) (handle fs.Ino, gone bool) {
	s := n.slot(id)
	if s == nil || id == rootID {
		return 0, false
	}
	t := &n.tables[(uint32(id)-1)%tableCount]
	t.mu.Lock()
	defer t.mu.Unlock()
	handle = fs.Ino(s.handle.Load())
	if s.gen.Load() != uint32(id>>32) || handle == 0 {
		return 0, false
	}
	s.lookups -= min(lookups, s.lookups)
	if s.lookups > 0 {
		return handle, false
	}
	i := (uint32(id) - 1) / tableCount
	_, hash := shardOf(handle)
	t.unlinkLocked(i, hash)
	s.handle.Store(0)
	s.gen.Add(1)
	s.next, t.free = t.free, i+1
	t.live--
	return handle, true
}

// all calls fn for every handle that the kernel holds, but the root's. It is for the end of a mount.
func (n *nodes) all(fn func(fs.Ino)) {
	for i := range n.tables {
		t := &n.tables[i]
		var handles []fs.Ino
		t.mu.Lock()
		for j := range t.used {
			if h := t.at(j).handle.Load(); h != 0 && (i != 0 || j != 0) {
				handles = append(handles, fs.Ino(h))
			}
		}
		t.mu.Unlock()
		for _, h := range handles {
			fn(h)
		}
	}
}

// len returns how many nodeids the kernel holds, without the root.
func (n *nodes) len() int {
	total := 0
	for i := range n.tables {
		t := &n.tables[i]
		t.mu.Lock()
		total += t.live
		t.mu.Unlock()
	}
	return total
}

func nodeID(shard int, i uint32, s *nodeSlot) uint64 {
	return uint64(s.gen.Load())<<32 | uint64(i*tableCount+uint32(shard)+1)
}

func (t *nodeTable) at(i uint32) *nodeSlot {
	return &(*t.chunks.Load())[i/chunkSlots][i%chunkSlots]
}

func (t *nodeTable) findLocked(handle fs.Ino, hash uint64) (uint32, *nodeSlot) {
	for at := t.heads[hash%uint64(len(t.heads))]; at != 0; {
		s := t.at(at - 1)
		if s.handle.Load() == uint64(handle) {
			return at - 1, s
		}
		at = s.next
	}
	return 0, nil
}

// takeLocked returns an unused slot.
func (t *nodeTable) takeLocked() (uint32, *nodeSlot) {
	t.live++
	if t.free != 0 {
		i := t.free - 1
		s := t.at(i)
		t.free = s.next
		return i, s
	}
	if int(t.used) == len(*t.chunks.Load())*chunkSlots {
		t.growLocked()
	}
	t.used++
	return t.used - 1, t.at(t.used - 1)
}

func (t *nodeTable) growLocked() {
	old := *t.chunks.Load()
	chunks := append(old[:len(old):len(old)], new([chunkSlots]nodeSlot))
	t.chunks.Store(&chunks)
}

func (t *nodeTable) linkLocked(i uint32, s *nodeSlot, hash uint64) {
	if t.live > len(t.heads) {
		t.rehashLocked()
	}
	head := &t.heads[hash%uint64(len(t.heads))]
	s.next, *head = *head, i+1
}

// rehashLocked doubles the index. A shard holds a 64th of all, so the pause is short.
func (t *nodeTable) rehashLocked() {
	heads := make([]uint32, 2*len(t.heads))
	for _, at := range t.heads {
		for at != 0 {
			s := t.at(at - 1)
			_, hash := shardOf(fs.Ino(s.handle.Load()))
			next := s.next
			head := &heads[hash%uint64(len(heads))]
			s.next, *head = *head, at
			at = next
		}
	}
	t.heads = heads
}

func (t *nodeTable) unlinkLocked(i uint32, hash uint64) {
	at := &t.heads[hash%uint64(len(t.heads))]
	for *at != 0 && *at != i+1 {
		at = &t.at(*at - 1).next
	}
	if *at != 0 {
		*at = t.at(i).next
	}
}
