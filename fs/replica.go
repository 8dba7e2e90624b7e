package fs

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

// Replica is what the exchange with other devices needs of a space. What comes into its graphs arrives in the tree by itself.
type Replica struct {
	ID     dag.ID
	ACL    *dag.Graph
	Files  *dag.Graph
	Blocks *block.Store

	s *space
}

// Replicas gives the spaces that can be exchanged.
func (h *Home) Replicas() []Replica {
	var out []Replica
	for _, s := range h.each() {
		if !s.deleted() {
			out = append(out, Replica{s.id, s.acl.List().Graph(), s.graph, s.blocks, s})
		}
	}
	return out
}

// Durable makes everything durable that both graphs hold now, and what this device published of it known to its journal: only then may
// it be sent.
func (r *Replica) Durable() error {
	s := r.s
	s.pubMu.Lock() // a publication under way ends
	defer s.pubMu.Unlock()
	if s.deleted() {
		return ErrStale
	}
	ctx := context.Background()
	if err := s.note(ctx); err != nil {
		return err
	}
	if err := errors.Join(s.aclLog.Sync(), s.log.Sync()); err != nil {
		return err
	}
	return s.keep(ctx)
}

// keep notes in the journal, durably, that what others sent stays in the batch log: a start cuts off what is behind the last such note.
// Under pubMu, after the log was synced.
func (s *space) keep(ctx context.Context) error {
	s.mu.Lock()
	mark := uint64(s.log.Mark())
	var err error
	if s.kept != mark {
		r := &arriveRecord{Mark: mark, Time: s.h.now()}
		w := s.record(recArrive)
		r.encode(w)
		var m mutation
		if m, err = s.commit(w, true); err == nil {
			s.kept, s.keptBy = mark, m.seq
		}
	}
	seq := s.keptBy
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.h.sync(ctx, seq)
}

// Grown judges the batches of files again, after the access list has grown.
func (r *Replica) Grown() {
	r.s.grown()
}

// Member reports whether a device of an account may have what is in the space. What the home space says of the devices of this account
// holds in every space.
func (r *Replica) Member(account, device dag.PublicKey) bool {
	st := r.s.acl.List().State()
	if st.Role(account) == acl.RoleNone || st.Revoked(account, device) {
		return false
	}
	return account != r.s.h.keys.Identity || !r.s.h.home.acl.List().State().Revoked(account, device)
}

// Left reports whether the account is no member of the space any more, or this device was revoked: nothing is sent and fetched.
func (r *Replica) Left() bool { return r.s.left() }

// Tags proves being in the space, bound to the transcript of a connection.
func (r *Replica) Tags(transcript []byte) [][32]byte { return r.s.keys.DiscoveryTags(transcript) }

// DeviceName is the name of a device of the space; empty where it is not known.
func (r *Replica) DeviceName(device dag.PublicKey) string {
	name, _ := r.s.acl.DeviceName(device)
	return name
}

// Name is what the root calls the space; empty for the home space.
func (r *Replica) Name() string {
	name, _ := r.s.h.nameOf(r.s)
	return name
}

// HomeID is the ID of the home space.
func (h *Home) HomeID() dag.ID { return h.home.id }

// NamedSpaces gives the spaces that the root names, and those that are on this device.
func (h *Home) NamedSpaces() []dag.ID {
	ids := map[dag.ID]bool{}
	if refs, err := h.rootRefs(); err == nil {
		for _, r := range refs {
			ids[r.id] = true
		}
	}
	for _, s := range h.each() {
		ids[s.id] = true
	}
	return slices.Collect(maps.Keys(ids))
}

// Missing gives the spaces that the root names and that are not on this device: another device of the account made them.
func (h *Home) Missing() ([]dag.ID, error) {
	refs, err := h.rootRefs()
	var out []dag.ID
	for _, r := range refs {
		if h.spaceOf(r.id) == nil {
			out = append(out, r.id)
		}
	}
	return out, err
}

