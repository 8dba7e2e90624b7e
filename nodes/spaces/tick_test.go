package spaces

import (
	"crypto/rand"
	"fmt"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/store"
)

// A space to which little is written all the time is written down now and then; one that is quiet, or has much that is new, at the next tick.
func TestTicks(t *testing.T) {
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	account, err := acl.NewAccount(rand.Reader)
	check(err)
	d, err := disk.OS(t.TempDir())
	check(err)
	keys, err := acl.InitKeys(d, account, "a device", nil, nil)
	check(err)
	own, err := acl.CreateSpace(keys, store.NewMem(), nil)
	check(err)
	var access [][]byte
	check(own.Export(func(f []byte) error { access = append(access, slices.Clone(f)); return nil }))
	files, err := dag.Open(own.ID(), store.NewMem(), own.Files(), dag.Options{})
	check(err)

	set, err := Open(Options{Dir: t.TempDir()})
	check(err)
	r := set.Take(t.Context(), own.ID(), keys.Identity, access)
	if r == nil {
		t.Fatal("the space is not taken")
	}
	defer func() {
		r.Release()
		check(set.Close())
	}()
	sp := set.all()[0]
	bring := func(changes int) {
		t.Helper()
		b, err := files.Begin(keys.Author(), own.Heads(), own.Epoch())
		check(err)
		for i := range changes {
			_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte(fmt.Sprint("sealed ", i)), nil })
			check(err)
		}
		batch, err := b.Commit()
		check(err)
		frame, err := files.Frame(batch.ID())
		check(err)
		_, err = r.Files.Ingest(frame)
		check(err)
	}
	n := 0
	tick := func() (wrote bool) {
		t.Helper()
		before := sp.last
		check(sp.tick(t.Context(), n, false))
		if u := set.Usages()[own.ID()]; u.Log != sp.aclLog.Bytes()+sp.log.Bytes() {
			t.Fatalf("%d bytes are counted of %d", u.Log, sp.aclLog.Bytes()+sp.log.Bytes())
		}
		n++
		return sp.last != before
	}
	pass := func() { // its own
		t.Helper()
		bring(1)
		for !tick() {
			bring(1)
		}
	}

	pass()
	wrote := 0
	for range 4 * lateTicks {
		bring(1)
		if tick() {
			wrote++
		}
	}
	if wrote != 4 {
		t.Errorf("written %d times in %d ticks", wrote, 4*lateTicks)
	}

	pass()
	bring(1)
	if tick() || !tick() || tick() {
		t.Error("what is quiet is not written at the next tick, or twice")
	}

	pass()
	for sp.log.Dirty() < fewDirty {
		bring(500)
	}
	if !tick() {
		t.Error("much is not written at once")
	}

	pass()
	content := []byte("sealed content")
	check(sp.blocks.PutHashed(block.Sum(content), content))
	if !tick() {
		t.Error("a block is not written at once")
	}

	pass()
	for _, most := range []int{sp.dirty() + 1<<20, 1} {
		bring(1)
		before := sp.last
		set.manyDirty = most
		set.tick(t.Context(), n)
		n++
		if wrote := sp.last != before; wrote != (most == 1) {
			t.Errorf("with %d bytes of at most %d of all spaces in memory it is written: %v", sp.dirty(), most, wrote)
		}
	}
	if n := sp.dirty(); n > 0 {
		t.Errorf("%d bytes are not written in the end", n)
	}
}
