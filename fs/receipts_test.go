package fs

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
)

// between is the way from one home of a test to the others: it asks their replicas, and gives their blocks.
type between struct {
	d    *devices
	self *testHome

	mu      sync.Mutex
	away    map[*testHome]bool
	fetched int
	before  func() // called before an answer comes back
}

var _ Keepers = (*between)(nil)

// connect gives each home of d the others.
func (d *devices) connect() []*between {
	var out []*between
	for _, h := range d.all {
		b := &between{d: d, self: h, away: map[*testHome]bool{}}
		b.plug()
		out = append(out, b)
	}
	return out
}

// plug connects a home that was opened.
func (b *between) plug() {
	b.self.SetKeepers(b)
	for _, s := range b.self.each() {
		s.blocks.SetFetcher(&betweenSpace{b, s.id})
	}
}

func (b *between) leave(h *testHome, away bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away[h] = away
}

func (b *between) others(space dag.ID) (out []Replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.d.all {
		if h == b.self || b.away[h] {
			continue
		}
		for _, r := range h.Replicas() {
			if r.ID == space {
				out = append(out, r)
			}
		}
	}
	return out
}

func (b *between) me() dag.PublicKey { return dag.PublicKey(b.self.keys.Author().Device) }

func device(r *Replica) dag.PublicKey { return dag.PublicKey(r.s.h.keys.Author().Device) }

var errAway = errors.New("away")

func (b *between) Rely(ctx context.Context, space dag.ID, ids []block.ID, but func(dag.PublicKey) bool) ([]dag.PublicKey, error) {
	by := make([]dag.PublicKey, len(ids))
	others := b.others(space)
	for i := range others {
		for k, yes := range others[i].Promise(ctx, b.me(), b.self.keys.Identity, ids) {
			if yes && by[k] == (dag.PublicKey{}) && (but == nil || !but(device(&others[i]))) {
				by[k] = device(&others[i])
			}
		}
	}
	if b.before != nil {
		b.before()
	}
	if len(others) == 0 {
		return by, errAway
	}
	return by, nil
}

func (b *between) Withdraw(ctx context.Context, space dag.ID, to dag.PublicKey, ids []block.ID) ([]bool, error) {
	for _, r := range b.others(space) {
		if device(&r) == to {
			return r.Withdraw(ctx, b.me(), ids), nil
		}
	}
	return nil, errAway
}

func (b *between) Release(ctx context.Context, space dag.ID, to dag.PublicKey, ids []block.ID) ([]bool, error) {
	for _, r := range b.others(space) {
		if device(&r) == to {
			yes := make([]bool, len(ids))
			for i := range yes {
				yes[i] = r.Released(ctx, b.me(), ids) == nil
			}
			return yes, nil
		}
	}
	return nil, errAway
}

type betweenSpace struct {
	b  *between
	id dag.ID
}

func (s *betweenSpace) Fetch(_ context.Context, id block.ID) ([]byte, error) {
	for _, r := range s.b.others(s.id) {
		if b, err := r.Blocks.GetLocal(id); err == nil {
			s.b.mu.Lock()
			s.b.fetched++
			s.b.mu.Unlock()
			return b, nil
		}
	}
	return nil, block.ErrAbsent
}

func (b *between) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fetched
}

// personal gives the space Personal of a home, and what the exchange sees of it.
func (th *testHome) personal() (*space, *Replica) {
	th.t.Helper()
	s := must2(th.namedSpace(PersonalName))
	return s, &Replica{s.id, s.acl.List().Graph(), s.graph, s.blocks, s}
}

// leaves gives the blocks of the content at a path that are no nodes.
func (th *testHome) leaves(path string) (ids []block.ID) {
	th.t.Helper()
	ino := must2(th.PathIno(path))
	s, local, err := th.space(ino)
	th.must(err)
	s.mu.Lock()
	n, err := s.inode(local)
	th.must(err)
	n = n.Clone()
	s.mu.Unlock()
	th.must(s.eachNode(context.Background(), n.Base.Root, func(id block.ID, node bool) bool {
		if !node && id != n.Base.LayoutBlock {
			ids = append(ids, id)
		}
		return true
	}))
	if len(ids) == 0 {
		th.t.Fatalf("%s has no leaves", path)
	}
	return ids
}

