package merge

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

func lines(t *rapid.T, name string, letters string) []byte {
	n := rapid.IntRange(0, 24).Draw(t, name+" lines")
	var b []byte
	for range n {
		b = append(b, letters[rapid.IntRange(0, len(letters)-1).Draw(t, name)])
		b = append(b, '\n')
	}
	if n > 0 && rapid.IntRange(0, 5).Draw(t, name+" cut") == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// edited changes a text in a few places.
func edited(t *rapid.T, name string, text []byte) []byte {
	ls := strings.SplitAfter(string(text), "\n")
	for range rapid.IntRange(0, 3).Draw(t, name+" edits") {
		at := rapid.IntRange(0, len(ls)).Draw(t, name+" at")
		switch rapid.IntRange(0, 2).Draw(t, name+" sort") {
		case 0:
			ls = slices.Insert(ls, at, fmt.Sprintf("%s%d\n", name, rapid.IntRange(0, 2).Draw(t, name+" new")))
		case 1:
			if at < len(ls) {
				ls = slices.Delete(ls, at, at+1)
			}
		case 2:
			if at < len(ls) {
				ls[at] = name + "\n"
			}
		}
	}
	return []byte(strings.Join(ls, ""))
}

func TestMergeIsSymmetricAndExplained(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SampledFrom([]string{"ab", "abcdefgh", "abcdefghijklmnopqrstuvwxyz"}).Draw(t, "letters")
		base := lines(t, "base", letters)
		var a, b []byte
		if rapid.Bool().Draw(t, "edits") {
			a, b = edited(t, "a", base), edited(t, "b", base)
		} else {
			a, b = lines(t, "a", letters), lines(t, "b", letters)
		}
		checkMerge(t, base, a, b)
	})
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

// checkMerge holds a merge against what the definition says of every one.
func checkMerge(t fataler, base, a, b []byte) {
	t.Helper()
	m, ok := Merge(base, a, b)
	w, ok2 := Merge(base, b, a)
	if ok != ok2 || !bytes.Equal(m, w) {
		t.Fatalf("merge is not symmetric:\n%q %v\n%q %v", m, ok, w, ok2)
	}
	for _, same := range [][2][]byte{{a, a}, {base, a}, {a, base}} {
		if got, ok := Merge(base, same[0], same[1]); IsText(base) && IsText(a) && (!ok || !bytes.Equal(got, a)) {
			t.Fatalf("merging %q and %q over %q gives %q %v", same[0], same[1], base, got, ok)
		}
	}
	if !IsText(base) || !IsText(a) || !IsText(b) {
		if ok {
			t.Fatalf("merged what is no text")
		}
		return
	}
	tab := newTable()
	o, x, y := tab.lines(base), tab.lines(a), tab.lines(b)
	left, right := diff(o, x, len(tab.text)), diff(o, y, len(tab.text))
	for _, d := range []struct {
		hunks []hunk
		want  []int32
	}{{left, x}, {right, y}} {
		last := -1
		for _, h := range d.hunks {
			if h.from <= last || h.to < h.from || h.to == h.from && len(h.lines) == 0 {
				t.Fatalf("bad hunks %v", d.hunks)
			}
			last = h.to
		}
		if got := render(nil, o, d.hunks, 0, len(o)); !slices.Equal(got, d.want) {
			t.Fatalf("the diff does not give the text: %v, want %v", got, d.want)
		}
	}
	if !ok {
		return
	}
	// Every hunk of either side stands in the result, and nothing else does: the diff from the base to the result, made of
	// the union of the hunks, gives it.
	union := slices.Clone(left)
	for _, h := range right {
		if !slices.ContainsFunc(left, func(g hunk) bool { return g.from == h.from && g.to == h.to && slices.Equal(g.lines, h.lines) }) {
			union = append(union, h)
		}
	}
	slices.SortFunc(union, func(g, h hunk) int { return g.from - h.from })
	for i := 1; i < len(union); i++ {
		if union[i].from <= union[i-1].to {
			return // two regions that are the same by other hunks
		}
	}
	var want []byte
	for _, l := range render(nil, o, union, 0, len(o)) {
		want = append(want, tab.text[l]...)
	}
	if !bytes.Equal(m, want) {
		t.Fatalf("merged %q, want %q", m, want)
	}
}

// TestDiffIsShortest compares the number of edits with the table of all distances, where no unique line cuts the texts.
func TestDiffIsShortest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOfN(rapid.Int32Range(0, 3), 0, 30)
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		d := &differ{a: a, b: b, inA: make([]int32, 4), inB: make([]int32, 4)}
		if len(a)+len(b) == 0 {
			return
		}
		d.myers(0, len(a), 0, len(b))
		lcs := make([][]int, len(a)+1)
		for i := range lcs {
			lcs[i] = make([]int, len(b)+1)
			for j := range b {
				if i == 0 {
					continue
				}
				if lcs[i][j+1] = max(lcs[i-1][j+1], lcs[i][j]); a[i-1] == b[j] {
					lcs[i][j+1] = max(lcs[i][j+1], lcs[i-1][j]+1)
				}
			}
		}
		if len(d.keep) != lcs[len(a)][len(b)] {
			t.Fatalf("keeps %d lines, want %d", len(d.keep), lcs[len(a)][len(b)])
		}
		for i, p := range d.keep {
			if a[p.a] != b[p.b] || i > 0 && (p.a <= d.keep[i-1].a || p.b <= d.keep[i-1].b) {
				t.Fatalf("keeps %v", d.keep)
			}
		}
	})
}

type vector struct {
	Name   string
	Base   string
	Texts  []string
	Merged *string `json:",omitempty"` // absent: a conflict
}

