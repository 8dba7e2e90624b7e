package tree

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"

	"github.com/anyfs/anyfs/fs/merge"
)

// View is what a file shows of its candidates.
type View struct {
	// Main is the candidate that keeps the name: the highest. Where Merged is set, what everyone reads is Text instead, the
	// merge of all candidates, with Mtime and the length of Text as its size.
	Main   ContentValue
	Merged bool
	Text   []byte
	Mtime  int64
	// Behind names the candidates that the shown content stands for: what a write to it replaces.
	Behind []Ref
	// Losers are the candidates that show as conflict copies, in total order. Of equal ones the highest is here, and
	// Equals names the others.
	Losers []ContentValue
	Equals map[Ref][]Ref
	// Base is the highest value that all candidates replaced, where there are several that no rule here merges; nil when
	// there is none.
	// A device that holds all of their content may publish the merge of larger texts.
	Base *ContentValue
}

// Size is the length of the shown content in bytes.
func (v *View) Size() int64 {
	if v.Merged {
		return int64(len(v.Text))
	}
	return v.Main.Size
}

// View resolves the candidates of a file. The zero View is that of a file without content operations: empty.
func (s *State) View() View {
	if len(s.values) == 1 && !s.values[0].replaced { // as mostly
		v := View{Main: s.contentValue(0)}
		v.Mtime, v.Behind = v.Main.Mtime, []Ref{v.Main.Ref}
		if s.MtimeSet {
			v.Mtime = s.Mtime
		}
		return v
	}
	all := s.Contents()
	if len(all) == 0 {
		return View{Mtime: s.Mtime}
	}
	last := len(all) - 1
	v := View{Main: all[last], Mtime: all[last].Mtime}
	if last == 0 {
		v.Behind = []Ref{v.Main.Ref}
		if s.MtimeSet {
			v.Mtime = s.Mtime
		}
		return v
	}
	// Of equal candidates the highest stands for all.
	distinct := make([]ContentValue, 0, len(all))
	seen := make(map[uint64][]int) // by hash, the places in distinct
	for i := last; i >= 0; i-- {
		h := all[i].hash()
		at := slices.IndexFunc(seen[h], func(j int) bool { return SameContent(&distinct[j], &all[i]) })
		switch {
		case at < 0:
			seen[h] = append(seen[h], len(distinct))
			distinct = append(distinct, all[i])
		case seen[h][at] > 0:
			if v.Equals == nil {
				v.Equals = make(map[Ref][]Ref)
			}
			first := distinct[seen[h][at]].Ref
			v.Equals[first] = append(v.Equals[first], all[i].Ref)
		default:
			v.Behind = append(v.Behind, all[i].Ref)
		}
	}
	v.Behind = append(v.Behind, v.Main.Ref)
	if len(distinct) > 1 {
		s.mergeView(&v, all, distinct)
	}
	if s.MtimeSet {
		v.Mtime = s.Mtime
	}
	return v
}

// mergeView merges the candidates, or makes all but the highest losers. distinct is in descending order.
func (s *State) mergeView(v *View, all, distinct []ContentValue) {
	at := make(map[Ref]int, len(s.values))
	for i := range s.values {
		at[s.values[i].Ref] = i
	}
	candidates := make([]int, len(all))
	for i := range all {
		candidates[i] = at[all[i].Ref]
	}
	replaced := s.replaced(at)
	common := replaced.common(candidates)
	if len(common) > 0 {
		texts := make([][]byte, 0, len(distinct))
		for i := len(distinct) - 1; i >= 0; i-- {
			if t, ok := distinct[i].text(); ok {
				texts = append(texts, t)
			}
		}
		if len(texts) == len(distinct) {
			if base, ok := s.baseText(at, replaced, common, 0); ok {
				if merged, ok := merge.Fold(base, texts...); ok && len(merged) <= MaxInline {
					v.Merged, v.Text, v.Equals = true, merged, nil
					v.Behind = v.Behind[:0]
					for i := range all {
						v.Behind = append(v.Behind, all[i].Ref)
						v.Mtime = max(v.Mtime, all[i].Mtime)
					}
					v.Mtime++
					return
				}
			}
		}
		base := s.contentValue(common[len(common)-1])
		v.Base = &base
	}
	for i := len(distinct) - 1; i > 0; i-- {
		v.Losers = append(v.Losers, distinct[i])
	}
}

// Bounds of the search for a base, fixed by the format.
const (
	maxTops      = 16 // values that are merged to a base
	maxBaseDepth = 8  // merges of bases of merges
)

