package fs

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/anyfs/anyfs/acl"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
)

// Labels of the derived spaces, and the name that the second one gets.
const (
	labelHome     = "home"
	labelPersonal = "personal"
	PersonalName  = "Personal"
)

// spaceXattr is the internal attribute of an entry of the root that says which space it stands for.
const spaceXattr = ".space"

// spaceRef is the value of spaceXattr.
type spaceRef struct {
	id    dag.ID
	label string // of a derived space
}

func (r spaceRef) encode() []byte { return append(append([]byte{1}, r.id[:]...), r.label...) }

func parseSpaceRef(b []byte) (r spaceRef, ok bool) {
	if len(b) < 33 || b[0] != 1 {
		return r, false
	}
	copy(r.id[:], b[1:])
	r.label = string(b[33:])
	return r, true
}

// spaceIdentity is what the spaceFile says of a space besides its id: its label, if it is derived, and the name that it was made
// under, which counts where a crash came before its entry in the root.
type spaceIdentity struct{ label, name string }

func (i spaceIdentity) encode(id dag.ID) []byte {
	return append(append(append(id[:], i.label...), 0), i.name...)
}

// decodeSpaceFile reads what encode gives, or an id alone.
func decodeSpaceFile(b []byte) (id dag.ID, as spaceIdentity, ok bool) {
	if len(b) < len(id) {
		return id, as, false
	}
	rest := string(b[copy(id[:], b):])
	if rest == "" {
		return id, as, true
	}
	as.label, as.name, ok = strings.Cut(rest, "\x00")
	return id, as, ok
}

// StateRevoked is the state of a space on a device that its account revoked, likewise.
const StateRevoked = "revoked"

// StateLeft is the state of a space of which the account is no member any more: what is here stays, and nothing comes or goes.
const StateLeft = "left"

// left reports whether the account is no member of the space any more, or this device none of its devices.
func (s *space) left() bool { return s != s.h.home && s.acl.Role() == acl.RoleNone || s.acl.Revoked() }

