package list

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/dag"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorsFile = "testdata/vectors.json"

type vector struct {
	Name, Hex string
	ID        string `json:",omitempty"` // of a root
	PeerID    string `json:",omitempty"` // of a certificate's device
	Identity  string `json:",omitempty"` // of an account
	Error     string `json:",omitempty"`
}

type vectors struct {
	About                               string
	Accounts, Certificates, Roots, Good []vector
	Bad                                 []vector // records that are refused, named for their fault
}

func hexed(b []byte) string { return hex.EncodeToString(b) }

// samples are records of all forms.
func samples() map[string]*Record {
	a := newActor(1, 1)
	to := Wrap{public(a.device), bytes.Repeat([]byte{7}, 48)}
	device := addDevice(a, dag.ID{1})
	first := addDevice(a, dag.ID{1})
	first.Root = a.derivedRoot().Encode()
	wrapped := addDevice(a, dag.ID{1})
	wrapped.AddDevice.Wraps = []Wrap{to}
	epoch := rotate(dag.ID{1}, dag.ID{2})
	epoch.RotateKey.Wraps = []Wrap{to}
	many := option("merge", 1)
	many.Options.Set["a"], many.Options.Set["zz"] = 1<<40, 23
	out := map[string]*Record{
		"root": {Kind: KindRoot, Must: true, Root: a.randomRoot().Encode()}, "device": device, "first device": first,
		"wrapped device": wrapped, "epoch": epoch, "options": many, "no options": {Kind: KindOptions, Must: true, Options: &Options{}},
		"unknown":      {Kind: 99, Body: []byte{0xa2, 0x61, 'a', 0x82, 0xf6, 0x20, 0x62, 'b', 'b', 0x43, 1, 2, 3}},
		"unknown must": {Kind: 99, Must: true, Body: []byte{0xf5}},
		"unknown link": {Kind: 1000, Body: append([]byte(linkHead), make([]byte, 32)...)},
		"reserved":     {Kind: KindCut, Must: true, Body: []byte{0xa0}},
	}
	for name, rec := range sharing() {
		out[name] = rec
	}
	maps.Copy(out, agreeing())
	return out
}

// sharing are records by which others come, change and go.
func sharing() map[string]*Record {
	a, space := newActor(1, 1), dag.ID{1}
	to := Wrap{public(a.device), bytes.Repeat([]byte{7}, 48)}
	accepted := accept(dag.ID{3}, RoleReader, space)
	accepted.Accept.Time, accepted.Accept.Wraps = 1<<33, []Wrap{to}
	demoted := changeRole(a, RoleReader)
	demoted.ChangeRole.Tips = []dag.ID{{1}, {2}}
	limited := invite(1, RoleAdmin, space)
	limited.Invite.Time, limited.Invite.Expires, limited.Invite.Uses = 1, 2, 3
	return map[string]*Record{
		"invitation": limited, "open invitation": openInvite(1, RoleReader, space, 24),
		"revocation": revoke(dag.ID{2}, nil), "revocation of an open one": revoke(dag.ID{2}, next(space)),
		"request": a.request(space, 1, dag.ID{2}), "joining": a.join(space, 1, dag.ID{2}),
		"acceptance": accepted, "refusal": answer(KindDecline, dag.ID{3}), "taking back": answer(KindCancel, dag.ID{3}),
		"promotion": changeRole(a, RoleAdmin), "demotion": demoted, "removal": remove(a, next(space), dag.ID{1}, dag.ID{2}),
		"replacement": replaceBy(a, newActor(2, 1), dag.ID{3}, space),
		"transfer":    transfer(a), "adoption": adopt(dag.ID{1}, dag.ID{2}), "leaving": leave(), "leaving with tips": {Kind: KindLeave, Must: true, Leave: &Leave{[]dag.ID{{4}}}}, "sharing": share(space, to), "sharing by agreed keys": sharedBy(space, dag.ID{2}, 5),
		"revocation of a device": revokeDevice(a, newActor(1, 2), next(space), dag.ID{1}, dag.ID{2}), "revocation by a reader": revokeDevice(a, newActor(1, 2), nil),
	}
}

