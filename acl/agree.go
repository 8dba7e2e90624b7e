package acl

import (
	"bytes"
	"io"
	"slices"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

// Agreed keys make a new epoch cheap in a space of many. A device that memberships are managed with makes a key for each member, from a
// secret of its own so that it has to keep nothing, and hands it over once, wrapped by HPKE to all of the member's devices and its account.
// An epoch that this device begins later takes 48 bytes a member.
//
// Such a key is used only while the member's devices are those that it was handed to: who has lost a device, or has another one, is
// wrapped to directly until there is a new key for it.

const (
	agreeFrom  = 16  // members of a space in which keys are agreed on
	agreeLack  = 4   // so many have none before a record is written
	maxWraps   = 700 // HPKE wraps of one record: 840 KB
	healRounds = 8   // records of one Heal

	maxSlots   = 16 << 10                 // wraps under agreed keys of one record
	recordRoom = list.MaxRecord - 128<<10 // bytes for wraps: a removal has tips and keys of earlier epochs too
	hpkeRoom   = seal.WrapBytes + 32 + 8  // of one by HPKE, with its recipient
)

const labelAgree = "anyfs/agree/1"

// agreedKey is the key for a member by an agreement of this device.
func (s *Space) agreedKey(salt [32]byte, account dag.PublicKey) seal.ReadKey {
	id := s.ID()
	return seal.AgreedKey(s.k.Device.hpkeSeed[:], slices.Concat(id[:], salt[:], account[:]))
}

// agreeInfo binds a wrap of an agreed key to its space, its record, the member and the recipient.
func agreeInfo(space dag.ID, salt [32]byte, account, to dag.PublicKey) []byte {
	return slices.Concat([]byte(labelAgree), space[:], salt[:], account[:], to[:])
}

// agreedInfo binds the wrap of a read key under an agreed one.
func agreedInfo(space dag.ID, commitment [32]byte) []byte {
	return slices.Concat(space[:], commitment[:])
}

// agreedWith is where the key for a member is.
type agreedWith struct {
	by *list.Agreement
	at int
}

// agreed gives the members that this device has a key for which all of their devices got, and no other.
func (s *Space) agreed(st *list.State) map[dag.PublicKey]agreedWith {
	out := make(map[dag.PublicKey]agreedWith)
	now := make(map[dag.PublicKey]map[dag.PublicKey]bool)
	for _, by := range st.Agreements(s.k.Device.PublicKey()) {
		for i := range by.Members {
			m := &by.Members[i]
			to, ok := now[m.Account]
			if !ok {
				if member, in := st.Member(m.Account); in {
					to = make(map[dag.PublicKey]bool)
					for _, r := range s.recipientsOf(st, &member) {
						to[r.name] = true
					}
				}
				now[m.Account] = to
			}
			if len(to) > 0 && len(to) == len(m.Wraps) && !slices.ContainsFunc(m.Wraps, func(w list.Wrap) bool { return !to[w.To] }) {
				out[m.Account] = agreedWith{by, i}
			}
		}
	}
	return out
}

// wrapAgreed wraps a read key to members under the keys agreed on with them.
func (s *Space) wrapAgreed(to []agreedWith, commitment [32]byte, k seal.ReadKey) []list.AgreedWraps {
	slices.SortFunc(to, func(a, b agreedWith) int {
		if c := a.by.ID.Compare(b.by.ID); c != 0 {
			return c
		}
		return a.at - b.at
	})
	info := agreedInfo(s.ID(), commitment)
	var out []list.AgreedWraps
	for _, x := range to {
		if n := len(out); n == 0 || out[n-1].Record != x.by.ID {
			out = append(out, list.AgreedWraps{Record: x.by.ID})
		}
		w := &out[len(out)-1]
		for len(w.Mask) <= x.at/8 {
			w.Mask = append(w.Mask, 0)
		}
		w.Mask[x.at/8] |= 1 << (x.at % 8)
		w.Wraps = append(w.Wraps, seal.WrapAgreed(s.agreedKey(x.by.Salt, x.by.Members[x.at].Account), info, k)...)
	}
	return out
}

// unwrapAgreed tries what an epoch has for this account by agreed keys.
func (s *Space) unwrapAgreed(st *list.State, e *list.Epoch) (seal.ReadKey, bool) {
	for _, x := range st.AgreedFor(e, s.k.Identity) {
		for i := range x.Keys {
			with := s.k.Device.hpke
			switch to := x.Keys[i].To; {
			case to == s.k.Device.PublicKey():
			case to == s.k.Identity && s.k.Account != nil:
				with = s.k.Account.recovery
			default:
				continue
			}
			agreed, err := seal.Unwrap(with, agreeInfo(s.ID(), x.By.Salt, s.k.Identity, x.Keys[i].To), x.Keys[i].Sealed)
			if err != nil {
				continue
			}
			if k, err := seal.UnwrapAgreed(agreed, agreedInfo(s.ID(), e.Commitment), x.Wrap); err == nil && s.matches(e, k) {
				return k, true
			}
		}
	}
	return seal.ReadKey{}, false
}

// agree makes keys for members that this device has none for. It reports whether it wrote a record, which may be for some of them only.
func (s *Space) agree(st *list.State, rnd io.Reader) (bool, error) {
	if st.Role(s.k.Identity) < RoleAdmin || !st.Manages(s.k.Device.PublicKey()) {
		return false, nil
	}
	members := st.Members()
	if len(members) < agreeFrom {
		return false, nil
	}
	have := s.agreed(st)
	rec := new(list.Agree)
	if err := fill(rnd, rec.Salt[:]); err != nil {
		return false, err
	}
	wraps, lack := 0, 0
	slices.SortFunc(members, func(a, b Member) int { return bytes.Compare(a.Account[:], b.Account[:]) })
	for i := range members {
		m := &members[i]
		if _, ok := have[m.Account]; ok {
			continue
		}
		to := s.recipientsOf(st, m)
		if lack++; len(rec.Members) == list.MaxAgreed || wraps+len(to) > maxWraps {
			continue
		}
		key := s.agreedKey(rec.Salt, m.Account)
		sealed, err := wrapEach(to, key, func(r dag.PublicKey) []byte { return agreeInfo(s.ID(), rec.Salt, m.Account, r) })
		if err != nil {
			return false, err
		}
		if len(sealed) != len(to) {
			lack-- // a key that is none: it is wrapped to directly
			continue
		}
		wraps += len(sealed)
		rec.Members = append(rec.Members, list.AgreedMember{Account: m.Account, Wraps: sealed})
	}
	if lack < agreeLack || len(rec.Members) == 0 {
		return false, nil
	}
	_, err := s.write(&list.Record{Kind: list.KindAgree, Agree: rec})
	return err == nil, err
}
