package fs

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/index"
)

// ContentPolicy says which content of a space this device holds. It is a setting of the device, and not synced. The zero value is a mirror:
// all that is current comes here by itself and stays.
type ContentPolicy struct {
	OnDemand   bool  // content comes when it is read, and may go again
	CacheLimit int64 // bytes of blocks; 0: as the disk allows
}

func (p ContentPolicy) mirrors() bool { return !p.OnDemand }

// String is "mirror" or "on-demand".
func (p ContentPolicy) String() string {
	if p.OnDemand {
		return "on-demand"
	}
	return "mirror"
}

// bucketDevice holds what this device has been told about a space, sealed, durable at once: under "policy" its ContentPolicy, under "pin" and
// the ID of an object that this is pinned.
const (
	bucketDevice = "device"
	keyPolicy    = "policy"
	keyPin       = "pin"

	keyPreview     = "preview"      // the account of who signed it and the record of the preview that is shown
	keyPreviewMade = "preview made" // the record of the one that this device made last
)

// maxPins bounds the pins of a space: they are in memory.
const maxPins = 1 << 16

func (s *space) policy() ContentPolicy {
	if p := s.pol.Load(); p != nil {
		return *p
	}
	return ContentPolicy{}
}

func (s *space) deviceSeal() *seal.Local {
	return s.h.local.Derive("space " + s.dir).Derive(bucketDevice)
}

func deviceAD(key []byte) []byte { return append([]byte(bucketDevice+"\x00"), key...) }

// loadDevice reads what this device has been told about the space.
func (s *space) loadDevice() error {
	local := s.deviceSeal()
	pins := map[dag.ID]struct{}{}
	var failed error
	err := s.db.View(func(tx kv.Tx) error {
		return tx.Scan(bucketDevice, nil, func(k, v []byte) bool {
			var b []byte
			if b, failed = local.OpenLocal(nil, v, deviceAD(k)); failed == nil {
				failed = s.loadSetting(string(k), b, pins)
			}
			if failed != nil {
				failed = fmt.Errorf("%w: key %x in %s: %w", index.ErrCorrupt, k, bucketDevice, failed)
			}
			return failed == nil
		})
	})
	s.pins = pins
	if err == nil {
		err = failed
	}
	return err
}

func (s *space) loadSetting(key string, b []byte, pins map[dag.ID]struct{}) error {
	switch {
	case key == keyPolicy:
		p, err := decodePolicy(b)
		if err == nil {
			s.pol.Store(&p)
		}
		return err
	case key == keyPreview || key == keyPreviewMade:
		return s.loadPreview(key, b)
	case len(key) == len(keyPin)+len(dag.ID{}) && key[:len(keyPin)] == keyPin && len(b) == 0:
		pins[dag.ID([]byte(key[len(keyPin):]))] = struct{}{}
		return nil
	}
	return fmt.Errorf("a setting of %d bytes that is not known", len(b))
}

func (p ContentPolicy) encode() []byte {
	b := []byte{0}
	if p.OnDemand {
		b[0] = 1
	}
	return binary.AppendUvarint(b, uint64(p.CacheLimit))
}

func decodePolicy(b []byte) (p ContentPolicy, err error) {
	if len(b) < 2 || b[0] > 1 {
		return p, fmt.Errorf("a policy of %d bytes", len(b))
	}
	limit, n := binary.Uvarint(b[1:])
	if n != len(b)-1 || limit > 1<<62 {
		return p, fmt.Errorf("a policy of %d bytes", len(b))
	}
	return ContentPolicy{OnDemand: b[0] == 1, CacheLimit: int64(limit)}, nil
}

// tellDevice keeps a setting; nil removes it.
func (s *space) tellDevice(key string, value []byte) error {
	k := []byte(key)
	err := s.db.Update(func(tx kv.Tx) error {
		if value == nil {
			return tx.Delete(bucketDevice, k)
		}
		return tx.Put(bucketDevice, k, s.deviceSeal().SealLocal(nil, value, deviceAD(k)))
	})
	if err != nil {
		return s.damaged(err)
	}
	return nil
}

// SetPolicy says which content of a space this device holds.
func (h *Home) SetPolicy(space string, p ContentPolicy) error {
	s, err := h.namedSpace(space)
	if err != nil {
		return err
	}
	if s.slot == 0 || p.CacheLimit < 0 || p.mirrors() && p.CacheLimit != 0 {
		return ErrInvalid
	}
	if err := h.failed(); err != nil {
		return err
	}
	if err := s.tellDevice(keyPolicy, p.encode()); err != nil {
		return err
	}
	s.pol.Store(&p)
	s.wantAnew()
	h.kickEvictor()
	return nil
}

// wantAnew has it looked anew which content is to come by itself, by another policy or other pins than before.
func (s *space) wantAnew() {
	s.mir.mu.Lock()
	s.mir.scanned, s.mir.want, s.mir.fresh = false, nil, nil
	s.mir.mu.Unlock()
	s.h.Mirror()
}

// wants reports whether a content that an inode shows is to come by itself. Under mu.
func (s *space) wants(n *index.Inode) bool {
	if s.policy().mirrors() {
		return true
	}
	self, above, err := s.pinned(n)
	return self || above || err != nil || slices.ContainsFunc(n.Links, func(l index.Link) bool { return l.Name == IgnoreName })
}

