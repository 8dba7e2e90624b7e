package dag_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// seed adds the golden vectors of a kind to a fuzz target.
func seed(f *testing.F, kind string) {
	p, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		f.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(p, &vs); err != nil {
		f.Fatal(err)
	}
	n := 0
	for _, v := range vs {
		if v.Kind == kind {
			p, _ := hex.DecodeString(v.Hex)
			f.Add(p)
			n++
		}
	}
	if n < 10 {
		f.Fatalf("only %d seeds", n)
	}
}

// canonical: what decodes encodes to the same bytes.
func canonical(t *testing.T, kind string, p []byte) {
	_, again, err := decode(kind, p)
	if err != nil {
		if !errors.Is(err, dag.ErrFormat) && !errors.Is(err, dag.ErrVersion) {
			t.Errorf("unknown error %v", err)
		}
		return
	}
	if !bytes.Equal(again, p) {
		t.Errorf("%x comes back as %x", p, again)
	}
}

func FuzzDecodeChange(f *testing.F) {
	seed(f, "change")
	f.Fuzz(func(t *testing.T, p []byte) { canonical(t, "change", p) })
}

func FuzzDecodeBatch(f *testing.F) {
	seed(f, "batch")
	f.Fuzz(func(t *testing.T, p []byte) { canonical(t, "batch", p) })
}

func FuzzDecodeFrame(f *testing.F) {
	seed(f, "frame")
	f.Fuzz(func(t *testing.T, p []byte) {
		b, bodies, err := dag.DecodeFrame(p)
		if err != nil {
			if !errors.Is(err, dag.ErrFormat) && !errors.Is(err, dag.ErrVersion) {
				t.Errorf("unknown error %v", err)
			}
			return
		}
		if got := dag.EncodeFrame(b, bodies); !bytes.Equal(got, p) {
			t.Errorf("%x comes back as %x", p, got)
		}
		for i, body := range bodies {
			if body != nil && dag.Sum(body) != b.Changes[i] {
				t.Errorf("link %d is not the hash of its body", i)
			}
		}
		if _, err := dag.DecodeBatch(b.Encode()); err != nil {
			t.Errorf("the batch of a frame does not decode: %v", err)
		}
	})
}

// FuzzIngest: whatever bytes come in, the graph stays sound.
func FuzzIngest(f *testing.F) {
	seed(f, "frame")
	g, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
	if err != nil {
		f.Fatal(err)
	}
	batch, ids := put(f, g, author(1), "x", dag.ID{})
	frame, _ := g.Frame(batch.ID())
	f.Add(frame)
	batch, _ = put(f, g, author(1), "y", ids[0])
	frame, _ = g.Frame(batch.ID())
	f.Add(frame)
	f.Fuzz(func(t *testing.T, p []byte) {
		g := newGraph(t)
		p = bytes.Clone(p)
		res, err := g.Ingest(p)
		if (err == nil) != (res.Status != dag.Refused) {
			t.Errorf("%+v with %v", res, err)
		}
		if res.Status == dag.Accepted {
			if err := g.Verify(nil); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestAllocation: before a batch's signature is believed, n bytes of input cost at most 64 KiB + 2n of memory.
func TestAllocation(t *testing.T) {
	b := sampleBatch()
	head := dag.EncodeFrame(&dag.Batch{Version: 1, Space: b.Space, Account: b.Account, Device: b.Device, Seq: 1, Clock: 1}, nil)
	head = head[:len(head)-1]
	frame := func(body []byte) []byte {
		return append(append(bytes.Clone(head), 0x99, 0x03, 0xe8), bytes.Repeat(body, 1000)...)
	}
	parents := append([]byte("\x83\x58\x20"), idBytes("object")...)
	parents = append(parents, 0x98, 64)
	for _, id := range ids(64) {
		parents = append(append(parents, 0x58, 0x20), id[:]...)
	}
	g := newGraph(t)
	for name, p := range map[string][]byte{
		"1000 empty roots":          frame([]byte{0x81, 0x40}),
		"1000 links":                frame([]byte(link(dag.Sum(nil)))),
		"bodies that are not there": append(bytes.Clone(head), 0x99, 0x03, 0xe8),
		"a large payload":           append(append(bytes.Clone(head), 0x81, 0x81, 0x5a, 0, 15, 0, 0), make([]byte, 15<<16)...),
		"many parents":              append(append(bytes.Clone(head), 0x98, 200), bytes.Repeat(append(parents, 0x40), 200)...),
	} {
		least := ^uint64(0) // other goroutines may allocate too
		for range 5 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := g.Ingest(p)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		if limit := 64<<10 + 2*uint64(len(p)); least > limit {
			t.Errorf("%s: %d bytes for an input of %d", name, least, len(p))
		}
	}
}