// replaced is a set of values for each value of a state: those that it replaced, directly or not.
type replaced struct {
	words int
	bits  []uint64
}

func (r *replaced) of(i int) []uint64 { return r.bits[i*r.words : (i+1)*r.words] }

// replaced computes the sets from the bottom up: what a value replaced stands below it.
func (s *State) replaced(at map[Ref]int) *replaced {
	n := len(s.values)
	r := &replaced{words: (n + 63) / 64}
	r.bits = make([]uint64, n*r.words)
	for i, v := range s.values {
		set := r.of(i)
		for _, ref := range v.over {
			j, ok := at[ref]
			if !ok || j >= i || set[j/64]&(1<<(j%64)) != 0 {
				continue // what it replaced is in the set too
			}
			set[j/64] |= 1 << (j % 64)
			for w, more := range r.of(j) {
				set[w] |= more
			}
		}
	}
	return r
}

// common returns the values that all of the given ones replaced, ascending.
func (r *replaced) common(values []int) []int {
	all := slices.Clone(r.of(values[0]))
	for _, v := range values[1:] {
		for w, set := range r.of(v) {
			all[w] &= set
		}
	}
	var out []int
	for w, set := range all {
		for ; set != 0; set &= set - 1 {
			out = append(out, w*64+bits.TrailingZeros64(set))
		}
	}
	return out
}

// baseText returns the text that a merge starts from, given the values that all sides replaced: that of the highest, or where
// several of them are not replaced by another of them, the merge of these, if they merge.
func (s *State) baseText(at map[Ref]int, r *replaced, common []int, depth int) ([]byte, bool) {
	if depth < maxBaseDepth {
		// What lies below a common value is common too: only direct replacements need a look.
		lower := make([]bool, len(s.values))
		for _, i := range common {
			for _, ref := range s.values[i].over {
				if j, ok := at[ref]; ok && j < i {
					lower[j] = true
				}
			}
		}
		var tops []int
		for _, i := range common {
			if !lower[i] {
				tops = append(tops, i)
			}
		}
		if len(tops) > 1 && len(tops) <= maxTops {
			if t, ok := s.mergeTops(at, r, tops, depth); ok {
				return t, true
			}
		}
	}
	c := s.contentValue(common[len(common)-1])
	return c.text()
}

func (s *State) mergeTops(at map[Ref]int, r *replaced, tops []int, depth int) ([]byte, bool) {
	texts := make([][]byte, len(tops))
	for i, v := range tops {
		c := s.contentValue(v)
		var ok bool
		if texts[i], ok = c.text(); !ok {
			return nil, false
		}
	}
	common := r.common(tops)
	if len(common) == 0 {
		return nil, false
	}
	base, ok := s.baseText(at, r, common, depth+1)
	if !ok {
		return nil, false
	}
	return merge.Fold(base, texts...)
}

// text returns the whole content of a value that has it inline.
func (c *ContentValue) text() ([]byte, bool) {
	if c.Missing || c.Base.Root.Defined() || len(c.Patches) > 0 || c.Base.Size != int64(len(c.Base.Inline)) {
		return nil, false
	}
	return c.Base.Inline, true
}

// SameContent reports whether two values name the same content: the same inline bytes, or the same root, layout and size. (The
// tree of blocks does not say where in the file they lie.)
// Content with patches over blocks is only the same as itself.
func SameContent(a, b *ContentValue) bool {
	switch {
	case a.Ref == b.Ref:
		return true
	case a.Missing || b.Missing || len(a.Patches)+len(b.Patches) > 0 || a.Size != b.Size:
		return false
	case a.Base.Root.Defined() || b.Base.Root.Defined():
		return a.Base.Root.Equals(b.Base.Root) && a.Base.LayoutBlock == b.Base.LayoutBlock && slices.Equal(a.Base.Layout, b.Base.Layout)
	}
	return bytes.Equal(trimZeros(a.Base.Inline), trimZeros(b.Base.Inline))
}

// hash is equal for values of the same content.
func (c *ContentValue) hash() uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(c.Size)))
	if c.Base.Root.Defined() {
		h.WriteString(c.Base.Root.KeyString())
	} else {
		h.Write(trimZeros(c.Base.Inline))
	}
	return h.Sum64()
}

var hashSeed = maphash.MakeSeed()

func trimZeros(b []byte) []byte { return bytes.TrimRight(b, "\x00") }
