package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// What this device published in blocks, and no other is known to hold, is listed: it is what a person has on this device alone. The list
// is in the index, so that it survives restarts.

// sending is the directory that lists the inodes with such content, each under the number of its blocks: no inode has its number.
const sending = 3

// Delivery is a content in blocks that no other device is known to hold.
type Delivery struct {
	Blocks []block.ID
	ino    uint64
	root   cid.Cid
	layout block.ID      // of a large one, a block beside the tree
	other  *otherContent // what others see in place of what is shown here; nil: the same
}

// sendList gives the inodes with content to deliver, and of how many blocks. Under mu, as what follows.
func (s *space) sendList() (map[uint64]int, error) {
	if s.send != nil {
		return s.send, nil
	}
	list, sum := map[uint64]int{}, 0
	if err := s.ix.Scan(sending, 0, func(_ uint64, e *index.Entry) bool {
		blocks, _ := strconv.Atoi(e.Name)
		list[e.Ino] = blocks
		sum += blocks
		return true
	}); err != nil {
		return nil, s.damaged(err)
	}
	s.send, s.sendSum = list, sum
	return list, nil
}

// noteSend lists an inode whose content was just published.
func (s *space) noteSend(n *index.Inode) {
	if n.Base == nil || !n.Base.Root.Defined() {
		s.forgetSend(n.Ino)
		return
	}
	blocks := 1 + max(1, len(n.Base.Layout))
	s.ix.SetEntry(sending, n.Ino, index.Entry{Name: strconv.Itoa(blocks), Ino: n.Ino, Type: n.Type()})
	if s.send != nil {
		s.sendSum += blocks - s.send[n.Ino]
		s.send[n.Ino] = blocks
	}
}

func (s *space) forgetSend(ino uint64) {
	if list, err := s.sendList(); err == nil {
		blocks, ok := list[ino]
		if !ok {
			return
		}
		delete(list, ino)
		s.sendSum -= blocks
	}
	s.ix.RemoveEntry(sending, ino, &index.Entry{})
}

// toSend counts the contents that no other device is known to hold, and their blocks. instead is what others see of some. Under mu.
func (s *space) toSend(instead map[uint64]*otherContent) (contents, blocks int) {
	list, _ := s.sendList()
	contents, blocks = len(list), s.sendSum
	for ino, o := range instead {
		if n, ok := list[ino]; ok && (o.held || !o.root.Defined()) {
			contents--
			blocks -= n
		}
	}
	return contents, blocks
}

// Undelivered gives up to most contents that no other device is known to hold, those of inodes behind after; next is what to call
// it with for more, 0 at the end.
func (r *Replica) Undelivered(ctx context.Context, after uint64, most int) (list []Delivery, next uint64, err error) {
	s := r.s
	instead, err := s.instead()
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	inos, err := s.sendList()
	if err == nil && len(inos) > 0 {
		next, err = s.scanPage(sending, after, most, func(_ uint64, e *index.Entry) {
			d := Delivery{ino: e.Ino}
			if n, err := s.ix.Inode(e.Ino); err == nil && n != nil && n.Base != nil {
				d.root, d.layout = n.Base.Root, n.Base.LayoutBlock
			}
			if o := instead[e.Ino]; o != nil {
				if o.held || !o.root.Defined() {
					return
				}
				d.root, d.layout, d.other = o.root, o.layout, o
			}
			list = append(list, d)
		})
	}
	s.mu.Unlock()
	if err != nil {
		return nil, 0, err
	}
	for i := range list {
		d := &list[i]
		if !d.root.Defined() {
			continue // it was written again, and is to be published
		}
		if !d.layout.IsZero() {
			d.Blocks = append(d.Blocks, d.layout)
		}
		err := s.eachBlock(ctx, d.root, func(id block.ID) bool {
			d.Blocks = append(d.Blocks, id)
			return ctx.Err() == nil
		})
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case errors.Is(err, block.ErrAbsent):
			d.Blocks = nil // it is not here any more, so that another has it
		case err != nil && !errors.Is(err, errLeaves):
			return nil, 0, err
		}
	}
	return list, next, nil
}

// Delivered takes contents from the list that another device holds, where they are what the inode has still.
func (r *Replica) Delivered(list []Delivery) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		if d.other != nil {
			d.other.held = true // what is shown here waits for the right to write
			continue
		}
		n, err := s.ix.Inode(d.ino)
		if err != nil || n != nil && n.Base != nil && n.Base.Root != d.root {
			continue
		}
		s.forgetSend(d.ino)
		s.unsaved = true
	}
}

// ToSend is how many contents no other device is known to hold, without those that count here alone.
func (r *Replica) ToSend() int {
	s := r.s
	instead, _ := s.instead() // what cannot be read of it is to be sent
	s.mu.Lock()
	defer s.mu.Unlock()
	contents, _ := s.toSend(instead)
	return contents
}

// ToFetch is how many blocks of what is current are not known to be here; at least 1 while that is being found out.
func (r *Replica) ToFetch() int {
	in, m := &r.s.in, &r.s.mir
	in.mu.Lock()
	finding, others := in.due || in.taking, in.others
	in.mu.Unlock()
	m.mu.Lock()
	finding = finding || others && !m.scanned
	m.mu.Unlock()
	if n := r.s.wanted(); n > 0 || !finding {
		return n
	}
	return 1
}

