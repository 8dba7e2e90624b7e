package fs

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tidwall/btree"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/fs/chunk"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
)

// rootDir is the inode number of a space's root directory; others count from firstIno.
const (
	rootDir  = 1
	firstIno = 16
)

// space is one space that is open on this device.
//
// Lock order: follow, then pubMu, then saving, then the writer's lock of an inode (stream.mu), then mu, then the journal's own. Nothing waits for a
// disk or takes another space's lock under mu, but for reads of the index.
type space struct {
	h      *Home
	slot   uint16
	id     dag.ID
	dir    string // the space's folder
	as     spaceIdentity
	acl    *acl.Space
	keys   *seal.Space
	graph  *dag.Graph
	log    *store.Store
	aclLog *store.Store
	blocks *block.Store
	db     kv.DB

	follow sync.Mutex // one look at what the access list has come to at a time
	pubMu  sync.Mutex // one publication or arrival at a time, and no checkpoint begins meanwhile
	saving sync.Mutex // one checkpoint at a time, and the space is not closed meanwhile

	keeping keeping  // of blocks against eviction
	in      arrivals // what comes from other devices
	mir     mirror
	early   early
	pre     previews
	relying relying                       // on other devices for what was evicted
	stuck   atomic.Bool                   // the evictor found less to let go of than is to go
	reads   recent                        // blocks that were read lately, where content may go
	lack    lacking                       // blocks that nobody had a moment ago
	pol     atomic.Pointer[ContentPolicy] // nil: the zero policy

	rights   rights
	aclNews  atomic.Bool // the access list has grown, and what that means is not seen to
	unjudged bool        // the tree holds what the graph put in quarantine; under pubMu

	mu       sync.Mutex
	ix       *index.Index
	rows     *index.Rows // of the tree; it has a lock of its own, the last of all
	rowHash  *seal.Local
	nextIno  uint64
	last     journal.Seq // the last record of this space
	kept     uint64      // up to where the journal says that the batch log stays
	keptBy   journal.Seq // the record that says it
	need     journal.Seq // the oldest record whose data an inode still refers to; 0 none
	loaded   journal.Seq // the checkpoint holds everything up to here
	orphaned map[uint64]struct{}
	send     map[uint64]int // what sendList gives; nil: not read yet
	sendSum  int            // its blocks
	lone     atomic.Pointer[alone]
	heldHere uint64 // up to where another device is known to hold what of the log of batches does not count here alone; under mu
	up       uploads
	unsaved  bool // the index has something that no record of the journal says
	refs     map[uint64]int64
	dirty    map[uint64]dirtyState
	inOrder  btree.Set[uint64]   // of dirty the numbers
	touched  map[uint64]struct{} // of dirty those of which a name may have been removed or moved: touched since unpublishedNames looked
	nextUp   uint64              // with this number of them the next publication begins
	asides   map[asideKey]aside
	inflight map[uint64]struct{} // inodes in the publication that is under way
	settled  *sync.Cond          // on mu: inflight became empty
	streams  map[uint64]*stream
	buf      []byte // scratch for records
	gone     bool   // the space was deleted
	passing  bool   // no entry of the root names it yet: it may be thrown away, with what its database knows of the journal
	sick     error  // set in recovery: the space is damaged, and can't be used; what it is open with may be nil
	objects  int64  // inodes there are
	pubErr   error  // why the last publication failed
	paced    map[uint64]pace
	patched  map[uint64]int64      // inodes with many patches, and when they were published last
	mates    map[uint64]database   // files of databases whose names were removed
	lost     map[database]int      // how many of these each has
	near     map[database]struct{} // of which a sibling was dirty
	due      map[uint64]database   // members of databases that wait for an fsync
	moments  map[database]journal.Seq
	held     map[uint64]heldBack
	unnoted  *publishedRecord // in the batch log, and not in the journal yet; changed under pubMu too
	applied  bool             // what unnoted says is in the index

	pins map[dag.ID]struct{} // objects that are pinned
	ign  ignoring

	chunker  *chunk.Chunker
	released journal.Seq // in recovery: up to where no space needs the journal, by this space's checkpoint
	mark     uint64      // in recovery: the end of the batch log by the last record that speaks of it
}

