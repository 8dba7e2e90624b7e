package tree

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

var rewrite = flag.Bool("update", false, "write the golden vectors anew")

// payloadVector is a payload to encode.
type payloadVector struct {
	name    string
	parents []dag.ID
	payload Payload
}

func payloadVectors() []payloadVector {
	dir := dag.Sum([]byte("directory"))
	other := Ref{dag.Sum([]byte("other change")), 2}
	in := func(i int, place uint32) Ref { return Ref{fuzzParents[i], place} }
	root := block.Sum([]byte("root")).NodeCID()
	const now = 1790000000123456789
	return []payloadVector{
		{"empty", nil, Payload{}},
		{"create a file", nil, Payload{Kind: KindFile, Time: now, Ops: []Op{
			{Kind: OpLink, Parent: dir, Name: "hello.txt"}, {Kind: OpMode, Mode: 0o644},
			{Kind: OpContent, Mtime: now, Content: text("hello\n")},
		}}},
		{"create a directory", nil, Payload{Kind: KindDir, Time: now, Ops: []Op{
			{Kind: OpLink, Parent: dir, Name: "sub"}, {Kind: OpMode, Mode: 0o2755}, {Kind: OpOwner, UID: 1000, GID: 0xffffffff},
		}}},
		{"create a symlink", nil, Payload{Kind: KindSymlink, Time: -1, Ops: []Op{
			{Kind: OpLink, Parent: dir, Name: "l\xff"}, {Kind: OpTarget, Target: "../else"}, {Kind: OpMtime, Mtime: -1},
		}}},
		{"create a device", nil, Payload{Kind: KindChar, Time: now, Ops: []Op{
			{Kind: OpLink, Parent: dir, Name: "null"}, {Kind: OpRdev, Rdev: 0x103},
		}}},
		{"an empty file", nil, Payload{Kind: KindFile, Ops: []Op{{Kind: OpContent, Content: &Content{}}}}},
		{"a hole", nil, Payload{Kind: KindFile, Ops: []Op{{Kind: OpContent, Content: &Content{Size: 1 << 40, Inline: []byte("x")}}}}},
		{"rename", fuzzParents, Payload{Time: now, Ops: []Op{
			{Kind: OpMove, Link: other, Over: []Ref{in(1, 0), other}, Parent: dir, Name: "new name"},
		}}},
		{"unlink", fuzzParents, Payload{Time: now, Ops: []Op{
			{Kind: OpUnlink, Link: in(0, 0), Over: []Ref{in(0, 0)}, Contents: []Ref{in(1, 3), other}},
		}}},
		{"blocks", fuzzParents[:1], Payload{Time: now, Ops: []Op{{Kind: OpContent, Over: []Ref{in(0, 1)}, Mtime: now, Content: &Content{
			Size: 5 << 20, Root: root, Layout: []Chunk{{0, 1 << 20}, {1 << 20, 300_000}, {4 << 20, 1 << 20}},
		}}}}},
		{"blocks with their layout in a block", nil, Payload{Ops: []Op{{Kind: OpContent, Content: &Content{
			Size: 1 << 40, Root: root, LayoutBlock: block.Sum([]byte("layout")), Epoch: dag.Sum([]byte("epoch")),
		}}}}},
		{"a patch", fuzzParents, Payload{Ops: []Op{{Kind: OpContent, Over: []Ref{in(1, 1)}, Mtime: now, Content: &Content{
			Size: 10_000, Patch: []Edit{{0, 3, []byte("abc")}, {3, 4096, nil}, {9000, 10, []byte("xyz")}},
		}}}}},
		{"a truncation", fuzzParents, Payload{Ops: []Op{{Kind: OpContent, Over: []Ref{in(1, 1)}, Content: &Content{Size: 7, Patch: []Edit{}}}}}},
		{"a merge and a write over it", fuzzParents, Payload{Time: now, Ops: []Op{
			{Kind: OpContent, Over: []Ref{in(0, 0), in(1, 0)}, Mtime: now, Content: text("merged\n")},
			{Kind: OpContent, Over: []Ref{{}}, Mtime: now, Content: text("merged and more\n")},
		}}},
		{"drop", fuzzParents, Payload{Ops: []Op{{Kind: OpDrop, Over: []Ref{in(0, 2)}}}}},
		{"attributes", fuzzParents, Payload{Ops: []Op{
			{Kind: OpXattr, Name: "user.a", Value: []byte{0, 1}}, {Kind: OpXattr, Name: "user.b", Remove: true}, {Kind: OpXattr, Name: "user.c"},
		}}},
		{"an unknown operation", fuzzParents, Payload{Ops: []Op{{Kind: 200, Raw: []byte{0x83, 0x18, 200, 0xa1, 0x61, 0x78, 0xf6, 0xd8, 0x2a, 0x40}}}}},
		{"a snapshot", fuzzParents, Payload{Ops: []Op{{Kind: OpMode, Mode: 0o600}}, Snapshot: NewState(fuzzSelf).Encode()}},
	}
}

