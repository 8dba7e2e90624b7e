package tree

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// walkTree lists the visible tree of a Tree in the form of the naive one.
func walkTree(t testing.TB, tr *Tree) []nEntry {
	t.Helper()
	var out []nEntry
	var list func(dir dag.ID, path string)
	list = func(dir dag.ID, path string) {
		nodes, err := tr.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range nodes {
			if i > 0 && nodes[i-1].Name == n.Name {
				t.Fatalf("%q twice in one directory", n.Name)
			}
			if !ValidName(n.Name) {
				t.Fatalf("bad name %q", n.Name)
			}
			again, ok, err := tr.Lookup(dir, n.Name)
			if err != nil || !ok || fmt.Sprint(again) != fmt.Sprint(n) {
				t.Fatalf("lookup of %q gives %v %v %v, the listing %v", n.Name, again, ok, err, n)
			}
			e := entryOf(t, tr, n)
			e.path = path + "/" + n.Name
			out = append(out, e)
			if n.Kind != KindDir {
				continue
			}
			for _, d := range n.Dirs {
				class, err := tr.Class(d)
				if err != nil || !slices.Equal(class, n.Dirs) {
					t.Fatalf("the class of %v is %v, the entry has %v (%v)", d, class, n.Dirs, err)
				}
				if names, ok, err := tr.Path(d); err != nil || !ok || "/"+strings.Join(names, "/") != e.path {
					t.Fatalf("path of %q is %q %v %v", e.path, names, ok, err)
				}
			}
			list(n.Object, e.path)
		}
	}
	list(tr.Root(), "")
	return out
}

func entryOf(t testing.TB, tr *Tree, n Node) nEntry {
	s, err := tr.State(n.Object)
	if err != nil {
		t.Fatal(err)
	}
	o := &nObject{kind: s.Kind, target: s.Target, rdev: s.Rdev, xattrs: map[string]string{}}
	if s.ModeSet {
		o.mode = fmt.Sprintf("%o", s.Mode)
	}
	if s.Owned {
		o.owner = fmt.Sprint(s.UID, ":", s.GID)
	}
	for x, v := range s.Xattrs {
		o.xattrs[x] = string(v)
	}
	e := nEntry{object: n.Object, conflict: n.Conflict}
	mtime := int64(0)
	switch {
	case n.Kind == KindFile && n.Loser == ContentLoser:
		v := *s.valueByRef(t, n.Content)
		e.content, mtime, e.behind = showValue(&v), v.Mtime, []Ref{v.Ref}
	case n.Kind == KindFile:
		v := s.View()
		e.behind, mtime = v.Behind, v.Mtime
		if e.content = showValue(&v.Main); v.Merged {
			e.content = fmt.Sprintf("%d %q", len(v.Text), strings.TrimRight(string(v.Text), "\x00"))
		}
	case n.Kind != KindDir && s.MtimeSet:
		mtime = s.Mtime
	}
	e.what = o.describe(e.content, mtime)
	return e
}

func (s *State) valueByRef(t testing.TB, r Ref) *ContentValue {
	i := s.indexOf(r)
	if i < 0 {
		t.Fatalf("no value %v", r)
	}
	c := s.contentValue(i)
	return &c
}

// blocksName tells one content in blocks from another: by its root, and where its chunks lie if that is not from the start on.
func blocksName(c *Content) string {
	name := c.Root.String()
	if len(c.Layout) > 0 && c.Layout[0].Off > 0 {
		name += fmt.Sprint(c.Layout)
	}
	return name
}

// showValue is the content of a value as one string, as nValue.show gives it.
func showValue(v *ContentValue) string {
	switch {
	case v.Missing:
		return fmt.Sprint(v.Size, "missing")
	case v.Base.Root.Defined():
		patches := []string(nil)
		for i := range v.Patches {
			patches = append(patches, fmt.Sprint(v.Sizes[i], v.Patches[i]))
		}
		return fmt.Sprint(v.Size, blocksName(&v.Base), patches)
	}
	if len(v.Patches) > 0 {
		return fmt.Sprint("patches over inline ", v.Size, v.Patches)
	}
	return fmt.Sprintf("%d %q", v.Size, strings.TrimRight(string(v.Base.Inline), "\x00"))
}

// dump is a visible tree as one string, to compare.
func dump(entries []nEntry) string {
	var b strings.Builder
	for _, e := range entries {
		refs := slices.Clone(e.behind)
		slices.SortFunc(refs, Ref.Compare)
		fmt.Fprintf(&b, "%s %x conflict %v %s behind", e.path, e.object[:4], e.conflict, e.what)
		for _, r := range refs {
			fmt.Fprintf(&b, " %x.%d", r.Change[:4], r.Place)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// stateHashes is the encoded states of all objects and the places of directories, to compare replicas byte for byte.
func stateHashes(t testing.TB, m *MemStore) string {
	var b strings.Builder
	var ids []dag.ID
	for id := range m.objects {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, dag.ID.Compare)
	for _, id := range ids {
		o := m.objects[id]
		enc := o.State.Encode()
		back, err := DecodeState(enc)
		if err != nil {
			t.Fatalf("a state does not decode: %v", err)
		}
		if !bytes.Equal(back.Encode(), enc) {
			t.Fatal("a state decodes to another")
		}
		sum := dag.Sum(enc)
		fmt.Fprintf(&b, "%x %x", id[:4], sum[:8])
		for _, p := range []*Placement{o.Place, o.Claimed} {
			if p != nil {
				fmt.Fprintf(&b, " %x %q", p.Ref.Change[:4], p.Name)
			} else {
				b.WriteString(" -")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
