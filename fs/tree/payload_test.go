package tree

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/dag"
)

func TestPayloadOfASmallFileIsSmall(t *testing.T) {
	text := bytes.Repeat([]byte("x"), 4096)
	p := &Payload{Kind: KindFile, Time: 1790000000123456789, Ops: []Op{
		{Kind: OpLink, Parent: dag.Sum([]byte("dir")), Name: "report-final.txt"},
		{Kind: OpMode, Mode: 0o644},
		{Kind: OpContent, Mtime: 1790000000123456789, Content: &Content{Size: 4096, Inline: text}},
	}}
	b, err := p.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if over := len(b) - len(text); over > 120 {
		t.Errorf("a payload costs %d bytes beside the content, want at most 120", over)
	}
}

// TestDecodingTakesBoundedMemory decodes payloads that are as long as they may be, of the items that grow most.
func TestDecodingTakesBoundedMemory(t *testing.T) {
	repeat := func(op Op, n int) *Payload {
		p := &Payload{}
		for range n {
			p.Ops = append(p.Ops, op)
		}
		return p
	}
	refs := make([]Ref, MaxOps)
	edits := make([]Edit, MaxEdits)
	for i := range edits {
		edits[i] = Edit{Off: int64(i), Len: 1, Bytes: []byte("x")}
	}
	layout := make([]Chunk, MaxOps)
	for i := range layout {
		layout[i] = Chunk{int64(i), 1}
	}
	// As many contents as fit, and in the rest of the room what else grows most.
	mixed := repeat(Op{Kind: OpContent, Content: &Content{}}, MaxOps-64)
	for range 30 {
		mixed.Ops = append(mixed.Ops, Op{Kind: OpContent, Over: refs[:1], Content: &Content{Size: MaxEdits, Patch: edits}})
	}
	listed := make([]Ref, 5000)
	for i := range listed {
		listed[i].Change = dag.Sum([]byte{byte(i), byte(i >> 8)})
	}
	most := MaxRefs - len(listed) - 30
	for ; most > 0; most -= MaxOps {
		mixed.Ops = append(mixed.Ops, Op{Kind: OpDrop, Over: refs[:min(most, MaxOps)]})
	}
	mixed.Ops = append(mixed.Ops, Op{Kind: OpDrop, Over: listed})
	for name, p := range map[string]*Payload{
		"mixed":      mixed,
		"operations": repeat(Op{Kind: OpMode}, MaxOps),
		"drops":      repeat(Op{Kind: OpDrop, Over: refs[:1]}, MaxOps),
		"contents":   repeat(Op{Kind: OpContent, Content: &Content{}}, MaxOps),
		"refs":       repeat(Op{Kind: OpDrop, Over: refs}, MaxRefs/MaxOps),
		"edits":      repeat(Op{Kind: OpContent, Over: refs[:1], Content: &Content{Size: MaxEdits, Patch: edits}}, 60),
		"layouts":    repeat(Op{Kind: OpContent, Content: &Content{Size: MaxOps, Root: blocks("x").Root, Layout: layout}}, 15),
	} {
		b, err := p.Encode(nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		back, err := DecodePayload(b, fuzzSelf, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if took, says := int(after.TotalAlloc-before.TotalAlloc), back.Memory(); took > says*5/4 || took < says*3/4 {
			t.Errorf("%s: takes %d, and says %d", name, took, says)
		}
		if took, limit := after.TotalAlloc-before.TotalAlloc, uint64(16<<20+4*len(b)); took > limit {
			t.Errorf("%s: %d bytes decode into %d, the limit is %d", name, len(b), took, limit)
		} else {
			t.Logf("%s: %d bytes decode into %d", name, len(b), took)
		}
	}

	// One ref more than there may be is refused before there is room for it.
	over := &encoder{}
	over.array(5)
	over.uint(payloadVersion)
	over.uint(0)
	over.int(0)
	over.array(0)
	over.array(2)
	for range 2 {
		over.array(2)
		over.uint(uint64(OpDrop))
		over.array(2 * (MaxRefs/2 + 1))
		over.b = append(over.b, make([]byte, 2*(MaxRefs/2+1))...)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := DecodePayload(over.b, fuzzSelf, nil)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrInvalid) || after.TotalAlloc-before.TotalAlloc > MaxRefs/2*48 {
		t.Errorf("more refs than there may be: %v, in %d bytes", err, after.TotalAlloc-before.TotalAlloc)
	}
}

// TestEncodingsAreCBOR holds payloads and states against another reader of CBOR.
func TestEncodingsAreCBOR(t *testing.T) {
	n := 0
	check := func(name string, b []byte) {
		n++
		var items []cbor.RawMessage
		if err := cbor.Unmarshal(b, &items); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, v := range payloadVectors() {
		if b, err := v.payload.Encode(v.parents); err == nil {
			check(v.name, b)
		}
	}
	for i, s := range stateVectors(t) {
		check(fmt.Sprint("state ", i), s.Encode())
	}
	if n < 20 {
		t.Errorf("only %d", n)
	}
}
