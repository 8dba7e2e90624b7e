package dag_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

// vector is an encoding, with the ID that it has or the fault for which it is refused.
type vector struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"` // change, batch or frame
	Hex   string `json:"hex"`
	ID    string `json:"id,omitempty"` // of a good one
	Fault string `json:"fault,omitempty"`
}

func golden(t *testing.T, name string, v any) {
	t.Helper()
	want, err := json.MarshalIndent(v, "", "  ")
	must(t, err)
	want = append(want, '\n')
	path := "testdata/" + name
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, want, 0o644))
	}
	got, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code makes; go test -update writes it anew", path)
	}
}

// swap replaces the one place where old stands.
func swap(p []byte, old, new string) []byte {
	if n := bytes.Count(p, []byte(old)); n != 1 {
		panic("a vector's pattern " + hex.EncodeToString([]byte(old)) + " stands in more or fewer places than one")
	}
	return bytes.Replace(p, []byte(old), []byte(new), 1)
}

func ids(n int) []dag.ID {
	out := make([]dag.ID, n)
	for i := range out {
		out[i] = dag.Sum([]byte{byte(i)})
	}
	slices.SortFunc(out, dag.ID.Compare)
	return out
}

const linkPrefix = "\xd8\x2a\x58\x25\x00\x01\x71\x1e\x20"

func link(id dag.ID) string { return linkPrefix + string(id[:]) }

func sampleChange(parents int) *dag.Change {
	return &dag.Change{Object: dag.Sum([]byte("object")), Parents: ids(parents), Clock: 500, Device: author(1).Device,
		Payload: []byte("sealed bytes of a payload")}
}

func sampleRoot() *dag.Change {
	return &dag.Change{Clock: 1, Device: author(1).Device, Payload: []byte("sealed bytes of a root")}
}

func changeVectors() (vs []vector) {
	good := func(name string, c *dag.Change) {
		vs = append(vs, vector{Name: name, Kind: "change", Hex: hex.EncodeToString(c.Encode()), ID: c.ID().String()})
	}
	bad := func(fault string, p []byte) {
		vs = append(vs, vector{Name: strings.ReplaceAll(fault, " ", "-"), Kind: "change", Hex: hex.EncodeToString(p), Fault: fault})
	}
	good("root", sampleRoot())
	good("one parent", sampleChange(1))
	good("no parents", sampleChange(0))
	good("64 parents", sampleChange(64))
	empty := sampleRoot()
	empty.Payload = nil
	good("empty payload", empty)

	two := sampleChange(2)
	p, parents := two.Encode(), ids(2)
	bad("parents not sorted", swap(p, link(parents[0])+link(parents[1]), link(parents[1])+link(parents[0])))
	bad("a parent twice", swap(p, link(parents[1]), link(parents[0])))
	bad("65 parents", sampleChange(65).Encode())
	bad("parent with another codec", swap(p, link(parents[0]), strings.Replace(link(parents[0]), "\x01\x71", "\x01\x55", 1)))
	bad("parent with another hash", swap(p, link(parents[0]), strings.Replace(link(parents[0]), "\x1e\x20", "\x12\x20", 1)))
	bad("parent without the tag", swap(p, "\x82"+link(parents[0]), "\x82"+link(parents[0])[2:]))
	bad("parents of indefinite length", append(swap(p, "parents\x82", "parents\x9f"), 0xff))
	bad("root with parents", swap(swap(p, "\x66object\x58\x20"+string(two.Object[:]), ""), "\xa6\x61v", "\xa5\x61v"))
	bad("object of zeroes", swap(p, string(two.Object[:]), strings.Repeat("\x00", 32)))
	bad("object of 31 bytes", swap(p, "\x66object\x58\x20"+string(two.Object[:1]), "\x66object\x58\x1f"))
	bad("clock of zero", swap(sampleRoot().Encode(), "clock\x01", "clock\x00"))
	bad("clock not in its shortest form", swap(p, "clock\x19\x01\xf4", "clock\x1a\x00\x00\x01\xf4"))
	bad("clock beyond its limit", swap(p, "clock\x19\x01\xf4", "clock\x1b\x00\x01\x00\x00\x00\x00\x00\x00"))
	bad("negative clock", swap(p, "clock\x19\x01\xf4", "clock\x39\x01\xf4"))
	bad("clock as a float", swap(p, "clock\x19\x01\xf4", "clock\xf9\x01\xf4"))
	bad("keys not sorted", append([]byte("\xa5\x61v\x01\x66device\x58\x20"+string(two.Device[:])), "\x65clock\x01\x67parents\x80\x67payload\x40"...))
	bad("a field twice", swap(sampleRoot().Encode(), "\xa5\x61v\x01\x65clock\x01", "\xa6\x61v\x01\x65clock\x01\x65clock\x01"))
	bad("a field too many", append(swap(p, "\xa6\x61v", "\xa7\x61v"), "\x67zzzzzzz\x01"...))
	bad("a field too few", swap(p, "\xa6\x61v\x01\x65clock\x19\x01\xf4", "\xa5\x61v\x01"))
	bad("map of indefinite length", append(swap(p, "\xa6\x61v", "\xbf\x61v"), 0xff))
	bad("another version", swap(p, "\x61v\x01", "\x61v\x02"))
	bad("another version, more fields", swap(p, "\xa6\x61v\x01", "\xb0\x61v\x02"))
	bad("a byte behind the end", append(slices.Clone(p), 0))
	bad("cut short", p[:len(p)-1])
	bad("payload longer than a batch", (&dag.Change{Clock: 1, Payload: make([]byte, dag.MaxBytes)}).Encode()[:100])
	bad("empty", nil)
	return vs
}

