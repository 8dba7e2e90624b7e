package acl

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

const testPhrase = "legal winner thank year wave sausage worth useful legal winner thank yellow"

func testAccount(t testing.TB) *Account {
	t.Helper()
	a, err := AccountFromPhrase(testPhrase)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newDisk() *disk.Sim { return disk.NewSim(rand.New(rand.NewPCG(1, 2))) }

func TestPhrase(t *testing.T) {
	a, err := NewAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := AccountFromPhrase("  " + strings.ToUpper(strings.ReplaceAll(a.Phrase(), " ", "\n\t")))
	if err != nil || b.Identity() != a.Identity() || b.Phrase() != a.Phrase() {
		t.Fatalf("%v", err)
	}
	if strings.Contains(a.Phrase(), "\n") || len(strings.Fields(a.Phrase())) != 12 {
		t.Fatalf("phrase %q", a.Phrase())
	}
	for phrase, want := range map[string]string{
		"":            "it has 0 words, a phrase has 12",
		"legal thank": "it has 2 words",
		strings.Replace(testPhrase, "wave", "wawe", 1):    `word 5, "wawe", is not in the list`,
		strings.Replace(testPhrase, "yellow", "wave", 1):  "do not belong together",
		strings.Replace(testPhrase, "legal", "winner", 1): "do not belong together",
		testPhrase + " legal":                             "it has 13 words",
	} {
		_, err := AccountFromPhrase(phrase)
		if !errors.Is(err, ErrPhrase) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", phrase, err, want)
		}
	}
}

