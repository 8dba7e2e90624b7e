package index

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

var update = flag.Bool("update", false, "write testdata anew")

func fullInode() *Inode {
	obj := dag.ID{1, 2, 3}
	other := tree.Ref{Change: dag.ID{9}, Place: 4}
	n := &Inode{
		Mode: 0100644, UID: 5, GID: 6, Owned: true, Size: 1 << 40, Mtime: 1e18, Ctime: 1e18 + 5, Btime: -7,
		Xattrs: []Xattr{{"user.a", []byte("b")}, {"user.c", nil}}, Object: obj, NextKey: 3,
		Links: []Link{
			{Key: 1, Parent: 1, Name: "x", ID: tree.Ref{Change: obj}, Val: other},
			{Key: 2, Parent: 20, Name: "y", ID: other, Val: other, Dirty: 77, WasParent: 1, WasName: "old"},
		},
		Contents: []tree.Ref{other}, Base: &tree.Content{Size: 100}, BaseAt: other,
		Cuts: []Cut{{Seq: 3, Size: 9}}, DirtyContent: 9, DirtyXattrs: []XattrDirty{{"user.a", 8}},
		Gone: []Gone{{Key: 4, Object: dag.ID{8}, Link: other, Over: []tree.Ref{other}, Contents: []tree.Ref{other}, Seq: 10}},
	}
	n.Ext = &Extents{}
	j := &Source{Kind: SourceJournal, Seq: 4, Loc: journal.Loc{File: 1, Off: 2, Len: 300}}
	n.Ext.Put(0, Extent{Len: 10, Skip: 5, Src: j})
	n.Ext.Put(50, Extent{Len: 10, Skip: 20, Src: j})
	n.Ext.Put(100, Extent{Len: 7, Src: &Source{Kind: SourceBlock, Seq: 5, Size: 70}})
	n.Ext.Put(200, Extent{Len: 7, Src: &Source{Kind: SourceZero, Seq: 6}})
	return n
}

// patchedInode has published patches over its base.
func patchedInode() *Inode {
	obj := dag.ID{1, 2, 3}
	last := tree.Ref{Change: dag.ID{7}, Place: 1}
	n := &Inode{
		Mode: 0100644, Size: 1 << 30, Object: obj, NextKey: 2, Contents: []tree.Ref{last},
		Base: &tree.Content{Size: 1 << 30, LayoutBlock: block.ID{5}}, BaseAt: tree.Ref{Change: obj, Place: 2},
		Patched: Patched{At: last, Count: 2, Bytes: 4104, Size: 1 << 30}, Cuts: []Cut{{Size: 1 << 29}},
	}
	n.Ext = &Extents{}
	n.Ext.Put(1<<20, Extent{Len: 4096, Src: &Source{Kind: SourcePatch, At: tree.Ref{Change: dag.ID{6}}}})
	n.Ext.Put(2<<20, Extent{Len: 4, Skip: 4, Src: &Source{Kind: SourcePatch, At: last}})
	n.Ext.Put(3<<20, Extent{Len: 4096, Src: &Source{Kind: SourceZero}})
	return n
}

func TestInodeRoundTrip(t *testing.T) {
	for _, n := range []*Inode{{Mode: 0100600}, {Mode: 040755, Subdirs: 3, Entries: 4, Parent: 1}, {Mode: 0120777, Target: "a/b"}, fullInode(), patchedInode()} {
		b := AppendInode(nil, n)
		m, err := DecodeInode(b)
		if err != nil {
			t.Fatal(err)
		}
		if again := AppendInode(nil, m); !bytes.Equal(b, again) {
			t.Fatalf("%+v came back as %+v", n, m)
		}
	}
}

// TestVectors pins the stored form.
func TestVectors(t *testing.T) {
	const file = "testdata/index.json"
	got := map[string]string{
		"empty file":        hex.EncodeToString(AppendInode(nil, &Inode{Mode: 0100600})),
		"directory":         hex.EncodeToString(AppendInode(nil, &Inode{Mode: 040755, Subdirs: 3, Entries: 4, Parent: 1})),
		"symlink":           hex.EncodeToString(AppendInode(nil, &Inode{Mode: 0120777, Target: "a/b"})),
		"everything":        hex.EncodeToString(AppendInode(nil, fullInode())),
		"patched":           hex.EncodeToString(AppendInode(nil, patchedInode())),
		"entry":             hex.EncodeToString(AppendEntry(nil, &Entry{Name: "name", Ino: 77, Type: 0100000})),
		"entry of no more":  hex.EncodeToString(AppendEntry(nil, &Entry{Next: true})),
		"content in blocks": hex.EncodeToString(AppendContent(nil, &tree.Content{Size: 9, Layout: []tree.Chunk{{Off: 0, Len: 4}, {Off: 5, Len: 4}}})),
	}
	if *update {
		b, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%v\nthe vectors say\n%v", got, want)
	}
}

func FuzzDecodeInode(f *testing.F) {
	f.Add(AppendInode(nil, fullInode()))
	f.Add(AppendInode(nil, &Inode{Mode: 040755, Parent: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeInode(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("error %v does not match ErrCorrupt", err)
			}
			return
		}
		// What decodes encodes to something that decodes to the same.
		again := AppendInode(nil, n)
		m, err := DecodeInode(again)
		if err != nil {
			t.Fatalf("its own encoding: %v", err)
		}
		if !bytes.Equal(AppendInode(nil, m), again) {
			t.Fatal("not stable")
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(AppendEntry(nil, &Entry{Name: "name", Ino: 77, Type: 0100000}))
	f.Add(AppendEntry(nil, &Entry{Next: true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEntry(b)
		if err != nil {
			return
		}
		if again, err := DecodeEntry(AppendEntry(nil, e)); err != nil || *again != *e {
			t.Fatalf("%+v came back as %+v, %v", e, again, err)
		}
	})
}