// badPayload is one that is refused.
type badPayload struct {
	name  string
	bytes []byte
}

func badPayloads() []badPayload {
	h := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			panic(err)
		}
		return b
	}
	id := strings.Repeat("11", 32)
	parent := hex.EncodeToString(fuzzParents[0][:])
	return []badPayload{
		{"nothing", nil},
		{"not an array", h("00")},
		{"four items", h("84 01 00 00 80")},
		{"version 0", h("85 00 00 00 80 80")},
		{"kind 8", h("85 01 08 00 80 80")},
		{"bytes behind the end", h("85 01 00 00 80 80 00")},
		{"cut off", h("85 01 00 00 80")},
		{"number longer than needed", h("85 01 00 18 17 80 80")},
		{"indefinite length", h("9f 01 00 00 80 80 ff")},
		{"id that nothing refers to", h("85 01 00 00 81 5820" + id + "80")},
		{"id of 31 bytes", h("85 01 00 00 81 581f" + id[:62] + "81 82 0b 82 03 00")},
		{"parent among the ids", h("85 01 00 00 81 5820" + parent + "81 82 0b 82 03 00")},
		{"id twice", h("85 01 00 00 82 5820" + id + "5820" + id + "81 82 0b 84 03 00 04 00")},
		{"ids not in the order of use", h("85 01 00 00 82 5820" + id + "5820" + strings.Repeat("22", 32) + "81 82 0b 84 04 00 03 00")},
		{"ref beyond the ids", h("85 01 00 00 80 81 82 0b 82 03 00")},
		{"odd refs", h("85 01 00 00 80 81 82 0b 83 01 00 01")},
		{"operation without a kind", h("85 01 00 00 80 81 80")},
		{"name with a slash", h("85 01 01 00 80 81 83 03 5820" + id + "43 612f62")},
		{"empty name", h("85 01 01 00 80 81 83 03 5820" + id + "40")},
		{"name that is text", h("85 01 01 00 80 81 83 03 5820" + id + "61 61")},
		{"parent of zeros", h("85 01 01 00 80 81 83 03 5820" + strings.Repeat("00", 32) + "41 61")},
		{"mode with type bits", h("85 01 00 00 80 81 82 0d 1981a4")},
		{"drop of nothing", h("85 01 00 00 80 81 82 0b 80")},
		{"patch over nothing", h("85 01 00 00 80 81 85 09 80 00 0a 81 80")},
		{"inline longer than the size", h("85 01 00 00 80 81 85 09 80 00 01 42 6161")},
		{"edit beyond the size", h("85 01 00 00 80 81 85 09 82 01 00 00 02 81 83 00 43 616161 00")},
		{"root that is no CID", h("85 01 00 00 80 81 85 09 80 00 01 82 43 010203 82 00 01")},
		{"symlink to nothing", h("85 01 03 00 80 81 82 13 40")},
	}
}

type jsonPayload struct {
	Name    string
	Parents []string `json:",omitempty"`
	Self    string   `json:",omitempty"`
	Bytes   string
	Says    []string `json:",omitempty"` // the decoded operations in words; absent: it is refused
}

func ids(list []dag.ID) (out []string) {
	for _, id := range list {
		out = append(out, hex.EncodeToString(id[:]))
	}
	return out
}

func hexIDs(t testing.TB, list []string) (out []dag.ID) {
	t.Helper()
	for _, s := range list {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != 32 {
			t.Fatalf("id %q", s)
		}
		out = append(out, dag.ID(b))
	}
	return out
}