func TestAccountsDiffer(t *testing.T) {
	a, b := testAccount(t), testAccount(t)
	if a.Identity() != b.Identity() || !bytes.Equal(a.Public().Recovery, b.Public().Recovery) || a.Public().X25519 != b.Public().X25519 {
		t.Error("one phrase gives two accounts")
	}
	if DeriveSpaceID(a, LabelHome) != DeriveSpaceID(b, LabelHome) || DeriveSpaceID(a, LabelHome) == DeriveSpaceID(a, LabelPersonal) {
		t.Error("derived spaces")
	}
	public := a.Public()
	if err := public.Verify(); err != nil {
		t.Error(err)
	}
	public.X25519[0]++
	if err := public.Verify(); !errors.Is(err, list.ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestNames(t *testing.T) {
	id := testAccount(t).Identity()
	s := FormatIdentity(id)
	if !strings.HasPrefix(s, "z6Mk") {
		t.Errorf("identity %s", s)
	}
	if back, err := ParseIdentity(s); err != nil || back != id {
		t.Errorf("%v %v", back, err)
	}
	for _, bad := range []string{"", "z", "z6Mk", s[:len(s)-1], s + "1", "m" + s[1:], "é", strings.Repeat("z", 10000)} {
		if _, err := ParseIdentity(bad); err == nil {
			t.Errorf("%q parses", bad)
		}
	}
	peer := PeerID(id)
	if !strings.HasPrefix(peer, "12D3KooW") {
		t.Errorf("peer id %s", peer)
	}
	if back, err := list.ParsePeerID(peer); err != nil || back != id {
		t.Errorf("%v %v", back, err)
	}
	for in, want := range map[string]string{
		"": "device", " laptop ": "laptop", "a/b\nc\x00": "a-b-c-", "\xff": "-", "Ноутбук": "Ноутбук",
		strings.Repeat("é", 40): strings.Repeat("é", 32), strings.Repeat("x", 63) + "é": strings.Repeat("x", 63),
	} {
		if got := CleanDeviceName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func sameKeys(t *testing.T, a, b *Keys) {
	t.Helper()
	switch {
	case a.Identity != b.Identity, a.Device.PublicKey() != b.Device.PublicKey(), a.Device.Name != b.Device.Name, a.store != b.store:
		t.Fatal("keys differ")
	case (a.Account == nil) != (b.Account == nil), a.Account != nil && a.Account.Phrase() != b.Account.Phrase():
		t.Fatal("accounts differ")
	case !bytes.Equal(a.Device.Certificate.Encode(), b.Device.Certificate.Encode()):
		t.Fatal("certificates differ")
	}
	sealed := a.Local.SealLocal(nil, []byte("x"), nil)
	if got, err := b.Local.OpenLocal(nil, sealed, nil); err != nil || string(got) != "x" {
		t.Fatal("store keys differ")
	}
}

func TestKeysReopen(t *testing.T) {
	d := newDisk()
	if _, err := OpenKeys(d, nil); !errors.Is(err, ErrNotInitialised) {
		t.Fatalf("got %v", err)
	}
	k, err := InitKeys(d, testAccount(t), "laptop", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Device.Certificate.Verify(); err != nil {
		t.Fatal(err)
	}
	if _, err := InitKeys(d, testAccount(t), "laptop", nil, nil); !errors.Is(err, ErrInitialised) {
		t.Fatalf("got %v", err)
	}
	again, err := OpenKeys(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	sameKeys(t, k, again)

	secret := SpaceSecret{ID: dag.ID{1}, Label: LabelHome, Root: []byte{1, 2}, Epochs: []EpochSecret{{dag.ID{1}, seal.ReadKey{7}}}}
	for range 2 { // the second replaces the first
		if err := again.AddSpace(d, secret); err != nil {
			t.Fatal(err)
		}
	}
	if again, err = OpenKeys(d, nil); err != nil || len(again.Spaces) != 1 || again.Spaces[0].Epochs[0] != secret.Epochs[0] {
		t.Fatalf("%v %v", again, err)
	}
	// Without account.age it is a device that was paired.
	d.Remove(fileAccount)
	if again, err = OpenKeys(d, nil); err != nil || again.Account != nil {
		t.Fatalf("%v", err)
	}
	if again.Author().Account != k.Identity {
		t.Fatal("author")
	}
}

func TestPassphrase(t *testing.T) {
	d := newDisk()
	k, err := InitKeys(d, testAccount(t), "laptop", []byte("first"), nil)
	if err == nil {
		err = changePassphrase(d, k, []byte("sesame"), 4)
	}
	if err != nil {
		t.Fatal(err)
	}
	open := func(pass string) (*Keys, error) {
		return OpenKeys(d, func() ([]byte, error) { return []byte(pass), nil })
	}
	if again, err := open("sesame"); err != nil {
		t.Fatal(err)
	} else {
		sameKeys(t, k, again)
	}
	for name, fn := range map[string]func() (*Keys, error){
		"wrong": func() (*Keys, error) { return open("sesam") },
		"empty": func() (*Keys, error) { return open("") },
		"none":  func() (*Keys, error) { return OpenKeys(d, nil) },
	} {
		if _, err := fn(); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cancelled := errors.New("cancelled")
	if _, err := OpenKeys(d, func() ([]byte, error) { return nil, cancelled }); !errors.Is(err, cancelled) {
		t.Errorf("got %v", err)
	}
	if names, _ := d.ReadDir("."); strings.Contains(strings.Join(names, " "), fileKey) {
		t.Error("keys.key beside a passphrase")
	}
}

// Every crash within a change of what opens the keys leaves one of the two ways.
func TestChangePassphraseSurvivesCrashes(t *testing.T) {
	type way struct{ from, to []byte }
	for _, w := range []way{{nil, nil}, {nil, []byte("p")}, {[]byte("p"), nil}} {
		landed := 0
		for at := int64(1); ; at++ {
			d := newDisk()
			k, err := InitKeys(d, testAccount(t), "laptop", nil, nil)
			if err == nil {
				err = changePassphrase(d, k, w.from, 4)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := d.Landed()
			d.FailFrom(at, errors.New("power loss"))
			err = changePassphrase(d, k, w.to, 4)
			done := d.Landed() == before
			d.FailAt(0, nil)
			after := d.CrashClone(rand.New(rand.NewPCG(uint64(at), 3)))
			again, oerr := OpenKeys(after, func() ([]byte, error) { return []byte("p"), nil })
			if oerr != nil {
				t.Fatalf("%q to %q, failure %d (%v): %v", w.from, w.to, at, err, oerr)
			}
			sameKeys(t, k, again)
			if done {
				break
			}
			landed++
		}
		if landed == 0 {
			t.Fatal("no fault landed")
		}
	}
}

// A home whose making failed anywhere, and crashed, has no account or the whole of it; then it can be made.
func TestInitKeysSurvivesFailures(t *testing.T) {
	landed := 0
	for at := int64(1); ; at++ {
		d := newDisk()
		d.FailFrom(at, errors.New("power loss"))
		k, err := InitKeys(d, testAccount(t), "laptop", nil, nil)
		if d.Landed() == 0 {
			break
		}
		landed++
		d.FailAt(0, nil)
		after := d.CrashClone(rand.New(rand.NewPCG(uint64(at), 3)))
		again, oerr := OpenKeys(after, nil)
		switch {
		case oerr == nil && k != nil:
			sameKeys(t, k, again)
		case oerr == nil:
		case !errors.Is(oerr, ErrNotInitialised):
			t.Fatalf("failure %d (%v): %v", at, err, oerr)
		default:
			if _, err := InitKeys(after, testAccount(t), "laptop", nil, nil); err != nil {
				t.Fatalf("failure %d: making it again: %v", at, err)
			}
		}
		if err == nil {
			t.Fatalf("failure %d is not reported", at)
		}
	}
	if landed < 5 {
		t.Fatalf("%d faults landed", landed)
	}
}

func TestKeyFilesOnDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := disk.OS(dir)
	if err != nil {
		t.Fatal(err)
	}
	k, err := InitKeys(d, testAccount(t), "laptop", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	all, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(all) != 3 {
		t.Fatalf("files %v", all)
	}
	for _, f := range all {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
		b, _ := os.ReadFile(f)
		if bytes.Contains(b, []byte("legal")) || bytes.Contains(b, k.store[:]) || bytes.Contains(b, k.Device.signSeed[:]) || bytes.Contains(b, []byte("laptop")) {
			t.Errorf("%s holds a secret in the clear", f)
		}
	}
	if err := os.Chmod(filepath.Join(dir, fileKey), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKeys(d, nil); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("world-readable key: %v", err)
	}
	os.Chmod(filepath.Join(dir, fileKey), 0o600)
	for _, f := range []string{fileKeys, fileKey, fileAccount} {
		name := filepath.Join(dir, f)
		good, _ := os.ReadFile(name)
		flipped := bytes.Clone(good)
		flipped[len(flipped)-5] ^= 1
		for _, bad := range [][]byte{{}, good[:len(good)/2], flipped, []byte("nonsense")} {
			os.WriteFile(name, bad, 0o600)
			if _, err := OpenKeys(d, nil); !errors.Is(err, ErrKeyFile) {
				t.Errorf("%s damaged to %d bytes: %v", f, len(bad), err)
			}
		}
		os.WriteFile(name, good, 0o600)
	}
	os.Remove(filepath.Join(dir, fileKey))
	if _, err := OpenKeys(d, nil); !errors.Is(err, ErrKeyFile) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("no key: %v", err)
	}
}

func FuzzKeyFiles(f *testing.F) {
	k := &Keys{}
	d := newDisk()
	k, err := InitKeys(d, testAccount(f), "laptop", nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	sealed, _ := d.ReadFile(fileKeys)
	ids, err := openKeyFile(d)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := decrypt(sealed, ids...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte{0xa2, 0x61, 'v', 1, 0x66, 's', 'p', 'a', 'c', 'e', 's', 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := decodeKeys(b); err == nil && got.Identity != k.Identity {
			t.Error("keys of another account")
		}
		decodeSpaces(b)
	})
}

// The name of a device is what it sealed, whatever this version of Go thinks can be printed: names in the tree follow from it.
func TestSealedDeviceName(t *testing.T) {
	k := seal.ReadKey{1}
	for name, want := range map[string]string{
		"laptop": "laptop", "a b": "a b", "": "device", " x ": " x ",
		"unassigned \u0378 \U000e0fff": "unassigned \u0378 \U000e0fff",
		"a/b\nc\x1b[1m\u009b\xff":      "a-b-c-[1m--",
		strings.Repeat("é", 40):        strings.Repeat("é", 32),
	} {
		sealed, err := k.SealField(labelDeviceName, make([]byte, 32), append([]byte(name), 0, 0), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := openName(k, dag.PublicKey{}, sealed); err != nil || got != want {
			t.Errorf("%q reads as %q, %v", name, got, err)
		}
	}
}
