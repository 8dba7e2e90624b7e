package list

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// oneOfMany is an actor of any number, with wraps of the size that real ones have.
func oneOfMany(n int) *actor {
	b := binary.BigEndian.AppendUint32(nil, uint32(n))
	a := &actor{account: key(append([]byte("ma"), b...)...), device: key(append([]byte("md"), b...)...)}
	a.keys = AccountKeys{Identity: public(a.account), Recovery: bytes.Repeat(b, HPKEBytes/4), X25519: [32]byte(bytes.Repeat(b, 8))}
	a.keys.Sign(a.account)
	a.cert = Certificate{Account: public(a.account), Device: public(a.device), HPKE: bytes.Repeat(b, HPKEBytes/4), Serial: 1}
	a.cert.Sign(a.account)
	return a
}

// wrapped gives an actor's device and account a wrap.
func (a *actor) wrapped() []Wrap {
	w := []Wrap{{public(a.device), make([]byte, 1168)}, {public(a.account), make([]byte, 1168)}}
	if bytes.Compare(w[0].To[:], w[1].To[:]) > 0 {
		w[0], w[1] = w[1], w[0]
	}
	return w
}

// grow has n members come one after the other: they are invited, ask, are accepted, made readers, and writers again: five records each. each is
// called after a member is in.
func grow(t testing.TB, st dag.Store, n int, each func(i int, l *List, a *actor)) (*List, []*actor) {
	t.Helper()
	owner := newActor(1, 1)
	root := owner.randomRoot()
	l := open(t, root.ID(), st)
	write := func(a *actor, rec *Record) dag.ID {
		t.Helper()
		id, err := l.Append(a.author(), rec)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	write(owner, &Record{Kind: KindRoot, Must: true, Root: root.Encode()})
	all := []*actor{owner}
	for i := range n {
		a := oneOfMany(i)
		in := invite(0, RoleWriter, l.space)
		secret := key('i', byte(i), byte(i>>8), byte(i>>16))
		in.Invite.Key = public(secret)
		invited := write(owner, in)
		rec := a.request(l.space, 0, invited)
		rec.JoinRequest.Proof = ProveInvite(secret, l.space, public(a.account), public(a.device))
		taken := accept(write(a, rec), RoleWriter, l.space)
		taken.Accept.Wraps = a.wrapped()
		write(owner, taken)
		write(owner, changeRole(a, RoleReader))
		write(owner, changeRole(a, RoleWriter))
		all = append(all, a)
		if each != nil {
			each(i, l, a)
		}
	}
	return l, all
}

// BenchmarkOpenMembers opens a list of 1,000 members with 5,001 records from its own store.
func BenchmarkOpenMembers(b *testing.B) {
	st := store.NewMem()
	l, _ := grow(b, st, 1000, nil)
	for b.Loop() {
		open(b, l.space, st)
	}
}

// BenchmarkCheckAtHeads judges batches of files that go by one state of a list of 1,000 members after the other, none of which was asked for before;
// ns/op is one such check.
func BenchmarkCheckAtHeads(b *testing.B) {
	l, all := grow(b, store.NewMem(), 1000, nil)
	batch := &dag.Batch{Space: l.space, Account: public(all[0].account), Device: public(all[0].device), Epoch: l.space, Clock: 1, Seq: 1}
	for i := 0; b.Loop(); i++ {
		n := i % len(l.order)
		if n == 0 {
			clear(l.judged)
		}
		batch.ACL = []dag.ID{l.order[n].batch}
		if err := l.Files().Accept(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCheckOfMany judges batches of 1,000 members that go by the newest state, each for the first time.
func BenchmarkCheckOfMany(b *testing.B) {
	l, all := grow(b, store.NewMem(), 1000, nil)
	batch := &dag.Batch{Space: l.space, ACL: l.Heads(), Epoch: l.space, Clock: 1, Seq: 1}
	for i := 0; b.Loop(); i++ {
		a := all[i%len(all)]
		if i%len(all) == 0 {
			clear(l.judged)
		}
		batch.Account, batch.Device = public(a.account), public(a.device)
		if err := l.Files().Accept(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// TestGrows: what a list of many costs grows as it does: each record is looked at a few times, however many there are, when it comes, when it is
// loaded, and when batches of files go by all the states that there were. 200 members, with ANYFS_LONG 10,000.
func TestGrows(t *testing.T) {
	n := 200
	if os.Getenv("ANYFS_LONG") != "" {
		n = 10_000
	}
	st := store.NewMem()
	began := time.Now()
	l, all := grow(t, st, n, nil)
	t.Logf("%d members came one after the other: %v", n, time.Since(began))
	records := uint64(len(l.order))
	if l.weighed > 2*records {
		t.Errorf("%d records were looked at for %d", l.weighed, records)
	}
	began = time.Now()
	again := open(t, l.space, st)
	t.Logf("loaded: %v", time.Since(began))
	if got := len(again.State().Members()); got != n+1 || again.weighed != records {
		t.Errorf("%d members; %d records were looked at for %d", got, again.weighed, records)
	}
	began = time.Now()
	last := all[len(all)-1]
	denied := 0
	for i, n := range again.order {
		a := all[(i+4)/5]
		b := &dag.Batch{Space: l.space, Account: public(a.account), Device: public(a.device), ACL: []dag.ID{n.batch}, Epoch: l.space, Clock: 1, Seq: 1}
		want := i == 0 || i%5 == 3 || i%5 == 0 // the third of its five records lets it in, the fourth makes it a reader
		if err := again.Files().Accept(b, nil); (err == nil) != want {
			t.Fatalf("record %d: %v", i, err)
		}
		b.Account, b.Device = public(last.account), public(last.device)
		if again.Files().Accept(b, nil) != nil {
			denied++
		}
	}
	t.Logf("judged at each of %d heads: %v", records, time.Since(began))
	if denied != int(records)-2 {
		t.Errorf("the last one may write by all but %d of %d states", denied, records)
	}
	if again.viewed > 2*records {
		t.Errorf("%d records were looked at for the states of %d", again.viewed, records)
	}
}

// TestManyBeside: many join beside each other, and what comes is asked for now and then.
func TestManyBeside(t *testing.T) {
	n := 300
	if os.Getenv("ANYFS_LONG") != "" {
		n = 10_000
	}
	owner := newActor(1, 1)
	l := newSpace(t, owner)
	secret := key('i', 3)
	id, err := l.Append(owner.author(), openInvite(3, RoleWriter, l.space, 0))
	if err != nil {
		t.Fatal(err)
	}
	first := exported(t, l)
	began := time.Now()
	for i := range n {
		a := oneOfMany(i)
		guest := open(t, l.space, store.NewMem())
		for _, f := range first {
			if err := guest.Import(f); err != nil {
				t.Fatal(err)
			}
		}
		rec := a.join(l.space, 3, id)
		rec.Join.Proof = ProveInvite(secret, l.space, public(a.account), public(a.device))
		rec.Join.Wraps = a.wrapped()
		if _, err := guest.Append(a.author(), rec); err != nil {
			t.Fatal(err)
		}
		if err := l.Import(exported(t, guest)[2]); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 && len(l.State().Members()) != i+2 {
			t.Fatalf("%d members of %d", len(l.State().Members()), i+2)
		}
	}
	t.Logf("%d joined beside each other: %v", n, time.Since(began))
	if most := uint64(n) * uint64(n/100+2); l.weighed > most {
		t.Errorf("%d records were looked at, want at most %d", l.weighed, most)
	}
	if got := len(l.State().Members()); got != n+1 || len(l.Heads()) != dag.MaxACLHeads {
		t.Errorf("%d members, %d heads", got, len(l.Heads()))
	}
	for len(l.front) > 1 {
		if _, err := l.Append(owner.author(), option("joined", 1)); err != nil {
			t.Fatal(err)
		}
	}
}
