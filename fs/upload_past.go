package fs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// The nodes are to have what only history shows, too: a content that was replaced or deleted while a network lacked it goes from the list of inodes
// (upload.go) to one of contents, as the same record is applied, and with a network that is new the log of batches is looked through once for what is
// older. So nothing walks the history at other times. What is pruned is not given, and leaves the list when it is met there.

// uploadingPast is the directory that lists these contents: no inode has its number. The place of an entry is that of the first bits of its root, the next
// free one where another has that; its name is as in the directory uploading, then ":" and the CID of the root.
const uploadingPast = 5

// valueUploadsPast is the value of the index that says how far the log was looked through, for whom, and how many contents each network lacks.
const valueUploadsPast = "uploads past"

// pastLookFor bounds the time of one call of LookAtPast, but for one batch, and for the end of the last.
const pastLookFor = 20 * time.Millisecond

// pastUploads is what is known of that list without reading it. Under space.mu.
type pastUploads struct {
	next  uint64 // the place in the log of batches from which on it is to be looked at
	slots uint32 // for these networks; 0: for none
	carry bool   // what of it is not here may be on another network alone
	count [maxUploadSlots]int
	saved bool // the index has it
}

func (p *pastUploads) encode() []byte {
	b := binary.AppendUvarint(nil, p.next)
	b = binary.AppendUvarint(b, uint64(p.slots))
	carry := uint64(0)
	if p.carry {
		carry = 1
	}
	b = binary.AppendUvarint(b, carry)
	for _, n := range p.count {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// decode reads what encode wrote; nothing is what a space has that never was on a network.
func (p *pastUploads) decode(b []byte) error {
	var list [3 + maxUploadSlots]uint64
	for i := range list {
		v, n := binary.Uvarint(b)
		if n <= 0 && len(b) > 0 {
			return fmt.Errorf("%w: value %q", index.ErrCorrupt, valueUploadsPast)
		}
		list[i], b = v, b[max(n, 0):]
	}
	if len(b) > 0 || list[1] > 1<<maxUploadSlots-1 {
		return fmt.Errorf("%w: value %q", index.ErrCorrupt, valueUploadsPast)
	}
	*p = pastUploads{next: list[0], slots: uint32(list[1]), carry: list[2] == 1, saved: true}
	for i := range p.count {
		p.count[i] = int(list[3+i])
	}
	return nil
}

// saveUploadsPast puts what is known of the list into the index for the next checkpoint. Under mu.
func (s *space) saveUploadsPast() {
	if p := &s.up.past; s.up.read && !p.saved {
		s.ix.SetValue(valueUploadsPast, p.encode())
		p.saved = true
	}
}

// pastName is how the list names a content that history shows. A tree has the block of the layout too, as a leaf.
func pastName(root cid.Cid, l lackedBy) string { return l.name() + ":" + root.KeyString() }

func parsePastName(name string) (root cid.Cid, l lackedBy, err error) {
	who, what, _ := strings.Cut(name, ":")
	if root, err = cid.Cast([]byte(what)); err == nil {
		_, _, err = block.IDFromCID(root)
	}
	if err != nil {
		return cid.Undef, l, fmt.Errorf("%w: old content that networks lack: %w", index.ErrCorrupt, err)
	}
	return root, parseLackedBy(who), nil
}

// pastPlace is where the list has a content, if nothing else is there.
func pastPlace(root cid.Cid) (uint64, error) {
	id, _, err := block.IDFromCID(root)
	return max(1, binary.BigEndian.Uint64(id[:])>>1), err
}

// pastAt gives what stands at a place of the list; ok is false where nothing does.
func (s *space) pastAt(at uint64) (root cid.Cid, l lackedBy, ok bool, err error) {
	e, err := s.ix.EntryAt(uploadingPast, at)
	if err == nil && e != nil {
		ok = true
		root, l, err = parsePastName(e.Name)
	}
	if err != nil {
		return root, l, false, s.damaged(err)
	}
	return root, l, ok, nil
}

// setLackingPast lists a content at a place, or takes it from the list. was is what the list says of it.
func (s *space) setLackingPast(u *uploads, at uint64, root cid.Cid, was, l lackedBy) {
	p := &u.past
	if l.slots &= u.all(); l.slots == 0 {
		l = lackedBy{}
	}
	if l == was {
		return
	}
	for i := range p.count {
		p.count[i] += int(l.slots>>i&1) - int(was.slots>>i&1)
	}
	if l.slots == 0 {
		s.ix.RemoveEntry(uploadingPast, at, &index.Entry{})
	} else {
		s.ix.SetEntry(uploadingPast, at, index.Entry{Name: pastName(root, l), Type: syscall.S_IFREG})
	}
	p.saved, s.unsaved = false, true
}

// lackPast lists a content that networks lack, beside those that are known to.
func (s *space) lackPast(u *uploads, root cid.Cid, l lackedBy) error {
	at, err := pastPlace(root)
	for ; err == nil; at++ {
		has, was, ok, err := s.pastAt(at)
		if err != nil {
			return err
		}
		if ok && has != root {
			continue
		}
		l.slots |= was.slots
		l.carry = l.carry || was.carry
		s.setLackingPast(u, at, root, was, l)
		return nil
	}
	return err
}

// rootOf is the root of what an inode shows, undefined where that is in no blocks.
func rootOf(n *index.Inode) cid.Cid {
	if n == nil || n.Base == nil {
		return cid.Undef
	}
	return n.Base.Root
}

// outdated lists what an inode showed until now, for the networks that lack it: only history shows it from now on. Under mu, before its Base becomes
// another one, or it goes.
func (s *space) outdated(n *index.Inode) {
	if !rootOf(n).Defined() {
		return
	}
	u, err := s.uploadList()
	if err != nil {
		return
	}
	l := u.inodes[n.Ino]
	if l.slots == 0 {
		return
	}
	if id, _, err := block.IDFromCID(n.Base.Root); err != nil || !l.carry && !s.blocks.Has(id) {
		return // it is not here: who has it gives it
	}
	_ = s.lackPast(u, n.Base.Root, l) // it is reported
}

// lookAtPast has the log looked through for networks that are new.
func (u *uploads) lookAtPast(fresh uint32, carry bool) {
	p := &u.past
	p.next, p.slots = 0, p.slots|fresh
	p.carry = p.carry || carry
	p.saved = false
}

// LookAtPast looks, for some 20 ms, through the log of batches for content that networks which are new lack, and that only history shows. It returns whether
// there is more to look through.
func (r *Replica) LookAtPast(ctx context.Context) (more bool, err error) {
	until := time.Now().Add(pastLookFor)
	return r.s.lookAtPast(ctx, func() bool { return time.Now().After(until) })
}

// lookAtPast is LookAtPast until enough says so, which is asked behind each batch.
func (s *space) lookAtPast(ctx context.Context, enough func() bool) (more bool, err error) {
	s.mu.Lock()
	u, err := s.uploadList()
	from, slots := uint64(0), uint32(0)
	if err == nil && slices.Equal(u.whole, u.to) { // else what is current is being listed, and what was has yet to be told from it
		from, slots = u.past.next, u.past.slots
	}
	s.mu.Unlock()
	if err != nil || slots == 0 {
		return false, err
	}
	type found struct {
		root   cid.Cid
		object dag.ID
	}
	var list []found
	next := from
	err = s.graph.Since(from, func(_, end uint64, b *dag.Batch, bodies [][]byte) error {
		if next > from && enough() {
			return errEnough
		}
		next = end
		return s.contentsOf(b, bodies, func(object dag.ID, c *tree.Content) error {
			list = append(list, found{c.Root, object})
			return nil
		})
	})
	if more = errors.Is(err, errEnough); err != nil && !more {
		if s.deleted() {
			return false, ErrStale
		}
		return false, s.damaged(err)
	}
	s.mu.Lock()
	carry := u.past.carry
	s.mu.Unlock()
	old := list[:0]
	for i := range list {
		c := &list[i]
		id, _, err := block.IDFromCID(c.root)
		if err != nil || !carry && !s.blocks.Has(id) {
			continue // it is not here: who has it gives it
		}
		if pruned, err := s.isPruned(c.root); err != nil {
			return false, err
		} else if !pruned || s.isWhole(ctx, c.root) {
			old = append(old, *c)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.past.next != from || u.past.slots != slots {
		return true, nil // another network was named meanwhile
	}
	for i := range old {
		c := &old[i]
		ino, err := s.ix.Object(c.object)
		if err != nil {
			return false, s.damaged(err)
		}
		if ino != 0 {
			n, err := s.ix.Inode(ino)
			if err != nil {
				return false, s.damaged(err)
			}
			if rootOf(n) == c.root {
				continue // it is current: listed, or given
			}
		}
		if err := s.lackPast(u, c.root, lackedBy{slots, carry}); err != nil {
			return false, err
		}
	}
	if u.past.next = next; !more {
		u.past.slots, u.past.carry = 0, false
	}
	u.past.saved, s.unsaved = false, true
	return more, nil
}

// PastUploads is Uploads for what only history shows. Of what is not whole here there are Blocks only where other networks may be all who have it: the root,
// and Absent is set. What else is not whole is nothing that this device can give; of what was pruned nothing is to be given, and of who may not write nodes
// take nothing.
func (r *Replica) PastUploads(ctx context.Context, network string, after uint64, most int) (list []Upload, next uint64, err error) {
	s := r.s
	s.mu.Lock()
	u, err := s.uploadList()
	others := false
	if slot := u.slot(network); err == nil && slot >= 0 && u.past.count[slot] > 0 {
		others = u.all() != 1<<slot
		var bad error
		next, err = s.scanPage(uploadingPast, after, most, func(at uint64, e *index.Entry) {
			root, l, err := parsePastName(e.Name)
			if bad = errors.Join(bad, err); err == nil && l.slots>>slot&1 != 0 {
				list = append(list, Upload{Carry: l.carry, at: at, root: root})
			}
		})
		if err == nil && bad != nil {
			err = s.damaged(bad)
		}
	}
	s.mu.Unlock()
	if err != nil {
		return nil, 0, err
	}
	for i := range list {
		d := &list[i]
		whole, err := s.blocksOf(ctx, d)
		if err != nil {
			return nil, 0, err
		}
		if whole && !s.rights.readOnly.Load() {
			continue
		}
		d.Blocks = nil
		root, _, err := block.IDFromCID(d.root)
		if err != nil || s.rights.readOnly.Load() || !d.Carry && !(others && s.blocks.Has(root)) { // it may have been let go of under the promise of another network
			continue
		}
		if pruned, err := s.isPruned(d.root); err != nil {
			return nil, 0, err
		} else if !pruned {
			d.Blocks, d.Absent = []block.ID{root}, true
		}
	}
	return list, next, nil
}

// blocksOf lists the blocks of a content, as far as is known here of which it consists, and reports whether all are here.
func (s *space) blocksOf(ctx context.Context, d *Upload) (whole bool, err error) {
	d.Blocks, whole = nil, true
	err = s.eachBlock(ctx, d.root, func(id block.ID) bool {
		d.Blocks = append(d.Blocks, id)
		whole = whole && s.blocks.Has(id)
		return ctx.Err() == nil
	})
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, block.ErrAbsent):
		return false, nil
	case err != nil && !errors.Is(err, errLeaves):
		return false, err
	}
	return whole, nil
}

// PastNodes brings the blocks here that say of which others an Absent content consists, and lists all in it; block.ErrAbsent where nobody gives them now,
// ErrNoSpace where the disk has no room for what nobody reads.
func (r *Replica) PastNodes(ctx context.Context, d *Upload) error {
	s := r.s
	if !s.h.roomAhead() {
		return ErrNoSpace
	}
	if err := s.fetchNodes(ctx, d.root, block.ID{}); err != nil {
		return err
	}
	_, err := s.blocksOf(ctx, d)
	return err
}

// Place is what to call PastUploads with for what comes behind it.
func (d *Upload) Place() uint64 { return d.at }

// uploadedPast takes a content from the list for a network. Under mu.
func (s *space) uploadedPast(u *uploads, slot int, d *Upload) {
	root, was, ok, err := s.pastAt(d.at)
	if err != nil || !ok || root != d.root {
		return
	}
	l := was
	l.slots &^= 1 << slot
	s.setLackingPast(u, d.at, root, was, l)
}

// leavePast takes networks that are not used any more from the list, before others get their slots.
func (s *space) leavePast(u *uploads, gone uint32) error {
	for after, n := uint64(0), uploadStep; n == uploadStep; {
		n = 0
		s.mu.Lock()
		var names []string
		var ats []uint64
		err := s.ix.Scan(uploadingPast, after, func(at uint64, e *index.Entry) bool {
			after = at
			n++
			names, ats = append(names, e.Name), append(ats, at)
			return n < uploadStep
		})
		for i := 0; i < len(names) && err == nil; i++ {
			var root cid.Cid
			var was lackedBy
			if root, was, err = parsePastName(names[i]); err == nil {
				l := was
				l.slots &^= gone
				s.setLackingPast(u, ats[i], root, was, l)
			}
		}
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
	}
	return nil
}

// PastToUpload is how many contents that only history shows the nodes of a network are not known to hold; false where it is not known yet, since the network
// was just named.
func (r *Replica) PastToUpload(network string) (int, bool) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.uploadList()
	slot := u.slot(network)
	if err != nil || slot < 0 {
		return 0, false
	}
	return u.past.count[slot], u.past.slots>>slot&1 == 0 && slices.Contains(u.whole, network)
}
