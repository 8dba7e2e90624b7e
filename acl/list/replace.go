package list

import (
	"crypto/ed25519"

	"github.com/anyfs/anyfs/dag"
)

const domainReplacement = "anyfs/replacement/1\x00"

// maxReplacements bounds the open requests by which others are to take one member's place: who knows that account's secret can write some too.
const maxReplacements = 16

// Replace asks for a new account to take the place of the author's. It changes nothing by itself: who may do so answers it.
type Replace struct {
	Certificate Certificate // of a device of the new account
	Keys        AccountKeys // of the new account
	Name        []byte      // of the new account, sealed under the key of Epoch, as is Device
	Time        uint64      // Unix seconds by the author's clock
	Epoch       dag.ID
	Proof       [64]byte // by the new account's device; see ProveReplace
	Device      []byte
}

func replaceText(space dag.ID, old, account, device dag.PublicKey) []byte {
	b := append([]byte(nil), space[:]...)
	b = append(b, old[:]...)
	b = append(b, account[:]...)
	return sum(domainReplacement, append(b, device[:]...))
}

// ProveReplace signs with a device's key that an account, whose device it is, takes the place of an old one in a space.
func ProveReplace(key ed25519.PrivateKey, space dag.ID, old, account dag.PublicKey) [64]byte {
	device := dag.PublicKey(key.Public().(ed25519.PublicKey))
	return [64]byte(ed25519.Sign(key, replaceText(space, old, account, device)))
}

func (p *Replace) write(w *writer) {
	w.fields(7)
	w.text("cert")
	p.Certificate.write(w, true)
	w.text("keys")
	p.Keys.write(w, true)
	w.blob("name", p.Name)
	w.uint("time", p.Time)
	w.toLink("epoch", p.Epoch)
	w.blob("proof", p.Proof[:])
	w.blob("device", p.Device)
}

func (p *Replace) read(r *reader) {
	r.fields(7, "body")
	r.key("cert")
	p.Certificate.read(r)
	r.key("keys")
	p.Keys.read(r)
	p.Name = r.sealed("name")
	p.Time = r.uint("time")
	p.Epoch = r.toLink("epoch")
	r.fixed("proof", p.Proof[:])
	p.Device = r.sealed("device")
}

// asks says whether a record is one that others answer by accepting its account.
func (rec *Record) asks() bool { return rec != nil && (rec.JoinRequest != nil || rec.Replace != nil) }

func (p *Replace) request() JoinRequest {
	return JoinRequest{Certificate: p.Certificate, Keys: p.Keys, Name: p.Name, Time: p.Time, Proof: p.Proof, Device: p.Device}
}

// allowsReplace judges a request to be replaced. Role and device of the author were looked at.
func (s *State) allowsReplace(b *dag.Batch, p *Replace) error {
	account, device := p.Keys.Identity, p.Certificate.Device
	switch {
	case account == b.Account:
		return denied("an account in its own place")
	case p.Certificate.Account != account:
		return denied("a replacement with the device of another")
	case s.Role(account) != RoleNone:
		return denied("%s is a member already", FormatIdentity(account))
	case s.Revoked(account, device):
		return denied("device %s was revoked", PeerID(device))
	case s.another(account, device):
		return denied("the key is that of another account or of its device")
	case s.epochs[p.Epoch] == nil:
		return denied("a member's name sealed in an unknown epoch")
	}
	for _, id := range s.asks[account] {
		if q := s.requests[id]; q.State == RequestOpen && q.Account == account {
			return denied("a second request of %s", FormatIdentity(account))
		}
	}
	open := 0
	for _, id := range s.asks[b.Account] {
		if q := s.requests[id]; q.State == RequestOpen && q.Replaces == b.Account {
			open++
		}
	}
	if open >= maxReplacements {
		return denied("more than %d requests to take one member's place", maxReplacements)
	}
	if err := p.Keys.Verify(); err != nil {
		return err
	}
	if err := p.Certificate.Verify(); err != nil {
		return err
	}
	if !ed25519.Verify(device[:], replaceText(s.Space, b.Account, account, device), p.Proof[:]) {
		return denied("a replacement that the new account's device did not sign")
	}
	return nil
}

// succeeds says whether an account was let in by a request to take another's place.
func (s *State) succeeds(account, old dag.PublicKey) bool {
	for _, id := range s.asks[account] {
		if q := s.requests[id]; q.Account == account && q.Replaces == old && q.State == RequestAccepted {
			return true
		}
	}
	return false
}

// drop takes a member out, and what it asked for with it.
func (s *State) drop(account dag.PublicKey) {
	delete(s.members, account)
	for _, id := range s.asks[account] {
		if q := s.requests[id]; q.Replaces == account && q.State == RequestOpen {
			s.answered(q, RequestLapsed)
		}
	}
}

// replaced says whether an account was let in to take a member's place.
func (s *State) replaced(old dag.PublicKey) bool {
	for _, id := range s.asks[old] {
		if q := s.requests[id]; q.Replaces == old && q.State == RequestAccepted {
			return true
		}
	}
	return false
}

// taken says whether a record accepts a request to take a place that an earlier one of the records which stand gave to another account. It is asked in
// total order, in each layer.
func (j *judge) taken(n *node) bool {
	if n.record.Accept == nil {
		return false
	}
	q := j.s.requests[n.record.Accept.Request]
	if q == nil || q.Replaces == (dag.PublicKey{}) {
		return false
	}
	if by, ok := j.places[q.Replaces]; ok && by != q.ID {
		return true
	}
	j.places[q.Replaces] = q.ID
	return false
}
