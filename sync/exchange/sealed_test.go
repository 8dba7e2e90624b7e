package exchange_test

import (
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// Blocks that a device sealed are told to those that may have them, and fetched from it.
func TestSealed(t *testing.T) {
	a := newDevice(t, 1, 1)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	c := newDevice(t, 2, 3, a.addr("/tcp/"))
	ra, rb, rc := newReplica(t, a, "one"), newReplica(t, b, "one"), newReplica(t, c, "one")
	ra.Member = func(k, _ dag.PublicKey) bool { return k == a.author.Account }
	var mu sync.Mutex
	told := map[block.ID]bool{}
	rb.Sealed = func(account dag.PublicKey, ids []block.ID) {
		mu.Lock()
		defer mu.Unlock()
		if account != a.author.Account {
			t.Errorf("account %x", account)
		}
		for _, id := range ids {
			told[id] = true
		}
	}
	rc.Sealed = func(_ dag.PublicKey, ids []block.ID) { t.Errorf("%d blocks for who is no member", len(ids)) }
	ra.write(t, ra.ACL, []byte("record"))
	for d, r := range map[*device]*replica{a: ra, b: rb, c: rc} {
		d.e.Add(r.Replica)
	}
	eventually(t, func() bool {
		return len(a.e.Status().Spaces[0].Peers) == 1 && len(rc.ACL.Heads()) == 1 && len(rb.ACL.Heads()) == 1
	})
	var ids []block.ID
	for i := range 40 {
		id, err := ra.Blocks.Put(random(byte(i), 10_000))
		must(t, err)
		a.e.Sealed(ra.ID, id)
		ids = append(ids, id)
	}
	a.e.Sealed(dag.ID{1}, ids[0])
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == len(ids)
	})
	for _, id := range ids {
		if _, err := rb.Blocks.Get(t.Context(), id); err != nil || !told[id] {
			t.Errorf("block %s: %v, told of: %v", id, err, told[id])
		}
	}
}
