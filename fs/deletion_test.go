package fs

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
)

// office gives all devices a space that the first one makes.
func (d *devices) office() {
	d.t.Helper()
	a := d.all[0]
	must2(a.CreateSpace("Office"))
	s := must2(a.namedSpace("Office"))
	d.settle()
	for _, h := range d.all[1:] {
		var frames [][]byte
		h.must(s.acl.List().Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
		h.must(h.TakeIn(context.Background(), s.id, frames))
	}
	d.officeTo(a)
}

// rest lets all exchange, and do what follows of it for the root, until nothing is new.
func (d *devices) rest() {
	d.t.Helper()
	for range 5 {
		d.settle()
		for _, h := range d.all {
			h.must(h.Arrive(context.Background()))
		}
	}
	before := d.batches()
	d.settle()
	if d.batches() != before {
		d.t.Fatal("the devices do not come to rest")
	}
}

// officeTo sends what a device has of that space to those that have it, and back.
func (d *devices) officeTo(from *testHome) {
	d.t.Helper()
	for range 2 {
		for _, h := range d.all {
			if a, err := from.namedSpace("Office"); err == nil && h != from {
				if b, err := h.namedSpace("Office"); err == nil {
					d.sendSpace(a, b)
					d.sendSpace(b, a)
				}
			}
		}
	}
}

func (th *testHome) officeRoot() Ino {
	th.t.Helper()
	return must2(th.namedSpace("Office")).ino(rootDir)
}

// names gives the names of the spaces in the root.
func (d *devices) names(h *testHome) (names []string) {
	for name := range must2(h.rootRefs()) {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestDeletionOfWhatOthersHaveMoreOf: a space that is deleted on one device goes on the others, but not where one holds what the
// one that deleted it had not got: there it stays, and has its name again, once, whoever else gave it back.
func TestDeletionOfWhatOthersHaveMoreOf(t *testing.T) {
	for _, more := range [][]int{nil, {1}, {1, 2}} {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprint(more, kill), func(t *testing.T) {
				d := newDevices(t, 3)
				d.office()
				a := d.all[0]
				a.create(a.officeRoot(), "old", []byte("known to all"))
				d.officeTo(a)
				for _, i := range more {
					h := d.all[i]
					h.create(h.officeRoot(), fmt.Sprint("by ", i), []byte("new"))
					h.must(must2(h.namedSpace("Office")).publishAll(context.Background()))
				}
				if kill {
					a.kill()
				}
				id := must2(a.namedSpace("Office")).id
				a.must(a.DeleteSpace("Office"))
				if kill {
					a.must(must2(a.namedSpace(PersonalName)).h.home.publishAll(context.Background()))
					a.kill()
				}
				// Each hears of it alone, and the two that keep it do not know of each other.
				for _, h := range d.all[1:] {
					d.sendSpace(a.home, h.home)
					h.must(h.Arrive(context.Background()))
				}
				d.rest()
				want := []string{PersonalName}
				if more != nil {
					want = []string{"Office", PersonalName}
				}
				for i, h := range d.all {
					if got := d.names(h); !slices.Equal(got, want) {
						t.Errorf("device %d names %q", i, got)
					}
					s := h.Home.spaceOf(id)
					if !slices.Contains(more, i) {
						if s != nil {
							t.Errorf("device %d still has it", i)
						}
						continue
					}
					h.wantContent(h.officeRoot(), "old", []byte("known to all"))
					h.wantContent(h.officeRoot(), fmt.Sprint("by ", i), []byte("new"))
				}
				if more == nil {
					return
				}
				// It comes back to who deleted it, and can be deleted by who has all of it.
				if got := must2(a.Missing()); !slices.Equal(got, []dag.ID{id}) {
					t.Fatalf("what is to be fetched: %v", got)
				}
				d.officeBack(more[0], id)
				for _, i := range more {
					a.wantContent(a.officeRoot(), fmt.Sprint("by ", i), []byte("new"))
				}
				a.must(a.DeleteSpace("Office"))
				d.rest()
				for i, h := range d.all {
					if h.Home.spaceOf(id) != nil || len(d.names(h)) != 1 {
						t.Errorf("device %d has it after the second deletion, and names %q", i, d.names(h))
					}
				}
				for _, h := range d.all {
					h.verify()
				}
			})
		}
	}
}

// officeBack gives the space to those that have it no more.
func (d *devices) officeBack(from int, id dag.ID) {
	d.t.Helper()
	s := d.all[from].Home.spaceOf(id)
	for _, h := range d.all {
		if h.Home.spaceOf(id) == nil {
			var frames [][]byte
			h.must(s.acl.List().Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil }))
			h.must(h.TakeIn(context.Background(), id, frames))
		}
	}
	for _, h := range d.all {
		d.officeTo(h)
	}
}

// TestDeletionsAreBounded: of many deletions the newest are known, and a space goes on a full disk too.
func TestDeletionsAreBounded(t *testing.T) {
	th := newTestHome(t)
	for i := range maxDeletions + 3 {
		name := fmt.Sprint("s", i)
		must2(th.CreateSpace(name))
		id := must2(th.namedSpace(name)).id
		th.tick(1)
		th.must(th.DeleteSpace(name))
		if d, err := th.knownDeletion(id); err != nil || d == nil || d.name != name {
			t.Fatalf("nothing is known of deletion %d, %v", i, err)
		}
	}
	n := must2(th.home.inode(rootDir))
	if len(n.Xattrs) > maxDeletions {
		t.Errorf("%d attributes", len(n.Xattrs))
	}
	if names, err := th.Listxattr(th.home.ino(rootDir)); err != nil || len(names) > 0 {
		t.Errorf("they are listed: %d, %v", len(names), err)
	}
}

func TestDeletionEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := deletion{time: rapid.Int64().Draw(t, "time"), name: rapid.StringN(0, 20, 80).Draw(t, "name"), seqs: map[dag.PublicKey]uint64{}}
		for range rapid.IntRange(0, 20).Draw(t, "n") {
			d.seqs[dag.PublicKey(dag.Sum([]byte{rapid.Byte().Draw(t, "device")}))] = rapid.Uint64().Draw(t, "seq")
		}
		b := d.encode()
		got, ok := parseDeletion(b)
		if !ok || got.time != d.time || got.name != d.name || len(got.seqs) != len(d.seqs) || !bytes.Equal(got.encode(), b) {
			t.Fatalf("%+v became %+v, %v", d, got, ok)
		}
	})
}

func FuzzDeletion(f *testing.F) {
	f.Add((&deletion{seqs: map[dag.PublicKey]uint64{{1}: 7}}).encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, ok := parseDeletion(b)
		if !ok {
			return
		}
		again, ok := parseDeletion(d.encode())
		if !ok || len(again.seqs) != len(d.seqs) || again.time != d.time || again.name != d.name {
			t.Errorf("%x was parsed, and does not encode to the same", b)
		}
	})
}
