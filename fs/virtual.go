package fs

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
)

// virtualXattr computes user.anyfs.NAME of an inode. Asking for what only a published object has publishes it, locally, with
// the directories above it.
func (h *Home) virtualXattr(ino Ino, name string) ([]byte, error) {
	if isView(ino) {
		return h.views.xattr(ino, virtualPrefix+name)
	}
	s, local, err := h.space(ino)
	if err != nil {
		return nil, err
	}
	switch name {
	case "id", "heads", "author", "versions":
		n, err := s.publishedInode(local)
		if err != nil {
			return nil, err
		}
		return s.objectXattr(n, name)
	case "sync":
		state, err := s.syncState(local)
		return []byte(state), err
	case "pin":
		if s.slot == 0 {
			return nil, ErrNoAttr
		}
		return h.pinXattr(s, local)
	case "conflicts":
		count, err := s.conflictCount(local)
		return strconv.AppendInt(nil, int64(count), 10), err
	case "role", "members":
		if local != rootDir || s.slot == 0 {
			return nil, ErrNoAttr
		}
		if name == "role" {
			return []byte(s.rights.shown().String()), nil
		}
		return []byte(membersText(s.acl.Members())), nil
	}
	return nil, ErrNoAttr
}

// membersText has a line for each member, those with the highest roles first. Where an attribute can't hold all, which is from about a thousand
// on, the last line says how many more there are.
func membersText(members []acl.Member) string {
	const more = "and %d more, which 'anyfs members' lists\n"
	var b strings.Builder
	for i, m := range members {
		line := fmt.Sprintf("%s %s\n", acl.FormatIdentity(m.Account), m.Role)
		if b.Len()+len(line)+len(more)+16 > MaxXattr {
			fmt.Fprintf(&b, more, len(members)-i)
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

// publishedInode gives an inode that has an object: it publishes one that has none.
func (s *space) publishedInode(ino uint64) (*index.Inode, error) {
	for try := 0; ; try++ {
		s.mu.Lock()
		n, err := s.inode(ino)
		if err == nil && len(n.Links) == 0 && ino != rootDir {
			err = ErrNoAttr
		}
		if err == nil && s.isIgnoredInode(ino) {
			err = ErrNoAttr
		}
		if err == nil && !n.Object.IsZero() {
			n = n.Clone()
			s.mu.Unlock()
			return n, nil
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if try == 3 {
			return nil, fmt.Errorf("%w: the object was not published", ErrIO)
		}
		if err := s.settleStream(ino); err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, _, err = s.publish(ctx, func(i uint64, _ dirtyState, _ *index.Inode) bool { return i == ino })
		cancel()
		if err != nil {
			return nil, err
		}
	}
}

func (s *space) objectXattr(n *index.Inode, name string) ([]byte, error) {
	switch name {
	case "id":
		return []byte(n.Object.String()), nil
	case "heads":
		var out []string
		heads, err := s.graph.HeadsOf(n.Object)
		if err != nil {
			return nil, s.damaged(err)
		}
		for _, id := range heads {
			out = append(out, id.String())
		}
		return []byte(strings.Join(out, "\n")), nil
	case "author":
		var author dag.PublicKey
		if err := s.graph.Changes(n.Object, func(e dag.Entry) error {
			author = e.Batch.Account
			return nil
		}); err != nil {
			return nil, s.damaged(err)
		}
		if author == (dag.PublicKey{}) {
			return nil, ErrNoAttr // the root of a space, which nobody has changed
		}
		return []byte(acl.FormatIdentity(author)), nil
	}
	count := 0
	if err := s.graph.Changes(n.Object, func(dag.Entry) error { count++; return nil }); err != nil {
		return nil, s.damaged(err)
	}
	return fmt.Appendf(nil, "%d", count), nil
}
