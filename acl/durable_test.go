package acl

import (
	"math/rand/v2"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
)

// What the functions that make a space returned for survives a power loss at once, whatever of the rest does.
func TestSpacesAreDurable(t *testing.T) {
	a := testAccount(t)
	k := newKeys(t, a, "laptop")
	on := func(d disk.FS) *store.Store {
		db, err := kv.NewSimDB(d, "acl.db")
		if err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(store.Options{Disk: d, Dir: "batches", DB: db, Name: "acl", Seal: k.Local.Derive("acl")})
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	imported, _ := create(t, newKeys(t, a, "old"))
	for name, make := range map[string]func(dag.Store) (*Space, error){
		"create": func(st dag.Store) (*Space, error) { return CreateSpace(k, st, nil) },
		"derive": func(st dag.Store) (*Space, error) { return DeriveSpace(k, LabelHome, st, nil) },
		"import": func(st dag.Store) (*Space, error) { return ImportSpace(k, imported.ID(), st, imported.Export) },
	} {
		for seed := range uint64(5) {
			d := newDisk()
			s, err := make(on(d))
			if err != nil {
				t.Fatal(err)
			}
			after := d.CrashClone(rand.New(rand.NewPCG(seed, 1)))
			again, err := OpenSpace(k, s.ID(), on(after))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			same(t, s, again)
			if err := again.Verify(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if err := again.Writable(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