func (s *space) listed(bucket string, id block.ID) (out []dag.PublicKey) {
	_ = s.db.View(func(tx kv.Tx) (err error) {
		out, err = s.ledger(bucket).of(tx, id)
		return err
	})
	return out
}

// TestPromisedStays: what a device promised to keep survives its prune and a crash, until it is given back.
func TestPromisedStays(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	f := a.create(a.root, "f", random(1, 600<<10))
	a.flush()
	ids := a.leaves("Personal/f")
	_, ra := a.personal()
	me := dag.PublicKey(b.keys.Author().Device)
	ctx := context.Background()
	absent := block.Sum([]byte("absent"))
	got := ra.Promise(ctx, me, b.keys.Identity, append(slices.Clone(ids), absent))
	if slices.Contains(got[:len(ids)], false) || got[len(ids)] {
		t.Fatalf("promises: %v", got)
	}
	if got := ra.Promise(ctx, me, dag.PublicKey{1}, ids); slices.Contains(got, true) {
		t.Fatal("a device of another account gets a promise")
	}
	a.save(f, random(2, 600<<10))
	a.flush()
	a.kill()
	sa, ra := a.personal()
	if res := a.prune(KeepPolicy{}, false); res.Blocks > 1 { // the tree above the leaves may go
		t.Fatalf("pruned: %+v", res)
	}
	for _, id := range ids {
		if !sa.blocks.Has(id) || len(sa.listed(bucketPromises, id)) != 1 {
			t.Fatal("what was promised is gone", sa.blocks.Has(id), len(sa.listed(bucketPromises, id)))
		}
	}
	a.verify()
	a.must(ra.Released(ctx, me, ids))
	if res := a.prune(KeepPolicy{}, false); res.Blocks < len(ids) {
		t.Fatalf("pruned after the release: %+v", res)
	}
	a.verify()
	// One that may evict promises nothing.
	now := a.leaves("Personal/f")
	sa.pol.Store(&ContentPolicy{OnDemand: true})
	if got := ra.Promise(ctx, me, b.keys.Identity, now); slices.Contains(got, true) {
		t.Fatal("a device that may evict gives a receipt")
	}
}

