package preview

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/tree"
)

func key() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) }

func record(t testing.TB) *Record {
	r := &Record{
		Space: dag.ID{1}, Device: dag.PublicKey(key().Public().(ed25519.PublicKey)), Time: 1_700_000_000_000_000_000, Batches: 12,
		ACL: []dag.ID{{2}, {3}}, Heads: []dag.ID{{4}}, Root: []block.ID{{9}, {8}},
	}
	if err := r.Sign(key()); err != nil {
		t.Fatal(err)
	}
	return r
}

func entries() []Entry {
	return []Entry{
		{Name: "big", Mode: 0100644, Mtime: 5, Size: 3000, Content: &tree.Content{
			Size: 3000, Root: block.ID{6}.NodeCID(), Layout: []tree.Chunk{{Off: 0, Len: 1000}, {Off: 2000, Len: 1000}},
		}},
		{Name: "dir", Mode: 040755, Pages: []block.ID{{1}, {2}}},
		{Name: "fifo", Mode: 010600, Mtime: -1},
		{Name: "huge", Mode: 0100600, Mtime: 5, Size: 1 << 40, Content: &tree.Content{Size: 1 << 40, Root: block.ID{6}.CID(), LayoutBlock: block.ID{5}}},
		{Name: "link", Mode: 0120777, Mtime: 5, Target: "../big"},
		{Name: "not listed", Mode: 042755, Unlisted: true},
		{Name: "small", Mode: 0100644, Mtime: 5, Size: 3, At: tree.Ref{Change: dag.ID{3}, Place: 2}},
		{Name: "x", Mode: 0100644},
	}
}

func pageOf(t testing.TB, list []Entry) []byte {
	var w Writer
	for i := range list {
		if full, err := w.Add(&list[i]); err != nil || full {
			t.Fatal(full, err)
		}
	}
	b, err := w.Page()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVectors: the bytes of a record and a page are those of testdata/vectors.txt. UPDATE=1 writes them.
func TestVectors(t *testing.T) {
	b, err := record(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	got := "record " + hex.EncodeToString(b) + "\npage " + hex.EncodeToString(pageOf(t, entries())) + "\n"
	const name = "testdata/vectors.txt"
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || string(want) != got {
		t.Errorf("%v; the bytes are\n%s", err, got)
	}
}

func TestRecord(t *testing.T) {
	r := record(t)
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeRecord(b)
	if err != nil || !reflect.DeepEqual(again, r) || again.Verify() != nil {
		t.Fatal(again, err)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1
		if x, err := DecodeRecord(c); err == nil && x.Verify() == nil {
			t.Errorf("byte %d can be another", i)
		}
	}
	for what, bad := range map[string]func(*Record){
		"no heads":     func(r *Record) { r.Heads = nil },
		"17 heads":     func(r *Record) { r.Heads = make([]dag.ID, MaxHeads+1) },
		"unsorted":     func(r *Record) { r.ACL[0], r.ACL[1] = r.ACL[1], r.ACL[0] },
		"twice a head": func(r *Record) { r.ACL[1] = r.ACL[0] },
		"129 pages":    func(r *Record) { r.Root = make([]block.ID, MaxPages+1) },
	} {
		r := record(t)
		bad(r)
		if err := r.Sign(key()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestPage(t *testing.T) {
	b := pageOf(t, entries())
	again, err := DecodePage(b)
	if err != nil || !reflect.DeepEqual(again, entries()) {
		t.Fatalf("%v\n%+v", err, again)
	}
	for what, e := range map[string]Entry{
		"a slash":         {Name: "a/b", Mode: 0100644},
		"dot":             {Name: "..", Mode: 040755},
		"no name":         {Mode: 0100644},
		"long":            {Name: strings.Repeat("n", 256), Mode: 0100644},
		"no type":         {Name: "n", Mode: 0644},
		"a strange mode":  {Name: "n", Mode: 1<<20 | 0100644},
		"a size below 0":  {Name: "n", Mode: 0100644, Size: -1},
		"pages of a file": {Name: "n", Mode: 0100644, Pages: []block.ID{{1}}},
		"a link nowhere":  {Name: "n", Mode: 0120777},
		"beyond the end":  {Name: "n", Mode: 0100644, Size: 5, Content: &tree.Content{Size: 5, Root: block.ID{6}.CID(), Layout: []tree.Chunk{{Off: 2, Len: 4}}}},
		"overlapping":     {Name: "n", Mode: 0100644, Size: 5, Content: &tree.Content{Size: 5, Root: block.ID{6}.CID(), Layout: []tree.Chunk{{Off: 0, Len: 4}, {Off: 3, Len: 1}}}},
		"no root":         {Name: "n", Mode: 0100644, Size: 5, Content: &tree.Content{Size: 5, Layout: []tree.Chunk{{Off: 0, Len: 4}}}},
	} {
		var w Writer
		if _, err := w.Add(&e); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
		bad, err := encMode.Marshal(page{Version: version, Entries: []rawEntry{e0(e)}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodePage(bad); !errors.Is(err, ErrFormat) {
			t.Errorf("%s, decoded: %v", what, err)
		}
	}
	var w Writer
	_, _ = w.Add(&Entry{Name: "b", Mode: 0100644})
	for _, name := range []string{"a", "b"} {
		if _, err := w.Add(&Entry{Name: name, Mode: 0100644}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s behind b: %v", name, err)
		}
	}
}

// e0 writes an entry that is out of bounds.
func e0(e Entry) rawEntry {
	if e.Content != nil && !e.Content.Root.Defined() {
		e.Content = nil
		r := e.raw()
		r.Layout = []uint64{0, 4}
		return r
	}
	r := e.raw()
	if len(e.Pages) > 0 {
		r.Refs = append(joinIDs(e.Pages), 0) // 32 bytes would be a change
	}
	return r
}

func FuzzRecord(f *testing.F) {
	b, err := record(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Error("another encoding", err)
		}
	})
}

func FuzzPage(f *testing.F) {
	f.Add(pageOf(f, entries()))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := DecodePage(b)
		if err == nil && !bytes.Equal(pageOf(t, list), b) {
			t.Error("another encoding")
		}
	})
}