// Shared reports whether the space has devices besides this one, by its access list.
func (r *Replica) Shared() bool {
	n := 0
	for _, m := range r.s.acl.Members() {
		n += len(m.Devices)
	}
	return n > 1
}

// Mark is the end of what the space's log of batches holds now.
func (r *Replica) Mark() uint64 { return uint64(r.s.log.Mark()) }

// Held says that another device holds all batches up to a mark; without whole: but for those that count here alone.
func (r *Replica) Held(mark uint64, whole bool) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if !whole {
		s.heldHere = max(s.heldHere, mark)
		return
	}
	if now, err := s.heldMark(); err == nil && mark > now {
		s.ix.SetValue(valueHeld, u64(mark))
		s.unsaved = true
	}
}

// HeldUpTo is the highest mark that Held was called with, for what counts elsewhere too where not all does, and with whole.
func (r *Replica) HeldUpTo() (mark, whole uint64) {
	s := r.s
	a, _ := s.alone()
	s.mu.Lock()
	defer s.mu.Unlock()
	whole, _ = s.heldMark()
	if mark = whole; a != nil {
		mark = max(mark, s.heldHere)
	} else {
		s.heldHere = 0 // it says nothing of what counts now
	}
	return mark, whole
}

// FileState is how far a file or directory is in the exchange, and whom it is from.
type FileState struct {
	Sync   string // one of the states below
	Device string // that made the last change; empty where nothing is published
	Time   int64  // of that change, Unix nanoseconds
	Absent int    // blocks of its content that are not on this device
}

// The states of FileState.Sync.
const (
	SyncPending = "pending"
	SyncLocal   = "local"
	SyncDone    = "synced"
	SyncIgnored = "ignored" // it stays on this device
)

// FileState tells the state of an inode.
func (h *Home) FileState(ctx context.Context, ino Ino) (FileState, error) {
	s, local, err := h.space(ino)
	if err != nil {
		return FileState{}, err
	}
	var f FileState
	if f.Sync, err = s.syncState(local); err != nil {
		return f, err
	}
	s.mu.Lock()
	n, err := s.inode(local)
	if err == nil {
		n = n.Clone()
	}
	s.mu.Unlock()
	if err != nil {
		return f, err
	}
	if e, ok, err := s.newestHead(n.Object); err != nil {
		return f, err
	} else if ok {
		f.Device, _ = s.acl.DeviceName(e.Batch.Device)
		if p, err := s.open(&e); err == nil && p != nil {
			f.Time = p.Time
		}
	}
	if n.Base != nil && n.Base.Root.Defined() {
		err := s.eachBlock(ctx, n.Base.Root, func(id block.ID) bool {
			if !s.blocks.Has(id) {
				f.Absent++
			}
			return true
		})
		if err != nil && f.Absent == 0 && !errors.Is(err, errLeaves) {
			f.Absent = 1 // which of them is not known without the node
		}
	}
	return f, nil
}

// heldMark is up to where another device is known to hold the log of batches. A start may have cut off what lay behind. Under mu.
func (s *space) heldMark() (uint64, error) {
	b, err := s.ix.Value(valueHeld)
	if err != nil || len(b) != 8 {
		return 0, err
	}
	return min(binary.BigEndian.Uint64(b), uint64(s.log.Mark())), nil
}

// newestHead gives the last of an object's heads; ok is false where it has none.
func (s *space) newestHead(object dag.ID) (e dag.Entry, ok bool, err error) {
	if object.IsZero() {
		return e, false, nil
	}
	heads, err := s.graph.HeadsOf(object)
	for _, id := range heads {
		h, err := s.graph.Change(id)
		if err != nil {
			return e, false, s.damaged(err)
		}
		if !ok || h.Pos.Compare(e.Pos) > 0 {
			e, ok = h, true
		}
	}
	if err != nil {
		err = s.damaged(err)
	}
	return e, ok, err
}

// syncState tells how far an inode is in the exchange.
func (s *space) syncState(ino uint64) (string, error) {
	a, err := s.alone()
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	n, err := s.inode(ino)
	if err != nil {
		s.mu.Unlock()
		return "", err
	}
	object, dirty := n.Object, n.Dirty()
	ignored := s.isIgnoredInode(ino)
	list, err := s.sendList()
	_, undelivered := list[ino]
	var held, here uint64
	if err == nil {
		held, err = s.heldMark()
	}
	if a != nil {
		here = s.heldHere
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return "", err
	case ignored:
		return SyncIgnored, nil
	case dirty:
		return SyncPending, nil
	case undelivered || object.IsZero():
		return SyncLocal, nil
	}
	heads, err := s.graph.HeadsOf(object)
	if err != nil {
		return "", s.damaged(err)
	}
	for _, id := range heads {
		e, err := s.graph.Change(id)
		if err != nil {
			return "", s.damaged(err)
		}
		if e.At >= held && (a == nil || a.batches[e.Batch.ID()] || e.At >= here) {
			return SyncLocal, nil
		}
	}
	if max(held, here) == 0 {
		return SyncLocal, nil
	}
	return SyncDone, nil
}
