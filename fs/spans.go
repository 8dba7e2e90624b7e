package fs

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/chunk"
	"github.com/anyfs/anyfs/fs/index"
)

// Ours to tune.
const (
	// What is stored anew is rounded out to pages: shorter parts of a block would cost more to keep apart than to store.
	pageBytes = 4 << 10
	// A run of at least shortRun is cut into chunks of its own; shorter ones share blocks.
	shortRun = chunk.MinSize
	// A file of at most smallWhole is stored anew where anything of a block was written over: patches say what is less.
	smallWhole = sealedRatio * inlineMax
	// More than maxSmall blocks of less than smallLeaf become fewer.
	smallLeaf = 64 << 10
	maxSmall  = 64
	// An append is cut on from the last chunk where that seals at most growRatio times what was appended.
	growRatio = sealedRatio - 1
	// Two sequences of cut points meet after 1.7 MiB (median of 2,000 pairs over random bytes), 99% within 9.4; one more needs ten times
	// the pairs for each 4.3 MiB. Bytes that repeat never let them meet.
	resyncBytes = 8 * chunk.MaxSize
	// Beyond maxParts a file is put together again where it has most of them, a window at a time. A window with less than windowParts
	// is not worth that, unless the layout grows too long: whole chunks are up to four in each.
	maxParts    = 1 << 18
	windowBytes = 1 << 20
	windowParts = 8
)

// span is a run of a file that is to be published: bytes of a block that is there, or bytes to be stored.
type span struct {
	off, n int64
	leaf   int32 // in spans.leaves; negative: to be stored
	skip   int64
	meet   bool // to be stored: it ends where its cut points meet those of what follows, not where it does
}

const anew int32 = -1

func (p *span) end() int64 { return p.off + p.n }

// spans is a file as its next content will have it. What is between them is holes.
type spans struct {
	n      *index.Inode
	m      *manifest // of the base; nil where it has no blocks
	inline int64     // how many bytes an inline base has
	limit  int64     // how much of the base shows
	leaves []leaf    // those of the base first, then those of fresh, then those that are stored for this content
	based  int32     // how many of them are the base's
	fresh  map[block.ID]int32
	list   []span
	first  map[int32]bool // leaves of which the first byte is that of an append
}

// spans plans the next content of a file: what of it is stored anew, and what stays in the blocks where it is.
//
//   - A chunk that was written in stays as long as more than half of it shows. What was written goes into other blocks.
//   - What is left of a block of which half or less shows is stored anew, so that the blocks of a file have at most twice its
//     bytes; this costs no more than what was written over it did.
//   - Small blocks, of which each publication may make one, are put together when there are many.
//   - An append is cut on from the last chunk, unless that is large beside it: a file has the same chunks whether it was written in one
//     go or with pauses, in which what was there had to be stored.
func (s *space) spans(ctx context.Context, n *index.Inode) (*spans, error) {
	p := &spans{n: n, limit: min(n.Limit(), n.Size), fresh: map[block.ID]int32{}, first: map[int32]bool{}}
	switch b := n.Base; {
	case b == nil:
	case b.Root.Defined():
		m, err := s.manifest(ctx, b)
		if err != nil {
			return nil, err
		}
		p.m, p.leaves, p.based = m, slices.Clone(m.leaves), int32(len(m.leaves))
	case len(b.Layout) > 0:
		p.inline = b.Layout[0].Len // its bytes are in the change
	default:
		p.inline = int64(len(b.Inline))
	}
	at := int64(0)
	if n.Ext != nil {
		n.Ext.Range(0, n.Size, func(off int64, x index.Extent) bool {
			p.base(at, off)
			at = off + x.Len
			switch src := x.Src; {
			case src.Kind == index.SourceZero:
			case src.Kind == index.SourceBlock && src.Size > 0 && src.Size <= seal.MaxChunk:
				size, _ := s.blocks.Size(src.Block)
				p.list = append(p.list, span{off: off, n: x.Len, leaf: p.freshLeaf(src, size), skip: x.Skip})
			default:
				p.list = append(p.list, span{off: off, n: x.Len, leaf: anew})
			}
			return true
		})
	}
	p.base(at, n.Size)
	p.round()
	p.recut()
	p.move()
	p.join()
	if len(p.list) > maxParts {
		p.mend(maxParts / 4 * 3)
	}
	return p, nil
}