// SpaceInfo describes a space.
type SpaceInfo struct {
	Slot    uint16 `json:"-"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	State   string `json:"state"`
	Objects int64  `json:"objects"`

	Problem string `json:"problem,omitempty"` // why it is damaged, or not on this device

	PendingChanges int    `json:"pending_changes"`
	KeptChanges    int    `json:"kept_changes,omitempty"`    // that were made here before this device lost the right to write, and go nowhere
	UnheardChanges int    `json:"unheard_changes,omitempty"` // of this account, published when it had lost the right to write: they count on its devices alone
	PendingBlocks  int    `json:"pending_blocks"`
	Conflicts      int    `json:"conflicts"`
	Quarantined    int    `json:"quarantined"`          // batches by who might not write them any more
	FetchBlocks    int    `json:"pending_fetch_blocks"` // that are to come from other devices
	SendBlocks     int    `json:"pending_send_blocks"`  // published here, and not known to be held by another device
	BlockBytes     int64  `json:"-"`
	DiskBytes      int64  `json:"-"`
	Policy         string `json:"policy,omitempty"` // "mirror" or "on-demand"
	CacheLimit     int64  `json:"cache_limit,omitempty"`
	Preview        string `json:"preview,omitempty"` // whose, and of when, is shown read-only until the history is here
	With           string `json:"with,omitempty"`    // the other account of a one-to-one space
}

// spaceOf gives the space of an id, nil where it is not here.
func (h *Home) spaceOf(id dag.ID) *space {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.byID[id]
}

// nameOf gives the name of a space in the root.
func (h *Home) nameOf(s *space) (string, error) {
	infos, err := h.Spaces()
	if err != nil {
		return "", err
	}
	for _, i := range infos {
		if i.ID == s.id.String() {
			return i.Name, nil
		}
	}
	return "", ErrNotExist
}

const dirMode = 0040000

// entryRef says which space an entry of the root stands for.
func entryRef(n *index.Inode) (spaceRef, bool) {
	v, _ := n.Xattr(spaceXattr)
	return parseSpaceRef(v)
}

// entrySpace gives the space that an entry of the root stands for, which may be sick.
func (h *Home) entrySpace(n *index.Inode) (*space, error) {
	ref, ok := entryRef(n)
	if !ok {
		return nil, fmt.Errorf("%w: entry %d of the root stands for no space", ErrIO, n.Ino)
	}
	h.mu.RLock()
	s := h.byID[ref.id]
	h.mu.RUnlock()
	if s == nil {
		err := fmt.Errorf("%w: space %s is not on this device", ErrIO, ref.id)
		if sick := h.unknownSick(); sick != nil {
			err = fmt.Errorf("%w, or is one that is damaged: %w", err, sick)
		}
		return nil, err
	}
	return s, nil
}

// spaceAttr is what stat shows of an entry of the root: the root directory of its space.
func (h *Home) spaceAttr(n *index.Inode) (Attr, error) {
	s, err := h.entrySpace(n)
	if err == nil {
		err = s.usable()
	}
	if err != nil {
		return Attr{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	root, err := s.inode(rootDir)
	if err != nil {
		return Attr{}, err
	}
	return s.attr(root), nil
}

// namedSpace finds a space by its name in the root. One that is sick can't be used.
func (h *Home) namedSpace(name string) (*space, error) {
	s, err := h.spaceNamed(name)
	if err == nil {
		err = s.usable()
	}
	return s, err
}

// spaceNamed is namedSpace of one that may be sick.
func (h *Home) spaceNamed(name string) (*space, error) {
	home := h.home
	home.mu.Lock()
	e, _, err := home.lookup(rootDir, name)
	var n *index.Inode
	if err == nil && e != nil {
		n, err = home.inode(e.Ino)
	}
	home.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if n == nil {
		return nil, fmt.Errorf("space %q: %w", name, ErrNotExist)
	}
	return h.entrySpace(n)
}

// SpaceRoot gives the root directory of a space.
func (h *Home) SpaceRoot(name string) (Ino, error) {
	s, err := h.namedSpace(name)
	if err != nil {
		return 0, err
	}
	return s.ino(rootDir), nil
}

// Space describes a space.
func (h *Home) Space(name string) (SpaceInfo, error) {
	s, err := h.spaceNamed(name)
	switch {
	case err == nil:
		return s.info(name), nil
	case !errors.Is(err, ErrIO):
		return SpaceInfo{}, err
	}
	i := SpaceInfo{Name: name, State: "unavailable", Problem: err.Error()}
	if h.unknownSick() != nil {
		i.State = stateDamaged
	}
	return i, nil
}

// Spaces describes all spaces, in the order of the root's listing. One whose folder is gone, which only damage explains, is among
// them as unavailable, though no listing shows it.
func (h *Home) Spaces() ([]SpaceInfo, error) {
	home := h.home
	var entries []SpaceInfo
	home.mu.Lock()
	err := home.ix.Scan(rootDir, 0, func(_ uint64, e *index.Entry) bool {
		i := SpaceInfo{Name: e.Name}
		if n, err := home.ix.Inode(e.Ino); err == nil && n != nil {
			if ref, ok := entryRef(n); ok {
				i.ID = ref.id.String()
			}
		}
		entries = append(entries, i)
		return true
	})
	home.mu.Unlock()
	if err != nil {
		return nil, home.damaged(err)
	}
	out := make([]SpaceInfo, 0, len(entries))
	for _, e := range entries {
		i, err := h.Space(e.Name)
		if errors.Is(err, ErrNotExist) {
			continue // it was renamed or deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		i.ID = cmp.Or(i.ID, e.ID)
		out = append(out, i)
	}
	return out, nil
}

func (s *space) info(name string) SpaceInfo {
	if s.sick != nil {
		i := SpaceInfo{Slot: s.slot, Name: name, State: stateDamaged, Problem: s.sick.Error()}
		if !s.id.IsZero() {
			i.ID = s.id.String()
		}
		return i
	}
	i := SpaceInfo{Slot: s.slot, ID: s.id.String(), Name: name, Role: s.rights.shown().String(), State: "local"}
	if other := s.acl.OneToOne(); other != nil {
		i.With = acl.FormatIdentity(other.Identity)
	}
	i.Preview = s.previewText()
	i.BlockBytes, i.DiskBytes = s.blocks.Bytes()
	i.FetchBlocks = s.wanted()
	i.Conflicts = s.copyCount()
	i.Quarantined = s.graph.QuarantineLen()
	p := s.policy()
	i.Policy, i.CacheLimit = p.String(), p.CacheLimit
	if a, _ := s.alone(); a != nil {
		i.UnheardChanges = a.changes
	}
	instead, _ := s.instead()
	s.mu.Lock()
	defer s.mu.Unlock()
	for ino := range s.dirty {
		n, err := s.ix.Inode(ino)
		if err != nil || n == nil || !n.Dirty() || s.nameless(n) {
			continue
		}
		i.PendingChanges++
		if n.Ext != nil {
			i.PendingBlocks++
		}
	}
	i.Objects = s.objects
	_, i.SendBlocks = s.toSend(instead)
	denied := !s.acl.MayWrite()
	if denied {
		i.KeptChanges, i.PendingChanges, i.PendingBlocks = i.PendingChanges, 0, 0
	}
	switch {
	case s.acl.Revoked():
		i.State, i.FetchBlocks, i.SendBlocks = StateRevoked, 0, 0
	case s.pubErr != nil && !denied:
		i.State = "error"
	case s.left() && s.acl.Asked():
		i.State, i.FetchBlocks, i.SendBlocks = StateAsked, 0, 0
	case s.left():
		i.State, i.FetchBlocks, i.SendBlocks = StateLeft, 0, 0
	}
	return i
}

// RenameSpace gives a space another name. It never replaces one.
func (h *Home) RenameSpace(old, name string) error { return h.renameSpace(old, name, RenameNoReplace) }

func (h *Home) renameSpace(old, name string, flags uint32) error {
	if err := checkName(name); err != nil {
		return err
	}
	if h.home.rights.readOnly.Load() {
		return fmt.Errorf("rename a space: %w", ErrReadOnly)
	}
	h.spaceMu.Lock()
	defer h.spaceMu.Unlock()
	home := h.home
	err := home.do(false, func() (*writer, func(*mutation) error, error) {
		r, replaced, noop, err := home.planRename(rootDir, old, rootDir, name, RenameNoReplace, false)
		if err != nil || noop {
			return nil, nil, err
		}
		_ = replaced // none: RenameNoReplace
		w := home.record(recRename)
		r.encode(w)
		return w, func(m *mutation) error {
			err := home.applyRename(m.seq, r)
			if err == nil {
				home.renamed(r)
			}
			return err
		}, nil
	})
	if errors.Is(err, ErrExist) && flags&RenameNoReplace == 0 {
		err = ErrNotEmpty // what rename(2) says of a directory that can't be replaced
	}
	return err
}
