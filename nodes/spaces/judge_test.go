package spaces

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// Files are judged by the access list that is held, whatever of it came behind the last checkpoint, or while one was written: a node that is killed, or stopped, does not
// pass on what the list has against, nor keep back what it has not.
func TestJudgedAfterRestart(t *testing.T) {
	now := time.Unix(1<<30, 0)
	alice, bob := newKeys(t), newKeys(t)
	own, err := acl.CreateSpace(alice, store.NewMem(), nil)
	check(t, err)
	link, err := own.Invite(acl.Terms{Role: acl.RoleWriter, Open: true}, now, nil)
	check(t, err)
	guest, err := acl.NewGuest(bob, link, "Bob", nil)
	check(t, err)
	check(t, guest.Take(accessOf(t, own), true, now))
	for _, f := range guest.Answer() {
		_, err := own.List().Graph().Ingest(f)
		check(t, err)
	}
	files, err := dag.Open(own.ID(), store.NewMem(), own.Files(), dag.Options{})
	check(t, err)
	b, err := files.Begin(bob.Author(), own.Heads(), own.Epoch())
	check(t, err)
	_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte("sealed"), nil })
	check(t, err)
	batch, err := b.Commit()
	check(t, err)
	frame, err := files.Frame(batch.ID())
	check(t, err)
	member := accessOf(t, own)
	check(t, own.Remove(bob.Identity, nil, nil)) // of whom it has heard nothing
	removal := accessOf(t, own)[len(member):]

	for _, c := range []struct {
		name           string
		window, killed bool
	}{
		{"killed", false, true},
		{"killed after a checkpoint before it was judged", true, true},
		{"stopped after a checkpoint before it was judged", true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			set, err := Open(Options{Dir: dir})
			check(t, err)
			r := set.Take(t.Context(), own.ID(), alice.Identity, member)
			if r == nil {
				t.Fatal("the space is not taken")
			}
			_, err = r.Files.Ingest(bytes.Clone(frame))
			check(t, err)
			r.Release()
			check(t, set.Close())

			set, err = Open(Options{Dir: dir})
			check(t, err)
			if r = set.Space(t.Context(), own.ID(), alice.Identity); r == nil || len(r.Files.Heads()) != 1 {
				t.Fatal("what a member wrote does not count")
			}
			check(t, r.ACL.IngestAll(removal, func(_ dag.Result, err error) error { return err }))
			if c.window {
				check(t, set.all()[0].checkpoint(t.Context()))
			}
			r.Grown()
			check(t, r.Durable())
			if len(r.Files.Heads()) != 0 {
				t.Fatal("what nobody named in the removal counts")
			}
			left := dir
			if c.killed {
				left = t.TempDir()
				check(t, os.CopyFS(left, os.DirFS(dir)))
			}
			r.Release()
			check(t, set.Close())

			for range 2 {
				set, err = Open(Options{Dir: left})
				check(t, err)
				if r = set.Space(t.Context(), own.ID(), alice.Identity); r == nil {
					t.Fatal("the space is gone")
				}
				if n := len(r.Files.Heads()); n != 0 {
					t.Errorf("%d batches count that the list has against", n)
				}
				r.Release()
				check(t, set.Close())
			}
		})
	}
}
