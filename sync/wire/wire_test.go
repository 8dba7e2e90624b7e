package wire

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

func id(n byte) (id dag.ID) {
	for i := range id {
		id[i] = n
	}
	return id
}

// examples has one of each message at least.
func examples() map[string]Message {
	return map[string]Message{
		"hello":          &Hello{Version: 1, Nonce: [32]byte(id(7))},
		"tags":           &Tags{Tags: make(List[Tag], MinTags)},
		"proof":          &Proof{Certificate: []byte("certificate"), Signature: [64]byte{1, 2, 3}},
		"bye":            &Bye{Reason: ByeNothing},
		"open":           &Open{Space: id(1)},
		"no heads":       &Heads{Graph: ACL},
		"two heads":      &Heads{Graph: Files, Batches: 12, Heads: List[dag.ID]{id(1), id(2)}},
		"digest":         &Heads{Graph: Files, Batches: 1 << 40, Digest: bytes.Repeat([]byte{9}, 32)},
		"pull":           &Pull{Graph: Files, Tips: List[Tip]{{Feed: id(1), Batch: id(2), Seq: 3}}},
		"pull more":      &Pull{Graph: ACL, More: true},
		"pull after":     &Pull{Graph: Files, Key: bytes.Repeat([]byte{4}, 16), Known: []byte{5}, Tips: List[Tip]{{Feed: id(1), Batch: id(2), Seq: 3}}},
		"probe":          &Probe{Graph: Files, Key: Key{4, 4}, Sums: make(List[Sum], MinSums)},
		"answer":         &Answer{Graph: Files, Key: Key{4, 4}, Ranges: []byte{RangeEqual, RangeDivide, RangeOpen, RangeNamed + 1}, IDs: List[Short]{{7}}},
		"frames":         &Frames{Graph: Files, Frames: [][]byte{[]byte("one"), bytes.Repeat([]byte("x"), 300)}},
		"end":            &End{Graph: ACL},
		"have":           &Have{Graph: Files, IDs: List[dag.ID]{id(3)}},
		"want":           &Want{Graph: Files, Back: 8, IDs: List[dag.ID]{id(3), id(1)}},
		"absent":         &Absent{Graph: ACL, IDs: List[dag.ID]{id(3)}},
		"statement":      &Statement{Device: dag.PublicKey(id(2)), Counter: 7, ACL: List[dag.ID]{id(1)}, Files: List[dag.ID]{id(2), id(3)}, Signature: [64]byte{1}},
		"ask":            &Ask{Space: id(5)},
		"get block":      &GetBlock{Request: 1, ID: block.ID(id(6)), Offset: 1 << 18},
		"part":           &Part{Request: 1, Left: 4, Data: []byte("data")},
		"last part":      &Part{Request: 1, Data: []byte("data")},
		"no block":       &Part{Request: 1, Absent: true},
		"has blocks":     &HasBlocks{Request: 2, IDs: List[block.ID]{block.ID(id(8))}},
		"held blocks":    &HeldBlocks{Request: 2, Bits: []byte{1}},
		"rely":           &Rely{Request: 4, IDs: List[block.ID]{block.ID(id(8)), block.ID(id(9))}},
		"withdraw":       &Withdraw{Request: 5, IDs: List[block.ID]{block.ID(id(8))}},
		"release":        &Release{Request: 6, IDs: List[block.ID]{block.ID(id(9))}},
		"guest":          &Guest{Space: id(5), Key: dag.PublicKey(id(6)), Signature: [64]byte{1}},
		"place":          &Place{Space: id(5), On: true, Counter: 3, Certificate: []byte("certificate"), Signature: [64]byte{1}},
		"placed":         &Place{Space: id(5), Counter: 4},
		"quota":          &Quota{Space: id(5), Used: 1 << 30, Limit: 1<<30 + 5},
		"quota, no more": &Quota{Space: id(5)},
		"sealed":         &Sealed{Space: id(5), IDs: List[block.ID]{block.ID(id(8)), block.ID(id(9))}},
		"preview":        &Preview{Record: []byte("record")},
		"held no blocks": &HeldBlocks{Request: 3, Bits: []byte{0}},
		"spaces":         &Spaces{IDs: List[dag.ID]{id(1), id(2)}},
		"served":         &Served{IDs: List[dag.ID]{id(1)}},
		"put block":      &PutBlock{Request: 1 << 20, ID: block.ID(id(6)), Left: 4, Data: []byte("data")},
		"network":        &Network{Config: []byte("configuration")},
		"content":        &Content{IDs: List[dag.ID]{id(1)}},
		"pair hello":     &PairHello{Version: 1, Tag: MaxPairTag, Nonce: [32]byte(id(7))},
		"pair share":     &PairShare{Share: [32]byte(id(8))},
		"pair confirm":   &PairConfirm{MAC: [32]byte(id(9))},
		"pair box":       &PairBox{More: true, Sealed: bytes.Repeat([]byte{1}, 40)},
		"pair refused":   &PairRefused{Reason: PairWrong, Left: 2},
		"join":           &Join{Token: bytes.Repeat([]byte{7}, 32), Kinds: 2, Capacity: 1, Addrs: []string{"/ip4/127.0.0.1/tcp/7328"}},
		"has batches":    &HasBatches{Request: 3, Graph: Files, IDs: List[dag.ID]{id(1), id(2)}},
		"join again":     &Join{Kinds: 4, Capacity: 10, Addrs: []string{"/ip4/127.0.0.1/tcp/7328"}},
		"meet":           &Meet{Slot: true, Tag: 407},
		"meet, no code":  &Meet{Tag: NoTag},
		"seen":           &Seen{Addr: "/ip4/192.0.2.7/udp/7327/quic-v1"},
		"present":        &Present{Devices: List[dag.PublicKey]{dag.PublicKey(id(1)), dag.PublicKey(id(2))}},
		"nobody present": &Present{},
		"lookup":         &Lookup{Tag: MaxPairTag},
		"put last":       &PutBlock{Request: 1, ID: block.ID(id(6)), Data: []byte("data")},
	}
}