func sampleBatch() *dag.Batch {
	all := ids(6)
	b := &dag.Batch{Version: 1, Space: space, Account: author(1).Account, Device: author(1).Device, Seq: 7, Prev: all[0],
		Deps: all[1:3], Clock: 300, ACL: all[3:4], Epoch: dag.Sum([]byte("epoch")), Changes: all[4:]}
	signBatch(b, author(1))
	return b
}

func batchVectors() (vs []vector) {
	add := func(v vector, p []byte) {
		v.Kind, v.Hex = "batch", hex.EncodeToString(p)
		vs = append(vs, v)
	}
	good := func(name string, b *dag.Batch) { add(vector{Name: name, ID: b.ID().String()}, b.Encode()) }
	bad := func(fault string, p []byte) {
		add(vector{Name: strings.ReplaceAll(fault, " ", "-"), Fault: fault}, p)
	}
	with := func(f func(b *dag.Batch)) *dag.Batch {
		b := sampleBatch()
		f(b)
		signBatch(b, author(1))
		return b
	}
	good("all fields", sampleBatch())
	good("first of a feed", with(func(b *dag.Batch) { b.Seq, b.Prev, b.Deps, b.Clock = 1, dag.ID{}, nil, 1 }))
	good("no epoch", with(func(b *dag.Batch) { b.Epoch = dag.ID{} }))
	good("64 deps and no changes", with(func(b *dag.Batch) { b.Deps, b.Changes, b.Prev, b.Seq = ids(64), nil, dag.ID{}, 1 }))

	b := sampleBatch()
	p := b.Encode()
	bad("deps not sorted", swap(p, link(b.Deps[0])+link(b.Deps[1]), link(b.Deps[1])+link(b.Deps[0])))
	bad("prev among the deps", with(func(b *dag.Batch) { b.Deps = []dag.ID{b.Prev, b.Deps[0]} }).Encode())
	bad("65 deps", with(func(b *dag.Batch) { b.Deps, b.Prev, b.Seq = ids(65), dag.ID{}, 1 }).Encode())
	bad("acl heads not sorted", with(func(b *dag.Batch) { b.ACL = []dag.ID{b.Deps[1], b.Deps[0]} }).Encode())
	bad("1001 changes", with(func(b *dag.Batch) { b.Changes = make([]dag.ID, 1001) }).Encode())
	bad("seq of zero", with(func(b *dag.Batch) { b.Seq = 0 }).Encode())
	bad("seq 1 with prev", with(func(b *dag.Batch) { b.Seq = 1 }).Encode())
	bad("later seq without prev", with(func(b *dag.Batch) { b.Prev = dag.ID{} }).Encode())
	bad("seq above the clock", with(func(b *dag.Batch) { b.Seq = 301 }).Encode())
	bad("epoch of zeroes", swap(p, string(b.Epoch[:]), strings.Repeat("\x00", 32)))
	bad("prev of zeroes", swap(p, string(b.Prev[:]), strings.Repeat("\x00", 32)))
	bad("signature of 63 bytes", swap(p, "\x63sig\x58\x40"+string(b.Signature[:1]), "\x63sig\x58\x3f"))
	bad("another version", swap(p, "\x61v\x01", "\x61v\x02"))
	bad("another version, more fields", swap(p, "\xac\x61v\x01", "\xb8\x18\x61v\x02"))
	bad("another version, fewer fields", swap(p, "\xac\x61v\x01", "\xa1\x61v\x02"))
	bad("prev left out and counted", swap(p, "\x64prev"+link(b.Prev), ""))
	bad("a byte behind the end", append(slices.Clone(p), 0))
	bad("cut short", p[:len(p)-1])
	return vs
}

