package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// The nodes of each network that a space is on are to have the content of all that is current here, whoever published it. What those of a network are
// not known to hold is listed in the index, so that it survives restarts: all of it when the network is first named, and then what is published
// here and what comes from other devices.

// uploading is the directory that lists these inodes: no inode has its number. The name of an entry is "u" and the networks that lack it, as a sum
// of 1 << slot in hex (none: the first); an "m" follows where the content is to be fetched for them, if it is not here.
const uploading = 4

// valueUploads is the value of the index that names the networks, by slot, with a newline between; an empty name is a slot that is free.
const valueUploads = "uploads"

// maxUploadSlots bounds the networks of a space that content is given to.
const maxUploadSlots = 32

// uploadStep is how many inodes are listed under one hold of mu.
const uploadStep = 1024

// uploads is what is listed, as far as it was read. Under space.mu.
type uploads struct {
	read   bool
	to     []string // the networks, by slot
	whole  []string // of these, as of when all of the index was last looked through
	inodes map[uint64]lackedBy
	count  [maxUploadSlots]int
	past   pastUploads
}

// lackedBy says who is not known to hold a content.
type lackedBy struct {
	slots uint32
	carry bool // it was here when one of the networks was named: nobody else may give it
}

func (l lackedBy) name() string {
	s := "u" + strconv.FormatUint(uint64(l.slots), 16)
	if l.carry {
		s += "m"
	}
	return s
}

func parseLackedBy(name string) lackedBy {
	rest, carry := strings.CutSuffix(strings.TrimPrefix(name, "u"), "m")
	if n, err := strconv.ParseUint(rest, 16, 32); err == nil {
		return lackedBy{uint32(n), carry}
	}
	return lackedBy{slots: 1}
}

// slot gives that of a network; -1 where it has none.
func (u *uploads) slot(network string) int {
	if network == "" {
		return -1
	}
	return slices.Index(u.to, network)
}

// all is every network.
func (u *uploads) all() (slots uint32) {
	for i, n := range u.to {
		if n != "" {
			slots |= 1 << i
		}
	}
	return slots
}

// put notes who lacks a content in what is in memory.
func (u *uploads) put(ino uint64, l lackedBy) {
	old := u.inodes[ino]
	for i := range u.count {
		u.count[i] += int(l.slots>>i&1) - int(old.slots>>i&1)
	}
	if l.slots == 0 {
		delete(u.inodes, ino)
	} else {
		u.inodes[ino] = l
	}
}

// uploadList gives what is listed. Under mu.
func (s *space) uploadList() (*uploads, error) {
	u := &s.up
	if u.read {
		return u, nil
	}
	to, err := s.ix.Value(valueUploads)
	if err == nil {
		*u = uploads{inodes: map[uint64]lackedBy{}}
		if len(to) > 0 {
			u.to = strings.Split(string(to), "\n")
			u.to = u.to[:min(len(u.to), maxUploadSlots)]
			u.whole = u.to
		}
		err = s.ix.Scan(uploading, 0, func(_ uint64, e *index.Entry) bool {
			l := parseLackedBy(e.Name)
			l.slots &= u.all()
			u.put(e.Ino, l)
			return true
		})
	}
	var past []byte
	if err == nil {
		past, err = s.ix.Value(valueUploadsPast)
	}
	if err == nil {
		err = u.past.decode(past)
	}
	if err != nil {
		return nil, s.damaged(err)
	}
	u.past.slots &= u.all()
	u.read = true
	return u, nil
}

// setLacking lists an inode, or takes it from the list. Under mu.
func (s *space) setLacking(u *uploads, ino uint64, l lackedBy) {
	if l.slots == 0 {
		l = lackedBy{}
	}
	if l == u.inodes[ino] {
		return
	}
	u.put(ino, l)
	if l.slots == 0 {
		s.ix.RemoveEntry(uploading, ino, &index.Entry{})
	} else {
		s.ix.SetEntry(uploading, ino, index.Entry{Name: l.name(), Ino: ino, Type: syscall.S_IFREG})
	}
	s.unsaved = true
}

// noteUpload lists an inode whose content is new. Under mu.
func (s *space) noteUpload(n *index.Inode) {
	u, err := s.uploadList()
	if err != nil || u.all() == 0 || n.Base == nil || !n.Base.Root.Defined() {
		return
	}
	s.setLacking(u, n.Ino, lackedBy{slots: u.all()})
}

// forgetUpload takes an inode from the list. Under mu.
func (s *space) forgetUpload(ino uint64) {
	u, err := s.uploadList()
	if err != nil {
		return
	}
	s.setLacking(u, ino, lackedBy{})
}

