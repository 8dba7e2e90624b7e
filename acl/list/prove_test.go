package list

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// batches are those of a list, with their bodies, past first.
func batches(t *testing.T, l *List) (bs []*dag.Batch, bodies [][][]byte) {
	t.Helper()
	err := l.Graph().Batches(func(b *dag.Batch, body [][]byte) error {
		bs, bodies = append(bs, b), append(bodies, body)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bs, bodies
}

// A store that was tampered with does not prove, whatever was changed; the one that was not does.
func TestProve(t *testing.T) {
	owner := newActor(1, 1)
	l := newSpace(t, owner)
	l.Append(owner.author(), addDevice(newActor(1, 2), l.Space()))
	l.Append(owner.author(), option("a", 1))
	bs, bodies := batches(t, l)
	sign := func(b *dag.Batch) { copy(b.Signature[:], ed25519.Sign(owner.device, b.SigningBytes())) }
	for name, c := range map[string]struct {
		change func(b *dag.Batch, bodies *[][]byte)
		want   error
	}{
		"nothing":       {func(*dag.Batch, *[][]byte) {}, nil},
		"another space": {func(b *dag.Batch, _ *[][]byte) { b.Space = dag.ID{1}; sign(b) }, dag.ErrSpace},
		"no signature":  {func(b *dag.Batch, _ *[][]byte) { b.Signature[3]++ }, ErrSignature},
		"another clock": {func(b *dag.Batch, _ *[][]byte) { b.Clock++; sign(b) }, ErrDenied},
		"another past":  {func(b *dag.Batch, _ *[][]byte) { b.Prev = dag.ID{1}; sign(b) }, ErrDenied},
		"no record":     {func(_ *dag.Batch, bodies *[][]byte) { *bodies = nil }, ErrFormat},
		"empty":         {func(b *dag.Batch, bodies *[][]byte) { *bodies, b.Changes = nil, nil; sign(b) }, ErrFormat},
		"another record": {func(b *dag.Batch, bodies *[][]byte) {
			*bodies = [][]byte{(&dag.Change{Clock: b.Clock, Device: b.Device, Payload: option("a", 2).Encode()}).Encode()}
		}, ErrDenied},
		"a record of another clock": {func(b *dag.Batch, bodies *[][]byte) {
			*bodies = [][]byte{(&dag.Change{Clock: 9, Device: b.Device, Payload: option("a", 2).Encode()}).Encode()}
			b.Changes = []dag.ID{dag.Sum((*bodies)[0])}
			sign(b)
		}, ErrDenied},
		"no change": {func(b *dag.Batch, bodies *[][]byte) {
			*bodies = [][]byte{{1}}
			b.Changes = []dag.ID{dag.Sum((*bodies)[0])}
			sign(b)
		}, dag.ErrFormat},
		"another's account": {func(b *dag.Batch, _ *[][]byte) { b.Account = dag.PublicKey{1}; sign(b) }, ErrDenied},
	} {
		p := newList(l.Space())
		for i := range bs {
			b, body := bs[i], bodies[i]
			if i < len(bs)-1 {
				if err := p.prove(b, body); err != nil {
					t.Fatal(err)
				}
				continue
			}
			// A fresh batch, since one remembers its hash.
			bad := &dag.Batch{
				Version: b.Version, Space: b.Space, Account: b.Account, Device: b.Device, Seq: b.Seq, Prev: b.Prev,
				Deps: b.Deps, Clock: b.Clock, Changes: b.Changes, Signature: b.Signature,
			}
			c.change(bad, &body)
			if err := p.prove(bad, body); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := open(t, l.Space(), store.NewMem()).Verify(); err == nil {
		t.Error("an empty store proves")
	}
	l.order = append(l.order, l.order[0]) // the store lost a record that is known
	if err := l.Verify(); err == nil {
		t.Error("a lost record is not missed")
	}
}

// A record whose past was not told of yet brings it along.
func TestInsertBringsThePast(t *testing.T) {
	owner := newActor(1, 1)
	l := newSpace(t, owner)
	for i := range uint64(5) {
		l.Append(owner.author(), option("a", i))
	}
	bs, _ := batches(t, l)
	late := newList(l.Space())
	late.graph = l.graph
	late.applied(bs[len(bs)-1])
	if len(late.nodes) != len(bs) || show(late) != show(l) {
		t.Errorf("%d of %d batches", len(late.nodes), len(bs))
	}
	for _, b := range bs {
		late.applied(b)
	}
	if show(late) != show(l) || len(late.accepted) > 0 {
		t.Error("a second telling changed something")
	}
	unknown := *bs[0]
	late.graph, late.nodes = open(t, l.Space(), store.NewMem()).graph, make(map[dag.ID]*node)
	if late.insert(&unknown) {
		t.Error("a batch that the graph does not have")
	}
}

func TestStateLookups(t *testing.T) {
	owner, second := newActor(1, 1), newActor(1, 2)
	l := newSpace(t, owner)
	if _, err := l.Append(owner.author(), addDevice(second, l.Space())); err != nil {
		t.Fatal(err)
	}
	s := l.State()
	d, account, ok := s.Device(public(second.device))
	if !ok || account != public(owner.account) || d.Serial != 1 {
		t.Error("the second device is not found")
	}
	if _, _, ok := s.Device(dag.PublicKey{}); ok || s.HasDevice(dag.PublicKey{}, public(owner.device)) {
		t.Error("devices of nobody")
	}
	if l.Root().ID() != l.Space() {
		t.Error("root")
	}
	if _, err := ParsePeerID(PeerID(public(owner.device)) + "x"); err == nil {
		t.Error("a peer id too long")
	}
	if k, err := ParseIdentity(FormatIdentity(public(owner.account))); err != nil || k != public(owner.account) {
		t.Error(err)
	}
}