func frameVectors() (vs []vector) {
	good := func(name string, b *dag.Batch, bodies [][]byte) {
		signBatch(b, author(1))
		vs = append(vs, vector{Name: name, Kind: "frame", Hex: hex.EncodeToString(dag.EncodeFrame(b, bodies)), ID: b.ID().String()})
	}
	bad := func(fault string, p []byte) {
		vs = append(vs, vector{Name: strings.ReplaceAll(fault, " ", "-"), Kind: "frame", Hex: hex.EncodeToString(p), Fault: fault})
	}
	sample := func(cs ...*dag.Change) (*dag.Batch, [][]byte) {
		b := sampleBatch()
		b.Changes = nil
		var bodies [][]byte
		for _, c := range cs {
			c.Clock, c.Device = b.Clock, b.Device
			b.Changes = append(b.Changes, c.ID())
			bodies = append(bodies, c.Encode())
		}
		signBatch(b, author(1))
		return b, bodies
	}
	b, bodies := sample(sampleRoot(), sampleChange(1), sampleChange(30))
	good("three changes", b, bodies)
	empty, _ := sample()
	good("no changes", empty, nil)
	forgotten := [][]byte{bodies[0], nil, bodies[2]}
	good("a forgotten body", b, forgotten)

	b, bodies = sample(sampleChange(2))
	p := dag.EncodeFrame(b, bodies)
	parents := ids(2)
	short := func(id dag.ID) string { return "\x58\x20" + string(id[:]) }
	bad("parents of a body not sorted", swap(p, short(parents[0])+short(parents[1]), short(parents[1])+short(parents[0])))
	bad("body of two items", swap(p, "\x83"+short(dag.Sum([]byte("object")))+"\x82", "\x82"+short(dag.Sum([]byte("object")))+"\x82"))
	bad("body with an object of zeroes", swap(p, string(bytes.Clone(idBytes("object"))), strings.Repeat("\x00", 32)))
	bad("frame of one item", append([]byte{0x81}, p[1:]...))
	bad("frame of three items", append([]byte{0x83}, p[1:]...))
	bad("bodies of indefinite length", append(swap(p, "\x81\x83"+short(dag.Sum([]byte("object"))), "\x9f\x83"+short(dag.Sum([]byte("object")))), 0xff))
	bad("links to changes in the head", slices.Concat([]byte{0x82}, b.Encode(), []byte{0x80}))
	bad("a byte behind the end", append(slices.Clone(p), 0))
	bad("cut short", p[:len(p)-1])
	return vs
}

func idBytes(s string) []byte { id := dag.Sum([]byte(s)); return id[:] }

// TestVectors pins the encodings: good ones decode and give the same bytes and ID again, bad ones are refused.
func TestVectors(t *testing.T) {
	vs := slices.Concat(changeVectors(), batchVectors(), frameVectors())
	golden(t, "vectors.json", vs)
	if len(vs) < 50 {
		t.Errorf("only %d vectors", len(vs))
	}
	for _, v := range vs {
		p, err := hex.DecodeString(v.Hex)
		must(t, err)
		id, again, err := decode(v.Kind, p)
		switch {
		case v.Fault == "" && err != nil:
			t.Errorf("%s %s: %v", v.Kind, v.Name, err)
		case v.Fault == "" && (id.String() != v.ID || !bytes.Equal(p, again)):
			t.Errorf("%s %s: comes back as %s %x", v.Kind, v.Name, id, again)
		case strings.HasPrefix(v.Fault, "another version") && !errors.Is(err, dag.ErrVersion):
			t.Errorf("%s %s: %v", v.Kind, v.Name, err)
		case v.Fault != "" && !strings.HasPrefix(v.Fault, "another version") && !errors.Is(err, dag.ErrFormat):
			t.Errorf("%s %s: %v", v.Kind, v.Name, err)
		}
	}
}

// decode returns the ID and what encoding again gives.
func decode(kind string, p []byte) (dag.ID, []byte, error) {
	switch kind {
	case "change":
		c, err := dag.DecodeChange(p)
		if err != nil {
			return dag.ID{}, nil, err
		}
		return c.ID(), c.Encode(), nil
	case "batch":
		b, err := dag.DecodeBatch(p)
		if err != nil {
			return dag.ID{}, nil, err
		}
		return b.ID(), b.Encode(), nil
	}
	b, bodies, err := dag.DecodeFrame(p)
	if err != nil {
		return dag.ID{}, nil, err
	}
	for i, body := range bodies {
		if body != nil && dag.Sum(body) != b.Changes[i] {
			return dag.ID{}, nil, errors.New("a link that is not the hash of its body")
		}
	}
	return b.ID(), dag.EncodeFrame(b, bodies), nil
}
