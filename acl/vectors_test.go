package acl

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorsFile = "testdata/vectors.json"

type vectors struct {
	About    string
	Accounts []accountVector
	Two      []twoVector
	Space    spaceVector
}

// twoVector is the one-to-one space of two of the accounts, by their places.
type twoVector struct {
	Of                                 [2]int
	Number                             uint64
	Shared, ID, Agreed, FirstKey, Root string
}

func twoVectors(t *testing.T) (out []twoVector) {
	for _, v := range []twoVector{{Of: [2]int{0, 1}}, {Of: [2]int{0, 1}, Number: 1}, {Of: [2]int{1, 2}}} {
		var two [2]*Account
		for i, n := range v.Of {
			a, err := accountOf([entropyBytes]byte(bytes.Repeat([]byte{[]byte{0x7f, 0x00, 0x80}[n]}, entropyBytes)))
			if err != nil {
				t.Fatal(err)
			}
			two[i] = a
		}
		shared, err := two[0].x25519.ECDH(two[1].x25519.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		root, key, err := two[0].oneToOne(&two[1].public, v.Number)
		if err != nil {
			t.Fatal(err)
		}
		v.Shared, v.ID, v.Agreed, v.FirstKey, v.Root = hexed(shared), root.ID().String(), hexed(root.Seed[:]), hexed(key[:]), hexed(root.Encode())
		out = append(out, v)
	}
	return out
}

type accountVector struct {
	Phrase, Entropy, Identity, IdentityHex, Fingerprint, RecoveryHex, X25519, KeysHex string
	Derived                                                                           []derivedVector
}

type derivedVector struct{ Label, ID, Seed, FirstKey, Root string }

// spaceVector is the access list of a random space of the first account: created by one device, rotated, with a second
// device added that rotated again.
type spaceVector struct {
	ID      string
	Devices []deviceVector
	Frames  []string
	Epochs  []epochVector
}

type deviceVector struct{ Name, SignSeed, HPKESeed, PeerID string }

type epochVector struct{ ID, Key, Commitment string }

func hexed(b []byte) string { return hex.EncodeToString(b) }

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func accountVectors(t *testing.T) (out []accountVector) {
	for _, entropy := range []byte{0x7f, 0x00, 0x80} {
		a, err := accountOf([entropyBytes]byte(bytes.Repeat([]byte{entropy}, entropyBytes)))
		if err != nil {
			t.Fatal(err)
		}
		back, err := AccountFromPhrase(a.Phrase())
		if err != nil || back.Identity() != a.Identity() {
			t.Fatal(err)
		}
		p := a.Public()
		v := accountVector{
			Phrase: a.Phrase(), Entropy: hexed(a.entropy[:]), Identity: FormatIdentity(a.Identity()), IdentityHex: hexed(p.Identity[:]), Fingerprint: Fingerprint(p.Identity),
			RecoveryHex: hexed(p.Recovery), X25519: hexed(p.X25519[:]), KeysHex: hexed(p.Encode()),
		}
		for _, label := range []string{LabelHome, LabelPersonal} {
			root, key := a.deriveRoot(label), a.spaceKey(label)
			v.Derived = append(v.Derived, derivedVector{label, root.ID().String(), hexed(root.Seed[:]), hexed(key[:]), hexed(root.Encode())})
		}
		out = append(out, v)
	}
	return out
}

// newSpaceVector makes the space of the vectors, which holds randomness.
func newSpaceVector(t *testing.T) (v spaceVector) {
	a := testAccount(t)
	one, two := newKeys(t, a, "laptop"), newKeys(t, a, "Büro")
	s, st := create(t, one)
	if _, err := s.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	s2, err := OpenSpace(two, s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	if err := s2.AddDevice(nil); err != nil {
		t.Fatal(err)
	}
	if err := s2.SetOption("merge", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s2.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	v.ID = s.ID().String()
	for _, k := range []*Keys{one, two} {
		d := k.Device
		v.Devices = append(v.Devices, deviceVector{d.Name, hexed(d.signSeed[:]), hexed(d.hpkeSeed[:]), d.PeerID()})
	}
	for _, f := range frames(t, s2) {
		v.Frames = append(v.Frames, hexed(f))
	}
	for _, e := range s2.List().State().Epochs() {
		key, ok := s2.Keys().Key(e.ID)
		if !ok {
			t.Fatal("no key")
		}
		v.Epochs = append(v.Epochs, epochVector{e.ID.String(), hexed(key[:]), hexed(e.Commitment[:])})
	}
	return v
}

// check opens the space of the vectors anew, as each of its devices and by the recovery key.
func (v *spaceVector) check(t *testing.T) {
	a := testAccount(t)
	devices := append([]deviceVector{{Name: "other"}}, v.Devices...)
	for i, d := range devices {
		k := newKeys(t, a, d.Name)
		if i > 0 {
			k.Account = nil // the device's own key does
			copy(k.Device.signSeed[:], unhex(t, d.SignSeed))
			copy(k.Device.hpkeSeed[:], unhex(t, d.HPKESeed))
			if err := k.Device.expand(); err != nil {
				t.Fatal(err)
			}
			k.Device.Certificate = a.Certify(k.Device.PublicKey(), k.Device.hpke.PublicKey().Bytes(), 1)
			if k.Device.PeerID() != d.PeerID {
				t.Errorf("peer id %s", k.Device.PeerID())
			}
		}
		id, err := dag.ParseID(v.ID)
		if err != nil {
			t.Fatal(err)
		}
		s, err := ImportSpace(k, id, store.NewMem(), func(yield func([]byte) error) error {
			for _, f := range v.Frames {
				if err := yield(unhex(t, f)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
		devices := 2
		if i == 0 {
			devices++ // the import brought it in
		}
		if o, _ := s.Option("merge"); o != 1 || len(s.Members()[0].Devices) != devices {
			t.Error("options or devices")
		}
		for j, e := range s.List().State().Epochs() {
			key, ok := s.Keys().Key(e.ID)
			want := v.Epochs[j]
			if !ok || e.ID.String() != want.ID || hexed(key[:]) != want.Key || hexed(e.Commitment[:]) != want.Commitment {
				t.Errorf("device %d, epoch %d: %v", i, j, ok)
			}
		}
		for _, d := range v.Devices {
			peer, err := list.ParsePeerID(d.PeerID)
			if err != nil {
				t.Fatal(err)
			}
			if name, ok := s.DeviceName(peer); !ok || name != d.Name {
				t.Errorf("name %q, not %q", name, d.Name)
			}
		}
	}
}

func TestVectors(t *testing.T) {
	old := new(vectors)
	b, err := os.ReadFile(vectorsFile)
	if err == nil {
		err = json.Unmarshal(b, old)
	}
	if err != nil && !*update {
		t.Fatal(err)
	}
	v := &vectors{About: "Vectors of ../ACL.md: accounts with their derived spaces, the one-to-one spaces of two of them, and the access list of a space of the first account as frames."}
	v.Accounts, v.Two, v.Space = accountVectors(t), twoVectors(t), old.Space
	if *update {
		v.Space = newSpaceVector(t)
	}
	now, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	now = append(now, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, now, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(now, b) {
		t.Fatal("the format changed")
	}
	v.Space.check(t)
}

// Random histories of several devices, delivered in any order: all devices come to the same state, epoch and keys.
func TestDevicesConverge(t *testing.T) {
	a := testAccount(t)
	label := LabelPersonal
	var spaces []*Space
	for i := range 3 {
		k := newKeys(t, a, string(rune('a'+i)))
		spaces = append(spaces, derive(t, k, label, store.NewMem()))
	}
	for round := range 4 { // all rotate without knowing of each other, then hear of each other in another order
		var blocks [][]byte
		for i, s := range spaces {
			if (round+i)%3 != 0 {
				if _, err := s.Rotate(nil); err != nil {
					t.Fatal(err)
				}
			}
			block, err := s.Keys().SealChunk(nil, []byte{byte(round), byte(i)})
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, block)
		}
		for i := range spaces {
			for j := range spaces {
				bring(t, spaces[(i+j+round)%3], spaces[i])
			}
		}
		for i := range spaces {
			for j := range spaces {
				bring(t, spaces[j], spaces[i])
			}
		}
		for _, s := range spaces {
			same(t, spaces[0], s)
			if s.Epoch() != spaces[0].Epoch() {
				t.Fatal("devices seal in different epochs")
			}
			for i, block := range blocks {
				if _, err := s.Keys().OpenChunk(nil, block); err != nil {
					t.Errorf("round %d, block of device %d: %v", round, i, err)
				}
			}
			if err := s.Verify(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A wrap that holds another key than the epoch committed to is void, and hurts nothing else.
func TestVoidWraps(t *testing.T) {
	a := testAccount(t)
	s, st := create(t, newKeys(t, a, "laptop"))
	victim := newKeys(t, a, "victim")
	victim.Account = nil // a device paired by code has nothing but its wraps
	if err := s.addDevice(victim.Device.Certificate, victim.Device.Name, nil); err != nil {
		t.Fatal(err)
	}
	key := seal.ReadKey{1}
	rec := &list.RotateKey{Suite: list.Suite, Commitment: key.Commitment(s.ID())}
	old, _ := s.Keys().Key(s.Epoch())
	sealed, err := key.SealField(labelFollow, followAD(s.ID(), s.Epoch()), old[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	rec.Follows = []list.Follow{{Epoch: s.Epoch(), Sealed: sealed}}
	to := []recipient{{victim.Device.PublicKey(), victim.Device.Certificate.HPKE}}
	if rec.Wraps, err = wrapTo(to, s.ID(), rec.Commitment, seal.ReadKey{2}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.list.Append(s.k.Author(), &list.Record{Kind: list.KindRotateKey, Must: true, RotateKey: rec}); err != nil {
		t.Fatal(err)
	}
	v, err := OpenSpace(victim, s.ID(), st)
	if err != nil {
		t.Fatal(err)
	}
	if v.Epoch() != s.ID() || v.Keys().Has(v.list.State().Epochs()[1].ID) {
		t.Error("a void wrap is taken")
	}
	if err := v.Verify(); err != nil {
		t.Error(err)
	}
}

// TestWrapsOfEveryLength: a wrapped key of any length is refused, or where its record is none to be refused void; who has another wrap opens that, and
// all others theirs.
func TestWrapsOfEveryLength(t *testing.T) {
	alice, bob, carol := person(t, "alice"), person(t, "bob"), person(t, "carol")
	bob.Account = nil // nothing but its device's wraps
	s := newSpaceOf(t, alice)
	for _, k := range []*Keys{bob, carol} {
		link, err := s.Invite(Terms{Role: RoleWriter, Open: true}, today, nil)
		must(t, err)
		g, err := NewGuest(k, link, "guest", nil)
		must(t, err)
		visit(t, s, g)
	}
	key := seal.ReadKey{7}
	e := list.Epoch{ID: dag.ID{7}, Suite: list.Suite, Commitment: key.Commitment(s.ID())}
	good, err := wrapTo([]recipient{{bob.Device.PublicKey(), bob.Device.Certificate.HPKE}, {carol.Device.PublicKey(), carol.Device.Certificate.HPKE}}, s.ID(), e.Commitment, key)
	must(t, err)
	theirs, others := copied(t, bob, s), copied(t, carol, s)
	accepted := 0
	for n := range 2200 {
		bad := list.Wrap{To: bob.Device.PublicKey(), Sealed: bytes.Repeat([]byte{1}, n)}
		rec := &list.Record{Kind: list.KindShareKey, Must: true, ShareKey: &list.ShareKey{Epoch: s.ID(), Wraps: []list.Wrap{bad}}}
		_, err := list.DecodeRecord(rec.Encode())
		if (err == nil) != (n >= 32 && n <= 2048) || err != nil && (!errors.Is(err, list.ErrFormat) || !strings.Contains(err.Error(), "wrap") || !strings.Contains(err.Error(), "record of kind 14")) {
			t.Fatalf("a wrapped key of %d bytes in a record: %v", n, err)
		}
		if err == nil {
			accepted++
		}
		e.Wraps = []list.Wrap{bad}
		if _, ok := theirs.find(theirs.list.State(), &e); ok {
			t.Fatalf("%d bytes opened", n)
		}
		if n%100 != 0 {
			continue
		}
		e.Wraps = append(e.Wraps, good...)
		for _, x := range []*Space{theirs, others} {
			if k, ok := x.find(x.list.State(), &e); !ok || k != key {
				t.Fatalf("beside %d bytes that are no key a good one does not open", n)
			}
		}
	}
	if accepted != 2017 {
		t.Errorf("%d lengths were taken", accepted)
	}
}

func copied(t *testing.T, k *Keys, of *Space) *Space {
	t.Helper()
	s, err := copyOf(k, of)
	must(t, err)
	return s
}
