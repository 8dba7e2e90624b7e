package fs

import (
	"context"
	"errors"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// Where a space is on a network, its nodes are to have the content of all that is current here, whoever published it. What they are not known
// to hold is listed in the index, so that it survives restarts: all of it when the network is first named, and then what is published
// here and what comes from other devices.

// uploading is the directory that lists these inodes: no inode has its number.
const uploading = 4

// valueUploads is the value of the index that names the network; empty or absent: there is none, and nothing is listed.
const valueUploads = "uploads"

// uploadStep is how many inodes are listed under one hold of mu.
const uploadStep = 1024

// uploads is what is listed, as far as it was read. Under space.mu.
type uploads struct {
	read   bool
	to     string // the network
	inodes map[uint64]struct{}
}

// uploadList gives what is listed. Under mu.
func (s *space) uploadList() (*uploads, error) {
	u := &s.up
	if u.read {
		return u, nil
	}
	to, err := s.ix.Value(valueUploads)
	if err == nil {
		u.inodes = map[uint64]struct{}{}
		err = s.ix.Scan(uploading, 0, func(_ uint64, e *index.Entry) bool {
			u.inodes[e.Ino] = struct{}{}
			return true
		})
	}
	if err != nil {
		return nil, s.damaged(err)
	}
	u.read, u.to = true, string(to)
	return u, nil
}

// noteUpload lists an inode whose content is new. Under mu.
func (s *space) noteUpload(n *index.Inode) {
	u, err := s.uploadList()
	if err != nil || u.to == "" || n.Base == nil || !n.Base.Root.Defined() {
		return
	}
	if _, ok := u.inodes[n.Ino]; !ok {
		u.inodes[n.Ino] = struct{}{}
		s.ix.SetEntry(uploading, n.Ino, index.Entry{Name: "u", Ino: n.Ino, Type: n.Type()})
		s.unsaved = true
	}
}

// forgetUpload takes an inode from the list. Under mu.
func (s *space) forgetUpload(ino uint64) {
	u, err := s.uploadList()
	if err != nil {
		return
	}
	if _, ok := u.inodes[ino]; ok {
		delete(u.inodes, ino)
		s.ix.RemoveEntry(uploading, ino, &index.Entry{})
		s.unsaved = true
	}
}

// UploadTo names the network that the space is on; "" is none. Where that is another than before, all content that is current is listed,
// or nothing. A crash meanwhile leaves the old name, and what was listed: it is done again.
func (r *Replica) UploadTo(network string) error {
	s := r.s
	s.mu.Lock()
	u, err := s.uploadList()
	if err != nil || u.to == network {
		s.mu.Unlock()
		return err
	}
	if network == "" {
		for ino := range u.inodes {
			s.forgetUpload(ino)
		}
	}
	u.to = network // what comes while the rest is read is listed too
	s.mu.Unlock()
	for next, n := uint64(0), uploadStep; network != "" && n == uploadStep; {
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
			s.noteUpload(x)
		}
		s.mu.Unlock()
		if err != nil {
			return s.damaged(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.to == network {
		s.ix.SetValue(valueUploads, []byte(network))
		s.unsaved = true
	}
	return nil
}

// Upload is a content that the nodes are not known to hold.
type Upload struct {
	Blocks []block.ID // none: nothing of it is to be given
	ino    uint64
	root   cid.Cid
}

// Uploads gives up to most contents that the nodes are not known to hold, those of inodes behind after; next is what to call it with for
// more, 0 at the end. One of which something has yet to come here is left out.
func (r *Replica) Uploads(ctx context.Context, after uint64, most int) (list []Upload, next uint64, err error) {
	s := r.s
	s.mu.Lock()
	u, err := s.uploadList()
	var layouts []block.ID
	seen := 0
	if err == nil && len(u.inodes) > 0 {
		err = s.ix.Scan(uploading, after, func(at uint64, e *index.Entry) bool {
			if seen == most {
				next = after
				return false
			}
			seen++
			after = at
			d, layout := Upload{ino: e.Ino}, block.ID{}
			if n, err := s.ix.Inode(e.Ino); err == nil && n != nil && n.Base != nil {
				d.root, layout = n.Base.Root, n.Base.LayoutBlock
			}
			list, layouts = append(list, d), append(layouts, layout)
			return true
		})
		if err != nil {
			err = s.damaged(err)
		}
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

// Uploaded takes contents from the list that the nodes hold, where they are what the inode has still.
func (r *Replica) Uploaded(list []Upload) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range list {
		n, err := s.ix.Inode(d.ino)
		if err != nil || n != nil && n.Base != nil && n.Base.Root != d.root {
			continue
		}
		s.forgetUpload(d.ino)
	}
}

// ToUpload is how many contents the nodes are not known to hold.
func (r *Replica) ToUpload() int {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.uploadList()
	if err != nil {
		return 0
	}
	return len(u.inodes)
}