// base adds what the base shows in [from, to).
func (p *spans) base(from, to int64) {
	to = min(to, p.limit)
	if from >= to {
		return
	}
	if p.m == nil {
		if n := min(to, p.inline) - from; n > 0 {
			p.list = append(p.list, span{off: from, n: n, leaf: anew})
		}
		return
	}
	for i := p.m.find(from); i < len(p.m.parts); i++ {
		l := &p.m.parts[i]
		if l.off >= to {
			return
		}
		off, end := max(l.off, from), min(l.end(), to)
		p.list = append(p.list, span{off: off, n: end - off, leaf: int32(l.leaf), skip: off - l.off + int64(l.skip)})
	}
}

// freshLeaf gives the leaf of a block that was written since the file was published.
func (p *spans) freshLeaf(src *index.Source, sealed int64) int32 {
	i, ok := p.fresh[src.Block]
	if !ok {
		i = int32(len(p.leaves))
		p.leaves = append(p.leaves, leaf{id: src.Block, sealed: uint32(sealed), size: uint32(src.Size)})
		p.fresh[src.Block] = i
		if src.First {
			p.first[i] = true
		}
	}
	return i
}

// round rounds what is stored out to pages where it lies within a block, not beside one.
func (p *spans) round() {
	out := make([]span, 0, len(p.list)+len(p.list)/2)
	edge := int64(0) // of the page that the last stored run ends in
	for _, q := range p.list {
		if q.leaf == anew {
			edge = (q.end() + pageBytes - 1) &^ (pageBytes - 1)
		} else if k := min(q.n, edge-q.off); k > 0 && q.skip > 0 {
			out = append(out, span{off: q.off, n: k, leaf: anew})
			q.off, q.n, q.skip = q.off+k, q.n-k, q.skip+k
		}
		if q.n > 0 {
			out = append(out, q)
		}
	}
	p.list = p.list[:0]
	edge = p.n.Size + pageBytes
	for i := len(out) - 1; i >= 0; i-- {
		q := out[i]
		if q.leaf == anew {
			edge = q.off &^ (pageBytes - 1)
		} else if k := min(q.n, q.end()-edge); k > 0 && q.skip+q.n < int64(p.leaves[q.leaf].size) {
			p.list = append(p.list, span{off: q.end() - k, n: k, leaf: anew})
			q.n -= k
		}
		if q.n > 0 {
			p.list = append(p.list, q)
		}
	}
	slices.Reverse(p.list)
}

// recut lets the beginning of an append be stored anew, with the chunk before it: that ended where the writer paused, not at a cut point.
func (p *spans) recut() {
	for i := 1; i < len(p.list); i++ {
		q, before := &p.list[i], &p.list[i-1]
		if q.leaf == anew || !p.first[q.leaf] || !p.wholeFresh(q) || before.end() != q.off {
			continue
		}
		q.leaf, q.skip, q.meet = anew, 0, true
		if p.wholeFresh(before) && before.n < chunk.MaxSize && before.n <= growRatio*p.stored(i, q.off) {
			before.leaf, before.skip = anew, 0
		}
	}
}

// wholeFresh reports whether a span is all of a block that was written since the file was published.
func (p *spans) wholeFresh(q *span) bool {
	return q.leaf >= p.based && q.skip == 0 && q.n == int64(p.leaves[q.leaf].size)
}

