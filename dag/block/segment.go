package block

import (
	"container/list"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/dag/disk"
)

// scratch are buffers for small records: many stores are open at a time, and few are written to.
var scratch = sync.Pool{New: func() any { b := make([]byte, 0, recordHeader+smallRecord); return &b }}

// segment is one file of records. Store.mu guards all but num.
type segment struct {
	num     uint32
	end     int64 // where the next record goes
	synced  int64 // what is before is durable
	live    int64 // bytes of records that the index points to
	blocks  int64 // their number
	punched int64 // bytes given back
	full    bool  // not appended to any more
	failed  bool  // a sync failed: what is behind synced must be written elsewhere
	leaving bool  // being emptied by Compact: an evicted block in it is not taken back
	gone    bool  // removed
	changed bool  // saved does not say what there is
	saved   marks // as in the DB
}

func (s *Store) segmentName(num uint32) string {
	return path.Join(s.opt.Dir, fmt.Sprintf("%06d.seg", num))
}

// segmentNumber is the inverse of segmentName's last element.
func segmentNumber(base string) (uint32, bool) {
	digits, ok := strings.CutSuffix(base, ".seg")
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), ok && err == nil && n > 0 && fmt.Sprintf("%06d.seg", n) == base
}

// appendNew appends a block unless the overlay has it. ok is false when it was looked
// for in an earlier epoch, so that the DB may have it by now.
func (s *Store) appendNew(id ID, data []byte, epoch uint64) (ok bool, err error) {
	s.app.Lock()
	defer s.app.Unlock()
	s.mu.RLock()
	p, known := s.overlay.getLocked(id)
	old, bad := s.bad[id]
	changed := s.overlay.epoch != epoch
	s.mu.RUnlock()
	switch {
	case known && p != place{} && !(bad && p == old):
		return true, nil
	case !known && changed:
		return false, nil
	}
	if err := s.appendLocked(id, data, func(p place) {
		if bad {
			s.overlay.stale = append(s.overlay.stale, old)
		}
		s.setLocked(id, p, old)
		s.lately.add(p)
	}); err != nil {
		return false, fmt.Errorf("block: append %s: %w", id, err)
	}
	return true, nil
}

// appendLocked writes a record at the end of the active segment and calls placed, with mu held, when it lies there. On an
// error the segment ends where it did.
func (s *Store) appendLocked(id ID, data []byte, placed func(place)) error {
	size := recordHeader + int64(len(data))
	g, err := s.activeLocked(size)
	if err != nil {
		return err
	}
	f, err := s.files.acquire(s, g)
	if err != nil {
		return err
	}
	defer s.files.release(g)
	crashpoint.Here(crashpoint.BlockWrite)
	off := g.end // only who holds app changes it
	var h [recordHeader]byte
	encodeRecord(&h, record{id: id, n: uint32(len(data))}, g.num, off)
	if size <= recordHeader+smallRecord {
		b := scratch.Get().(*[]byte)
		_, err = f.WriteAt(append(append((*b)[:0], h[:]...), data...), off)
		scratch.Put(b)
	} else if _, err = f.WriteAt(data, off+recordHeader); err == nil {
		// The header comes second: where it is valid, the block was at least written.
		crashpoint.Here(crashpoint.BlockBody)
		_, err = f.WriteAt(h[:], off)
	}
	if err != nil {
		if terr := f.Truncate(off); terr != nil {
			// What lies behind the end now cannot be taken back, so nothing may follow it. Open cuts it off.
			s.mu.Lock()
			g.full = true
			s.mu.Unlock()
			s.active = nil
		}
		return err
	}
	crashpoint.Here(crashpoint.BlockWritten)
	s.mu.Lock()
	defer s.mu.Unlock()
	g.end += size
	g.changed = true
	s.appended += uint64(size)
	s.markDirtyLocked(g)
	placed(place{seg: g.num, off: uint32(off), n: uint32(len(data))})
	return nil
}

// activeLocked returns a segment that takes size bytes more.
func (s *Store) activeLocked(size int64) (*segment, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if g := s.active; g != nil {
		if !g.full && !g.failed && (g.end+size <= s.opt.SegmentBytes || g.end == segmentHeader) {
			s.mu.Unlock()
			return g, nil
		}
		g.full = true
		s.active = nil
	}
	num := s.last + 1
	s.mu.Unlock()
	if num == 0 {
		return nil, errors.New("block: segment numbers are used up")
	}
	g, err := s.createSegment(num)
	if err != nil {
		return nil, err
	}
	s.active = g
	return g, nil
}

