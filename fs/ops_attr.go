package fs

import (
	"context"
	"syscall"

	"github.com/anyfs/anyfs/fs/index"
)

// errNoData is what SEEK_DATA and SEEK_HOLE answer beyond the last data.
const errNoData = syscall.ENXIO

// Getattr gives what stat(2) shows.
func (h *Home) Getattr(ino Ino) (Attr, error) {
	if isView(ino) {
		return h.views.getattr(ino)
	}
	s, local, err := h.space(ino)
	if err != nil {
		return Attr{}, err
	}
	s.mu.Lock()
	n, err := s.inode(local)
	if err != nil {
		s.mu.Unlock()
		return Attr{}, err
	}
	a := s.attr(n)
	s.mu.Unlock()
	return s.counted(local, a), nil
}

// Prefetch reads the inodes of one space's directory that are about to be asked for by Getattr.
func (h *Home) Prefetch(inos []Ino) {
	if len(inos) == 0 || isView(inos[0]) {
		return
	}
	s, _, err := h.space(inos[0])
	if err != nil {
		return
	}
	local := make([]uint64, 0, len(inos))
	for _, ino := range inos {
		if t, l, err := h.space(ino); err == nil && t == s {
			local = append(local, l)
		}
	}
	s.mu.Lock()
	s.ix.Prefetch(local)
	s.mu.Unlock()
}

// Setattr changes attributes and returns all of them.
func (h *Home) Setattr(ctx context.Context, ino Ino, set SetAttr) (Attr, error) {
	if isView(ino) {
		return Attr{}, ErrReadOnly
	}
	s, local, err := h.change(ino)
	if err != nil {
		return Attr{}, err
	}
	if set.Size != nil && *set.Size < 0 {
		return Attr{}, ErrInvalid
	}
	if set.Size != nil || set.Mtime != nil {
		// What is in memory comes before: it is cut, and its time is not the one that is set.
		if err := s.settleStream(local); err != nil {
			return Attr{}, err
		}
	}
	var a Attr
	err = s.do(false, func() (*writer, func(*mutation) error, error) {
		n, err := s.inode(local)
		if err != nil {
			return nil, nil, err
		}
		r := &setattrRecord{Ino: local, Time: h.now()}
		if set.Mode != nil {
			r.Set |= setMode
			r.Mode = *set.Mode & 07777
		}
		if set.UID != nil || set.GID != nil {
			r.Set |= setOwner
			old := s.attr(n)
			r.UID, r.GID = old.UID, old.GID
			if set.UID != nil {
				r.UID = *set.UID
			}
			if set.GID != nil {
				r.GID = *set.GID
			}
		}
		if set.Size != nil {
			if n.IsDir() {
				return nil, nil, ErrIsDir
			}
			if !n.IsRegular() {
				return nil, nil, ErrInvalid
			}
			if *set.Size != n.Size || set.Mtime == nil {
				r.Set |= setSize
				r.Size = *set.Size
			}
		}
		if set.Mtime != nil {
			r.Set |= setMtime
			r.Mtime = *set.Mtime
		}
		kill := set.KillPriv || r.Set&setOwner != 0 && !n.IsDir() && (set.UID != nil || set.GID != nil)
		if kill && !n.IsDir() {
			s.planKill(n, r, set.Mode != nil)
		}
		w := s.record(recSetattr)
		r.encode(w)
		return w, func(m *mutation) error {
			if err := s.applySetattr(m.seq, r); err != nil {
				return err
			}
			n, err := s.inode(local)
			if err != nil {
				return err
			}
			a = s.attr(n)
			return nil
		}, nil
	})
	if err == nil && (set.KillPriv || set.UID != nil || set.GID != nil) {
		if _, e := h.Getxattr(ino, "security.capability"); e == nil {
			err = h.Removexattr(ino, "security.capability")
		}
	}
	return s.counted(local, a), err
}

// planKill adds to a setattr what a change of owner or size does to suid and sgid.
func (s *space) planKill(n *index.Inode, r *setattrRecord, modeSet bool) {
	if modeSet {
		return
	}
	mode := n.Mode & 07777 &^ syscall.S_ISUID
	if mode&010 != 0 {
		mode &^= syscall.S_ISGID
	}
	if mode != n.Mode&07777 {
		r.Set |= setMode
		r.Mode = mode
	}
}

// Readlink gives the target of a symbolic link.
func (h *Home) Readlink(ino Ino) (string, error) {
	if isView(ino) {
		return h.views.readlink(ino)
	}
	s, local, err := h.space(ino)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(local)
	if err != nil {
		return "", err
	}
	if n.Type() != syscall.S_IFLNK {
		return "", ErrInvalid
	}
	return n.Target, nil
}

// StatFS gives the sizes of the disk that the home is on. Content that only history refers to counts as free.
func (h *Home) StatFS() StatFS {
	free, total := h.diskFree()
	free = min(free+h.historyRoom(), total)
	var used int64
	for _, s := range h.each() {
		s.mu.Lock()
		used += s.objects
		s.mu.Unlock()
	}
	return StatFS{
		Total: uint64(total), Free: uint64(free), Avail: uint64(free),
		Files: uint64(used) + 1<<32, FilesFree: 1 << 32, NameLen: MaxName,
	}
}

// Ref keeps an inode alive though it has no name.
func (h *Home) Ref(ino Ino) {
	if isView(ino) {
		h.views.ref(ino)
		return
	}
	if s, local, err := h.space(ino); err == nil {
		s.ref(local)
	}
}

// Unref ends a Ref.
func (h *Home) Unref(ino Ino) {
	if isView(ino) {
		h.views.unref(ino)
		return
	}
	if s, local, err := h.space(ino); err == nil {
		s.unref(local)
	}
}
