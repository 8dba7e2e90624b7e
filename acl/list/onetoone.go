package list

import (
	"bytes"
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// A one-to-one space belongs to two accounts, which compute its root apart from each other. Its seed is the public half of a key that only
// these two can agree on and by which the root is signed: so none but them can make one, and each device can check what a peer shows it.

// maxNumber bounds the number of a one-to-one space: how many of the same two there were before.
const maxNumber = 1 << 20

// writeTwo writes what follows the seed in the root of a one-to-one space.
func (t *Root) writeTwo(w *writer) {
	w.uint("suite", t.Suite)
	w.blob("commit", t.Commitment[:])
	w.uint("number", t.Number)
	w.text("owners")
	w.array(2)
	t.Owner.write(w, true)
	t.Other.write(w, true)
}

func (t *Root) readTwo(r *reader) {
	t.Suite = r.uint("suite")
	r.fixed("commit", t.Commitment[:])
	if t.Number = r.uint("number"); r.err == nil && t.Number > maxNumber {
		r.fail("number %d of a space of two accounts", t.Number)
	}
	r.key("owners")
	if n := r.want(majorArray, 2, "owners"); r.err == nil && n != 2 {
		r.fail("%d owners", n)
	}
	t.Owner.read(r)
	t.Other = new(AccountKeys)
	t.Other.read(r)
	if r.err == nil && bytes.Compare(t.Owner.Identity[:], t.Other.Identity[:]) >= 0 {
		r.fail("owners that are not in order")
	}
}

// verifyTwo checks that both owners are in order and signed their keys. That the seed is what they agree on only they can know.
func (t *Root) verifyTwo() error {
	if t.Other == nil || bytes.Compare(t.Owner.Identity[:], t.Other.Identity[:]) >= 0 {
		return fmt.Errorf("%w: the owners of a one-to-one space are not in order", ErrFormat)
	}
	return t.Other.Verify()
}

// Owned says whether an account owns the space by its root.
func (t *Root) Owned(account dag.PublicKey) bool {
	return account == t.Owner.Identity || t.Other != nil && account == t.Other.Identity
}

// Beside is the other owner of a one-to-one space than an account; nil where there is none.
func (t *Root) Beside(account dag.PublicKey) *AccountKeys {
	switch {
	case t.Other == nil:
		return nil
	case account == t.Owner.Identity:
		return t.Other
	case account == t.Other.Identity:
		return &t.Owner
	}
	return nil
}

// allowsTwo refuses the records that have no place in a one-to-one space: it has these two members and no others.
func (s *State) allowsTwo(kind Kind) error {
	if s.Root.Kind != RootOneToOne {
		return nil
	}
	switch kind {
	case KindInvite, KindRevokeInvite, KindJoinRequest, KindJoin, KindAccept, KindDecline, KindCancel, KindReplaceAccount:
		return denied("a one-to-one space takes in nobody else; to be more, make a space and invite both")
	case KindRemove:
		return denied("neither of the two whose one-to-one space it is can remove the other; each can leave")
	case KindChangeRole, KindTransfer:
		return denied("a one-to-one space belongs to both, and stays so; each can leave")
	}
	return nil
}

// Size is how many members there are.
func (s *State) Size() int { return len(s.members) }

// Payer is the account whose quota the space counts to on nodes: its owner of now, and of a one-to-one space the author of the first record in
// total order. So nobody pays for a space that another began in both names.
func (l *List) Payer() (account dag.PublicKey) {
	l.rlock()
	defer l.mu.RUnlock()
	switch {
	case l.root == nil:
		return account
	case l.root.Kind == RootOneToOne:
		return l.order[0].account
	}
	return l.state.Owner()
}