// rootRefs gives what the entries of the root stand for.
func (h *Home) rootRefs() (map[string]spaceRef, error) {
	home := h.home
	home.mu.Lock()
	defer home.mu.Unlock()
	refs := map[string]spaceRef{}
	err := home.ix.Scan(rootDir, 0, func(_ uint64, e *index.Entry) bool {
		if n, err := home.ix.Inode(e.Ino); err == nil && n != nil {
			if ref, ok := entryRef(n); ok {
				refs[e.Name] = ref
			}
		}
		return true
	})
	if err != nil {
		return nil, home.damaged(err)
	}
	return refs, nil
}

// TakeIn opens a space that the root names, with the frames of its access list as a peer gave them. Its files come with the exchange.
// ErrNoKey says that the list holds no key for this device.
func (h *Home) TakeIn(ctx context.Context, id dag.ID, frames [][]byte) error {
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	if err := h.failed(); err != nil {
		return err
	}
	if h.spaceOf(id) != nil {
		return nil
	}
	refs, err := h.rootRefs()
	if err != nil {
		return err
	}
	name, label := "", ""
	for n, r := range refs {
		if r.id == id {
			name, label = n, r.label
		}
	}
	if name == "" {
		return fmt.Errorf("space %s: %w", id, ErrNotExist)
	}
	s, err := h.newSpace(ctx, max(h.next, 1), spaceIdentity{label: label, name: name}, func(st dag.Store) (*acl.Space, error) {
		return acl.ImportSpace(h.keys, id, st, func(yield func([]byte) error) error {
			for _, f := range frames {
				if err := yield(f); err != nil {
					return err
				}
			}
			return nil
		})
	}, nil)
	if err != nil {
		return fmt.Errorf("take in space %s: %w", id, err)
	}
	s.named()
	h.emit(Event{Parent: h.home.ino(rootDir), Name: name, Kind: EventMade, Dir: true})
	return nil
}

// settleRoot sees to what the root says since others' changes came into it: a space without an entry was deleted on another device,
// and goes here too, unless something in it was not published yet, or was and who deleted it had not got it.
func (h *Home) settleRoot() error {
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	if err := h.settleNames(); err != nil {
		return err
	}
	refs, err := h.rootRefs()
	if err != nil {
		return err
	}
	named := map[dag.ID]bool{}
	for _, r := range refs {
		named[r.id] = true
	}
	for _, s := range h.each() {
		if s == h.home || named[s.id] || s.deleted() {
			continue
		}
		del, err := h.knownDeletion(s.id)
		if err != nil {
			return err
		}
		// Nobody deleted it where nothing tells of that: its entry is one with that of another space of the same name.
		nameless := del == nil && (s.as.label != labelPersonal || !s.untouched())
		s.pubMu.Lock()
		s.mu.Lock()
		stays := nameless || del.lacks(s.graph.Tips()) || len(s.dirty)+len(s.ign.inos) > 0
		s.gone = !stays
		s.mu.Unlock()
		s.pubMu.Unlock()
		if stays {
			name := s.as.name
			if del != nil {
				name = del.name
			}
			if nameless {
				err = h.nameBeside(s, name)
			} else {
				err = h.nameAgain(s, name)
			}
			if err != nil {
				return err
			}
			continue
		}
		mark := s.dir + "/" + deletingFile
		if err := h.opt.Disk.WriteFileAtomic(mark, nil); err != nil {
			if e := h.opt.Disk.Remove(mark); e != nil && !errors.Is(e, iofs.ErrNotExist) {
				err = errors.Join(err, e)
			}
			return err
		}
		h.forgetSpace(s)
		if err := h.home.checkpoint(context.Background(), true); err != nil {
			return h.broken(err)
		}
		s.pubMu.Lock()
		err = errors.Join(s.close(), h.removeFolder(s.dir))
		s.pubMu.Unlock()
		if err != nil {
			h.report("delete space", err) // what is left goes at the next start
		}
		h.spacesChanged()
	}
	return nil
}

// WatchSpaces calls fn, from any goroutine, when spaces came or went, or the root names others.
func (h *Home) WatchSpaces(fn func()) { h.onSpaces.Store(&fn) }

func (h *Home) spacesChanged() {
	if fn := h.onSpaces.Load(); fn != nil {
		(*fn)()
	}
}