// dirtyState says since when, and of what sort, an inode's unpublished changes are.
type dirtyState struct {
	first, last int64       // h.now() of the first and last change
	seq         journal.Seq // the space's last record before the first change
	newest      journal.Seq // and at the last one
	written     int64       // bytes written since the last publication
	logged      int64       // of these, bytes that are in the journal alone
	saved       journal.Seq // the record by which the file took another's place: what was written before is whole
}

// asideKey is a name that a file was just renamed away from, within its directory.
type asideKey struct {
	parent uint64
	name   string
}

type aside struct {
	ino  uint64
	time int64
}

// asideFor is for how long a file that is made under such a name is taken for the next version of the one renamed away.
const asideFor = 2 * time.Second

// takesWithin is how young an inode must be for its rename over another to be a save of that one.
const takesWithin = 60 * time.Second

func (s *space) ino(local uint64) Ino { return Ino(s.slot)<<48 | Ino(local) }

// nameHash is the keyed hash under which a name stands in its directory: 63 bits, and above the offsets of "." and "..".
func (s *space) nameHash(dir uint64, name string) uint64 {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], dir)
	return max(s.keys.NameHash(p[:], name)&(1<<63-1), 16)
}

// attr is what stat shows of an inode. Of a file its Blocks may be unknown: see counted. Under mu.
func (s *space) attr(n *index.Inode) Attr {
	a := Attr{
		Ino: s.ino(n.Ino), Mode: n.Mode, Nlink: n.Nlink(), UID: s.h.opt.UID, GID: s.h.opt.GID, Rdev: n.Rdev,
		Size: n.Size, Atime: n.Mtime, Mtime: n.Mtime, Ctime: n.Ctime, Btime: n.Btime,
	}
	if n.Owned {
		a.UID, a.GID = n.UID, n.GID
	}
	if s.rights.readOnly.Load() && n.Type() != syscall.S_IFLNK {
		a.Mode &^= 0222
	}
	switch n.Type() {
	case syscall.S_IFDIR:
		a.Size = 4096
		a.Blocks = 8
	case syscall.S_IFREG:
		if layout, ok := s.knownLayout(n.Base); ok {
			a.Blocks = dataBlocks(n, layout)
		} else {
			a.Blocks = blocksUnknown
		}
	}
	return a
}

// markDirty notes that an inode has something to publish.
func (s *space) markDirty(n *index.Inode) {
	d, ok := s.dirty[n.Ino]
	if !ok && !n.Dirty() {
		return
	}
	now := s.h.now()
	if !ok {
		d.first, d.seq = now, s.last
	}
	d.last, d.newest = now, s.last
	s.setDirty(n.Ino, d)
	s.noteSibling(n)
	if !ok {
		s.h.wake()
	}
}

// setDirty sets the state of an inode that has something to publish. Under mu.
func (s *space) setDirty(ino uint64, d dirtyState) {
	s.dirty[ino] = d
	s.inOrder.Insert(ino)
	s.noteTouched(ino)
}

// noteTouched has unpublishedNames look at a dirty inode. Under mu.
func (s *space) noteTouched(ino uint64) {
	if s.touched == nil {
		s.touched = make(map[uint64]struct{})
	}
	s.touched[ino] = struct{}{}
}

func (s *space) record(k recordKind) *writer { return newRecord(s.buf, k, s.slot) }

// ref counts the kernel's (or another user's) hold on an inode.
func (s *space) ref(ino uint64) {
	s.mu.Lock()
	s.refs[ino]++
	s.mu.Unlock()
}

func (s *space) unref(ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs[ino]--; s.refs[ino] > 0 {
		return
	}
	delete(s.refs, ino)
	if _, ok := s.orphaned[ino]; ok {
		s.reclaim(ino)
	}
}

// reclaim forgets an inode without a name, unless someone holds it or its removal is still to be published. Under mu.
func (s *space) reclaim(ino uint64) {
	if s.refs[ino] > 0 {
		return
	}
	if _, ok := s.inflight[ino]; ok {
		return // the publisher reclaims it when it is done
	}
	if s.isUnnoted(ino) {
		return // or when what it did is noted: others know of the inode, and are to hear that it is gone
	}
	n, err := s.ix.Inode(ino)
	if err != nil || n == nil || len(n.Links) > 0 || len(n.Gone) > 0 || s.replaced(n) {
		return
	}
	if st := s.streams[ino]; st != nil {
		st.abandoned = true
		delete(s.streams, ino)
	}
	s.applyReclaim(n)
}
