package list

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
	"pgregory.net/rapid"
)

// actor is an account with one device; its HPKE keys are only bytes, for nothing here opens a wrap.
type actor struct {
	account, device ed25519.PrivateKey
	keys            AccountKeys
	cert            Certificate
}

func key(seed ...byte) ed25519.PrivateKey {
	h := dag.Sum(seed)
	return ed25519.NewKeyFromSeed(h[:])
}

func public(k ed25519.PrivateKey) dag.PublicKey { return dag.PublicKey(k.Public().(ed25519.PublicKey)) }

func newActor(account, device byte) *actor {
	a := &actor{account: key('a', account), device: key('d', account, device)}
	a.keys = AccountKeys{Identity: public(a.account), Recovery: bytes.Repeat([]byte{account}, HPKEBytes), X25519: [32]byte{account}}
	a.keys.Sign(a.account)
	a.cert = Certificate{Account: public(a.account), Device: public(a.device), HPKE: bytes.Repeat([]byte{device}, HPKEBytes), Serial: 1}
	a.cert.Sign(a.account)
	return a
}

func (a *actor) author() dag.Author {
	return dag.Author{Account: public(a.account), Device: public(a.device), Key: a.device}
}

func (a *actor) randomRoot() *Root {
	t := &Root{Kind: RootRandom, Seed: [32]byte{1}, Owner: a.keys, Suite: Suite, Commitment: [32]byte{2}, Device: &a.cert, Name: []byte("sealed")}
	t.Wraps = []Wrap{{public(a.device), make([]byte, 48)}}
	t.Sign(a.device)
	return t
}

func (a *actor) derivedRoot() *Root {
	t := &Root{Kind: RootDerived, Seed: [32]byte{1}, Owner: a.keys, Suite: Suite, Commitment: [32]byte{2}}
	t.Sign(a.account)
	return t
}

func addDevice(a *actor, epoch dag.ID) *Record {
	return &Record{Kind: KindAddDevice, Must: true, AddDevice: &AddDevice{Certificate: a.cert, Epoch: epoch, Name: []byte("sealed")}}
}

func option(name string, v uint64) *Record {
	return &Record{Kind: KindOptions, Must: true, Options: &Options{map[string]uint64{name: v}}}
}

func rotate(follows ...dag.ID) *Record {
	r := &RotateKey{Suite: Suite, Commitment: [32]byte{byte(len(follows))}}
	for _, f := range follows {
		r.Follows = append(r.Follows, Follow{f, make([]byte, 60)})
	}
	return &Record{Kind: KindRotateKey, Must: true, RotateKey: r}
}