// UploadTo names the networks that the space is on. For one that is new all content that is current is listed; what was listed for one that is gone is
// not any more. A crash meanwhile leaves the old names, and what was listed: it is done again.
func (r *Replica) UploadTo(networks []string) error {
	s := r.s
	s.mu.Lock()
	u, err := s.uploadList()
	if err != nil {
		s.mu.Unlock()
		return err
	}
	to := slices.Clone(u.to)
	for i, n := range to {
		if !slices.Contains(networks, n) {
			to[i] = ""
		}
	}
	var fresh uint32
	for _, n := range networks {
		if slices.Contains(to, n) {
			continue
		}
		i := slices.Index(to, "")
		if i < 0 {
			if i = len(to); i == maxUploadSlots {
				s.mu.Unlock()
				return fmt.Errorf("%w: a space on more than %d networks", ErrNoSpace, maxUploadSlots)
			}
			to = append(to, "")
		}
		to[i] = n
		fresh |= 1 << i
	}
	for len(to) > 0 && to[len(to)-1] == "" {
		to = to[:len(to)-1]
	}
	if slices.Equal(to, u.to) {
		s.mu.Unlock()
		return nil
	}
	// A slot that another network had is told from what that one lacked.
	stay := uint32(0)
	for i, n := range to {
		if n != "" && fresh>>i&1 == 0 {
			stay |= 1 << i
		}
	}
	for ino, l := range u.inodes {
		if l.slots&^stay == 0 {
			continue
		}
		l.slots &= stay
		s.setLacking(u, ino, l)
	}
	gone := u.all() &^ stay
	if gone != 0 {
		// What comes meanwhile is listed for those that stay alone.
		u.to = slices.Clone(u.to)
		for i := range u.to {
			if gone>>i&1 != 0 {
				u.to[i] = ""
			}
		}
		u.past.slots &= stay
		s.mu.Unlock()
		if err := s.leavePast(u, gone); err != nil {
			return err
		}
		s.mu.Lock()
	}
	u.to = to          // what comes while the rest is read is listed too
	moves := stay != 0 // content may be on the other networks alone
	if fresh != 0 {
		u.lookAtPast(fresh, moves)
		s.unsaved = true
	}
	s.mu.Unlock()
	for next, n := uint64(0), uploadStep; fresh != 0 && n == uploadStep; {
		n = 0
		s.mu.Lock()
		var some []*index.Inode
		err := s.ix.InodesFrom(next, func(x *index.Inode) bool {
			next = x.Ino + 1
			if n++; x.Base != nil && x.Base.Root.Defined() {
				some = append(some, x.Clone())
			}
			return n < uploadStep
		})
		for _, x := range some {
			l := u.inodes[x.Ino]
			l.slots |= fresh
			l.carry = l.carry || moves
			s.setLacking(u, x.Ino, l)
		}
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(u.to, to) {
		u.whole = to
		s.ix.SetValue(valueUploads, []byte(strings.Join(to, "\n")))
		s.unsaved = true
	}
	return nil
}

// Upload is a content that the nodes are not known to hold.
type Upload struct {
	Blocks []block.ID // none: nothing of it is to be given
	Carry  bool       // what of it is not here is to be fetched for them: other networks may be all who have it
	Absent bool       // of what only history shows: it is not whole here, and other networks may be all who have it
	ino    uint64     // that shows it; 0: only history does
	at     uint64     // its place in the list of these
	root   cid.Cid
	other  *otherContent // what others see in place of what is shown here; nil: the same
}

// scanPage calls fn for up to most entries of a directory of the index, from the place behind after on; next is the last of these places where there are more,
// else 0. Under mu.
func (s *space) scanPage(dir, after uint64, most int, fn func(at uint64, e *index.Entry)) (next uint64, err error) {
	seen := 0
	err = s.ix.Scan(dir, after, func(at uint64, e *index.Entry) bool {
		if seen == most {
			next = after
			return false
		}
		seen++
		after = at
		fn(at, e)
		return true
	})
	if err != nil {
		return 0, s.damaged(err)
	}
	return next, nil
}

// Uploads gives up to most contents that the nodes of a network are not known to hold, those of inodes behind after; next is what to call it with
// for more, 0 at the end. One of which something has yet to come here is left out.
func (r *Replica) Uploads(ctx context.Context, network string, after uint64, most int) (list []Upload, next uint64, err error) {
	s := r.s
	instead, err := s.instead()
	if err != nil {
		return nil, 0, err
	}
	s.mu.Lock()
	u, err := s.uploadList()
	var layouts []block.ID
	if err == nil && u.slot(network) >= 0 && u.count[u.slot(network)] > 0 {
		slot := u.slot(network)
		next, err = s.scanPage(uploading, after, most, func(_ uint64, e *index.Entry) {
			l := u.inodes[e.Ino]
			if l.slots>>slot&1 == 0 {
				return
			}
			d, layout := Upload{ino: e.Ino, Carry: l.carry}, block.ID{}
			if n, err := s.ix.Inode(e.Ino); err == nil && n != nil && n.Base != nil {
				d.root, layout = n.Base.Root, n.Base.LayoutBlock
			}
			if o := instead[e.Ino]; o != nil {
				if o.slots>>slot&1 != 0 || !o.root.Defined() {
					return
				}
				d.root, layout, d.other = o.root, o.layout, o
			}
			list, layouts = append(list, d), append(layouts, layout)
		})
	}
	s.mu.Unlock()
	if err != nil {
		return nil, 0, err
	}
	mirrors := s.policy().mirrors()
	out := list[:0]
	for i := range list {
		d := list[i]
		if !d.root.Defined() {
			out = append(out, d) // it is in no blocks any more
			continue
		}
		if !layouts[i].IsZero() {
			d.Blocks = append(d.Blocks, layouts[i])
		}
		if d.Carry && !mirrors {
			// What a content consists of stands in blocks that may not be here either.
			if err := s.fetchNodes(ctx, d.root, layouts[i]); err != nil {
				if ctx.Err() != nil {
					return nil, 0, ctx.Err()
				}
				continue // nobody gives it now
			}
		}
		err := s.eachBlock(ctx, d.root, func(id block.ID) bool {
			d.Blocks = append(d.Blocks, id)
			return ctx.Err() == nil
		})
		switch {
		case ctx.Err() != nil:
			return nil, 0, ctx.Err()
		case errors.Is(err, block.ErrAbsent):
			if mirrors {
				continue // it is on its way
			}
			d.Blocks = nil // others have it
		case err != nil && !errors.Is(err, errLeaves):
			return nil, 0, err
		}
		out = append(out, d)
	}
	return out, next, nil
}

// fetchNodes brings the blocks here that say of which leaves a content consists.
func (s *space) fetchNodes(ctx context.Context, root cid.Cid, layout block.ID) error {
	if s.h.opt.Prefetch != nil {
		ctx = s.h.opt.Prefetch(ctx)
	}
	if !layout.IsZero() && !s.blocks.Has(layout) {
		if _, err := s.blocks.Get(ctx, layout); err != nil {
			return err
		}
	}
	err := eachLeaf(ctx, s.getNode, root, func(block.Leaf) error { return ctx.Err() })
	if errors.Is(err, errLeaves) {
		return nil // that nobody can read
	}
	return err
}

// Carry brings blocks here that others have, for a network that lacks them; the evictor may let them go later, where content is on demand. What
// nobody gives is left out.
func (r *Replica) Carry(ctx context.Context, ids []block.ID) error {
	s := r.s
	if s.h.opt.Prefetch != nil {
		ctx = s.h.opt.Prefetch(ctx)
	}
	for _, id := range ids {
		if s.blocks.Has(id) {
			continue
		}
		s.claim(id)
		if _, err := s.blocks.Get(ctx, id); err != nil && !errors.Is(err, block.ErrAbsent) {
			return err
		}
	}
	return ctx.Err()
}

// Uploaded takes contents from the list that the nodes of a network hold, where they are what the inode has still.
func (r *Replica) Uploaded(network string, list []Upload) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.uploadList()
	slot := u.slot(network)
	if err != nil || slot < 0 {
		return
	}
	for _, d := range list {
		if d.ino == 0 {
			s.uploadedPast(u, slot, &d)
			continue
		}
		if d.other != nil {
			d.other.slots |= 1 << slot
			continue
		}
		n, err := s.ix.Inode(d.ino)
		if err != nil || n != nil && n.Base != nil && n.Base.Root != d.root {
			continue
		}
		l := u.inodes[d.ino]
		if l.slots &^= 1 << slot; n == nil {
			l = lackedBy{}
		}
		s.setLacking(u, d.ino, l)
	}
}

// ToUpload is how many contents the nodes of a network are not known to hold, without those that count here alone; false where it is not known yet,
// since the network was just named.
func (r *Replica) ToUpload(network string) (int, bool) {
	s := r.s
	instead, _ := s.instead() // what cannot be read of it is to be given
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.uploadList()
	slot := u.slot(network)
	if err != nil || slot < 0 {
		return 0, false
	}
	n := u.count[slot]
	for ino, o := range instead {
		if u.inodes[ino].slots>>slot&1 != 0 && (o.slots>>slot&1 != 0 || !o.root.Defined()) {
			n--
		}
	}
	return n, slices.Contains(u.whole, network)
}
