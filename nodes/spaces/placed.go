package spaces

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/wire"
)

// What owners said of whether their spaces are to be on this network. A word outlives the space, so that nobody who has not heard of it brings the space
// back. It is in the database of usage, in a bucket of its own.

const placedBucket = "placed"

// placed is the newest word about a space.
type placed struct {
	on      bool
	counter uint64
	account dag.PublicKey // whose it is
}

// newer reports whether a word goes before this one.
func (p placed) newer(m *wire.Place) bool {
	return m.Counter > p.counter || m.Counter == p.counter && m.On && !p.on
}

var _ exchange.Placer = (*Set)(nil)

// loadPlaced reads the words.
func (s *Set) loadPlaced() error {
	s.words = make(map[dag.ID]placed)
	return s.use.db.View(func(tx kv.Tx) error {
		var failed error
		err := tx.Scan(placedBucket, nil, func(k, v []byte) bool {
			var id dag.ID
			var p placed
			if len(k) != len(id) || len(v) < len(p.account)+9 {
				failed = fmt.Errorf("%w: an owner's word of %d and %d bytes", kv.ErrCorrupt, len(k), len(v))
				return false
			}
			copy(id[:], k)
			copy(p.account[:], v)
			p.on, p.counter = v[len(p.account)] == 1, binary.BigEndian.Uint64(v[len(p.account)+1:])
			s.words[id] = p
			return true
		})
		return errors.Join(failed, err)
	})
}

// Off reports whether the owner said that a space is not to be here.
func (s *Set) Off(id dag.ID) bool {
	s.placing.Lock()
	defer s.placing.Unlock()
	p, said := s.words[id]
	return said && !p.on
}

// has reports whether a space is to be here.
func (s *Set) has(id dag.ID) bool { return (s.opt.Has == nil || s.opt.Has(id)) && !s.Off(id) }

// Place implements exchange.Placer. The owner by the list as it is here has the say, with a device that is in; of a space that is not here, whose word
// took it away. What a fellow node passes on it has judged so; here it is judged again where the list is here.
func (s *Set) Place(_ context.Context, m *wire.Place, account, device dag.PublicKey, mesh bool) *wire.Place {
	may, here := false, false
	if sp, err := s.get(m.Space, false); err != nil {
		s.opt.Log.Error("a space cannot be asked for its owner", "space", m.Space.String(), "err", err)
	} else if sp != nil {
		if st := sp.acl.State(); st != nil {
			here = true
			may = st.Role(account) == list.RoleOwner && st.HasDevice(account, device) && !st.Revoked(account, device)
		}
		s.put(sp)
	}
	s.placing.Lock()
	defer s.placing.Unlock()
	now, said := s.words[m.Space]
	if !here {
		may = mesh || said && now.account == account
	}
	if !may {
		return &wire.Place{Space: m.Space}
	}
	if now.newer(m) {
		v := append(append([]byte(nil), account[:]...), 0)
		if m.On {
			v[len(account)] = 1
		}
		v = append(binary.BigEndian.AppendUint64(v, m.Counter), wire.Append(nil, m)...)
		if err := s.use.db.Update(func(tx kv.Tx) error { return tx.Put(placedBucket, m.Space[:], v) }); err != nil {
			s.opt.Log.Error("an owner's word is not kept", "space", m.Space.String(), "err", err)
			return &wire.Place{Space: m.Space}
		}
		now = placed{m.On, m.Counter, account}
		s.words[m.Space] = now
		if s.opt.Placed != nil {
			s.opt.Placed()
		}
	}
	return &wire.Place{Space: m.Space, On: now.on, Counter: now.counter}
}

// Placed implements exchange.Placer.
func (s *Set) Placed(id dag.ID) (m *wire.Place) {
	s.placing.Lock()
	_, said := s.words[id]
	s.placing.Unlock()
	if !said {
		return nil
	}
	err := s.use.db.View(func(tx kv.Tx) error {
		v := tx.Get(placedBucket, id[:])
		if at := len(dag.PublicKey{}) + 9 + 4; len(v) > at {
			w, err := wire.Decode(v[at:])
			m, _ = w.(*wire.Place)
			return err
		}
		return nil
	})
	if err != nil {
		s.opt.Log.Error("an owner's word does not read", "space", id.String(), "err", err)
	}
	return m
}