// say writes an operation out.
func (o *Op) say() string {
	ref := func(r Ref) string { return fmt.Sprintf("%x.%d", r.Change[:4], r.Place) }
	refs := func(rs []Ref) (out []string) {
		for _, r := range rs {
			out = append(out, ref(r))
		}
		return out
	}
	s := fmt.Sprintf("kind %d link %s over %v contents %v parent %x name %q mode %o uid %d gid %d rdev %d mtime %d target %q value %x remove %v raw %x",
		o.Kind, ref(o.Link), refs(o.Over), refs(o.Contents), o.Parent[:4], o.Name, o.Mode, o.UID, o.GID, o.Rdev, o.Mtime, o.Target, o.Value, o.Remove, o.Raw)
	if c := o.Content; c != nil {
		root := "none"
		if c.Root.Defined() {
			root = c.Root.String()
		}
		s += fmt.Sprintf(" size %d inline %q root %s layout %v block %x epoch %x", c.Size, c.Inline, root, c.Layout, c.LayoutBlock[:4], c.Epoch[:4])
		if c.IsPatch() {
			s += " patch"
			for _, e := range c.Patch {
				s += fmt.Sprintf(" %d+%d %q", e.Off, e.Len, e.Bytes)
			}
		}
	}
	return s
}

func (p *Payload) say() []string {
	out := []string{fmt.Sprintf("kind %d time %d snapshot %x", p.Kind, p.Time, p.Snapshot)}
	for i := range p.Ops {
		out = append(out, p.Ops[i].say())
	}
	return out
}

