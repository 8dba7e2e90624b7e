package list

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Accept judges a batch of the access list by the records of its own past. It is called with the graph locked.
func (l *List) Accept(b *dag.Batch, changes []*dag.Change) error {
	if len(b.ACL) > 0 || !b.Epoch.IsZero() {
		return fmt.Errorf("%w: a batch of the access list names access heads or an epoch", ErrFormat)
	}
	n := newNode(b)
	switch {
	case len(changes) == 0 && len(b.Deps) == dag.MaxDeps: // joins more heads than one batch can name
	case len(changes) != 1 || changes[0] == nil || !changes[0].Object.IsZero():
		return fmt.Errorf("%w: a batch of the access list holds one record, which is a root", ErrFormat)
	default:
		rec, err := DecodeRecord(changes[0].Payload)
		if err != nil {
			return err
		}
		if (rec.Root != nil) != (b.Clock == 1) {
			return fmt.Errorf("%w: first records carry the root, and only they", ErrFormat)
		}
		n.record = rec
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.viewMu.Lock()
	defer l.viewMu.Unlock()
	s, err := l.stateBefore(b, n)
	if err != nil {
		return err
	}
	if err := s.allows(b, n.record); err != nil {
		return err
	}
	if len(l.accepted) >= maxAccepted {
		clear(l.accepted)
	}
	l.accepted[n.batch] = n
	return nil
}

// stateBefore is the state of a batch's own past: for a first one that of the root it carries.
func (l *List) stateBefore(b *dag.Batch, n *node) (*State, error) {
	if b.Clock > 1 {
		if l.whole(n.past) {
			l.fresh()
		}
		return l.stateAt(n.past)
	}
	root, err := l.rootOf(n.record)
	if err != nil {
		return nil, err
	}
	if l.root == nil {
		if err := root.Verify(); err != nil {
			return nil, err
		}
	}
	return newState(root, l.space), nil
}

// Counts: all that was accepted is part of the list. Which records stand is another matter, and decided in evaluate.
func (l *List) Counts(*dag.Batch) dag.Verdict { return dag.Counts }

// Files judges the batches of the space's files by this list.
func (l *List) Files() dag.Authorizer { return files{l} }

type files struct{ l *List }

var _ dag.Keeper = files{}

// verdictKey names a question that has one answer for ever: may this device write for this account in this epoch by the
// records that a head and its past hold.
type verdictKey struct {
	head, epoch     dag.ID
	account, device dag.PublicKey
}

// Accept judges a batch by the records of its own past. It is called with the graph locked.
func (f files) Accept(b *dag.Batch, _ []*dag.Change) error {
	if len(b.ACL) == 0 || b.Epoch.IsZero() {
		return fmt.Errorf("%w: a batch of files without access heads or epoch", ErrFormat)
	}
	key := verdictKey{b.ACL[0], b.Epoch, b.Account, b.Device}
	if len(b.ACL) > 1 {
		key.head = dag.ID{}
		for i := range b.ACL {
			key.head = dag.Sum(append(key.head[:], b.ACL[i][:]...))
		}
	}
	l := f.l
	l.cacheMu.Lock()
	err, ok := l.judged[key]
	l.cacheMu.Unlock()
	if ok {
		return err
	}
	err = f.judge(b)
	if missing := new(dag.MissingError); errors.As(err, &missing) {
		return err
	}
	l.cacheMu.Lock()
	if len(l.judged) >= maxJudged {
		clear(l.judged)
	}
	l.judged[key] = err
	l.cacheMu.Unlock()
	return err
}

// judge is Accept without what it remembers.
func (f files) judge(b *dag.Batch) error {
	l := f.l
	l.mu.RLock()
	if l.stale && l.whole(b.ACL) {
		l.mu.RUnlock()
		l.rlock()
	}
	defer l.mu.RUnlock()
	l.viewMu.Lock()
	defer l.viewMu.Unlock()
	s, err := l.stateAt(b.ACL)
	if err != nil {
		return err
	}
	return s.allowsFiles(b)
}

// KeepOwn has batches of files by an account count on this device, and only here, also where the others hold them in quarantine: who lost
// the right to write without having heard of it still has what it wrote. Of another device that the account revoked they count as for
// others. It is called before the files are opened.
func (l *List) KeepOwn(account, device dag.PublicKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.own = ofDevice{account, device}
}

// Counts judges a batch by the whole list: it is adopted, or what gave its author the right to write stands, and what took it away is in
// the batch's past, or names the batch. Else the batch counts only where one that counts names it, directly or not.
func (f files) Counts(b *dag.Batch) dag.Verdict {
	l := f.l
	l.rlock()
	defer l.mu.RUnlock()
	v := l.countable(b)
	if !v.granted {
		return dag.CountsIfNamed
	}
	for _, tips := range v.ended {
		if !slices.Contains(tips, b.ID()) {
			return dag.CountsIfNamed
		}
	}
	return dag.Counts
}

// Keeps gives the account of KeepOwn, where batches of it may count here alone.
func (f files) Keeps() (account dag.PublicKey, ok bool) {
	l := f.l
	l.rlock()
	defer l.mu.RUnlock()
	account = l.own.account
	return account, account != (dag.PublicKey{}) && l.state != nil && l.state.Doubtful(account)
}

// Heard is List.Heard.
func (f files) Heard(b *dag.Batch) bool { return f.l.Heard(b) }

// Heard reports whether an accepted batch of files counts by itself for others too, whom KeepOwn has nothing to say about: its author had heard of what ended its
// right, or that names the batch. The batch need not be there yet.
func (l *List) Heard(b *dag.Batch) bool {
	l.rlock()
	defer l.mu.RUnlock()
	s := l.state
	if s == nil || !s.Doubtful(b.Account) || s.Adopted(b.ID()) {
		return true
	}
	v := l.judgedBy(b, false)
	return v.granted && !slices.ContainsFunc(v.ended, func(tips []dag.ID) bool { return !slices.Contains(tips, b.ID()) })
}

// Ends says of an accepted batch of files what the whole list has against it: granted, whether what gave its author the right to write stands;
// and for each end of that right which is not in the batch's past, the author's batches that it names. Of one that was adopted, and of one that
// KeepOwn is about, there is nothing. The slices must not be changed.
func (l *List) Ends(b *dag.Batch) (granted bool, ended [][]dag.ID) {
	l.rlock()
	defer l.mu.RUnlock()
	v := l.countable(b)
	return v.granted, v.ended
}

var nothingAgainst = &countable{granted: true}

// countable is how a batch is judged by the newest state. The list is locked for reading.
func (l *List) countable(b *dag.Batch) *countable {
	s := l.state
	if s == nil || !s.Doubtful(b.Account) || s.Adopted(b.ID()) {
		return nothingAgainst
	}
	own := b.Account == l.own.account
	if own && (b.Device == l.own.device || !s.Revoked(b.Account, b.Device)) {
		return nothingAgainst
	}
	return l.judgedBy(b, own)
}

// judgedBy is State.countable by the newest state, which is asked once for all batches that are judged alike.
func (l *List) judgedBy(b *dag.Batch, own bool) *countable {
	key := countKey{b.Account, b.Device, headsKey(b.ACL), own}
	l.cacheMu.Lock()
	v, ok := l.counted[key]
	fresh := l.countedBy == l.version
	l.cacheMu.Unlock()
	if ok && fresh {
		return v
	}
	v = l.state.countable(b, l.within(b.ACL), own)
	l.cacheMu.Lock()
	defer l.cacheMu.Unlock()
	if l.countedBy != l.version || len(l.counted) >= maxJudged {
		l.counted, l.countedBy = make(map[countKey]*countable), l.version
	}
	l.counted[key] = v
	return v
}

// countKey names batches that are judged alike but for their being named.
type countKey struct {
	account, device dag.PublicKey
	heads           string
	own             bool
}

// countable is how batches are judged: whether their author could write by what stands, and what those records that ended it
// name.
type countable struct {
	granted bool
	ended   [][]dag.ID
}

// countable judges the batches of a device that go by the same heads. own: they are of this device's account, and only whether the device
// was revoked is asked.
func (s *State) countable(b *dag.Batch, within func(*node) bool, own bool) *countable {
	acts := s.acts[b.Account]
	c := &countable{granted: roleBy(s.first(b.Account), acts, within, nil) >= RoleWriter}
	if _, _, ok := s.Device(b.Device); !ok {
		c.granted = false // what brought the device in does not stand
	}
	c.granted = c.granted || own
	for i := range acts {
		if a := &acts[i]; a.ends && a.role < RoleWriter && !within(a.n) && !own {
			c.ended = append(c.ended, a.tips)
		}
	}
	for _, r := range s.revocations(b.Account, b.Device) {
		if !within(r.n) {
			c.ended = append(c.ended, r.record.Tips)
		}
	}
	return c
}

// within says of a record whether heads and their past hold it.
func (l *List) within(heads []dag.ID) func(*node) bool {
	if l.whole(heads) {
		return func(*node) bool { return true }
	}
	if in := l.reaches.within(heads); in != nil {
		return in
	}
	seen := make(map[dag.ID]bool)
	nodes, _ := l.closure(heads)
	for _, n := range nodes {
		seen[n.batch] = true
	}
	return func(n *node) bool { return seen[n.batch] }
}

func headsKey(heads []dag.ID) string { return string(bytes.Join(idBytes(heads), nil)) }