// move lets what shows of a block be stored anew where that costs little.
func (p *spans) move() {
	live := make([]int64, len(p.leaves))
	for i := range p.list {
		if q := &p.list[i]; q.leaf != anew {
			live[q.leaf] += q.n
		}
	}
	moved := make([]bool, len(p.leaves))
	for i := range p.leaves {
		moved[i] = 2*live[i] <= int64(p.leaves[i].size) || p.n.Size <= smallWhole && live[i] < int64(p.leaves[i].size)
	}
	base := int(p.based)
	small := 0
	for i := range p.leaves[:base] {
		if live[i] > 0 && p.leaves[i].size < smallLeaf {
			small++
		}
	}
	for i := range p.leaves[:base] {
		moved[i] = moved[i] || small > maxSmall && p.leaves[i].size < smallLeaf
	}
	for i := range p.list {
		q := &p.list[i]
		if q.leaf == anew {
			continue
		}
		l := &p.leaves[q.leaf]
		whole := q.skip == 0 && q.n == int64(l.size)
		switch {
		case int(q.leaf) >= base && l.size < shortRun && !(whole && q.end() == p.n.Size):
			moved[q.leaf] = true // a small block of a stream
		case whole && int(q.leaf) < base && q.end() == p.m.parts[len(p.m.parts)-1].end() && l.size < chunk.MaxSize:
			// It ended where the file did, not at a cut point.
			moved[q.leaf] = moved[q.leaf] || q.n <= growRatio*p.stored(i+1, q.end())
		}
	}
	for i := range p.list {
		if q := &p.list[i]; q.leaf != anew && moved[q.leaf] {
			q.leaf, q.skip = anew, 0
		}
	}
}

// stored is how many bytes from off on are to be stored, or were for an append, from the i-th span on.
func (p *spans) stored(i int, off int64) int64 {
	at, appended := off, false
	for ; i < len(p.list) && p.list[i].off == at; i++ {
		q := &p.list[i]
		if appended = appended || q.meet; q.leaf != anew && !(appended && p.wholeFresh(q)) {
			break
		}
		at = q.end()
	}
	return at - off
}

// wholeLeaves reports whether what stays in blocks is whole blocks, each once.
func (p *spans) wholeLeaves() bool {
	used := make([]bool, len(p.leaves))
	for i := range p.list {
		if q := &p.list[i]; q.leaf != anew {
			if used[q.leaf] || q.skip != 0 || q.n != int64(p.leaves[q.leaf].size) {
				return false
			}
			used[q.leaf] = true
		}
	}
	return true
}

// mend stores the windows of the file anew that have the most parts, until at most so many are left.
func (p *spans) mend(most int) {
	counts := map[int64]int{}
	for i := range p.list {
		counts[p.list[i].off/windowBytes]++
	}
	windows := slices.SortedFunc(maps.Keys(counts), func(a, b int64) int {
		return cmp.Or(counts[b]-counts[a], cmp.Compare(a, b))
	})
	least := windowParts
	if p.layoutBytes() > seal.MaxChunk {
		least = 2
	}
	left := len(p.list)
	for i, at := range windows {
		if left <= most || counts[at] < least {
			windows = windows[:i]
			break
		}
		left -= counts[at] - 1
	}
	mended := map[int64]bool{}
	for _, at := range windows {
		mended[at] = true
	}
	out, last := p.list[:0], int64(-1)
	for _, q := range p.list {
		at := q.off / windowBytes
		if !mended[at] {
			at = -1
		} else if at == last {
			out[len(out)-1].n = q.end() - out[len(out)-1].off
			continue
		} else {
			q.leaf, q.skip = anew, 0
		}
		out, last = append(out, q), at
	}
	p.list = out
	p.join()
}

// layoutBytes is about how long the layout becomes at most.
func (p *spans) layoutBytes() int64 {
	n := 4 * int64(len(p.leaves))
	for i := range p.list {
		switch q := &p.list[i]; {
		case q.leaf == anew:
			n += 6 * (q.n/chunk.MinSize + 1)
		case q.skip == 0 && q.n == int64(p.leaves[q.leaf].size):
			n += 2
		default:
			n += 14
		}
	}
	return n
}

// join makes one span of those that touch; holes of less than a page between runs that are stored are stored too.
func (p *spans) join() {
	out := p.list[:0]
	for _, q := range p.list {
		if k := len(out) - 1; k >= 0 && q.leaf == out[k].leaf {
			last := &out[k]
			gap := q.off - last.end()
			if q.leaf == anew && gap < pageBytes || q.leaf != anew && gap == 0 && q.skip == last.skip+last.n {
				last.n += gap + q.n
				last.meet = last.meet || q.meet
				continue
			}
		}
		out = append(out, q)
	}
	p.list = out
}