func golden(t *testing.T, file string, v any, make func() any) {
	t.Helper()
	if *rewrite {
		b, err := json.MarshalIndent(make(), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func TestPayloadVectors(t *testing.T) {
	var vs []jsonPayload
	golden(t, "testdata/payloads.json", &vs, func() any {
		var out []jsonPayload
		for _, v := range payloadVectors() {
			b, err := v.payload.Encode(v.parents)
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			p, err := DecodePayload(b, fuzzSelf, v.parents)
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			out = append(out, jsonPayload{v.name, ids(v.parents), hex.EncodeToString(fuzzSelf[:]), hex.EncodeToString(b), p.say()})
		}
		for _, v := range badPayloads() {
			out = append(out, jsonPayload{"bad: " + v.name, ids(fuzzParents), hex.EncodeToString(fuzzSelf[:]), hex.EncodeToString(v.bytes), nil})
		}
		return out
	})
	good, bad := 0, 0
	for _, v := range vs {
		b, err := hex.DecodeString(v.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		self, parents := hexIDs(t, []string{v.Self})[0], hexIDs(t, v.Parents)
		p, err := DecodePayload(b, self, parents)
		if v.Says == nil {
			bad++
			if err == nil {
				t.Errorf("%s: is taken", v.Name)
			}
			continue
		}
		good++
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		if got := p.say(); !slices.Equal(got, v.Says) {
			t.Errorf("%s: says\n%s", v.Name, strings.Join(got, "\n"))
		}
		if again, err := p.encodeAs(self, parents); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: encodes to %x (%v)", v.Name, again, err)
		}
	}
	if good < 18 || bad < 25 {
		t.Errorf("%d good vectors and %d bad ones", good, bad)
	}
}

// TestFuturePayload: the payload of a later version is told from one that is broken.
func TestFuturePayload(t *testing.T) {
	p, err := DecodePayload([]byte{0x83, 0x02, 0xa0, 0x61, 'x'}, fuzzSelf, nil)
	if err != nil || !p.Future {
		t.Errorf("%+v %v", p, err)
	}
	if _, err := DecodePayload([]byte{0x83, 0x02, 0xa0}, fuzzSelf, nil); err == nil {
		t.Error("a broken one is taken")
	}
}

// stateVectors returns the states of the objects of all scenarios.
func stateVectors(t testing.TB) []*State {
	var out []*State
	for _, sc := range scenarios() {
		w := runScenario(t, sc)
		for _, id := range sortedIDs(w.users[0].store.objects) {
			out = append(out, w.users[0].store.objects[id].State)
		}
	}
	return out
}

type jsonChange struct {
	Object  string
	ID      string
	Parents []string `json:",omitempty"`
	Device  string
	Clock   uint64
	Batch   string
	Place   uint32
	Payload string
}

// jsonStory is a scenario as a set of changes, the tree that it gives, and the states of its objects.
type jsonStory struct {
	Name    string
	Space   string
	Root    string
	Devices map[string]string
	Changes []jsonChange
	Tree    []string          // path, object, whether it is a conflict copy, attributes and content
	States  map[string]string // the encoded state of each object
}

func TestTreeVectors(t *testing.T) {
	var vs []jsonStory
	golden(t, "testdata/trees.json", &vs, func() any {
		var out []jsonStory
		for _, sc := range scenarios() {
			out = append(out, tellJSON(t, sc))
		}
		return out
	})
	if len(vs) < 25 {
		t.Errorf("%d stories", len(vs))
	}
	for _, v := range vs {
		names := map[dag.PublicKey]string{}
		for k, n := range v.Devices {
			names[dag.PublicKey(hexIDs(t, []string{k})[0])] = n
		}
		r := newReplica(t, 0, names)
		root := r.tree.Root()
		if v.Space != hex.EncodeToString(simSpace[:]) || v.Root != hex.EncodeToString(root[:]) {
			t.Fatalf("%s: another space", v.Name)
		}
		for _, c := range v.Changes {
			b, err := hex.DecodeString(c.Payload)
			if err != nil {
				t.Fatal(err)
			}
			all := hexIDs(t, []string{c.Object, c.ID, c.Device, c.Batch})
			p, err := DecodePayload(b, all[1], hexIDs(t, c.Parents))
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			at := Stamp{all[1], dag.Pos{Clock: c.Clock, Batch: all[3], Place: c.Place}, dag.PublicKey(all[2])}
			r.store.AddChange(all[0], at, p)
			if _, err := r.tree.Apply(Change{all[0], at, p}); err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
		}
		if got := storyTree(t, r); !slices.Equal(got, v.Tree) {
			t.Errorf("%s: the tree is\n%s", v.Name, strings.Join(got, "\n"))
		}
		if got := storyStates(r); fmt.Sprint(got) != fmt.Sprint(v.States) {
			t.Errorf("%s: the states differ", v.Name)
		}
	}
}

func storyTree(t testing.TB, r *replica) (out []string) {
	for _, e := range walkTree(t, r.tree) {
		out = append(out, fmt.Sprintf("%s %x conflict %v %s", e.path, e.object[:4], e.conflict, e.what))
	}
	return out
}

func storyStates(r *replica) map[string]string {
	out := map[string]string{}
	for id, o := range r.store.objects {
		out[hex.EncodeToString(id[:])] = hex.EncodeToString(o.State.Encode())
	}
	return out
}

func tellJSON(t testing.TB, sc scenario) jsonStory {
	w := runScenario(t, sc)
	r := w.users[0].replica
	root := r.tree.Root()
	v := jsonStory{Name: sc.name, Space: hex.EncodeToString(simSpace[:]), Root: hex.EncodeToString(root[:]), Devices: map[string]string{}}
	for k, n := range r.store.names {
		v.Devices[hex.EncodeToString(k[:])] = n
	}
	for _, b := range r.order {
		for i, c := range b.changes {
			v.Changes = append(v.Changes, jsonChange{
				ids([]dag.ID{c.object})[0], ids([]dag.ID{c.id})[0], ids(c.parents), hex.EncodeToString(b.device[:]),
				b.clock, ids([]dag.ID{b.id})[0], uint32(i), hex.EncodeToString(c.payload),
			})
		}
	}
	v.Tree, v.States = storyTree(t, r), storyStates(r)
	return v
}

func TestCopyNameVectors(t *testing.T) {
	for _, v := range []struct {
		name, device string
		k            int
		want         string
	}{
		{"report.txt", "laptop", 4, "report (conflict laptop 2026-01-31 IYDL).txt"},
		{"archive.tar.gz", "Zoë's phone", 6, "archive.tar (conflict Zoë's phone 2026-01-31 IYDLUI).gz"},
		{".bashrc", "a/b\x01", 4, ".bashrc (conflict a_b_ 2026-01-31 IYDL)"},
		{"v1.2 final", "", 4, "v1.2 final (conflict unknown 2026-01-31 IYDL)"},
		{"x", "a very long name of a device, too long", 4, "x (conflict a very long name of a device, to 2026-01-31 IYDL)"},
		{"x", "m (conflict n", 4, "x (conflict m _conflict n 2026-01-31 IYDL)"},
	} {
		l := loser{v.name, v.device, 1_769_860_800e9, fuzzSelf, fuzzParents[0], 1}
		if got := l.copyName(v.k); got != v.want {
			t.Errorf("%q of %q: %q, want %q", v.name, v.device, got, v.want)
		}
	}
}
