package fs

import (
	"bytes"
	"crypto/ed25519"
	iofs "io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/fs/tree"
)

// forgeries are batches of files that no space takes, by what is wrong with them.
func forgeries(t *testing.T, s *space, stranger *acl.Keys) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	write := func(name string, a dag.Author, in, epoch dag.ID, change func(*dag.Batch)) {
		g := must2(dag.Open(in, store.NewMem(), dag.Anyone{}, dag.Options{}))
		b := must2(g.Begin(a, s.acl.Heads(), epoch))
		must2(b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return bytes.Repeat([]byte(name), 60)[:60], nil }))
		frame := must2(g.Frame(must2(b.Commit()).ID()))
		if change != nil {
			x, bodies, err := dag.DecodeFrame(bytes.Clone(frame))
			if err != nil {
				t.Fatal(err)
			}
			change(x)
			frame = dag.EncodeFrame(x, bodies)
		}
		out[name] = bytes.Clone(frame)
	}
	own := s.h.keys.Author()
	claimed := stranger.Author()
	claimed.Account = own.Account
	write("by a stranger", stranger.Author(), s.id, s.acl.Epoch(), nil)
	write("by a stranger's device in the owner's name", claimed, s.id, s.acl.Epoch(), nil)
	write("in an epoch that is not there", own, s.id, dag.Sum([]byte("no epoch")), nil)
	write("of another space", own, dag.Sum([]byte("another space")), s.acl.Epoch(), nil)
	write("with another's signature", own, s.id, s.acl.Epoch(), func(b *dag.Batch) {
		copy(b.Signature[:], ed25519.Sign(stranger.Device.PrivateKey(), b.SigningBytes()))
	})
	write("without a signature", own, s.id, s.acl.Epoch(), func(b *dag.Batch) { b.Signature = [64]byte{} })
	write("without the access list", own, s.id, s.acl.Epoch(), func(b *dag.Batch) {
		b.ACL = nil
		copy(b.Signature[:], ed25519.Sign(s.h.keys.Device.PrivateKey(), b.SigningBytes()))
	})
	return out
}

// TestOneVerifier: whatever a space is, and wherever it is kept, its batches are judged alike: in the home space, one that follows from the account, one that was made, one of
// two accounts; on a device without networks, and on one that has some.
func TestOneVerifier(t *testing.T) {
	th := newTestHome(t)
	must2(th.CreateSpace("made"))
	stranger, other := th.someone(), th.someone()
	must2(th.OneToOne("two", &other.Public))
	kinds := map[list.RootKind]bool{}
	for _, networks := range []bool{false, true} {
		if networks {
			th.must(th.UseNetwork(NetworkID{1}, []byte("one")))
			th.must(th.SettleNetworks(nil))
			must2(th.CreateSpaceOn("on a network", NetworkID{1}))
		}
		th.flush()
		spaces := 0
		for _, s := range th.each() {
			spaces++
			kinds[s.acl.List().Root().Kind] = true
			before, _, _ := s.graph.Counters()
			all := forgeries(t, s, stranger)
			for name, frame := range all {
				if r, err := s.graph.Ingest(frame); err == nil || r.Status != dag.Refused {
					t.Errorf("networks %v, space %s of kind %d: %s: %v, %v", networks, s.id, s.acl.List().Root().Kind, name, r.Status, err)
				}
			}
			if n, _, _ := s.graph.Counters(); n != before {
				t.Errorf("%d batches of %d", n, before)
			}
			// The test can fail: what its owner writes is taken.
			g := must2(dag.Open(s.id, store.NewMem(), s.acl.Files(), dag.Options{}))
			b := must2(g.Begin(th.keys.Author(), s.acl.Heads(), s.acl.Epoch()))
			must2(b.Add(dag.ID{}, func(h dag.Header) ([]byte, error) { return s.seal(h, &tree.Payload{Kind: tree.KindFile}) }))
			if _, err := b.Commit(); err != nil {
				t.Errorf("space %s: what its owner writes: %v", s.id, err)
			}
		}
		if want := map[bool]int{false: 4, true: 5}[networks]; spaces != want {
			t.Errorf("%d spaces, want %d", spaces, want)
		}
	}
	for _, k := range []list.RootKind{list.RootRandom, list.RootDerived, list.RootOneToOne} {
		if !kinds[k] {
			t.Errorf("no space of kind %d", k)
		}
	}

	// The judge that lets everybody pass is for tests.
	files := 0
	err := filepath.WalkDir("..", func(p string, d iofs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") || filepath.Dir(p) == "../dag" {
			return err
		}
		files++
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte("dag.Anyone")) && !strings.HasSuffix(filepath.Base(filepath.Dir(p)), "test") {
			t.Errorf("%s lets everybody pass", p)
		}
		return err
	})
	if err != nil || files < 300 {
		t.Errorf("%d files, %v", files, err)
	}
}