func (s *Store) createSegment(num uint32) (*segment, error) {
	name := s.segmentName(num)
	f, err := s.opt.Disk.Create(name)
	if err != nil {
		return nil, err
	}
	var h [segmentHeader]byte
	encodeSegment(&h, num)
	if _, err = f.WriteAt(h[:], 0); err == nil {
		err = s.opt.Disk.SyncDir(s.opt.Dir)
	}
	if err != nil {
		f.Close()
		if s.opt.Disk.Remove(name) != nil {
			s.mu.Lock()
			s.last = max(s.last, num) // the name stays taken; Open looks at it
			s.mu.Unlock()
		}
		return nil, err
	}
	crashpoint.Here(crashpoint.BlockSegment)
	g := &segment{num: num, end: segmentHeader, changed: true}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = num
	s.segments[num] = g
	s.files.add(g, f)
	s.dirty[num] = g
	s.appended += segmentHeader // a checkpoint that names the segment comes after its header is durable, though no block may follow
	return g, nil
}

// markDirtyLocked notes that g, whose file is in use, has bytes that are not durable. The file stays open until they are.
func (s *Store) markDirtyLocked(g *segment) {
	if s.dirty[g.num] == nil {
		s.dirty[g.num] = g
		s.files.hold(g)
	}
}

func (s *Store) markCleanLocked(g *segment) {
	if s.dirty[g.num] != nil {
		delete(s.dirty, g.num)
		s.files.release(g)
	}
}

// files keeps segment files open: those in use, and of the others the ones used last, up to a limit.
type files struct {
	limit int

	mu     sync.Mutex // below Store.mu
	closed bool
	open   map[*segment]*openFile
	idle   list.List // of *openFile, the one used last in front
}

type openFile struct {
	g    *segment
	f    disk.File
	refs int
	gone bool          // to be closed by the last release
	at   *list.Element // in idle; nil while refs > 0
}

// acquire returns the segment's file, which stays open until release.
func (c *files) acquire(s *Store, g *segment) (disk.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	o := c.open[g]
	if o == nil {
		f, err := s.opt.Disk.Open(s.segmentName(g.num))
		if err != nil {
			return nil, err
		}
		o = c.addLocked(g, f)
	}
	c.useLocked(o)
	return o.f, nil
}

// add takes a file over that was just created, and holds it.
func (c *files) add(g *segment, f disk.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(g, f).refs = 1
}

func (c *files) addLocked(g *segment, f disk.File) *openFile {
	if c.open == nil {
		c.open = map[*segment]*openFile{}
	}
	for len(c.open) >= c.limit && c.idle.Len() > 0 {
		c.closeLocked(c.idle.Back().Value.(*openFile))
	}
	o := &openFile{g: g, f: f}
	c.open[g] = o
	return o
}

// hold is acquire of a file that is in use.
func (c *files) hold(g *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open[g]; o != nil { // else closeAll was faster
		c.useLocked(o)
	}
}

func (c *files) useLocked(o *openFile) {
	o.refs++
	if o.at != nil {
		c.idle.Remove(o.at)
		o.at = nil
	}
}

func (c *files) release(g *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.open[g]
	if o == nil {
		return // closed by closeAll
	}
	if o.refs--; o.refs > 0 {
		return
	}
	if o.gone {
		c.closeLocked(o)
		return
	}
	o.at = c.idle.PushFront(o)
	if len(c.open) > c.limit {
		c.closeLocked(c.idle.Back().Value.(*openFile))
	}
}

// forget closes a removed segment's file, now or at its last release.
func (c *files) forget(g *segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.open[g]; o == nil {
		return
	} else if o.gone = true; o.refs == 0 {
		c.closeLocked(o)
	}
}

func (c *files) closeLocked(o *openFile) error {
	if o.at != nil {
		c.idle.Remove(o.at)
	}
	delete(c.open, o.g)
	return o.f.Close()
}

func (c *files) closeAll() (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, o := range c.open {
		err = errors.Join(err, c.closeLocked(o))
	}
	return err
}