// vectors are the cases by hand, beside which more are made from a seed.
func vectors() []vector {
	vs := []vector{
		{Name: "both ends", Base: "a\nb\nc\n", Texts: []string{"A\nb\nc\n", "a\nb\nC\n"}},
		{Name: "adjacent lines", Base: "a\nb\nc\n", Texts: []string{"A\nb\nc\n", "a\nB\nc\n"}},
		{Name: "the same change", Base: "a\nb\nc\n", Texts: []string{"a\nX\nc\n", "a\nX\nc\n"}},
		{Name: "the same change and another", Base: "a\nb\nc\nd\n", Texts: []string{"X\nb\nc\nd\n", "X\nb\nc\nD\n"}},
		{Name: "both append", Base: "a\n", Texts: []string{"a\nb\n", "a\nc\n"}},
		{Name: "both append the same", Base: "a\n", Texts: []string{"a\nb\n", "a\nb\n"}},
		{Name: "delete against edit", Base: "a\nb\nc\n", Texts: []string{"a\nc\n", "a\nB\nc\n"}},
		{Name: "no newline at the end", Base: "a\nb\nc", Texts: []string{"A\nb\nc", "a\nb\nc\n"}},
		{Name: "three texts", Base: "a\nb\nc\nd\ne\n", Texts: []string{"A\nb\nc\nd\ne\n", "a\nb\nC\nd\ne\n", "a\nb\nc\nd\nE\n"}},
		{Name: "empty base", Base: "", Texts: []string{"a\n", "b\n"}},
		{Name: "carriage returns", Base: "a\r\nb\r\nc\r\n", Texts: []string{"a\r\nb\r\nc\r\nd\r\n", "A\r\nb\r\nc\r\n"}},
		{Name: "moved line", Base: "a\nb\nc\nd\n", Texts: []string{"b\nc\nd\na\n", "a\nb\nc\nd\ne\n"}},
		{Name: "NUL", Base: "a\n", Texts: []string{"a\x00\n", "a\nb\n"}},
		{Name: "byte order mark", Base: "a\nb\nc\n", Texts: []string{"\ufeffa\nb\nc\n", "a\nb\nC\n"}},
		{Name: "repeated lines", Base: "{\n}\n\n{\n}\n\n{\n}\n", Texts: []string{"{\n}\n\n{\n}\n\n{\n}\n\n{\n}\n", "{\nx\n}\n\n{\n}\n\n{\n}\n"}},
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		var base []string
		for range 5 + rnd.IntN(30) {
			base = append(base, string(rune('a'+rnd.IntN(3+i/4)))+"\n")
		}
		v := vector{Name: fmt.Sprintf("seeded %d", i), Base: strings.Join(base, "")}
		for range 2 + rnd.IntN(2) {
			c := slices.Clone(base)
			for range 1 + rnd.IntN(2) {
				at := rnd.IntN(len(c))
				switch rnd.IntN(3) {
				case 0:
					c = slices.Insert(c, at, string(rune('a'+rnd.IntN(26)))+"\n")
				case 1:
					c = slices.Delete(c, at, at+1)
				default:
					c[at] = string(rune('A'+rnd.IntN(26))) + "\n"
				}
			}
			v.Texts = append(v.Texts, strings.Join(c, ""))
		}
		vs = append(vs, v)
	}
	return vs
}

const vectorFile = "testdata/merge.json"

func TestVectors(t *testing.T) {
	if *update {
		vs := vectors()
		for i := range vs {
			if m, ok := fold(vs[i]); ok {
				s := string(m)
				vs[i].Merged = &s
			}
		}
		b, err := json.MarshalIndent(vs, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(vectorFile, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(b, &vs); err != nil {
		t.Fatal(err)
	}
	merged := 0
	for _, v := range vs {
		m, ok := fold(v)
		if ok != (v.Merged != nil) || ok && string(m) != *v.Merged {
			t.Errorf("%s: %q %v", v.Name, m, ok)
		}
		if ok {
			merged++
		}
	}
	if len(vs) < 70 || merged < 20 || merged > len(vs)-20 {
		t.Errorf("%d vectors, %d of them merge", len(vs), merged)
	}
}

func fold(v vector) ([]byte, bool) {
	var texts [][]byte
	for _, s := range v.Texts {
		texts = append(texts, []byte(s))
	}
	return Fold([]byte(v.Base), texts...)
}

func FuzzMerge(f *testing.F) {
	for _, v := range vectors() {
		f.Add([]byte(v.Base), []byte(v.Texts[0]), []byte(v.Texts[1]))
	}
	f.Fuzz(func(t *testing.T, base, a, b []byte) { checkMerge(t, base, a, b) })
}

// TestHardInputsEndSoon gives the longest texts whose lines are all alike or all different.
func TestHardInputsEndSoon(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	random := func(kinds int) []byte {
		var b bytes.Buffer
		for b.Len() < MaxText-8 {
			fmt.Fprintf(&b, "%d\n", rnd.IntN(kinds))
		}
		return b.Bytes()
	}
	for _, kinds := range []int{1, 2, 1000, 1 << 17} {
		base, a, b := random(kinds), random(kinds), random(kinds)
		Merge(base, a, b)
	}
}

func BenchmarkMerge(b *testing.B) {
	var base bytes.Buffer
	for i := range 300 {
		fmt.Fprintf(&base, "\tline %d of a source file\n", i)
	}
	x := bytes.Replace(base.Bytes(), []byte("line 20 "), []byte("other 20 "), 1)
	y := bytes.Replace(base.Bytes(), []byte("line 250 "), []byte("other 250 "), 1)
	b.SetBytes(int64(base.Len()))
	for b.Loop() {
		if _, ok := Merge(base.Bytes(), x, y); !ok {
			b.Fatal("conflict")
		}
	}
}
