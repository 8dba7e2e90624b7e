package acl

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// newKeys are the keys of a device of the account, as in a home of its own.
func newKeys(t testing.TB, a *Account, name string) *Keys {
	t.Helper()
	k, err := InitKeys(newDisk(), a, name, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func create(t testing.TB, k *Keys) (*Space, *store.Mem) {
	t.Helper()
	st := store.NewMem()
	s, err := CreateSpace(k, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

func derive(t testing.TB, k *Keys, label string, st dag.Store) *Space {
	t.Helper()
	s, err := DeriveSpace(k, label, st, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// frames are all frames of a list.
func frames(t testing.TB, s *Space) (out [][]byte) {
	t.Helper()
	if err := s.Export(func(f []byte) error { out = append(out, bytes.Clone(f)); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// bring brings all records of one replica to another.
func bring(t testing.TB, from, to *Space) {
	t.Helper()
	for _, f := range frames(t, from) {
		if err := to.List().Import(f); err != nil {
			t.Fatal(err)
		}
	}
}

// same fails unless both replicas show the same.
func same(t testing.TB, a, b *Space) {
	t.Helper()
	if x, y := fingerprint(a.List()), fingerprint(b.List()); x != y {
		t.Fatalf("replicas differ:\n%s\n%s", x, y)
	}
}

func TestCreateAndReopen(t *testing.T) {
	k := newKeys(t, testAccount(t), "laptop")
	s, st := create(t, k)
	if s.Role() != RoleOwner || s.Epoch() != s.ID() || len(s.Heads()) != 1 || s.Writable() != nil {
		t.Fatalf("role %s, epoch %s, heads %v, %v", s.Role(), s.Epoch(), s.Heads(), s.Writable())
	}
	if m := s.Members(); len(m) != 1 || m[0].Account != k.Identity || m[0].Role != RoleOwner || len(m[0].Devices) != 1 {
		t.Fatalf("members %v", m)
	}
	if name, ok := s.DeviceName(k.Device.PublicKey()); !ok || name != "laptop" {
		t.Errorf("device name %q", name)
	}
	block, err := s.Keys().SealChunk(nil, []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenSpace(k, s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	same(t, s, again)
	if got, err := again.Keys().OpenChunk(nil, block); err != nil || string(got) != "text" {
		t.Errorf("%q %v", got, err)
	}
	if err := again.Verify(); err != nil {
		t.Error(err)
	}
	if _, err := OpenSpace(k, dag.ID{1}, store.NewMem()); !errors.Is(err, ErrNoSpace) {
		t.Errorf("got %v", err)
	}
	other, _ := create(t, k)
	if other.ID() == s.ID() {
		t.Error("two spaces are one")
	}
	if _, err := other.Keys().OpenChunk(nil, block); !errors.Is(err, seal.ErrNoKey) {
		t.Errorf("block of another space: %v", err)
	}
}

// A device that has the phrase opens a space that it has no wrap in, by the recovery key.
func TestRecovery(t *testing.T) {
	a := testAccount(t)
	s, st := create(t, newKeys(t, a, "lost"))
	block, _ := s.Keys().SealChunk(nil, []byte("text"))
	k := newKeys(t, a, "new")
	r, err := OpenSpace(k, s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Keys().OpenChunk(nil, block); err != nil || string(got) != "text" {
		t.Fatalf("%q %v", got, err)
	}
	if err := r.Writable(); !errors.Is(err, ErrDenied) {
		t.Errorf("a device without certificate writes: %v", err)
	}
	if err := r.AddDevice(nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Writable(); err != nil {
		t.Error(err)
	}
	if name, ok := r.DeviceName(k.Device.PublicKey()); !ok || name != "new" {
		t.Errorf("device name %q", name)
	}
	if err := r.AddDevice(nil); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if n := len(frames(t, r)); n != 2 {
		t.Errorf("%d records", n)
	}
	if err := r.Verify(); err != nil {
		t.Error(err)
	}
}

func TestDerivedSpacesOfTwoDevices(t *testing.T) {
	a := testAccount(t)
	k1, k2 := newKeys(t, a, "one"), newKeys(t, a, "two")
	st1, st2 := store.NewMem(), store.NewMem()
	s1, s2 := derive(t, k1, LabelPersonal, st1), derive(t, k2, LabelPersonal, st2)
	if s1.ID() != s2.ID() || s1.ID() != DeriveSpaceID(a, LabelPersonal) || s1.ID() == DeriveSpaceID(a, LabelHome) {
		t.Fatal("ids")
	}
	block, _ := s1.Keys().SealChunk(nil, []byte("text"))
	if got, err := s2.Keys().OpenChunk(nil, block); err != nil || string(got) != "text" {
		t.Fatalf("%q %v", got, err)
	}
	bring(t, s1, s2)
	bring(t, s2, s1)
	same(t, s1, s2)
	if m := s1.Members(); len(m) != 1 || len(m[0].Devices) != 2 {
		t.Fatalf("members %v", m)
	}
	if len(s1.Heads()) != 2 {
		t.Error("two first records are two heads")
	}
	for _, s := range []*Space{s1, s2} {
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
	}
	// Opening again brings no second record.
	if again := derive(t, k1, LabelPersonal, st1); len(frames(t, again)) != 2 {
		t.Error("a record more")
	}
}

func TestPairedDevice(t *testing.T) {
	a := testAccount(t)
	old := newKeys(t, a, "old")
	home := derive(t, old, LabelHome, store.NewMem())
	if _, err := home.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	paired := newKeys(t, a, "paired")
	paired.Account = nil
	if _, err := DeriveSpace(paired, LabelHome, store.NewMem(), nil); !errors.Is(err, ErrNoSecret) {
		t.Fatalf("got %v", err)
	}
	secret, err := home.Secret(LabelHome)
	if err != nil {
		t.Fatal(err)
	}
	if err := paired.AddSpace(newDisk(), secret); err != nil {
		t.Fatal(err)
	}
	s := derive(t, paired, LabelHome, store.NewMem())
	if s.ID() != home.ID() || s.Writable() != nil {
		t.Fatalf("%v", s.Writable())
	}
	bring(t, home, s)
	bring(t, s, home)
	same(t, s, home)
	if s.Epoch() != home.Epoch() {
		t.Error("the paired device seals in an older epoch")
	}
	// A later epoch reaches it by its own wrap.
	if _, err := home.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	bring(t, home, s)
	if s.Epoch() != home.Epoch() {
		t.Error("the paired device has no wrap of the new epoch")
	}
}

func TestRotate(t *testing.T) {
	a := testAccount(t)
	k := newKeys(t, a, "laptop")
	s, st := create(t, k)
	var blocks [][]byte
	for range 5 {
		b, _ := s.Keys().SealChunk(nil, []byte("text"))
		blocks = append(blocks, b)
		before := s.Epoch()
		id, err := s.Rotate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Epoch() != id || id == before {
			t.Fatalf("epoch %s after %s, rotated to %s", s.Epoch(), before, id)
		}
	}
	for name, k := range map[string]*Keys{"same device": k, "recovery": newKeys(t, a, "other")} {
		again, err := OpenSpace(k, s.ID(), st)
		if err != nil {
			t.Fatal(err)
		}
		same(t, s, again)
		for i, b := range blocks {
			if got, err := again.Keys().OpenChunk(nil, b); err != nil || string(got) != "text" {
				t.Errorf("%s: epoch %d: %v", name, i, err)
			}
		}
		if again.Epoch() != s.Epoch() || again.Keys().GearTable() != s.Keys().GearTable() {
			t.Errorf("%s: another epoch or gear table", name)
		}
		if err := again.Verify(); err != nil {
			t.Error(err)
		}
	}
}

func TestStrangersGetNothing(t *testing.T) {
	s, st := create(t, newKeys(t, testAccount(t), "laptop"))
	stranger, err := NewAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	k := newKeys(t, stranger, "theirs")
	r, err := OpenSpace(k, s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Keys().Current(); ok || r.Role() != RoleNone || !r.Epoch().IsZero() {
		t.Fatal("a stranger has a key")
	}
	if err := r.Writable(); !errors.Is(err, ErrDenied) {
		t.Errorf("got %v", err)
	}
	if _, ok := r.DeviceName(r.Members()[0].Devices[0].Device); ok {
		t.Error("a stranger reads a device's name")
	}
	before := len(frames(t, r))
	if err := r.AddDevice(nil); err == nil {
		t.Error("a stranger brings in a device")
	}
	if err := r.SetOption("merge", 9); !errors.Is(err, ErrDenied) {
		t.Errorf("a stranger sets an option: %v", err)
	}
	rec := &list.Record{Kind: list.KindAddDevice, Must: true}
	rec.AddDevice = &list.AddDevice{Certificate: *k.Device.Certificate, Epoch: s.ID(), Name: make([]byte, 92)}
	if _, err := r.List().Append(k.Author(), rec); !errors.Is(err, ErrDenied) {
		t.Errorf("a stranger brings in a device: %v", err)
	}
	if len(frames(t, r)) != before {
		t.Error("something was stored")
	}
}

func TestOptions(t *testing.T) {
	s, st := create(t, newKeys(t, testAccount(t), "laptop"))
	if _, ok := s.Option("merge"); ok {
		t.Error("an option that nobody set")
	}
	for v := range uint64(3) {
		if err := s.SetOption("merge", v); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenSpace(s.k, s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := again.Option("merge"); !ok || v != 2 {
		t.Errorf("%d %v", v, ok)
	}
}

func TestImport(t *testing.T) {
	k := newKeys(t, testAccount(t), "laptop")
	s, _ := create(t, k)
	if _, err := s.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	all := frames(t, s)
	yield := func(fs ...[]byte) func(func([]byte) error) error {
		return func(take func([]byte) error) error {
			for _, f := range fs {
				if err := take(f); err != nil {
					return err
				}
			}
			return nil
		}
	}
	r, err := ImportSpace(k, s.ID(), store.NewMem(), yield(append(all, all...)...))
	if err != nil {
		t.Fatal(err)
	}
	same(t, s, r)
	// Another device of the account can write to what it imported; a stranger has nothing but the list.
	second, err := ImportSpace(newKeys(t, testAccount(t), "second"), s.ID(), store.NewMem(), yield(all...))
	if err != nil || second.Writable() != nil || len(frames(t, second)) != len(all)+1 {
		t.Errorf("import on another device: %v", err)
	}
	theirs, err := ImportSpace(newKeys(t, mustAccount(t), "theirs"), s.ID(), store.NewMem(), yield(all...))
	if err != nil || !errors.Is(theirs.Writable(), ErrDenied) || len(frames(t, theirs)) != len(all) {
		t.Errorf("import by a stranger: %v", err)
	}
	if _, err := ImportSpace(k, s.ID(), store.NewMem(), yield()); !errors.Is(err, ErrNoSpace) {
		t.Errorf("nothing: %v", err)
	}
	if _, err := ImportSpace(k, s.ID(), store.NewMem(), yield(all[1])); err == nil {
		t.Error("a list without its root")
	}
	if _, err := ImportSpace(k, dag.ID{1}, store.NewMem(), yield(all...)); err == nil {
		t.Error("the list of another space")
	}
	for i := range all { // no byte of a frame can be changed
		for at := 0; at < len(all[i]); at += 1 + len(all[i])/200 {
			bad := bytes.Clone(all[i])
			bad[at] ^= 4
			fs := append(bytes.Clone(nil), bad...)
			if _, err := ImportSpace(k, s.ID(), store.NewMem(), yield(append(all[:i:i], fs)...)); err == nil {
				t.Fatalf("frame %d with byte %d changed is taken", i, at)
			}
		}
	}
}

func TestFilesAuthorizer(t *testing.T) {
	a := testAccount(t)
	k := newKeys(t, a, "laptop")
	s, _ := create(t, k)
	files := s.Files()
	b := &dag.Batch{Version: dag.Version, Space: s.ID(), Account: k.Identity, Device: k.Device.PublicKey(), Seq: 1, Clock: 1, ACL: s.Heads(), Epoch: s.Epoch()}
	if err := files.Accept(b, nil); err != nil {
		t.Fatal(err)
	}
	if files.Counts(b) != dag.Counts {
		t.Error("does not count")
	}
	stranger := newKeys(t, mustAccount(t), "theirs")
	second := newKeys(t, a, "second")
	for name, change := range map[string]func(*dag.Batch){
		"a stranger":        func(b *dag.Batch) { b.Account, b.Device = stranger.Identity, stranger.Device.PublicKey() },
		"a stranger's":      func(b *dag.Batch) { b.Account = stranger.Identity },
		"unknown device":    func(b *dag.Batch) { b.Device = second.Device.PublicKey() },
		"unknown epoch":     func(b *dag.Batch) { b.Epoch = dag.ID{1} },
		"no epoch":          func(b *dag.Batch) { b.Epoch = dag.ID{} },
		"no access heads":   func(b *dag.Batch) { b.ACL = nil },
		"heads that wait":   func(b *dag.Batch) { b.ACL = []dag.ID{{1}} },
		"one of two is not": func(b *dag.Batch) { b.ACL = append([]dag.ID{{}}, b.ACL...) },
	} {
		bad := *b
		change(&bad)
		for range 2 { // the second answer comes from the cache
			err := files.Accept(&bad, nil)
			var missing *dag.MissingError
			waits := errors.As(err, &missing)
			if err == nil || waits != (name == "heads that wait" || name == "one of two is not") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// A device that came later may not write by heads from before it came.
	before := s.Heads()
	if err := s.addDevice(second.Device.Certificate, second.Device.Name, nil); err != nil {
		t.Fatal(err)
	}
	late := *b
	late.Device = second.Device.PublicKey()
	if err := files.Accept(&late, nil); !errors.Is(err, ErrDenied) {
		t.Errorf("backdated: %v, heads %v", err, before)
	}
	late.ACL = s.Heads()
	if err := files.Accept(&late, nil); err != nil {
		t.Error(err)
	}
}

func mustAccount(t testing.TB) *Account {
	t.Helper()
	a, err := NewAccount(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A graph of files that goes by the access list.
func TestFileGraph(t *testing.T) {
	k := newKeys(t, testAccount(t), "laptop")
	s, _ := create(t, k)
	g, err := dag.Open(s.ID(), store.NewMem(), s.Files(), dag.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := g.Begin(k.Author(), s.Heads(), s.Epoch())
	if err != nil {
		t.Fatal(err)
	}
	object, err := b.Add(dag.ID{}, func(h dag.Header) ([]byte, error) { return s.Keys().SealChange(h, []byte("hello")) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	err = g.Changes(object, func(e dag.Entry) error {
		h := dag.Header{Space: s.ID(), Object: e.Change.Object, Parents: e.Change.Parents, Epoch: e.Batch.Epoch, Clock: e.Change.Clock, Device: e.Change.Device}
		p, err := s.Keys().OpenChange(h, e.Change.Payload)
		if string(p) != "hello" {
			t.Errorf("%q", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkOpenSpace(b *testing.B) {
	k := newKeys(b, testAccount(b), "laptop")
	s, st := create(b, k)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenSpace(k, s.ID(), st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeriveSpace(b *testing.B) {
	k := newKeys(b, testAccount(b), "laptop")
	st := store.NewMem()
	derive(b, k, LabelHome, st)
	for b.Loop() {
		if _, err := DeriveSpace(k, LabelHome, st, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateSpace(b *testing.B) {
	k := newKeys(b, testAccount(b), "laptop")
	for b.Loop() {
		if _, err := CreateSpace(k, store.NewMem(), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAcceptFiles(b *testing.B) {
	k := newKeys(b, testAccount(b), "laptop")
	s, _ := create(b, k)
	files := s.Files()
	batch := &dag.Batch{Account: k.Identity, Device: k.Device.PublicKey(), ACL: s.Heads(), Epoch: s.Epoch()}
	b.ReportAllocs()
	for b.Loop() {
		if err := files.Accept(batch, nil); err != nil {
			b.Fatal(err)
		}
	}
}