func open(t testing.TB, space dag.ID, st dag.Store) *List {
	t.Helper()
	l, err := Open(space, st)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newSpace is a space that a owns, with its root record.
func newSpace(t testing.TB, a *actor) *List {
	t.Helper()
	root := a.randomRoot()
	l := open(t, root.ID(), store.NewMem())
	if _, err := l.Append(a.author(), &Record{Kind: KindRoot, Must: true, Root: root.Encode()}); err != nil {
		t.Fatal(err)
	}
	return l
}

// show is all that a state shows, as text.
func show(l *List) string {
	var b strings.Builder
	s := l.State()
	fmt.Fprintln(&b, l.Heads(), s.Unknown, s.options)
	for _, m := range s.Members() {
		fmt.Fprintf(&b, "%x %s\n", m.Account, m.Role)
		for _, d := range m.Devices {
			fmt.Fprintf(&b, " %x %d %s\n", d.Device, d.Serial, d.Record)
		}
	}
	for _, e := range s.Epochs() {
		fmt.Fprintln(&b, e.ID, e.Pos, len(e.Wraps))
	}
	return b.String()
}

func exported(t testing.TB, l *List) (out [][]byte) {
	t.Helper()
	if err := l.Export(func(f []byte) error { out = append(out, bytes.Clone(f)); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// Whatever the order in which records come, whichever come twice, the state is the same: during and after a restart too.
func TestStateIsAFunctionOfTheSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := []*actor{newActor(1, 1), newActor(1, 2), newActor(1, 3)}
		root := devices[0].derivedRoot()
		space := root.ID()
		stores := []*store.Mem{store.NewMem(), store.NewMem(), store.NewMem()}
		var lists []*List
		for i, a := range devices {
			l, err := Open(space, stores[i])
			if err != nil {
				t.Fatal(err)
			}
			rec := addDevice(a, space)
			rec.Root = root.Encode()
			if _, err := l.Append(a.author(), rec); err != nil {
				t.Fatal(err)
			}
			lists = append(lists, l)
		}
		var frames [][]byte
		gather := func(l *List) {
			l.Export(func(f []byte) error { frames = append(frames, bytes.Clone(f)); return nil })
		}
		for range rapid.IntRange(0, 12).Draw(t, "records") {
			i := rapid.IntRange(0, 2).Draw(t, "device")
			l, a := lists[i], devices[i]
			var err error
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				_, err = l.Append(a.author(), option(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), rapid.Uint64Max(9).Draw(t, "value")))
			case 1:
				epochs := l.State().Epochs()
				_, err = l.Append(a.author(), rotate(epochs[len(epochs)-1].ID))
			case 2: // the certificate anew
				cert := a.cert
				m := l.State().Members()[0]
				d, _ := m.Device(cert.Device)
				cert.Serial = d.Serial + 1
				cert.Sign(a.account)
				_, err = l.Append(a.author(), &Record{Kind: KindAddDevice, Must: true, AddDevice: &AddDevice{Certificate: cert, Epoch: space}})
			case 3:
				_, err = l.Append(a.author(), &Record{Kind: 99, Body: []byte{0xa0}})
			default: // hear of another device's records
				j := rapid.IntRange(0, 2).Draw(t, "from")
				err = lists[j].Export(func(f []byte) error { return l.Import(bytes.Clone(f)) })
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range lists {
			gather(l)
		}
		var want string
		for i := range 3 {
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
			rnd.Shuffle(len(frames), func(a, b int) { frames[a], frames[b] = frames[b], frames[a] })
			st := store.NewMem()
			l, err := Open(space, st)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				if _, err := l.Graph().Ingest(bytes.Clone(f)); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Verify(); err != nil {
				t.Fatal(err)
			}
			again, err := Open(space, st)
			if err != nil {
				t.Fatal(err)
			}
			got := show(l)
			if i == 0 {
				want = got
			}
			if got != want || show(again) != want {
				t.Fatalf("states differ:\n%s\n%s\n%s", want, got, show(again))
			}
			if len(l.accepted) > 0 {
				t.Fatal("accepted records are left over")
			}
			// The state at the heads, computed from their past alone, is the state.
			l.mu.RLock()
			s := newState(l.root, space)
			nodes, _ := l.closure(l.heads)
			for _, n := range nodes {
				s.apply(n)
			}
			l.mu.RUnlock()
			if len(s.Epochs()) != len(l.State().Epochs()) || fmt.Sprint(s.Members()) != fmt.Sprint(l.State().Members()) {
				t.Fatal("the state at the heads differs")
			}
		}
	})
}

func TestRefusedRecords(t *testing.T) {
	owner, second, stranger := newActor(1, 1), newActor(1, 2), newActor(2, 1)
	l := newSpace(t, owner)
	space := l.Space()
	wrapped := func(a *actor, to dag.PublicKey) *Record {
		r := addDevice(a, space)
		r.AddDevice.Wraps = []Wrap{{to, make([]byte, 48)}}
		return r
	}
	forged := addDevice(second, space)
	forged.AddDevice.Certificate.Signature[0]++
	stolen := addDevice(stranger, space) // the stranger's device, certified for the owner by the stranger
	stolen.AddDevice.Certificate.Account = public(owner.account)
	stolen.AddDevice.Certificate.Sign(stranger.account)
	strangerForOwner := stranger.author()
	strangerForOwner.Account = public(owner.account)
	strangerRotate := rotate(space)
	strangerRotate.RotateKey.Wraps = []Wrap{{public(stranger.device), make([]byte, 48)}}
	for name, c := range map[string]struct {
		by  dag.Author
		rec *Record
	}{
		"stranger sets an option":              {stranger.author(), option("a", 1)},
		"stranger brings in a device":          {stranger.author(), addDevice(stranger, space)},
		"stranger writes for the owner":        {strangerForOwner, option("a", 1)},
		"stranger certified by itself":         {strangerForOwner, stolen},
		"device of another account":            {owner.author(), addDevice(stranger, space)},
		"device without certificate":           {second.author(), option("a", 1)},
		"forged certificate":                   {second.author(), forged},
		"device that is in":                    {owner.author(), addDevice(owner, space)},
		"name under an unknown epoch":          {owner.author(), addDevice(second, dag.ID{1})},
		"device's record wraps to another":     {owner.author(), wrapped(second, public(owner.device))},
		"epoch that follows none":              {owner.author(), rotate()},
		"epoch that follows an unknown one":    {owner.author(), rotate(dag.ID{1})},
		"epoch wrapped to a stranger":          {owner.author(), strangerRotate},
		"root again":                           {owner.author(), &Record{Kind: KindRoot, Must: true}},
		"stranger's record of unknown kind":    {stranger.author(), &Record{Kind: 99, Body: []byte{0xa0}}},
		"stranger's unknown that is a must":    {stranger.author(), &Record{Kind: 99, Must: true, Body: []byte{0xa0}}},
		"kind that is reserved, by a stranger": {stranger.author(), &Record{Kind: KindCut, Must: true, Body: []byte{0xa0}}},
	} {
		before := show(l)
		if _, err := l.Append(c.by, c.rec); !errors.Is(err, ErrDenied) && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
		if show(l) != before {
			t.Errorf("%s: the state changed", name)
		}
	}
	for name, rec := range map[string]*Record{"second device by the first": addDevice(second, space), "option": option("a", 1), "epoch": rotate(space)} {
		if _, err := l.Append(owner.author(), rec); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.Verify(); err != nil {
		t.Error(err)
	}
}

// Batches that no honest device makes.
func TestRefusedBatches(t *testing.T) {
	owner := newActor(1, 1)
	root := owner.randomRoot()
	space := root.ID()
	first := &Record{Kind: KindRoot, Must: true, Root: root.Encode()}
	otherRoot := owner.randomRoot() // the author may all by it
	otherRoot.Seed[0]++
	otherRoot.Sign(owner.device)
	tampered := *root
	tampered.Commitment[0]++
	unsigned := *root
	unsigned.Signature = [64]byte{}
	foreignDevice := *root
	foreignDevice.Device = &newActor(2, 1).cert
	foreignDevice.Sign(newActor(2, 1).device)
	foreignOwner := *root // an owner who never heard of it
	foreignOwner.Owner.Signature[0]++
	foreignOwner.Sign(owner.device)
	for name, c := range map[string]struct {
		space dag.ID
		b     func(*dag.Batch)
		rec   *Record
		more  int
	}{
		"no root":                  {space, nil, &Record{Kind: KindRoot, Must: true}, 0},
		"another space's root":     {space, nil, &Record{Kind: KindRoot, Must: true, Root: otherRoot.Encode()}, 0},
		"root that is none":        {dag.Sum([]byte("x")), nil, &Record{Kind: KindRoot, Must: true, Root: []byte("x")}, 0},
		"root that was changed":    {tampered.ID(), nil, &Record{Kind: KindRoot, Must: true, Root: tampered.Encode()}, 0},
		"root without signature":   {unsigned.ID(), nil, &Record{Kind: KindRoot, Must: true, Root: unsigned.Encode()}, 0},
		"root by another's device": {foreignDevice.ID(), nil, &Record{Kind: KindRoot, Must: true, Root: foreignDevice.Encode()}, 0},
		"owner's keys unsigned":    {foreignOwner.ID(), nil, &Record{Kind: KindRoot, Must: true, Root: foreignOwner.Encode()}, 0},
		"two records":              {space, nil, first, 1},
		"epoch":                    {space, func(b *dag.Batch) { b.Epoch = space }, first, 0},
		"access heads":             {space, func(b *dag.Batch) { b.ACL = []dag.ID{space} }, first, 0},
		"good":                     {space, nil, first, 0},
	} {
		l := open(t, c.space, store.NewMem())
		b := &dag.Batch{Version: dag.Version, Space: c.space, Account: public(owner.account), Device: public(owner.device), Seq: 1, Clock: 1}
		if c.b != nil {
			c.b(b)
		}
		var bodies [][]byte
		for i := range 1 + c.more {
			ch := &dag.Change{Clock: 1, Device: b.Device, Payload: c.rec.Encode()}
			if i > 0 {
				ch.Payload = option("a", 1).Encode()
			}
			bodies = append(bodies, ch.Encode())
			b.Changes = append(b.Changes, dag.Sum(bodies[i]))
		}
		copy(b.Signature[:], ed25519.Sign(owner.device, b.SigningBytes()))
		_, err := l.Graph().Ingest(dag.EncodeFrame(b, bodies))
		if (err == nil) != (name == "good") {
			t.Errorf("%s: %v", name, err)
		}
		if (l.State() == nil) != (name != "good") {
			t.Errorf("%s: state", name)
		}
	}
}

func TestUnknownRecords(t *testing.T) {
	owner := newActor(1, 1)
	st := store.NewMem()
	root := owner.randomRoot()
	l := open(t, root.ID(), st)
	l.Append(owner.author(), &Record{Kind: KindRoot, Must: true, Root: root.Encode()})
	if _, err := l.Append(owner.author(), &Record{Kind: 99, Body: []byte{0xa1, 0x61, 'x', 0x01}}); err != nil {
		t.Fatal(err)
	}
	files := func() error {
		return l.Files().Accept(&dag.Batch{Account: public(owner.account), Device: public(owner.device), ACL: l.Heads(), Epoch: l.Space()}, nil)
	}
	if err := files(); err != nil || l.State().Unknown {
		t.Fatalf("a record that may be ignored: %v", err)
	}
	if _, err := l.Append(owner.author(), &Record{Kind: KindCut, Must: true, Body: []byte{0xa0}}); err != nil {
		t.Fatal(err)
	}
	if err := files(); !errors.Is(err, ErrUnknown) || !l.State().Unknown {
		t.Errorf("a record that must be understood: %v", err)
	}
	if _, err := l.Append(owner.author(), option("a", 1)); !errors.Is(err, ErrUnknown) {
		t.Errorf("a record after it: %v", err)
	}
	again := open(t, l.Space(), st)
	if !again.State().Unknown || len(exported(t, again)) != 3 {
		t.Error("unknown records are not kept")
	}
	if err := again.Verify(); err != nil {
		t.Error(err)
	}
}

func TestWatch(t *testing.T) {
	owner := newActor(1, 1)
	l := newSpace(t, owner)
	calls := 0
	cancel := l.Watch(func() { calls++; l.State(); l.Heads() })
	l.Append(owner.author(), option("a", 1))
	cancel()
	l.Append(owner.author(), option("a", 2))
	if calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

// More heads than a batch can name are joined by batches without a record.
func TestManyHeads(t *testing.T) {
	root := newActor(1, 0).derivedRoot()
	space := root.ID()
	l := open(t, space, store.NewMem())
	for i := range byte(dag.MaxACLHeads + 20) {
		a := newActor(1, i)
		other := open(t, space, store.NewMem())
		rec := addDevice(a, space)
		rec.Root = root.Encode()
		if _, err := other.Append(a.author(), rec); err != nil {
			t.Fatal(err)
		}
		for _, f := range exported(t, other) {
			if err := l.Import(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(l.Heads()); n != dag.MaxACLHeads {
		t.Errorf("%d heads", n)
	}
	if _, err := l.Append(newActor(1, 3).author(), option("a", 1)); err != nil {
		t.Fatal(err)
	}
	if n := len(l.Heads()); n != 1 {
		t.Errorf("%d heads after a join", n)
	}
	if err := l.Verify(); err != nil {
		t.Error(err)
	}
	r := open(t, space, store.NewMem())
	for _, f := range exported(t, l) {
		if err := r.Import(f); err != nil {
			t.Fatal(err)
		}
	}
	if show(r) != show(l) {
		t.Error("replicas differ")
	}
}

// The list is linked by nodes, which hold no code that opens ciphertext.
func TestListSeesNoSecret(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil || len(names) < 5 {
		t.Fatalf("files %v, %v", names, err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if path := strings.Trim(i.Path.Value, `"`); strings.HasPrefix(path, "github.com/anyfs/") && !strings.HasPrefix(path, "github.com/anyfs/anyfs/dag") {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}

func TestRoles(t *testing.T) {
	for _, r := range []Role{RoleNone, RoleReader, RoleWriter, RoleAdmin, RoleOwner} {
		if back, err := ParseRole(r.String()); err != nil || back != r {
			t.Errorf("%s: %v", r, err)
		}
	}
	if _, err := ParseRole("king"); err == nil {
		t.Error("a role of king")
	}
	if !slices.IsSorted([]Role{RoleNone, RoleReader, RoleWriter, RoleAdmin, RoleOwner}) {
		t.Error("order")
	}
}

func BenchmarkOpen5000(b *testing.B) {
	owner := newActor(1, 1)
	st := store.NewMem()
	root := owner.randomRoot()
	l := open(b, root.ID(), st)
	l.Append(owner.author(), &Record{Kind: KindRoot, Must: true, Root: root.Encode()})
	for i := range uint64(5000) {
		if _, err := l.Append(owner.author(), option("a", i)); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		open(b, root.ID(), st)
	}
}

func BenchmarkDecodeAddDevice(b *testing.B) {
	rec := addDevice(newActor(1, 1), dag.ID{1}).Encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRecord(rec); err != nil {
			b.Fatal(err)
		}
	}
}

// full is a store that takes nothing more.
type full struct {
	*store.Mem
	err error
}

func (f *full) Append(rec dag.Record, u *dag.Update) error {
	if f.err != nil {
		return f.err
	}
	return f.Mem.Append(rec, u)
}

// A batch of files waits for a record that was judged and could not be stored: after a restart the record would not be there.
func TestRecordThatCouldNotBeStored(t *testing.T) {
	a := newActor(1, 1)
	from := newSpace(t, a)
	st := &full{Mem: store.NewMem()}
	to := open(t, from.Space(), st)
	for _, f := range exported(t, from) {
		if err := to.Import(f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := from.Append(a.author(), option("a", 1)); err != nil {
		t.Fatal(err)
	}
	frames := exported(t, from)
	st.err = errors.New("no space left")
	if err := to.Import(frames[len(frames)-1]); !errors.Is(err, st.err) {
		t.Fatal(err)
	}
	b := &dag.Batch{Account: public(a.account), Device: public(a.device), ACL: from.Heads(), Epoch: from.Space()}
	missing := new(dag.MissingError)
	if err := to.Files().Accept(b, nil); !errors.As(err, &missing) || !slices.Equal(missing.ACL, from.Heads()) {
		t.Fatalf("%v", err)
	}
	st.err = nil
	if err := to.Import(frames[len(frames)-1]); err != nil {
		t.Fatal(err)
	}
	if err := to.Files().Accept(b, nil); err != nil {
		t.Fatal(err)
	}
}

// More heads than a batch can name: what a list shows and judges is the same whatever came when, and after a restart.
func TestHeadsThatAreLeftOut(t *testing.T) {
	owner := newActor(1, 1)
	second := newActor(1, 2)
	base := newSpace(t, owner)
	root := exported(t, base)[0]
	with := func(frames ...[]byte) *List {
		l := open(t, base.Space(), store.NewMem())
		for _, f := range append([][]byte{root}, frames...) {
			if err := l.Import(bytes.Clone(f)); err != nil {
				t.Fatal(err)
			}
		}
		return l
	}
	id := func(f []byte) dag.ID {
		b, _, err := dag.DecodeFrame(f)
		if err != nil {
			t.Fatal(err)
		}
		return b.ID()
	}
	concurrent := func(rec *Record) []byte {
		l := with()
		if _, err := l.Append(owner.author(), rec); err != nil {
			t.Fatal(err)
		}
		return exported(t, l)[1]
	}
	// 66 records that know of none but the root. The lowest is left out of what fits, and the rest does not hear of it.
	apart := make([][]byte, 66)
	for i := range apart {
		apart[i] = concurrent(option(fmt.Sprint(i), 1))
	}
	slices.SortFunc(apart, func(a, b []byte) int { return id(a).Compare(id(b)) })
	for i := 0; ; i++ {
		rec := addDevice(second, base.Space())
		rec.AddDevice.Name = fmt.Append(nil, i)
		if f := concurrent(rec); id(f).Compare(id(apart[1])) < 0 {
			apart[0] = f
			break
		}
	}
	without := with(apart[1:]...)
	if _, err := without.Append(owner.author(), option("joined", 1)); err != nil {
		t.Fatal(err)
	}
	join := exported(t, without)[len(apart):]
	last := id(join[len(join)-1])

	b := &dag.Batch{Account: public(second.account), Device: public(second.device), ACL: []dag.ID{last}, Epoch: base.Space()}
	for name, l := range map[string]*List{
		"in the order of the list": with(append(slices.Clone(apart), join...)...),
		"the odd one last":         with(append(append(slices.Clone(apart[1:]), join...), apart[0])...),
		"the odd one missing":      with(append(slices.Clone(apart[1:]), join...)...),
	} {
		if err := l.Files().Accept(b, nil); !errors.Is(err, ErrDenied) {
			t.Errorf("%s: a device that the batch's records do not know: %v", name, err)
		}
		want := 2
		if name == "the odd one missing" {
			want = 1
		}
		if got := l.Heads(); len(got) != want || !slices.Contains(got, last) {
			t.Errorf("%s: heads %v", name, got)
		}
	}
}
