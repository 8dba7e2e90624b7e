package spaces_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
)

// What a full or broken disk does not keep is not counted: after it has room again, the quota is what it was.
func TestBlockThatIsNotKeptIsNotCounted(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, dir, spaces.Options{Quota: func(dag.PublicKey, dag.ID) (int64, int64) { return 10 << 20, 0 }})
	d := newDevice(t, n)
	d.equal(t)
	r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
	found, err := filepath.Glob(filepath.Join(dir, "spaces", "*", "*", "blocks"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	// No segment can be made where its folder is a file.
	must(t, os.Rename(found[0], found[0]+".away"))
	must(t, os.WriteFile(found[0], nil, 0o600))
	before := n.set.Usages()[d.space.ID()]
	data := bytes.Repeat([]byte{1}, 1<<20)
	for range 20 {
		if err := r.Upload(d.keys.Identity, block.Sum(data), data); err == nil || errors.Is(err, exchange.ErrRefused) {
			t.Fatalf("a block on a broken disk: %v", err)
		}
	}
	if now := n.set.Usages()[d.space.ID()]; now.Blocks != before.Blocks {
		t.Errorf("%d bytes of blocks are counted, before %d", now.Blocks, before.Blocks)
	}
	must(t, os.Remove(found[0]))
	must(t, os.Rename(found[0]+".away", found[0]))
	must(t, r.Upload(d.keys.Identity, block.Sum(data), data))
}

// The book of what spaces take follows from the spaces: damaged, it keeps no node from starting.
func TestDamagedUsage(t *testing.T) {
	for name, damaged := range map[string][]byte{"zeros": make([]byte, 64<<10), "short": []byte("x")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := newNode(t, dir, spaces.Options{})
			d := newDevice(t, n)
			d.equal(t)
			n.stop()
			book := filepath.Join(dir, "usage.db")
			must(t, os.WriteFile(book, damaged, 0o600))
			n = newNode(t, dir, spaces.Options{})
			if b, err := os.ReadFile(book + ".damaged"); err != nil || !bytes.Equal(b, damaged) {
				t.Errorf("put aside are %d bytes, %v", len(b), err)
			}
			if n.set.Space(t.Context(), d.space.ID(), d.keys.Identity) == nil {
				t.Fatal("the space is gone")
			}
			n.stop()
			n = newNode(t, dir, spaces.Options{})
			if u := n.set.Usages()[d.space.ID()]; u.Owner != d.keys.Identity || u.Log == 0 {
				t.Errorf("after it was opened it is counted as %+v", u)
			}
		})
	}
}

// The index of a space follows from its segment files: damaged, it is made again.
func TestDamagedIndex(t *testing.T) {
	for name, damaged := range map[string][]byte{"zeros": make([]byte, 64<<10), "short": []byte("x"), "empty": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := newNode(t, dir, spaces.Options{})
			d := newDevice(t, n)
			for range 5 {
				d.write(t, "sealed")
			}
			d.equal(t)
			id, err := d.blocks.Put([]byte("content"))
			must(t, err)
			if missing, err := d.e.Upload(t.Context(), d.space.ID(), dag.PublicKey{}, []block.ID{id}); err != nil || len(missing) > 0 {
				t.Fatal(missing, err)
			}
			n.stop()
			found, err := filepath.Glob(filepath.Join(dir, "spaces", "*", "*", "space.db"))
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			must(t, os.WriteFile(found[0], damaged, 0o600))
			n = newNode(t, dir, spaces.Options{})
			r := n.set.Space(t.Context(), d.space.ID(), d.keys.Identity)
			if r == nil {
				t.Fatal("the space is gone")
			}
			if !slices.Equal(r.Files.Heads(), d.files.Heads()) || !r.Blocks.Has(id) {
				t.Error("not all of it is there")
			}
		})
	}
}