// lookForWanted looks which content is to come, where that is not known: in a mirror once, and where content is pinned each time that something
// has changed, as it may have come into a directory that is.
func (s *space) lookForWanted(ctx context.Context) error {
	m := &s.mir
	m.mu.Lock()
	scanned, upTo := m.scanned, m.upTo
	m.mu.Unlock()
	if s.policy().mirrors() {
		if scanned || !s.hasOthers() && !s.hasEvicted() {
			return nil
		}
		return s.scanWanted()
	}
	s.mu.Lock()
	last := s.last
	pins := slices.Collect(maps.Keys(s.pins))
	s.mu.Unlock()
	if scanned && upTo == last {
		return nil
	}
	s.mu.Lock()
	for dir := range s.ign.dirs {
		if e, _, err := s.lookup(dir, IgnoreName); err == nil && e != nil {
			if n, err := s.ix.Inode(e.Ino); err == nil && n != nil && n.Base != nil && n.Base.Root.Defined() {
				s.wantContent(n.Ino, n.Base)
			}
		}
	}
	s.mu.Unlock()
	for _, object := range pins {
		s.mu.Lock()
		ino, err := s.ix.Object(object)
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
		if ino == 0 {
			continue
		}
		var list []wish
		if err := s.eachBelow(ctx, ino, func(n *index.Inode) {
			if n.Base != nil && n.Base.Root.Defined() {
				list = append(list, wish{n.Base, n.Ino})
			}
		}); err != nil {
			return err
		}
		for _, w := range list {
			s.wantAbsent(w.ino, w.content)
		}
	}
	m.mu.Lock()
	m.scanned, m.upTo = true, last
	m.mu.Unlock()
	return nil
}

// hasEvicted reports whether something was let go of here.
func (s *space) hasEvicted() bool {
	ids, _, err := s.ledger(bucketReceipts).some(block.ID{})
	return len(ids) > 0 || err != nil
}

// wishes gives those of a list that are to come by itself now, what is pinned first, and forgets the others. What no inode shows any more is not to
// come: a version that another took the place of, or that was deleted, before it was here may be on no device that is left.
func (s *space) wishes(list []*fetching) []*fetching {
	m := &s.mir
	var first, rest []*fetching
	for step := range slices.Chunk(list, inodeStep) {
		s.mu.Lock()
		some := len(s.pins) > 0
		for _, w := range step {
			m.mu.Lock()
			root, inos := w.c.Root, append([]uint64{w.ino}, w.more...)
			m.mu.Unlock()
			var n *index.Inode
			for _, ino := range inos {
				x, err := s.ix.Inode(ino)
				if err == nil && x != nil && x.Base != nil && x.Base.Root == root && s.wants(x) {
					n = x
					break
				}
			}
			if n == nil {
				m.mu.Lock()
				if m.want[root] == w {
					delete(m.want, root)
				}
				m.mu.Unlock()
				continue
			}
			if self, above, _ := s.pinned(n); some && (self || above) {
				first = append(first, w)
			} else {
				rest = append(rest, w)
			}
		}
		s.mu.Unlock()
	}
	return append(first, rest...)
}

// eachBelow calls fn, under mu, for an inode and all that is below it, directories before what is in them.
func (s *space) eachBelow(ctx context.Context, ino uint64, fn func(n *index.Inode)) error {
	one := func(ino uint64) (dir bool, err error) {
		n, err := s.ix.Inode(ino)
		if err != nil {
			return false, s.damaged(err)
		}
		if n != nil {
			fn(n)
		}
		return n != nil && n.IsDir(), nil
	}
	for todo := []uint64{ino}; len(todo) > 0; {
		at := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		s.mu.Lock()
		dir, err := one(at)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		for after, more := uint64(0), dir; more; {
			var files []uint64
			count := 0
			s.mu.Lock()
			err := s.ix.Scan(at, after, func(place uint64, e *index.Entry) bool {
				if after = place; e.Type == syscall.S_IFDIR {
					todo = append(todo, e.Ino)
				} else {
					files = append(files, e.Ino)
				}
				count++
				return count < inodeStep
			})
			if err != nil {
				err = s.damaged(err)
			}
			for _, f := range files {
				if err == nil {
					_, err = one(f)
				}
			}
			s.mu.Unlock()
			if err != nil {
				return err
			}
			more = count == inodeStep
		}
	}
	return nil
}

// keepFree is what stays free of a disk of so many bytes, as far as content can make way or wait: the smaller of 1 GiB and 5%.
func keepFree(total int64) int64 { return min(1<<30, total/20) }

// roomAhead reports whether there is room for what nobody waits for.
func (h *Home) roomAhead() bool {
	short := h.shortOfFree()
	if short <= 0 {
		h.short.Store(false)
	} else if !h.short.Swap(true) {
		h.report("content of other devices", fmt.Errorf("it is not fetched, but for what is read, until %d bytes more are free on the disk", short))
	}
	return short <= 0
}

// shortOfFree is how many bytes are to become free on the disk; not positive: none.
func (h *Home) shortOfFree() int64 {
	h.room.mu.Lock()
	defer h.room.mu.Unlock()
	h.lookRoom()
	return keepFree(h.room.total) - h.room.free
}

// verifyDevice opens what this device was told about the space.
func (s *space) verifyDevice(ctx context.Context, report func(error)) error {
	local := s.deviceSeal()
	return kv.Each(ctx, s.db, bucketDevice, func(k, v []byte) {
		if _, err := local.OpenLocal(nil, v, deviceAD(k)); err != nil {
			report(fmt.Errorf("%w: value in %s, key %x: %w", index.ErrCorrupt, bucketDevice, k, err))
		}
	})
}
