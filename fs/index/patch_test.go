package index

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// patchFile is an inode with the bytes that its sources have, beside a model of what it holds.
type patchFile struct {
	*Inode
	base    []byte
	data    map[*Source][]byte
	patches map[tree.Ref][]byte
	chain   []*tree.Content // the patches over the base
	refs    []tree.Ref
	seq     journal.Seq
	want    []byte
}

// read gives what the inode shows, as fs reads it.
func (f *patchFile) read(t *rapid.T) []byte {
	b := make([]byte, f.Size)
	copy(b, f.base[:min(int64(len(f.base)), f.Limit(), f.Size)])
	if f.Ext == nil {
		return b
	}
	f.Ext.Range(0, math.MaxInt64, func(off int64, x Extent) bool {
		if off+x.Len > f.Size {
			t.Fatalf("an extent at %d of %d bytes in a file of %d", off, x.Len, f.Size)
		}
		p := b[off : off+x.Len]
		switch x.Src.Kind {
		case SourceZero:
			clear(p)
		case SourcePatch:
			copy(p, f.patches[x.Src.At][x.Skip:x.Skip+x.Len])
		default:
			copy(p, f.data[x.Src][x.Skip:x.Skip+x.Len])
		}
		return true
	})
	return b
}

func (f *patchFile) write(off int64, p []byte) {
	f.seq++
	src := &Source{Kind: SourceJournal, Seq: f.seq}
	f.data[src] = p
	if f.Ext == nil {
		f.Ext = &Extents{}
	}
	f.Ext.Put(off, Extent{Len: int64(len(p)), Src: src})
	f.Size = max(f.Size, off+int64(len(p)))
	f.grow()
	copy(f.want[off:], p)
}

func (f *patchFile) grow() {
	for int64(len(f.want)) < f.Size {
		f.want = append(f.want, 0)
	}
	f.want = f.want[:f.Size]
}

func (f *patchFile) punch(off, n int64) {
	f.seq++
	end := min(off+n, f.Size)
	if f.Ext != nil {
		f.Ext.Cut(off, n)
	}
	if off >= end {
		return
	}
	if f.Ext == nil {
		f.Ext = &Extents{}
	}
	f.Ext.Put(off, Extent{Len: end - off, Src: &Source{Kind: SourceZero, Seq: f.seq}})
	clear(f.want[off:end])
}

func (f *patchFile) resize(size int64) {
	f.seq++
	if size < f.Size {
		if f.Ext != nil {
			f.Ext.Cut(size, f.Size-size)
		}
		f.AddCut(f.seq, size)
	}
	f.Size = size
	f.grow()
}

// apply gives what a patch makes of a content.
func apply(content []byte, size int64, edits []PatchEdit, data []byte) []byte {
	out := make([]byte, size)
	copy(out, content)
	for _, e := range edits {
		clear(out[e.Off : e.Off+e.Len])
		copy(out[e.Off:e.Off+e.Data], data)
		data = data[e.Data:]
	}
	return out
}