func TestEveryKindHasAnExample(t *testing.T) {
	seen := map[Kind]bool{}
	for _, m := range examples() {
		seen[m.kind()] = true
	}
	for k := KindHello; k < meetKinds; k++ {
		switch k {
		case kinds:
			k = KindSpaces
		case nodeKinds:
			k = KindPairHello
		case pairKinds:
			k = KindMeet
		}
		if !seen[k] || k.new() == nil || k.new().kind() != k {
			t.Errorf("kind %d", k)
		}
	}
	for k := KindQuota; k < keepKinds; k++ {
		if !seen[k] || k.new() == nil || k.new().kind() != k {
			t.Errorf("kind %d", k)
		}
	}
}

func TestVectors(t *testing.T) {
	const name = "testdata/vectors.json"
	if *update {
		v := map[string]string{}
		for n, m := range examples() {
			v[n] = hex.EncodeToString(Append(nil, m))
		}
		p, _ := json.MarshalIndent(v, "", " ")
		if err := os.WriteFile(name, append(p, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var vectors map[string]string
	if err := json.Unmarshal(p, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors) != len(examples()) {
		t.Errorf("%d vectors, %d examples", len(vectors), len(examples()))
	}
	for n, m := range examples() {
		b := Append(nil, m)
		if got := hex.EncodeToString(b); got != vectors[n] {
			t.Errorf("%s: encodes as %s, not %s", n, got, vectors[n])
		}
		r := NewReader(bytes.NewReader(b))
		back, err := r.Read()
		if err != nil || !reflect.DeepEqual(back, m) && !bytes.Equal(Append(nil, back), b) {
			t.Errorf("%s: decodes as %+v, %v", n, back, err)
		}
		if _, err := r.Read(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", n, err)
		}
		// Cut short and with another byte behind it is refused.
		for cut := range b {
			if _, err := NewReader(bytes.NewReader(b[:cut])).Read(); err == nil {
				t.Errorf("%s: %d bytes of it are a message", n, cut)
			}
		}
		if _, err := Decode(append(b[4:], 0)); err == nil {
			t.Errorf("%s: a byte behind it is taken", n)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, h := range map[string]string{
		"nothing":              "",
		"no array":             "01",
		"empty array":          "80",
		"unknown kind":         "8117",
		"kind beyond a byte":   "811818",
		"number of two bytes":  "82041801",
		"indefinite array":     "9f0401ff",
		"missing item":         "8104",
		"further item":         "83040101",
		"graph 2":              "820902",
		"negative reason":      "820420",
		"text for bytes":       "82057820" + "6161616161616161616161616161616161616161616161616161616161616161",
		"space of 31 bytes":    "8205581f" + "61616161616161616161616161616161616161616161616161616161616161",
		"a million items":      "9a000f424009",
		"frames, a billion":    "8308009a3b9aca00",
		"list in two pieces":   "83" + "0a" + "01" + "5f40ff",
		"list of half an item": "830a0150" + "61616161616161616161616161616161",
		"unsorted heads":       "8506010040" + "5840" + hex.EncodeToString(append(bytes.Repeat([]byte{2}, 32), bytes.Repeat([]byte{1}, 32)...)),
		"empty frames":         "83080080",
		"an empty frame":       "8308008140",
		"tagged":               "c18104",
		"null for a list":      "830a01f6",
		"null for bytes":       "850f01f400f6",
	} {
		b, err := hex.DecodeString(h)
		if err != nil {
			t.Fatal(name, err)
		}
		if m, err := Decode(b); err == nil {
			t.Errorf("%s: %T %+v", name, m, m)
		}
	}
}

// A length that lies costs no more than what came.
func TestLyingLength(t *testing.T) {
	head := []byte{0, 0x10, 0, 0} // 1 MiB
	r := NewReader(bytes.NewReader(append(head, 1, 2, 3)))
	if _, err := r.Read(); !errors.Is(err, ErrTooLong) {
		t.Fatal(err)
	}
	n := allocated(func() {
		r := NewReader(bytes.NewReader(append(head, 1, 2, 3)))
		r.Limit = MaxBody
		if _, err := r.Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
	})
	if n > 80<<10 {
		t.Errorf("%d bytes allocated", n)
	}
}

func allocated(fn func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	fn()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// seedFolder has a seed for each example, which TestSeeds holds against them.
const seedFolder = "testdata/fuzz/FuzzDecode"

func TestSeeds(t *testing.T) {
	for name, m := range examples() {
		name := filepath.Join(seedFolder, strings.ReplaceAll(name, " ", "-"))
		want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", Append(nil, m)[4:])
		if *update {
			if err := errors.Join(os.MkdirAll(seedFolder, 0o755), os.WriteFile(name, []byte(want), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %v; -update writes it anew", name, err)
		}
	}
}

// FuzzReader: a stream of any bytes gives messages that encode to those bytes, and then an error.
func FuzzReader(f *testing.F) {
	var all []byte
	for _, m := range examples() {
		all = Append(all, m)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, p []byte) {
		r := NewReader(bytes.NewReader(p))
		var back []byte
		for {
			m, err := r.Read()
			if err != nil {
				break
			}
			back = Append(back, m)
		}
		if !bytes.HasPrefix(p, back) || r.Bytes < uint64(len(back)) {
			t.Errorf("%x was read as %x", p, back)
		}
	})
}

// FuzzDecode: what decodes encodes to the same bytes, and no input takes more memory than 64 KiB and twice its length.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, p []byte) {
		var m Message
		var err error
		n := allocated(func() { m, err = Decode(p) })
		if n > 64<<10+2*uint64(len(p)) {
			// Another goroutine of the test may have allocated meanwhile.
			if n = allocated(func() { m, err = Decode(p) }); n > 64<<10+2*uint64(len(p)) {
				t.Errorf("%d bytes allocated for %d", n, len(p))
			}
		}
		if err != nil {
			return
		}
		if b := Append(nil, m); !bytes.Equal(b[4:], p) {
			t.Errorf("%x encodes as %x", p, b)
		}
	})
}

func BenchmarkFrames(b *testing.B) {
	m := &Frames{Graph: Files}
	for range 256 {
		m.Frames = append(m.Frames, bytes.Repeat([]byte("x"), 1000))
	}
	p := Append(nil, m)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := Decode(p[4:]); err != nil {
			b.Fatal(err)
		}
		p = Append(p[:0], m)
	}
}
