package list

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Keys that an admin's device agrees on with members, once, so that the keys of later epochs need 48 bytes a member where an HPKE wrap to
// each device and account takes 1,168.

// MaxAgreed bounds the members of one record.
const MaxAgreed = 256

const (
	maxAgreedRecords = 1024 // that one epoch goes by
	agreedWrap       = 48   // bytes of a key wrapped under an agreed one
)

// Agree holds a key for each of some members, wrapped to all of its devices and its account as they were then.
type Agree struct {
	Salt    [32]byte // the keys follow from it and a secret of the device
	Members []AgreedMember
}

// AgreedMember is the key for one member.
type AgreedMember struct {
	Account dag.PublicKey
	Wraps   []Wrap
}

// AgreedWraps is an epoch's key, wrapped under keys of one agree record of the device that wrote it: for each member of that whose bit is set in
// Mask, the lowest bit of the first byte first, one wrap in Wraps.
type AgreedWraps struct {
	Record dag.ID
	Mask   []byte
	Wraps  []byte
}

// slot is the wrap for a member of the record, nil for none.
func (a *AgreedWraps) slot(i int) []byte {
	if i/8 >= len(a.Mask) || a.Mask[i/8]>>(i%8)&1 == 0 {
		return nil
	}
	n := bits.OnesCount8(a.Mask[i/8] & (1<<(i%8) - 1))
	for _, b := range a.Mask[:i/8] {
		n += bits.OnesCount8(b)
	}
	return a.Wraps[n*agreedWrap : (n+1)*agreedWrap]
}

func (a *Agree) write(w *writer) {
	w.fields(2)
	w.blob("salt", a.Salt[:])
	w.text("members")
	w.array(len(a.Members))
	for i := range a.Members {
		w.array(2)
		w.bytes(a.Members[i].Account[:])
		writeWraps(w, a.Members[i].Wraps)
	}
}

func (a *Agree) read(r *reader) {
	r.fields(2, "body")
	r.fixed("salt", a.Salt[:])
	r.key("members")
	for n := r.want(majorArray, MaxAgreed, "members"); n > 0 && r.err == nil; n-- {
		var m AgreedMember
		r.pair("member")
		if b := r.take(r.want(majorBytes, 32, "account")); r.err == nil && len(b) == 32 {
			m.Account = dag.PublicKey(b)
		} else {
			r.fail("an account that is no key")
		}
		m.Wraps = readWraps(r)
		if k := len(a.Members); r.err == nil && k > 0 && dag.ID(a.Members[k-1].Account).Compare(dag.ID(m.Account)) >= 0 {
			r.fail("members that are not in order")
		}
		a.Members = append(a.Members, m)
	}
	if r.err == nil && len(a.Members) == 0 {
		r.fail("an agreement with nobody")
	}
}

func (w *writer) agreed(list []AgreedWraps) {
	w.text("agreed")
	w.array(len(list))
	for i := range list {
		w.array(3)
		w.link(list[i].Record)
		w.bytes(list[i].Mask)
		w.bytes(list[i].Wraps)
	}
}

// roomAgreed is an upper bound of the length of agreed wraps.
func roomAgreed(list []AgreedWraps) (n int) {
	for i := range list {
		n += 64 + len(list[i].Mask) + len(list[i].Wraps)
	}
	return n
}

// agreed reads what an epoch has by agreed keys: nothing where the field is not there.
func (r *reader) agreed() (out []AgreedWraps) {
	if !r.has("agreed") {
		return nil
	}
	for n := r.want(majorArray, maxAgreedRecords, "agreed"); n > 0 && r.err == nil; n-- {
		if k := r.want(majorArray, 3, "agreed wraps"); r.err == nil && k != 3 {
			r.fail("agreed wraps of %d items", k)
		}
		a := AgreedWraps{Record: r.link("agreed")}
		a.Mask = r.take(r.want(majorBytes, MaxAgreed/8, "mask"))
		a.Wraps = r.take(r.want(majorBytes, MaxAgreed*agreedWrap, "agreed wraps"))
		set := 0
		for _, b := range a.Mask {
			set += bits.OnesCount8(b)
		}
		switch k := len(out); {
		case r.err != nil:
		case set == 0 || len(a.Wraps) != set*agreedWrap || a.Mask[len(a.Mask)-1] == 0:
			r.fail("%d bytes of agreed wraps for %d members", len(a.Wraps), set)
		case k > 0 && out[k-1].Record.Compare(a.Record) >= 0:
			r.fail("agreed wraps that are not in order")
		}
		out = append(out, a)
	}
	if r.err == nil && len(out) == 0 {
		r.fail("no agreed wraps")
	}
	return out
}

