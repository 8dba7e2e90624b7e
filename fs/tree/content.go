package tree

import (
	"math"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Limits of what a state keeps of content.
const (
	maxCandidates = 1024     // unreplaced values; the lowest counts as replaced
	maxPast       = 256      // replaced values that are known as such
	maxPastBytes  = 64 << 10 // of their content together, but for what a candidate's patches lie over
	maxChain      = 1024     // patches over one another; a further one is void
	maxChainBytes = 4 << 20  // their bytes together
	textDelta     = 16       // what a delta costs beside its bytes
	chunkCost     = 16       // what a chunk of a layout costs
	blocksCost    = 64 + 36  // what a content in blocks costs beside its layout
)

// value is a content value. Replaced ones are kept for what later operations may say about them: as the base of a merge, and
// under patches. Their content is kept within limits, inline content as a delta against the value that replaced it.
type value struct {
	Ref      Ref
	Pos      dag.Pos // of a candidate; zero in a replaced one
	Device   dag.PublicKey
	Time     int64
	Mtime    int64
	over     []Ref // the values of this state that it replaced
	replaced bool
	content  *Content // nil when delta has it, or when it was let go
	delta    *delta
}

// delta gives inline content as a part of another value's that is changed in one place.
type delta struct {
	next           Ref
	prefix, suffix int
	mid            []byte
	size           int64
}

func (f *fold) content(o *Op) {
	s := f.s
	if s.Kind != KindFile {
		return
	}
	v := value{
		Ref: f.ref(), Pos: f.at.Pos, Device: f.at.Device, Time: f.time, Mtime: o.Mtime, content: o.Content,
	}
	for _, r := range o.Over {
		if s.indexOf(r) >= 0 && !slices.Contains(v.over, r) {
			v.over = append(v.over, r)
		}
	}
	replaces := v.over
	if o.Content.IsPatch() && len(v.over) == 0 {
		v.over = []Ref{o.Over[0]} // the patch still says what it lies over; nothing here answers to it, be it the patch itself
	}
	if o.Content.IsPatch() && !s.patch(&v) {
		return
	}
	s.values = append(s.values, &v)
	for _, r := range replaces {
		if i := s.indexOf(r); i >= 0 && !s.values[i].replaced {
			s.retire(i).shrink(&v)
		}
	}
	if s.candidates() > maxCandidates {
		s.retire(slices.IndexFunc(s.values, func(v *value) bool { return !v.replaced }))
	}
	s.MtimeSet, s.Mtime = false, 0
	f.links.miss(s)
	s.forgetValues()
}

func (f *fold) drop(o *Op) {
	s := f.s
	left := s.candidates()
	for i := range s.values {
		if v := s.values[i]; !v.replaced && left > 1 && slices.Contains(o.Over, v.Ref) {
			s.retire(i)
			left--
		}
	}
	s.forgetValues()
}

func (s *State) candidates() int {
	n := 0
	for i := range s.values {
		if !s.values[i].replaced {
			n++
		}
	}
	return n
}

// edit returns the value at i, to be changed: a copy takes its place, since clones of the state share values.
func (s *State) edit(i int) *value {
	v := *s.values[i]
	s.values[i] = &v
	return &v
}

func (s *State) retire(i int) *value {
	v := s.edit(i)
	v.replaced = true
	v.Pos, v.Device, v.Time, v.Mtime = dag.Pos{}, dag.PublicKey{}, 0, 0
	return v
}

// patch makes the inline content that a patch gives where it can. It returns false when too many patches lie over one another.
func (s *State) patch(v *value) bool {
	base := s.lower(len(s.values), v.over[0])
	if base >= 0 && v.content.Size <= MaxInline {
		if text, size, ok := s.inline(base); ok {
			v.content = patchInline(text, size, v.content)
			return true
		}
	}
	n, sum := 1, patchBytes(v.content)
	for base >= 0 {
		b := s.values[base]
		if b.content == nil || !b.content.IsPatch() {
			break
		}
		n++
		sum += patchBytes(b.content)
		base = s.lower(base, b.over[0])
	}
	return n <= maxChain && sum <= maxChainBytes
}

func patchBytes(c *Content) int {
	sum := 0
	for i := range c.Patch {
		sum += len(c.Patch[i].Bytes)
	}
	return sum
}

// patchInline applies a patch whose result is at most MaxInline bytes.
func patchInline(text []byte, size int64, p *Content) *Content {
	b := make([]byte, p.Size)
	copy(b, text)
	for _, e := range p.Patch {
		n := copy(b[e.Off:], e.Bytes)
		clear(b[e.Off+int64(n) : e.Off+e.Len])
	}
	if len(b) == 0 {
		b = nil
	}
	return &Content{Size: p.Size, Inline: b}
}

// inline returns the inline content of the value at i, without the zeros behind it, and its size.
func (s *State) inline(i int) (text []byte, size int64, ok bool) {
	v := s.values[i]
	if c := v.content; c != nil {
		if c.Root.Defined() || c.IsPatch() {
			return nil, 0, false
		}
		return c.Inline, c.Size, true
	}
	// Deltas refer upwards in the order, so the way ends; it is walked up, and then applied down.
	var way []*delta
	for v.delta != nil {
		way = append(way, v.delta)
		if i = s.higher(i, v.delta.next); i < 0 {
			return nil, 0, false
		}
		v = s.values[i]
	}
	if v.content == nil || len(way) == 0 {
		return nil, 0, false
	}
	text = v.content.Inline
	for i := len(way) - 1; i >= 0; i-- {
		text = way[i].apply(text)
	}
	return text, way[0].size, true
}

func (d *delta) apply(next []byte) []byte {
	b := make([]byte, 0, d.prefix+len(d.mid)+d.suffix)
	b = append(b, next[:d.prefix]...)
	b = append(b, d.mid...)
	return append(b, next[len(next)-d.suffix:]...)
}

// shrink turns the inline content of a replaced value into a delta against the one that replaced it.
func (v *value) shrink(next *value) {
	if v.content == nil || v.content.Root.Defined() || v.content.IsPatch() {
		return
	}
	c := next.content
	if c == nil || c.Root.Defined() || c.IsPatch() {
		return
	}
	a, b := v.content.Inline, c.Inline
	n := min(len(a), len(b))
	d := &delta{next: next.Ref, size: v.content.Size}
	for d.prefix < n && a[d.prefix] == b[d.prefix] {
		d.prefix++
	}
	for d.suffix < n-d.prefix && a[len(a)-1-d.suffix] == b[len(b)-1-d.suffix] {
		d.suffix++
	}
	if mid := a[d.prefix : len(a)-d.suffix]; len(mid) > 0 {
		d.mid = slices.Clone(mid) // not a slice of the payload, which would keep all of it
	}
	v.delta, v.content = d, nil
}

// cost is what the content of a replaced value counts against maxPastBytes.
func (v *value) cost() int {
	switch {
	case v.delta != nil:
		return textDelta + len(v.delta.mid)
	case v.content == nil:
		return 0
	case v.content.Root.Defined():
		return blocksCost + chunkCost*len(v.content.Layout)
	case v.content.IsPatch():
		return textDelta + chunkCost*len(v.content.Patch) + patchBytes(v.content)
	}
	return textDelta + len(v.content.Inline)
}

// pinned marks the replaced values that the patches of candidates lie over.
func (s *State) pinned() []bool {
	var pins []bool
	var under map[Ref]struct{} // what patches from here up lie over
	for i := len(s.values) - 1; i >= 0; i-- {
		v := s.values[i]
		needed := !v.replaced
		if _, in := under[v.Ref]; in {
			pins[i], needed = v.replaced, true
		}
		if !needed || v.content == nil || !v.content.IsPatch() {
			continue
		}
		if pins == nil {
			pins, under = make([]bool, len(s.values)), make(map[Ref]struct{})
		}
		under[v.over[0]] = struct{}{}
	}
	return pins
}

func (s *State) indexOf(r Ref) int { return s.lower(len(s.values), r) }

// lower returns the index of a value below i in the order, or -1. What a patch lies over is mostly the next one down.
func (s *State) lower(i int, r Ref) int {
	for i--; i >= 0; i-- {
		if s.values[i].Ref == r {
			break
		}
	}
	return i
}

// higher returns the index of a value above i in the order, or -1.
func (s *State) higher(i int, r Ref) int {
	for i++; i < len(s.values); i++ {
		if s.values[i].Ref == r {
			return i
		}
	}
	return -1
}

// forgetValues keeps what is remembered of replaced values bounded, letting the lowest go first.
func (s *State) forgetValues() {
	pins := s.pinned()
	isPinned := func(i int) bool { return pins != nil && pins[i] }
	past, sum := 0, 0
	for i := range s.values {
		v := s.values[i]
		if !v.replaced {
			continue
		}
		past++
		if isPinned(i) {
			if v.delta != nil { // what is pinned must not hang on what may be let go
				text, size, _ := s.inline(i)
				v = s.edit(i)
				v.content, v.delta = &Content{Size: size, Inline: text}, nil
			}
			continue
		}
		sum += v.cost()
	}
	for i := 0; i < len(s.values) && sum > maxPastBytes; i++ {
		if v := s.values[i]; v.replaced && !isPinned(i) && v.cost() > 0 {
			sum -= v.cost()
			v = s.edit(i)
			v.content, v.delta = nil, nil
		}
	}
	if past <= maxPast {
		return
	}
	kept := s.values[:0:0]
	var gone []Ref
	for i, v := range s.values {
		if past > maxPast && v.replaced && !isPinned(i) {
			past--
			gone = append(gone, v.Ref)
			continue
		}
		kept = append(kept, v)
	}
	s.values = kept
	for i, v := range s.values {
		if v.content != nil && v.content.IsPatch() {
			continue // its base is pinned, or was never known
		}
		if slices.ContainsFunc(v.over, func(r Ref) bool { return slices.Contains(gone, r) }) {
			s.edit(i).over = slices.DeleteFunc(slices.Clone(v.over), func(r Ref) bool { return slices.Contains(gone, r) })
		}
	}
}

// ContentValue is a candidate for the content of a file.
//
// The content is Base with Patches over it, the oldest first. Where Missing is set, Base is empty: what the patches lie
// over is no longer in the state, and has to be looked up in the history, as the value named by BaseRef.
type ContentValue struct {
	Ref     Ref
	Pos     dag.Pos
	Device  dag.PublicKey
	Time    int64 // of the change
	Mtime   int64
	Size    int64
	Base    Content
	BaseRef Ref
	Patches [][]Edit
	Sizes   []int64 // the size after each patch
	Missing bool
	Op      *Content // as the operation says it, where it is known that it is no patch; else nil. It must not be changed
}

// Contents returns the candidates in total order; the last is the one that keeps the name. A file without any has no content
// operation yet, and is empty. The content is shared with the state.
func (s *State) Contents() []ContentValue {
	var out []ContentValue
	for i := range s.values {
		if v := s.values[i]; !v.replaced {
			out = append(out, s.contentValue(i))
		}
	}
	return out
}

func (s *State) contentValue(i int) ContentValue {
	v := s.values[i]
	c := ContentValue{Ref: v.Ref, Pos: v.Pos, Device: v.Device, Time: v.Time, Mtime: v.Mtime, Size: math.MinInt64, BaseRef: v.Ref}
	if len(v.over) == 0 && v.content != nil && !v.content.IsPatch() { // a patch, which may be kept as what it gives, lies over something
		c.Op = v.content
	}
	for {
		if text, size, ok := s.inline(i); ok {
			c.Base = Content{Size: size, Inline: text}
			break
		}
		if v.content == nil {
			c.Missing = true
			break
		}
		if !v.content.IsPatch() {
			c.Base = *v.content
			break
		}
		c.Patches, c.Sizes = append(c.Patches, v.content.Patch), append(c.Sizes, v.content.Size)
		c.BaseRef = v.over[0]
		if i = s.lower(i, c.BaseRef); i < 0 {
			c.Missing = true
			break
		}
		v = s.values[i]
	}
	slices.Reverse(c.Patches)
	slices.Reverse(c.Sizes)
	if c.Size = c.Base.Size; len(c.Sizes) > 0 {
		c.Size = c.Sizes[len(c.Sizes)-1]
	}
	return c
}
