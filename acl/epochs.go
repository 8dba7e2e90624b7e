package acl

import (
	"bytes"
	"crypto/hpke"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

const (
	labelWrap   = "anyfs/wrap/1"
	labelFollow = "follow"
)

// recipient is who a key is wrapped to, and the HPKE public key for it.
type recipient struct {
	name dag.PublicKey
	key  []byte
}

// wrapInfo binds a wrap to its space (in a root, which has no ID yet: its seed and owner), the key's commitment and the
// recipient.
func wrapInfo(space dag.ID, commitment [32]byte, to dag.PublicKey) []byte {
	return slices.Concat([]byte(labelWrap), space[:], commitment[:], to[:])
}

// rootContext stands for the space in the wraps of its root.
func rootContext(t *list.Root) dag.ID {
	return dag.Sum(slices.Concat([]byte(labelWrap+" root"), t.Seed[:], t.Owner.Identity[:]))
}

func followAD(space, epoch dag.ID) []byte { return slices.Concat(space[:], epoch[:]) }

// wrapTo wraps a read key to each recipient, in the order of their names; of two with one name, to the first.
func wrapTo(to []recipient, space dag.ID, commitment [32]byte, k seal.ReadKey) ([]list.Wrap, error) {
	return wrapEach(to, k, func(r dag.PublicKey) []byte { return wrapInfo(space, commitment, r) })
}

func wrapEach(to []recipient, k seal.ReadKey, info func(to dag.PublicKey) []byte) ([]list.Wrap, error) {
	slices.SortStableFunc(to, func(a, b recipient) int { return bytes.Compare(a.name[:], b.name[:]) })
	to = slices.CompactFunc(to, func(a, b recipient) bool { return a.name == b.name })
	out := make([]list.Wrap, 0, len(to))
	for _, r := range to {
		pub, err := seal.KEM().NewPublicKey(r.key)
		if err != nil {
			continue // a member's key that is none: it locks out nobody but that member
		}
		sealed, err := seal.Wrap(pub, info(r.name), k)
		if err != nil {
			return nil, fmt.Errorf("acl: wrap a key: %w", err)
		}
		out = append(out, list.Wrap{To: r.name, Sealed: sealed})
	}
	return out, nil
}

// refresh opens the epochs of records that came since the last time.
func (s *Space) refresh() {
	if s.seen.Load() == s.came.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen.Load() != s.came.Load() { // whoever held mu saw to it
		s.openEpochs()
	}
}

// openEpochs opens each epoch whose key is not here yet, as far as this device can, and chooses the one to seal in.
// A wrap that does not open, or holds a key that does not match the epoch's commitment, is void. mu is held.
func (s *Space) openEpochs() {
	told := s.came.Load() // before the state is taken: what comes then is looked at next time
	defer s.seen.Store(told)
	st := s.list.State()
	epochs := st.Epochs()
	came := openedKeys{space: s.keys, of: make(map[dag.ID]seal.ReadKey)}
	// From the newest on: it leads to those it follows by symmetric keys, so that one unwrapping does for all.
	for i := len(epochs) - 1; i >= 0; i-- {
		e := &epochs[i]
		key, ok := came.held(e.ID)
		if !ok && e.Suite == list.Suite {
			if key, ok = s.find(st, e); ok {
				came.add(e.ID, key)
			}
		}
		if ok {
			s.openFollowed(st, e, key, &came)
		}
	}
	s.keys.AddAll(came.all)
	current := dag.ID{}
	for i := len(epochs) - 1; i >= 0 && current.IsZero(); i-- {
		if sealable(st, &epochs[i]) && s.keys.SetCurrent(epochs[i].ID) == nil {
			current = epochs[i].ID
		}
	}
	s.emu.Lock()
	s.epoch = current
	s.emu.Unlock()
}

// openedKeys are keys that are about to be added to those of a space.
type openedKeys struct {
	space *seal.Space
	of    map[dag.ID]seal.ReadKey
	all   []seal.EpochKey
}

func (n *openedKeys) held(id dag.ID) (seal.ReadKey, bool) {
	if k, ok := n.of[id]; ok {
		return k, true
	}
	return n.space.Held(id)
}

func (n *openedKeys) add(id dag.ID, k seal.ReadKey) {
	n.of[id] = k
	n.all = append(n.all, seal.EpochKey{ID: id, Key: k})
}

// openFollowed opens the epochs that one follows, which all stand before it.
func (s *Space) openFollowed(st *list.State, e *list.Epoch, key seal.ReadKey, came *openedKeys) {
	for _, f := range e.Follows {
		if _, ok := came.held(f.Epoch); ok {
			continue
		}
		to, ok := st.Epoch(f.Epoch)
		if !ok {
			continue
		}
		b, err := key.OpenField(labelFollow, followAD(s.ID(), f.Epoch), f.Sealed)
		if err != nil || len(b) != len(seal.ReadKey{}) {
			continue
		}
		if k := seal.ReadKey(b); s.matches(&to, k) {
			came.add(f.Epoch, k)
		}
	}
}

// matches says whether a key is the one that an epoch's record committed to.
func (s *Space) matches(e *list.Epoch, k seal.ReadKey) bool {
	if e.ID == s.ID() {
		return k.Commitment(dag.ID{}) == e.Commitment
	}
	return k.Commitment(s.ID()) == e.Commitment
}

// find finds the key of an epoch: handed over, derived, or wrapped to this device or to the account, by HPKE or under an agreed key.
func (s *Space) find(st *list.State, e *list.Epoch) (seal.ReadKey, bool) {
	if h, ok := s.k.handedOver(s.ID()); ok {
		for _, x := range h.Epochs {
			if x.ID == e.ID && s.matches(e, x.Key) {
				return x.Key, true
			}
		}
	}
	root := s.list.Root()
	if a := s.k.Account; a != nil && e.ID == s.ID() && root.Kind == list.RootDerived {
		for _, label := range []string{LabelHome, LabelPersonal} {
			if k := a.spaceKey(label); s.matches(e, k) {
				return k, true
			}
		}
	}
	if e.ID == s.ID() && root.Kind == list.RootOneToOne {
		if k, ok := s.k.agreedKey(root); ok {
			return k, true
		}
	}
	if k, ok := s.unwrap(e, s.k.Device.PublicKey(), s.k.Device.hpke); ok {
		return k, true
	}
	if s.k.Account != nil {
		if k, ok := s.unwrap(e, s.k.Identity, s.k.Account.recovery); ok {
			return k, true
		}
	}
	return s.unwrapAgreed(st, e)
}

// unwrap tries the wraps of an epoch to one recipient. Those of a root are bound to it, others to the space.
func (s *Space) unwrap(e *list.Epoch, to dag.PublicKey, with hpke.PrivateKey) (seal.ReadKey, bool) {
	contexts := []dag.ID{s.ID()}
	if e.ID == s.ID() {
		contexts = append(contexts, rootContext(s.list.Root()))
	}
	for i := range e.Wraps {
		if e.Wraps[i].To != to {
			continue
		}
		for _, c := range contexts {
			k, err := seal.Unwrap(with, wrapInfo(c, e.Commitment, to), e.Wraps[i].Sealed)
			if err == nil && s.matches(e, k) {
				return k, true
			}
		}
	}
	return seal.ReadKey{}, false
}