// TestPromiseAgainstPrune: a promise that comes while a prune is under way counts.
func TestPromiseAgainstPrune(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	f := a.create(a.root, "f", random(1, 600<<10))
	a.flush()
	ids := a.leaves("Personal/f")
	a.save(f, random(2, 600<<10))
	a.flush()
	s, r := a.personal()
	p := pruner{s: s, now: s.h.now(), lost: map[block.ID]struct{}{}}
	doomed := map[block.ID]int64{}
	for _, id := range ids {
		doomed[id] = 1
	}
	p.begin(doomed)
	a.must(s.spareKept(context.Background(), p.list(), false, p.needed))
	if yes := r.Promise(context.Background(), dag.PublicKey(b.keys.Author().Device), b.keys.Identity, ids[:1]); !yes[0] {
		t.Fatal("no promise")
	}
	if _, _, err := p.evict(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	p.end()
	if !s.blocks.Has(ids[0]) {
		t.Fatal("what was promised meanwhile is gone")
	}
	if len(ids) > 1 && s.blocks.Has(ids[1]) {
		t.Fatal("what was not promised stays")
	}
}

// TestReceipts: receipts are noted on both sides, are withdrawn only where something takes their place, and given back.
func TestReceipts(t *testing.T) {
	d := newDevices(t, 3)
	net := d.connect()
	a, b, c := d.all[0], d.all[1], d.all[2]
	b.create(b.root, "f", random(1, 3<<20))
	b.flush()
	d.settle()
	ids := b.leaves("Personal/f")
	if len(ids) < 2 {
		t.Fatalf("%d blocks", len(ids))
	}
	sb, rb := b.personal()
	sa, _ := a.personal()
	sc, _ := c.personal()
	ctx := context.Background()
	a.mirror()
	have, err := sb.rely(ctx, append(slices.Clone(ids), block.Sum([]byte("absent"))), nil)
	b.must(err)
	if len(have) != len(ids) {
		t.Fatalf("%d receipts for %d blocks", len(have), len(ids))
	}
	keyA := dag.PublicKey(a.keys.Author().Device)
	for _, id := range ids {
		if by := sb.listed(bucketReceipts, id); !slices.Equal(by, []dag.PublicKey{keyA}) || len(sa.listed(bucketPromises, id)) != 1 {
			t.Fatalf("receipts by %v", by)
		}
	}
	// Offline they count all the same.
	net[1].leave(a, true)
	net[1].leave(c, true)
	if have, err := sb.rely(ctx, ids, nil); err != nil || len(have) != len(ids) {
		t.Fatalf("%d receipts without a connection, %v", len(have), err)
	}
	net[1].leave(a, false)
	net[1].leave(c, false)

	// The block is gone here: the withdrawal is refused until it is back, or another keeps it.
	b.must(sb.blocks.Evict(ids...))
	if yes := rb.Withdraw(ctx, keyA, ids[:1]); yes[0] {
		t.Fatal("a withdrawal is acknowledged that leaves nobody")
	}
	spared := 0
	a.must(sa.spareKept(ctx, ids[:1], true, func(block.ID) { spared++ }))
	if spared != 1 || len(sa.listed(bucketPromises, ids[0])) != 1 {
		t.Fatal("what somebody relies on may go")
	}
	must2(sb.blocks.Get(ctx, ids[0]))
	spared = 0
	a.must(sa.spareKept(ctx, ids[:1], true, func(block.ID) { spared++ }))
	if spared != 0 || len(sa.listed(bucketPromises, ids[0])) != 0 || len(sb.listed(bucketReceipts, ids[0])) != 0 {
		t.Fatal("a withdrawal that can be granted is not")
	}
	must2(sc.blocks.Get(ctx, ids[0]))
	sb.ledgerAdd(t, ids[1], dag.PublicKey(c.keys.Author().Device))
	if yes := rb.Withdraw(ctx, keyA, ids[1:2]); !yes[0] {
		t.Fatal("with another receipt a withdrawal is refused")
	}

	// A withdrawal that crosses an answer makes it void.
	net[1].before = func() {
		net[1].before = nil
		if yes := rb.Withdraw(ctx, keyA, ids[:1]); !yes[0] {
			t.Error("a withdrawal of what is not relied on is refused")
		}
	}
	net[1].leave(c, true)
	if have, err := sb.rely(ctx, ids[:1], nil); err != nil || have[ids[0]] {
		t.Fatalf("a receipt that was withdrawn before it came counts; %v", err)
	}

	// What is released is told when the giver can be reached, and is no receipt before.
	have, err = sb.rely(ctx, ids[:1], nil)
	b.must(err)
	if !have[ids[0]] {
		t.Fatal("no receipt")
	}
	net[1].leave(a, true)
	b.must(sb.release(ids[:1]))
	b.must(sb.sendReleases(ctx))
	net[1].leave(a, false)
	if have, err := sb.rely(ctx, ids[:1], nil); err != nil || len(have) > 0 {
		t.Fatalf("a receipt counts while its release is on its way: %v", err)
	}
	b.must(sb.sendReleases(ctx))
	if len(sa.listed(bucketPromises, ids[0])) != 0 || len(sb.listed(bucketReleases, ids[0])) != 0 {
		t.Fatal("the release was not heard")
	}
	// What this test took away from a mirror, or never let it fetch, comes back: then nobody lacks anything.
	for _, h := range d.all {
		h.mirror()
		h.verify()
	}
}

func (s *space) ledgerAdd(t *testing.T, id block.ID, d dag.PublicKey) {
	t.Helper()
	if err := s.db.Update(func(tx kv.Tx) error { return s.ledger(bucketReceipts).add(tx, id, d) }); err != nil {
		t.Fatal(err)
	}
}