// Agreement is an agree record.
type Agreement struct {
	Agree
	ID      dag.ID // of the record
	Account dag.PublicKey
	Device  dag.PublicKey // that wrote it
}

// find gives a member's place in the record, -1 where it has none.
func (a *Agreement) find(account dag.PublicKey) int {
	at, ok := slices.BinarySearchFunc(a.Members, account, func(m AgreedMember, k dag.PublicKey) int { return dag.ID(m.Account).Compare(dag.ID(k)) })
	if !ok {
		return -1
	}
	return at
}

// allowsAgree: keys for members, wrapped to each one's own devices and account.
func (s *State) allowsAgree(a *Agree) error {
	for i := range a.Members {
		m := s.members[a.Members[i].Account]
		if m == nil {
			return fmt.Errorf("%w: a key agreed on with a stranger", ErrDenied)
		}
		for _, w := range a.Members[i].Wraps {
			if _, ok := m.Device(w.To); !ok && w.To != m.Account {
				return fmt.Errorf("%w: an agreed key wrapped to a stranger", ErrDenied)
			}
		}
	}
	return nil
}

// allowsAgreed: an epoch goes by known agreements, for members but one.
func (s *State) allowsAgreed(list []AgreedWraps, but dag.PublicKey) error {
	for i := range list {
		a := s.agreed[list[i].Record]
		if a == nil {
			return fmt.Errorf("%w: an epoch that goes by an unknown agreement", ErrDenied)
		}
		for k := range len(list[i].Mask) * 8 {
			if list[i].slot(k) == nil {
				continue
			}
			if k >= len(a.Members) || a.Members[k].Account == but || s.members[a.Members[k].Account] == nil {
				return fmt.Errorf("%w: an epoch's key wrapped to a stranger", ErrDenied)
			}
		}
	}
	return nil
}

// foldAgree notes an agreement. Those that do not stand are noted too: epochs may go by them that others sealed in before they knew.
func (s *State) foldAgree(n *node) {
	if n.record.Agree != nil && s.agreed[n.id] == nil {
		s.agreed[n.id] = &Agreement{Agree: *n.record.Agree, ID: n.id, Account: n.account, Device: n.device}
		s.agreedBy[n.device] = append(slices.Clip(s.agreedBy[n.device]), s.agreed[n.id])
	}
}

// Agreements are those of a device, in total order. They must not be changed.
func (s *State) Agreements(device dag.PublicKey) []*Agreement { return s.agreedBy[device] }

// Manages says whether a device wrote records that only an admin may write: it is one that others' memberships are managed with.
func (s *State) Manages(device dag.PublicKey) bool { return s.manages[device] }

// AgreedKey is a wrap of an epoch's key under a key that its author's device and a member agreed on.
type AgreedKey struct {
	By   *Agreement
	Keys []Wrap // of the agreed key, to the member's devices and account
	Wrap []byte // of the epoch's key
}

// AgreedFor gives the wraps of an epoch's key for one member.
func (s *State) AgreedFor(e *Epoch, account dag.PublicKey) (out []AgreedKey) {
	s.eachAgreed(e, func(by *Agreement, w *AgreedWraps) {
		if i := by.find(account); i >= 0 {
			if slot := w.slot(i); slot != nil {
				out = append(out, AgreedKey{by, by.Members[i].Wraps, slot})
			}
		}
	})
	return out
}

// AgreedTo calls fn for each device and account that an epoch's key was wrapped to by an agreed key, with the account that did it.
func (s *State) AgreedTo(e *Epoch, fn func(to, by dag.PublicKey)) {
	s.eachAgreed(e, func(a *Agreement, w *AgreedWraps) {
		for i := range a.Members {
			if w.slot(i) != nil {
				for k := range a.Members[i].Wraps {
					fn(a.Members[i].Wraps[k].To, a.Account)
				}
			}
		}
	})
}

// agreedBy is what a device wrapped under keys that it agreed on.
type agreedBy struct {
	device dag.PublicKey
	wraps  []AgreedWraps
}

// eachAgreed calls fn for what an epoch has by agreements of the device that wrote it; by others' nobody could open it.
func (s *State) eachAgreed(e *Epoch, fn func(by *Agreement, w *AgreedWraps)) {
	each := func(list []AgreedWraps, device dag.PublicKey) {
		for i := range list {
			if a := s.agreed[list[i].Record]; a != nil && a.Device == device {
				fn(a, &list[i])
			}
		}
	}
	if e.node != nil {
		each(e.Agreed, e.node.device)
	}
	for i := range e.shared {
		each(e.shared[i].wraps, e.shared[i].device)
	}
}