// TestPatchesAgainstBytes does random writes, holes and truncations, and publishes what they did as patches and as whole contents, with
// more of them while a publication is under way: what the patches make of the published content is what the file held when the
// publication began, and the file holds what was written.
func TestPatchesAgainstBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 60
		fill := byte(0)
		data := func(n int64) []byte {
			fill++
			return bytes.Repeat([]byte{fill}, int(n))
		}
		base := data(rapid.Int64Range(1, most).Draw(t, "base"))
		at := tree.Ref{Change: dag.ID{1}}
		f := &patchFile{
			Inode: &Inode{Mode: 0100644, Size: int64(len(base)), Base: &tree.Content{Size: int64(len(base))}, BaseAt: at},
			base:  base, data: map[*Source][]byte{}, patches: map[tree.Ref][]byte{}, seq: 1, want: bytes.Clone(base),
		}
		published := bytes.Clone(base)
		change := func(which string) {
			off := rapid.Int64Range(0, most).Draw(t, which+" at")
			n := rapid.Int64Range(1, 20).Draw(t, which+" bytes")
			switch rapid.IntRange(0, 4).Draw(t, which) {
			case 0:
				f.resize(off)
			case 1:
				f.punch(off, n)
			default:
				f.write(off, data(n))
			}
		}
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.IntRange(0, 3).Draw(t, "what") > 0 {
				change("change")
			} else {
				c := &patchFile{Inode: f.Clone(), base: f.base, data: f.data, patches: f.patches}
				upTo, held := f.seq, bytes.Clone(f.want)
				for range rapid.IntRange(0, 3).Draw(t, "meanwhile") {
					change("meanwhile")
				}
				at := tree.Ref{Change: dag.ID{2, byte(step)}, Place: uint32(step)}
				if rapid.IntRange(0, 3).Draw(t, "whole") == 0 {
					f.base, f.chain, f.refs = held, nil, nil
					f.Rebase(upTo, &tree.Content{Size: int64(len(held))}, at)
				} else {
					edits, n, ok := c.Edits(1000, 1<<20)
					if !ok {
						t.Fatal("too many edits")
					}
					var p []byte
					now, end := c.read(t), int64(0)
					for _, e := range edits {
						if e.Off < end || e.Len <= 0 || e.Data < 0 || e.Data > e.Len || e.Off+e.Len > c.Size {
							t.Fatalf("edits %v of a file of %d", edits, c.Size)
						}
						end = e.Off + e.Len
						p = append(p, now[e.Off:e.Off+e.Data]...)
					}
					if int64(len(p)) != n {
						t.Fatalf("%d bytes, not %d", len(p), n)
					}
					if got := apply(published, c.Size, edits, p); !bytes.Equal(got, held) {
						t.Fatalf("the patch %v makes\n%v of\n%v, not\n%v", edits, got, published, held)
					}
					f.patches[at] = p
					f.Patch(upTo, at, c.Size, edits)
					content := &tree.Content{Size: c.Size, Patch: make([]tree.Edit, len(edits))}
					for i, e := range edits {
						content.Patch[i] = tree.Edit{Off: e.Off, Len: e.Len, Bytes: p[:e.Data]}
						p = p[e.Data:]
					}
					f.chain, f.refs = append(f.chain, content), append(f.refs, at)
				}
				published = held
			}
			anew := &patchFile{
				Inode: &Inode{Size: int64(len(f.base)), Base: f.Base, BaseAt: f.BaseAt},
				base:  f.base, data: f.data, patches: f.patches,
			}
			for i, c := range f.chain {
				anew.AddPatch(f.refs[i], c)
			}
			if got := anew.read(t); !bytes.Equal(got, published) || anew.Shown() != f.Shown() {
				t.Fatalf("made anew it holds\n%v, not\n%v", got, published)
			}
			if edits, _, _ := f.Edits(1000, 1<<20); len(edits) == 0 && f.Size == f.ShownSize() && !f.ShowsLike(anew.Inode) {
				t.Fatalf("made anew it has\n%v, not\n%v", anew.runs(), f.runs())
			}
			if got := f.read(t); !bytes.Equal(got, f.want) {
				t.Fatalf("step %d: the file holds\n%v, not\n%v", step, got, f.want)
			}
			stored, err := DecodeInode(AppendInode(nil, f.Inode))
			if err != nil {
				t.Fatal(err)
			}
			if a, b := fmt.Sprint(stored.Patched, stored.Cuts, stored.Limit()), fmt.Sprint(f.Patched, f.Cuts, f.Limit()); a != b {
				t.Fatalf("stored as %s, not %s", a, b)
			}
		}
		// What was published and not changed since needs no edits.
		edits, _, _ := f.Edits(1000, 1<<20)
		f.Patch(f.seq, at, f.Size, edits)
		if edits, _, _ = f.Edits(1000, 1<<20); len(edits) > 0 || f.Ext != nil && f.Ext.Oldest() != 0 {
			t.Fatalf("published and unchanged, and %v is left to say", edits)
		}
	})
}