// faults are encodings that are refused.
func faults() map[string][]byte {
	good := option("a", 1).Encode()
	replace := func(old, new string) []byte {
		b := bytes.Replace(good, []byte(old), []byte(new), 1)
		if bytes.Equal(b, good) {
			panic("nothing replaced: " + old)
		}
		return b
	}
	body := func(item string) []byte {
		return []byte("\xa4\x61v\x01\x64body" + item + "\x64kind\x18\x63\x64must\xf4")
	}
	out := map[string][]byte{
		"empty": {}, "no map": {0x01}, "map of indefinite length": replace("\xa4", "\xbf"),
		"cut short": good[:len(good)-1], "byte behind the end": append(bytes.Clone(good), 0),
		"version 2, more fields": replace("\xa4\x61v\x01", "\xb0\x61v\x02"),
		"version 2":              replace("\x61v\x01", "\x61v\x02"), "version 0": replace("\x61v\x01", "\x61v\x00"),
		"number not in its shortest form": replace("\x61v\x01", "\x61v\x18\x01"),
		"known kind that is no must":      replace("\x64must\xf5", "\x64must\xf4"),
		"must that is no boolean":         replace("\x64must\xf5", "\x64must\x01"),
		"other key":                       replace("\x64kind", "\x64kand"),
		"one field too few":               replace("\xa4", "\xa3"),
		"one field too many":              replace("\xa4", "\xa5"),
		"empty root":                      append(replace("\xa4", "\xa5"), "\x64root\x40"...),
		"option of another type":          replace("\x61a\x01", "\x61a\x20"),
		"option twice":                    replace("\x63set\xa1\x61a\x01", "\x63set\xa2\x61a\x01\x61a\x01"),
		"options not in order":            replace("\x63set\xa1\x61a\x01", "\x63set\xa2\x61b\x01\x61a\x01"),
		"float":                           body("\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
		"undefined":                       body("\xf7"),
		"simple value":                    body("\xe0"),
		"tag of another kind":             body("\xc1\x01"),
		"link that is no CID":             body("\xd8\x2a\x41\x01"),
		"text that is not UTF-8":          body("\x61\xff"),
		"keys not in order":               body("\xa2\x61b\x01\x61a\x01"),
		"key twice":                       body("\xa2\x61a\x01\x61a\x01"),
		"longer key first":                body("\xa2\x62aa\x01\x61b\x01"),
		"key that is no text":             body("\xa1\x01\x01"),
		"key that is not UTF-8":           body("\xa1\x61\xff\x01"),
		"option that is not UTF-8":        replace("\x63set\xa1\x61a", "\x63set\xa1\x61\xff"),
		"nested too deep":                 body(strings.Repeat("\x81", 12) + "\x01"),
		"array of 2^63 items":             body("\x9b\x80\x00\x00\x00\x00\x00\x00\x00"),
		"bytes of 2^63":                   body("\x5b\x80\x00\x00\x00\x00\x00\x00\x00"),
	}
	maps.Copy(out, agreeFaults())
	a := newActor(1, 1)
	two := rotate(dag.ID{1})
	two.RotateKey.Wraps = []Wrap{{dag.PublicKey{2}, make([]byte, 48)}, {dag.PublicKey{1}, make([]byte, 48)}}
	out["wraps not in order"] = two.Encode()
	owner := changeRole(a, RoleOwner)
	out["role of an owner"] = owner.Encode()
	none := accept(dag.ID{1}, RoleNone, dag.ID{1})
	out["role of none"] = none.Encode()
	out["tips not in order"] = remove(a, next(dag.ID{1}), dag.ID{2}, dag.ID{1}).Encode()
	out["adoption of nothing"] = adopt().Encode()
	out["adoptions not in order"] = adopt(dag.ID{2}, dag.ID{1}).Encode()
	out["removal without an epoch"] = remove(a, nil).Encode()
	long := invite(1, RoleReader, dag.ID{1})
	long.Invite.Naming = make([]byte, maxSealed+1)
	out["naming key of 513 bytes"] = long.Encode()
	odd := invite(1, RoleReader, dag.ID{1})
	odd.Invite.HPKE = make([]byte, 32)
	out["invitation with an HPKE key of 32 bytes"] = odd.Encode()
	never := invite(1, RoleReader, dag.ID{1})
	never.Invite.Uses = MaxUses + 1
	out["invitation for 2^32 + 1 uses"] = never.Encode()
	twice := rotate(dag.ID{1})
	twice.RotateKey.Wraps = []Wrap{{dag.PublicKey{2}, make([]byte, 48)}, {dag.PublicKey{2}, make([]byte, 48)}}
	out["two wraps to one"] = twice.Encode()
	short := rotate(dag.ID{1})
	short.RotateKey.Wraps = []Wrap{{dag.PublicKey{2}, make([]byte, 31)}}
	out["wrapped key of 31 bytes"] = short.Encode()
	out["epochs not in order"] = rotate(dag.ID{2}, dag.ID{1}).Encode()
	hpke := addDevice(a, dag.ID{1})
	hpke.AddDevice.Certificate.HPKE = make([]byte, HPKEBytes-1)
	out["HPKE key cut short"] = hpke.Encode()
	serial := addDevice(a, dag.ID{1})
	serial.AddDevice.Certificate.Serial = 0
	out["serial of zero"] = serial.Encode()
	name := addDevice(a, dag.ID{1})
	name.AddDevice.Name = make([]byte, maxName+1)
	out["name too long"] = name.Encode()
	return out
}

func sortedVectors(m map[string]vector) []vector {
	var out []vector
	for name, v := range m {
		v.Name = name
		out = append(out, v)
	}
	for i := range out {
		for j := i; j > 0 && out[j].Name < out[j-1].Name; j-- {
			out[j], out[j-1] = out[j-1], out[j]
		}
	}
	return out
}

func TestVectors(t *testing.T) {
	a := newActor(1, 1)
	v := vectors{About: "Vectors of ../ACL.md: encodings of accounts' public keys, certificates, roots and records. HPKE keys and sealed fields are placeholders."}
	v.Accounts = []vector{{Name: "account", Hex: hexed(a.keys.Encode()), Identity: FormatIdentity(a.keys.Identity)}}
	v.Certificates = []vector{{Name: "device", Hex: hexed(a.cert.Encode()), PeerID: PeerID(a.cert.Device)}}
	v.Roots = []vector{
		{Name: "random", Hex: hexed(a.randomRoot().Encode()), ID: a.randomRoot().ID().String()},
		{Name: "derived", Hex: hexed(a.derivedRoot().Encode()), ID: a.derivedRoot().ID().String()},
		{Name: "one-to-one", Hex: hexed(rootOfTwo(a, newActor(2, 1)).Encode()), ID: rootOfTwo(a, newActor(2, 1)).ID().String()},
	}
	good, bad := make(map[string]vector), make(map[string]vector)
	for name, rec := range samples() {
		b := rec.Encode()
		back, err := DecodeRecord(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(back.Encode(), b) || cap(b) > rec.room() {
			t.Errorf("%s: encoding of %d bytes in %d", name, len(b), cap(b))
		}
		good[name] = vector{Hex: hexed(b)}
	}
	for name, b := range faults() {
		_, err := DecodeRecord(b)
		if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if errors.Is(err, ErrVersion) != strings.HasPrefix(name, "version") {
			t.Errorf("%s: %v", name, err)
		}
		bad[name] = vector{Hex: hexed(b), Error: err.Error()}
	}
	v.Good, v.Bad = sortedVectors(good), sortedVectors(bad)
	now, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	now = append(now, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if old, err := os.ReadFile(vectorsFile); err != nil || !bytes.Equal(old, now) {
		t.Fatalf("the format changed, or the words of an error: %v", err)
	}
}

// What is encoded is canonical to another reader of CBOR too.
func TestEncodingsAreCBOR(t *testing.T) {
	strict, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	order, err := cbor.EncOptions{Sort: cbor.SortLengthFirst}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	a := newActor(1, 1)
	all := map[string][]byte{"account": a.keys.Encode(), "certificate": a.cert.Encode(), "random root": a.randomRoot().Encode(),
		"derived root": a.derivedRoot().Encode(), "one-to-one root": rootOfTwo(a, newActor(2, 1)).Encode()}
	for name, rec := range samples() {
		all["record "+name] = rec.Encode()
	}
	for name, b := range all {
		var v any
		if err := strict.Unmarshal(b, &v); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := order.Marshal(v); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: another writer gives %x, %v", name, again, err)
		}
	}
}

func TestDecodersOfEveryLength(t *testing.T) {
	a := newActor(1, 1)
	check := func(name string, b []byte, decode func([]byte) error) {
		if err := decode(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for n := range b {
			if err := decode(b[:n]); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
				t.Fatalf("%s cut to %d: %v", name, n, err)
			}
		}
		if err := decode(append(bytes.Clone(b), 0)); !errors.Is(err, ErrFormat) {
			t.Fatalf("%s longer: %v", name, err)
		}
	}
	check("account", a.keys.Encode(), func(b []byte) error { _, err := DecodeAccountKeys(b); return err })
	check("certificate", a.cert.Encode(), func(b []byte) error { _, err := DecodeCertificate(b); return err })
	for _, root := range []*Root{a.randomRoot(), a.derivedRoot(), rootOfTwo(a, newActor(2, 1))} {
		check("root", root.Encode(), func(b []byte) error { _, err := DecodeRoot(b); return err })
	}
	for name, rec := range samples() {
		check(name, rec.Encode(), func(b []byte) error { _, err := DecodeRecord(b); return err })
	}
	if _, err := DecodeRecord(make([]byte, MaxRecord+1)); !errors.Is(err, ErrFormat) {
		t.Errorf("too long: %v", err)
	}
}

// Every bit of what is signed counts.
func TestSignatures(t *testing.T) {
	a := newActor(1, 1)
	flip := func(name string, b []byte, verify func([]byte) error) {
		if err := verify(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := 0; i < len(b); i += 1 + i/60 {
			bad := bytes.Clone(b)
			bad[i] ^= 1
			if verify(bad) == nil {
				t.Errorf("%s verifies with byte %d changed", name, i)
			}
		}
	}
	flip("account", a.keys.Encode(), func(b []byte) error {
		k, err := DecodeAccountKeys(b)
		if err != nil {
			return err
		}
		return k.Verify()
	})
	flip("certificate", a.cert.Encode(), func(b []byte) error {
		c, err := DecodeCertificate(b)
		if err != nil {
			return err
		}
		return c.Verify()
	})
	for _, root := range []*Root{a.randomRoot(), a.derivedRoot(), rootOfTwo(a, newActor(2, 1))} {
		flip("root", root.Encode(), func(b []byte) error {
			r, err := DecodeRoot(b)
			if err != nil {
				return err
			}
			return r.Verify()
		})
	}
}

// A decoder takes no more memory than 64 KiB and twice its input.
func TestDecodingIsBounded(t *testing.T) {
	big := rotate(dag.ID{1})
	for i := range 9000 {
		big.RotateKey.Wraps = append(big.RotateKey.Wraps, Wrap{dag.PublicKey{byte(i >> 8), byte(i)}, make([]byte, minWrap)})
	}
	inputs := map[string][]byte{"many wraps": big.Encode()}
	claim := bytes.Clone(inputs["many wraps"])
	inputs["wraps cut short"] = claim[:len(claim)/2]
	hollow := bytes.Clone(rotate(dag.ID{1}).Encode()) // items of one byte where there are to be wraps
	if at := bytes.Index(hollow, []byte("\x65wraps\x80")); at < 0 {
		t.Fatal("no wraps")
	} else {
		hollow = slices.Concat(hollow[:at+6], []byte{0x99, 0xff, 0xff}, make([]byte, 65535), hollow[at+7:])
	}
	inputs["wraps that are none"] = hollow
	inputs["nested"] = []byte("\xa4\x61v\x01\x64body" + strings.Repeat("\x81", 1<<18))
	inputs["array"] = append([]byte("\xa4\x61v\x01\x64body\x9a\x00\x0f\x00\x00"), bytes.Repeat([]byte{1}, 0xf0000)...)
	entries := append([]byte("\xa4\x61v\x01\x64body\xba"), 0, 3, 0xd, 0x40) // 200,000 of them
	for i := range 200_000 {
		entries = append(entries, 0x63, byte(i/128/128), byte(i/128%128), byte(i%128), 1)
	}
	inputs["map"] = append(entries, "\x64kind\x18\x63\x64must\xf4"...)
	if _, err := DecodeRecord(inputs["map"]); err != nil {
		t.Fatal(err)
	}
	root := newActor(1, 1).randomRoot()
	root.Wraps = big.RotateKey.Wraps
	inputs["root with many wraps"] = root.Encode()
	for name, b := range inputs {
		decode := func() { DecodeRecord(b) }
		if strings.HasPrefix(name, "root") {
			decode = func() { DecodeRoot(b) }
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		decode()
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10+2*uint64(len(b)) {
			t.Errorf("%s: %d bytes for %d", name, got, len(b))
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	seeds := 0
	for _, rec := range samples() {
		f.Add(rec.Encode())
		seeds++
	}
	for _, b := range faults() {
		f.Add(b)
	}
	if seeds < 8 {
		f.Fatal("no seeds")
	}
	a := newActor(1, 1)
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if !bytes.Equal(rec.Encode(), b) {
			t.Fatal("two encodings of one record")
		}
		// Whatever a record says, judging and folding it does not fail.
		s := newState(a.randomRoot(), dag.ID{1})
		batch := &dag.Batch{Account: public(a.account), Device: public(a.device), Clock: 2}
		if s.allows(batch, rec) == nil {
			s.apply(&node{id: dag.ID{3}, account: public(a.account), record: rec})
			s.Members()
			s.Epochs()
		}
	})
}

func FuzzDecodeRoot(f *testing.F) {
	a := newActor(1, 1)
	f.Add(a.randomRoot().Encode())
	f.Add(a.derivedRoot().Encode())
	f.Add(rootOfTwo(a, newActor(2, 1)).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRoot(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Encode(), b) {
			t.Fatal("two encodings of one root")
		}
		newState(r, r.ID())
	})
}

func FuzzDecodeCertificate(f *testing.F) {
	a := newActor(1, 1)
	f.Add(a.cert.Encode())
	f.Add(a.keys.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCertificate(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Fatal("two encodings of one certificate")
		}
		if k, err := DecodeAccountKeys(b); err == nil && !bytes.Equal(k.Encode(), b) {
			t.Fatal("two encodings of one account")
		}
	})
}
