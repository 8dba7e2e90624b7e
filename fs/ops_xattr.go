package fs

import (
	"bytes"
	"strings"

	"github.com/anyfs/anyfs/fs/index"
)

// Namespaces of attributes. Those of anyfs itself are computed; those that begin with a dot are never shown.
const (
	virtualPrefix  = "user.anyfs."
	internalPrefix = "."
)

// Getxattr gives the value of an attribute.
func (h *Home) Getxattr(ino Ino, name string) ([]byte, error) {
	if strings.HasPrefix(name, virtualPrefix) {
		return h.virtualXattr(ino, strings.TrimPrefix(name, virtualPrefix))
	}
	if isView(ino) {
		return h.views.xattr(ino, name)
	}
	if strings.HasPrefix(name, "system.") {
		return nil, ErrNotSup
	}
	s, local, err := h.space(ino)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(local)
	if err != nil {
		return nil, err
	}
	v, ok := n.Xattr(name)
	if !ok || strings.HasPrefix(name, internalPrefix) {
		return nil, ErrNoAttr
	}
	return v, nil
}

// checkXattr says whether an attribute can be set or removed by a person.
func checkXattr(ino Ino, name string) error {
	switch {
	case isView(ino):
		return ErrReadOnly
	case strings.HasPrefix(name, virtualPrefix):
		return ErrPerm
	case strings.HasPrefix(name, "system."), strings.HasPrefix(name, internalPrefix), name == "":
		return ErrNotSup
	}
	return nil
}

// Setxattr sets an attribute. Flags are XattrCreate and XattrReplace.
func (h *Home) Setxattr(ino Ino, name string, value []byte, flags uint32) error {
	if name == virtualPrefix+"pin" && !isView(ino) {
		return h.setPinXattr(ino, value)
	}
	if err := checkXattr(ino, name); err != nil {
		return err
	}
	if len(name) > 255 || len(value) > MaxXattr {
		return ErrNoSpace
	}
	return h.xattr(ino, name, func(n *index.Inode) (*xattrRecord, error) {
		old, has := n.Xattr(name)
		switch {
		case has && flags&XattrCreate != 0:
			return nil, ErrExist
		case !has && flags&XattrReplace != 0:
			return nil, ErrNoAttr
		case has && bytes.Equal(old, value):
			return nil, nil // no change, as on ext4: nothing to publish
		}
		sum := len(name) + len(value)
		for _, x := range n.Xattrs {
			if x.Name != name {
				sum += len(x.Name) + len(x.Value)
			}
		}
		if sum > maxXattrs || !has && len(n.Xattrs) >= maxXattrCount {
			return nil, ErrNoSpace
		}
		return &xattrRecord{Name: name, Value: append([]byte(nil), value...)}, nil
	})
}

// maxXattrs bounds the attributes of one inode together, in bytes, and maxXattrCount their number, as the tree does.
const (
	maxXattrs     = 256 << 10
	maxXattrCount = 1024
)

// Removexattr removes an attribute.
func (h *Home) Removexattr(ino Ino, name string) error {
	if name == virtualPrefix+"pin" && !isView(ino) {
		return h.setPinXattr(ino, []byte("0"))
	}
	if err := checkXattr(ino, name); err != nil {
		return err
	}
	return h.xattr(ino, name, func(n *index.Inode) (*xattrRecord, error) {
		if _, has := n.Xattr(name); !has {
			return nil, ErrNoAttr
		}
		return &xattrRecord{Name: name, Remove: true}, nil
	})
}

// xattr changes an attribute as the record of plan says; without one there is nothing to do.
func (h *Home) xattr(ino Ino, name string, plan func(n *index.Inode) (*xattrRecord, error)) error {
	s, local, err := h.change(ino)
	if err != nil {
		return err
	}
	return s.xattr(false, local, plan)
}

// xattr is Home.xattr for an inode of the space; one that frees space may use what is kept for that.
func (s *space) xattr(frees bool, ino uint64, plan func(n *index.Inode) (*xattrRecord, error)) error {
	return s.do(frees, func() (*writer, func(*mutation) error, error) {
		n, err := s.inode(ino)
		if err != nil {
			return nil, nil, err
		}
		r, err := plan(n)
		if err != nil || r == nil {
			return nil, nil, err
		}
		r.Ino, r.Time = ino, s.h.now()
		w := s.record(recXattr)
		r.encode(w)
		return w, func(m *mutation) error { return s.applyXattr(m.seq, r) }, nil
	})
}

// Listxattr lists the attributes that are stored; the computed ones are not among them.
func (h *Home) Listxattr(ino Ino) ([]string, error) {
	if isView(ino) {
		return h.views.listxattr(ino)
	}
	s, local, err := h.space(ino)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.inode(local)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, x := range n.Xattrs {
		if !strings.HasPrefix(x.Name, internalPrefix) {
			out = append(out, x.Name)
		}
	}
	return out, nil
}
