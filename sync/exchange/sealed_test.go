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
	ra := newReplica(t, a, "one")
	ra.Member = func(k, _ dag.PublicKey) bool { return k == a.author.Account }
	ra.write(t, ra.ACL, []byte("record"))
	a.e.Add(ra.Replica)
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	rb := newReplica(t, b, "one")
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
	b.e.Add(rb.Replica)
	c := newDevice(t, 2, 3, a.addr("/tcp/"))
	rc := newReplica(t, c, "one")
	rc.Sealed = func(_ dag.PublicKey, ids []block.ID) { t.Errorf("%d blocks for who is no member", len(ids)) }
	c.e.Add(rc.Replica)
	eventually(t, func() bool { return len(rc.ACL.Heads()) == 1 && len(rb.ACL.Heads()) == 1 })
	var ids []block.ID
	for i := range 40 {
		id, err := ra.Blocks.(*block.Store).Put(random(byte(i), 10_000))
		must(t, err)
		ids = append(ids, id)
	}
	a.e.Sealed(dag.ID{1}, ids[0])
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			if !told[id] {
				a.e.Sealed(ra.ID, id)
			}
		}
		return len(told) == len(ids)
	})
	for _, id := range ids {
		if _, err := rb.Blocks.(*block.Store).Get(t.Context(), id); err != nil || !told[id] {
			t.Errorf("block %s: %v, told of: %v", id, err, told[id])
		}
	}
}
