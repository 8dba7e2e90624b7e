package acl

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// pairing has a device of the account let a new one in.
func pairing(t testing.TB, giver *Keys, spaces ...SpaceSecret) (n *NewDevice, grant []byte) {
	t.Helper()
	n, err := MakeDevice("phone", nil)
	if err != nil {
		t.Fatal(err)
	}
	q, err := n.Request()
	if err != nil {
		t.Fatal(err)
	}
	grant, name, err := giver.Admit(n.device.PublicKey(), q, spaces, []byte("one"), []byte("two"))
	if err != nil || name != "phone" {
		t.Fatalf("%q, %v", name, err)
	}
	return n, grant
}

func TestPairing(t *testing.T) {
	a := testAccount(t)
	laptop := newKeys(t, a, "laptop")
	home, work := derive(t, laptop, LabelHome, store.NewMem()), get(CreateSpace(laptop, store.NewMem(), nil))(t)
	if _, err := home.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	n, grant := pairing(t, laptop, get(home.Secret(LabelHome))(t), get(work.Secret(""))(t))
	for what, secret := range map[string][]byte{"secret": a.entropy[:], "phrase": []byte(a.Phrase()), "derived secret": a.prk, "identity's key": a.identity.Seed()} {
		if bytes.Contains(grant, secret) {
			t.Errorf("the new device gets the account's %s", what)
		}
	}
	d := newDisk()
	if nets, err := GrantNetworks(grant); err != nil || len(nets) != 2 || string(nets[1]) != "two" {
		t.Fatalf("networks: %q, %v", nets, err)
	}
	k, giver, err := InitPaired(d, n, grant, nil, nil)
	if err != nil || giver != "laptop" {
		t.Fatalf("%q, %v", giver, err)
	}
	if _, _, err := InitPaired(d, n, grant, nil, nil); !errors.Is(err, ErrInitialised) {
		t.Errorf("a second time: %v", err)
	}
	again, err := OpenKeys(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	sameKeys(t, k, again)
	if again.Account != nil || again.Identity != a.Identity() || again.Device.PublicKey() != n.device.PublicKey() {
		t.Errorf("the paired device is %+v", again)
	}
	if _, _, err := again.Admit(dag.PublicKey{}, nil, nil); !errors.Is(err, ErrNoSecret) {
		t.Errorf("a paired device lets others in: %v", err)
	}
	// It is in the account's own spaces, which it makes by itself, and in others by the keys that it got.
	s := derive(t, again, LabelHome, store.NewMem())
	if s.ID() != home.ID() || derive(t, again, LabelPersonal, store.NewMem()).ID() != DeriveSpaceID(a, LabelPersonal) {
		t.Error("the account's spaces are others")
	}
	bring(t, home, s)
	if s.Epoch() != home.Epoch() || s.Writable() != nil {
		t.Errorf("it seals in %s, not %s: %v", s.Epoch(), home.Epoch(), s.Writable())
	}
	w := importAs(t, again, work)
	if err := w.Writable(); err != nil {
		t.Error(err)
	}
	bring(t, w, work)
	if _, err := work.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	bring(t, work, w)
	if w.Epoch() != work.Epoch() {
		t.Error("it has no key of the next epoch")
	}
}

func get[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func importAs(t testing.TB, k *Keys, from *Space) *Space {
	t.Helper()
	s, err := ImportSpace(k, from.ID(), store.NewMem(), func(yield func([]byte) error) error {
		for _, f := range frames(t, from) {
			if err := yield(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestAdmitDevice: a paired device can't open a space that another device made since, until that brings it in.
func TestAdmitDevice(t *testing.T) {
	a := testAccount(t)
	laptop := newKeys(t, a, "laptop")
	n, grant := pairing(t, laptop)
	phone, _, err := InitPaired(newDisk(), n, grant, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	work := get(CreateSpace(laptop, store.NewMem(), nil))(t)
	if s := importAs(t, phone, work); s.HasKey() {
		t.Fatal("it has a key by nothing")
	}
	for i := range 2 {
		wrote, err := work.AdmitDevice(phone.Device.Certificate, "phone", nil)
		if err != nil || wrote != (i == 0) {
			t.Fatal(i, wrote, err)
		}
	}
	s := importAs(t, phone, work)
	if err := s.Writable(); err != nil {
		t.Fatal(err)
	}
	if name, ok := s.DeviceName(phone.Device.PublicKey()); !ok || name != "phone" {
		t.Errorf("it is called %q", name)
	}
	// Another account's device is none of this one.
	other, err := NewAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	if wrote, err := work.AdmitDevice(newKeys(t, other, "other").Device.Certificate, "x", nil); wrote || err != nil {
		t.Error(wrote, err)
	}
}

// TestBadGrant: what is not of one account and for this device is refused, and leaves nothing behind.
func TestBadGrant(t *testing.T) {
	a := testAccount(t)
	other, err := NewAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	laptop, stranger := newKeys(t, a, "laptop"), newKeys(t, other, "stranger")
	n, grant := pairing(t, laptop)
	_, another := pairing(t, laptop)
	var f, g grantFile
	if err := errors.Join(cbor.Unmarshal(grant, &f), cbor.Unmarshal(get(stranger.grantFor(n))(t), &g)); err != nil {
		t.Fatal(err)
	}
	change := func(fn func(*grantFile)) []byte {
		c := f
		c.Spaces = append([]SpaceSecret(nil), f.Spaces...)
		fn(&c)
		return get(cbor.Marshal(c))(t)
	}
	for name, b := range map[string][]byte{
		"nothing":                   nil,
		"another device's":          another,
		"a certificate of another":  change(func(c *grantFile) { c.Certificate = g.Certificate }),
		"keys of another account":   change(func(c *grantFile) { c.Account = g.Account }),
		"spaces of another account": change(func(c *grantFile) { c.Spaces = g.Spaces }),
		"no home":                   change(func(c *grantFile) { c.Spaces = c.Spaces[1:] }),
		"a home twice":              change(func(c *grantFile) { c.Spaces = append(c.Spaces, c.Spaces[0]) }),
		"another root":              change(func(c *grantFile) { c.Spaces[0].Root = c.Spaces[1].Root }),
		"another key":               change(func(c *grantFile) { c.Spaces[0].Epochs = c.Spaces[1].Epochs }),
		"another root and its key": change(func(c *grantFile) {
			c.Spaces[0].Root = c.Spaces[1].Root
			c.Spaces[0].Epochs = []EpochSecret{{c.Spaces[0].ID, c.Spaces[1].Epochs[0].Key}}
		}),
		"another key under its name":    change(func(c *grantFile) { c.Spaces[0].Epochs = []EpochSecret{{c.Spaces[0].ID, c.Spaces[1].Epochs[0].Key}} }),
		"a later version":               change(func(c *grantFile) { c.Version = 2 }),
		"a space with a root, no label": change(func(c *grantFile) { c.Spaces = append(c.Spaces, SpaceSecret{Root: []byte{1}}) }),
		"a byte more":                   append(bytes.Clone(grant), 0),
	} {
		d := newDisk()
		if _, _, err := InitPaired(d, n, b, nil, nil); !errors.Is(err, ErrGrant) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := OpenKeys(d, nil); !errors.Is(err, ErrNotInitialised) {
			t.Errorf("%s: something was written: %v", name, err)
		}
	}
	for i := range grant {
		if _, _, err := InitPaired(newDisk(), n, grant[:i], nil, nil); !errors.Is(err, ErrGrant) {
			t.Fatalf("%d bytes of it: %v", i, err)
		}
	}
	for name, q := range map[string][]byte{
		"nothing": nil, "much": make([]byte, maxRequest+1),
		"no key": get(cbor.Marshal(deviceRequest{1, "x", []byte("key")}))(t),
		"later":  get(cbor.Marshal(deviceRequest{2, "x", n.device.hpke.PublicKey().Bytes()}))(t),
	} {
		if _, _, err := laptop.Admit(n.device.PublicKey(), q, nil); err == nil {
			t.Errorf("a request with %s is granted", name)
		}
	}
}

func (k *Keys) grantFor(n *NewDevice) ([]byte, error) {
	q, err := n.Request()
	if err != nil {
		return nil, err
	}
	g, _, err := k.Admit(n.device.PublicKey(), q, nil)
	return g, err
}

// FuzzGrant: whatever a device gets, it does not panic, and takes over nothing that is not of one account and for it.
func FuzzGrant(f *testing.F) {
	a, err := NewAccount(nil)
	if err != nil {
		f.Fatal(err)
	}
	k, err := InitKeys(newDisk(), a, "laptop", nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	n, grant := pairing(f, k)
	f.Add(grant)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, public, cert, err := n.decodeGrant(b)
		if err != nil {
			return
		}
		if cert.Account != public.Identity || cert.Verify() != nil || len(g.Spaces) < 2 {
			t.Errorf("%+v", g)
		}
	})
}
