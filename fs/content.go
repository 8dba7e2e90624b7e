package fs

import (
	"cmp"
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// manifestBytes, layoutBytes, inlineBytes and headBytes bound what the caches of manifests, of where contents have data, of contents and
// patches in changes, and of the heads of blocks hold; a head takes headWeight.
const (
	headBytes     = 2 << 20
	headWeight    = 256
	manifestBytes = 24 << 20
	layoutBytes   = 8 << 20
	inlineBytes   = 8 << 20
)

// cache is a small LRU by weight and age, safe for concurrent use.
type cache[K comparable, V any] struct {
	mu    sync.Mutex
	max   int
	sum   int
	ages  uint32 // how often age was called
	items map[K]*list.Element
	order list.List // of *cached, the one that was asked for last in front
}

type cached[K comparable, V any] struct {
	key    K
	value  V
	weight int
	age    uint32 // ages when it was asked for last
}

func newCache[K comparable, V any](max int) *cache[K, V] {
	return &cache[K, V]{max: max, items: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return v, false
	}
	c.order.MoveToFront(e)
	x := e.Value.(*cached[K, V])
	x.age = c.ages
	return x.value, true
}

func (c *cache[K, V]) put(k K, v V, weight int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.items[k]; ok {
		c.drop(e)
	}
	if weight > c.max/2 {
		return
	}
	c.items[k] = c.order.PushFront(&cached[K, V]{k, v, weight, c.ages})
	for c.sum += weight; c.sum > c.max; {
		c.drop(c.order.Back())
	}
}

func (c *cache[K, V]) drop(e *list.Element) {
	x := c.order.Remove(e).(*cached[K, V])
	c.sum -= x.weight
	delete(c.items, x.key)
}

// age drops what was not asked for since the age before last.
func (c *cache[K, V]) age() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ages++
	for e := c.order.Back(); e != nil && c.ages-e.Value.(*cached[K, V]).age > 1; e = c.order.Back() {
		c.drop(e)
	}
}

// readContent fills p from offset off of a content, which at names where it is inline in a change.
func (s *space) readContent(ctx context.Context, c *tree.Content, at tree.Ref, p []byte, off int64) error {
	if !c.Root.Defined() {
		b := c.Inline
		if len(b) == 0 && len(c.Layout) > 0 {
			var err error
			if b, err = s.opBytes(at); err != nil {
				return err
			}
		}
		if off > int64(len(b)) {
			off = int64(len(b))
		}
		clear(p[copy(p, b[off:]):])
		return nil
	}
	m, err := s.manifest(ctx, c)
	if err != nil {
		return err
	}
	first := m.find(off)
	last, end := first, off+int64(len(p))
	for last < len(m.parts) && m.parts[last].off < end {
		last++
	}
	s.readAhead(m, first, last)
	if last-first > fewParts {
		return s.readParts(ctx, m, m.parts[first:last], p, off)
	}
	for i := range m.parts[first:last] {
		l := &m.parts[first+i]
		if gap := l.off - off; gap > 0 {
			clear(p[:gap])
			p, off = p[gap:], l.off
		}
		k := min(int64(len(p)), l.end()-off)
		if err := s.readBlock(ctx, m.leaves[l.leaf].id, p[:k], off-l.off+int64(l.skip)); err != nil {
			return err
		}
		p, off = p[k:], off+k
	}
	clear(p)
	return nil
}

// A read of more than fewParts parts reads what lies close together in a block at once; blocks are sealed in segments, so that bytes less
// than closeParts apart cost no more than those alone.
const (
	fewParts    = 3
	closeParts  = seal.SegmentBytes
	joinedBytes = 256 << 10
)

// wanted is a part of a read: the bytes p, from at on in the plaintext of a leaf.
type wanted struct {
	p    []byte
	at   int64
	leaf uint32
}

// readParts fills p from offset off of a content in many parts.
func (s *space) readParts(ctx context.Context, m *manifest, parts []part, p []byte, off int64) error {
	list := make([]wanted, 0, len(parts))
	for i := range parts {
		l := &parts[i]
		if gap := l.off - off; gap > 0 {
			clear(p[:gap])
			p, off = p[gap:], l.off
		}
		k := min(int64(len(p)), l.end()-off)
		list = append(list, wanted{p: p[:k], at: off - l.off + int64(l.skip), leaf: l.leaf})
		p, off = p[k:], off+k
	}
	clear(p)
	slices.SortFunc(list, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.leaf, b.leaf), cmp.Compare(a.at, b.at))
	})
	buf, _ := s.h.joined.Get().(*[joinedBytes]byte)
	if buf == nil {
		buf = new([joinedBytes]byte)
	}
	defer s.h.joined.Put(buf)
	for len(list) > 0 {
		from, into := list[0].at, list[0].p
		n, end := 1, from+int64(len(into))
		for ; n < len(list) && list[n].leaf == list[0].leaf && list[n].at <= end+closeParts; n++ {
			next := max(end, list[n].at+int64(len(list[n].p)))
			if next-from > joinedBytes {
				break
			}
			end = next
		}
		if n > 1 {
			into = buf[:end-from]
		}
		if err := s.readBlock(ctx, m.leaves[list[0].leaf].id, into, from); err != nil {
			return err
		}
		if n > 1 {
			for _, w := range list[:n] {
				copy(w.p, into[w.at-from:])
			}
		}
		list = list[n:]
	}
	return nil
}

// readBlock fills p from offset off of the plaintext of a block.
func (s *space) readBlock(ctx context.Context, id block.ID, p []byte, off int64) error {
	if err := s.lack.check(id); err != nil && !s.blocks.Has(id) {
		return s.blockError(id, err)
	}
	s.touch(id)
	if err := s.local(ctx, id); err != nil {
		return s.blockError(id, err)
	}
	r, size, err := s.blocks.Reader(ctx, id)
	if err != nil {
		s.lack.note(id, err)
		return s.blockError(id, err)
	}
	head, known := s.h.heads.get(id)
	n, err := s.keys.ReadChunk(r, size, &head, p, off)
	if head.Known() && !known {
		s.h.heads.put(id, head, headWeight)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return s.blockError(id, err)
	}
	if n < len(p) {
		return s.blockError(id, fmt.Errorf("the block ends %d bytes early", len(p)-n))
	}
	return nil
}

// blockError is what a read answers when a block is absent or damaged: EIO, with the cause in the log; EINTR when the
// caller went away.
func (s *space) blockError(id block.ID, err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	what := fmt.Sprintf("space %s: block %s", s.id, id)
	if !errors.Is(err, block.ErrAbsent) {
		s.h.report(what, err)
	} else if n, now := s.lack.tell(time.Now()); now {
		if n > 0 {
			what += fmt.Sprintf(" (and %d reads of absent blocks before it)", n)
		}
		s.h.report(what, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrIO, what, err)
}

// manifest says where the bytes of a content are that is not inline.
func (s *space) manifest(ctx context.Context, c *tree.Content) (*manifest, error) {
	key := manifestKey(c)
	if m, ok := s.h.manifests.get(key); ok {
		return m, nil
	}
	m := &manifest{root: c.Root}
	most := len(c.Layout)
	if !c.LayoutBlock.IsZero() {
		most = maxLeaves + 1
	}
	err := eachLeaf(ctx, s.getNode, c.Root, func(l block.Leaf) error {
		if len(m.leaves) == most {
			return fmt.Errorf("more than %d chunks", most)
		}
		if l.Size > block.MaxSize {
			return fmt.Errorf("a chunk of %d bytes", l.Size)
		}
		m.leaves = append(m.leaves, leaf{id: l.ID, sealed: uint32(l.Size)})
		return nil
	})
	if err == nil {
		err = s.place(ctx, m, c)
	}
	for i := range m.leaves {
		if l := &m.leaves[i]; l.sealed == 0 { // the root is the leaf: no node says its size, and it need not be here
			l.sealed = uint32(seal.BlockSize(int(l.size)))
		}
	}
	if err != nil {
		return nil, s.contentError(c.Root, err)
	}
	s.h.manifests.put(key, m, m.weight())
	return m, nil
}

// manifestKey tells one content in blocks from another: the tree does not say where in the file its leaves lie.
func manifestKey(c *tree.Content) string {
	b := make([]byte, 0, 128)
	for _, l := range c.Layout {
		b = binary.AppendUvarint(b, uint64(l.Off))
		b = binary.AppendUvarint(b, uint64(l.Len))
	}
	b = binary.AppendUvarint(b, uint64(c.Size))
	b = append(b, c.LayoutBlock[:]...)
	return string(append(b, c.Root.KeyString()...))
}

// place says where the leaves of a manifest lie, as the content's layout has it.
func (s *space) place(ctx context.Context, m *manifest, c *tree.Content) error {
	if !c.LayoutBlock.IsZero() {
		n := len(m.leaves) - 1
		if n < 0 || m.leaves[n].id != c.LayoutBlock {
			return errors.New("the layout is not the last leaf")
		}
		m.leaves = m.leaves[:n]
		b, err := s.getNode(ctx, c.LayoutBlock.CID())
		if err == nil {
			b, err = s.keys.OpenChunk(nil, b)
		}
		if err == nil {
			m.parts, err = decodeLayout(b, c.Size, m.leaves)
		}
		return err
	}
	if len(c.Layout) != len(m.leaves) {
		return fmt.Errorf("%d chunks, and %d places for them", len(m.leaves), len(c.Layout))
	}
	m.parts = make([]part, len(c.Layout))
	end := int64(0)
	for i, l := range c.Layout {
		if l.Off < end || l.Len <= 0 || l.Len > seal.MaxChunk || l.Off > c.Size-l.Len {
			return errLayout
		}
		m.leaves[i].size = uint32(l.Len)
		if m.leaves[i].sealed == 0 { // it is the root, and not here
			m.leaves[i].sealed = uint32(seal.BlockSize(int(l.Len)))
		}
		m.parts[i] = part{off: l.Off, n: uint32(l.Len), leaf: uint32(i)}
		end = l.Off + l.Len
	}
	return nil
}

func (s *space) contentError(root cid.Cid, err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", errInterrupted, err)
	}
	what := fmt.Sprintf("space %s: content %s", s.id, root)
	s.h.report(what, err)
	return fmt.Errorf("%w: %s: %w", ErrIO, what, err)
}

func (s *space) getNode(ctx context.Context, c cid.Cid) ([]byte, error) {
	id, _, err := block.IDFromCID(c)
	if err != nil {
		return nil, err
	}
	if err := s.lack.check(id); err != nil && !s.blocks.Has(id) {
		return nil, err
	}
	if err := s.local(ctx, id); err != nil {
		return nil, err
	}
	b, err := s.blocks.Get(ctx, id)
	s.lack.note(id, err)
	return b, err
}

// opBytes gives the bytes that a content operation holds itself: inline content, or those of the edits of a patch.
func (s *space) opBytes(at tree.Ref) ([]byte, error) {
	if b, ok := s.h.inlines.get(at); ok {
		return b, nil
	}
	p, err := s.payload(at.Change)
	if err != nil {
		what := fmt.Sprintf("space %s: content in change %s", s.id, at.Change)
		s.h.report(what, err)
		return nil, fmt.Errorf("%w: %s: %w", ErrIO, what, err)
	}
	c := contentAt(p, at.Place)
	if c == nil {
		return nil, fmt.Errorf("%w: change %s has no content at %d", ErrIO, at.Change, at.Place)
	}
	b := c.Inline
	for i := range c.Patch {
		b = append(b, c.Patch[i].Bytes...)
	}
	s.h.inlines.put(at, b, len(b)+128)
	return b, nil
}

// copyRange copies between files, both without a stream.
func (s *space) copyRange(ctx context.Context, from uint64, srcOff int64, to uint64, dstOff, n int64) (int64, error) {
	x, err := s.cloneSettled(from)
	if err != nil {
		return 0, err
	}
	if !x.IsRegular() {
		return 0, ErrInvalid
	}
	if srcOff >= x.Size {
		return 0, nil
	}
	n = min(n, x.Size-srcOff)
	refs, err := s.shared(ctx, x, srcOff, n)
	if err != nil {
		return 0, err
	}
	r := &fileReader{ctx: ctx, s: s, n: x}
	var done int64
	for _, p := range refs {
		if p.hole {
			if err := s.h.Fallocate(ctx, s.ino(to), FallocZeroRange, dstOff+done, p.n); err != nil {
				return done, err
			}
			done += p.n
			continue
		}
		if p.id.IsZero() {
			if err := s.copyBytes(ctx, r, srcOff+done, to, dstOff+done, p.n); err != nil {
				return done, err
			}
			done += p.n
			continue
		}
		if !s.blocks.Has(p.id) {
			if _, err := s.blocks.Get(ctx, p.id); err != nil {
				return done, s.blockError(p.id, err)
			}
		}
		err := s.do(false, func() (*writer, func(*mutation) error, error) {
			y, err := s.inode(to)
			if err != nil {
				return nil, nil, err
			}
			if !y.IsRegular() {
				return nil, nil, ErrInvalid
			}
			if s.claim(p.id); !s.hasBlock(p.id) {
				return nil, nil, s.blockError(p.id, block.ErrAbsent) // it was history, and pruned just now
			}
			rec := &sealRecord{Ino: to, Off: dstOff + done, Len: p.n, Skip: p.skip, Block: p.id, Size: p.size, Time: s.h.now()}
			w := s.record(recSeal)
			rec.encode(w)
			return w, func(m *mutation) error { return s.applySeal(m.seq, rec) }, nil
		})
		if err != nil {
			return done, err
		}
		done += p.n
	}
	return done, nil
}

// sharedPiece is a run of a file: of a block that another file may refer to, or (id zero) bytes to copy.
type sharedPiece struct {
	n, skip, size int64
	id            block.ID
	hole          bool // reads as zeros, and is stored nowhere
}

// cloneSettled clones an inode that has nothing in memory alone: a buffer of a stream is used again once its chunks are sealed.
func (s *space) cloneSettled(ino uint64) (*index.Inode, error) {
	for {
		if err := s.settleStream(ino); err != nil {
			return nil, err
		}
		s.mu.Lock()
		n, err := s.inode(ino)
		if err == nil && s.streams[ino] == nil {
			n = n.Clone()
			s.mu.Unlock()
			return n, nil
		}
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// minShared is the shortest run that is worth a reference.
const minShared = 32 << 10

// shared splits [off, off+n) of an inode into runs that lie in one block each, and others.
func (s *space) shared(ctx context.Context, x *index.Inode, off, n int64) ([]sharedPiece, error) {
	var out []sharedPiece
	add := func(p sharedPiece) {
		if p.n <= 0 {
			return
		}
		if p.n < minShared {
			p.id, p.hole = block.ID{}, false
		}
		if k := len(out); k > 0 && p.id.IsZero() && !p.hole && out[k-1].id.IsZero() && !out[k-1].hole {
			out[k-1].n += p.n
			return
		}
		out = append(out, p)
	}
	var m *manifest
	limit := x.Limit()
	if x.Base != nil && x.Base.Root.Defined() {
		var err error
		if m, err = s.manifest(ctx, x.Base); err != nil {
			return nil, err
		}
	}
	base := func(from, to int64) {
		if m != nil {
			for i := m.find(from); i < len(m.parts) && from < min(to, limit); i++ {
				l := &m.parts[i]
				if l.off >= min(to, limit) {
					break
				}
				if l.off > from {
					add(sharedPiece{n: l.off - from, hole: true})
					from = l.off
				}
				k := min(l.end(), to, limit) - from
				of := &m.leaves[l.leaf]
				add(sharedPiece{n: k, skip: from - l.off + int64(l.skip), size: int64(of.size), id: of.id})
				from += k
			}
		}
		// Behind the last chunk, and where there is no base, is a hole; an inline base is copied.
		add(sharedPiece{n: to - from, hole: m != nil || from >= limit})
	}
	at := off
	if x.Ext != nil {
		x.Ext.Range(off, n, func(k int64, e index.Extent) bool {
			base(at, k)
			p := sharedPiece{n: e.Len}
			p.hole = e.Src.Kind == index.SourceZero
			if e.Src.Kind == index.SourceBlock {
				p.id, p.skip, p.size = e.Src.Block, e.Skip, e.Src.Size
			}
			add(p)
			at = k + e.Len
			return true
		})
	}
	base(at, off+n)
	return out, nil
}

// copyBytes copies by reading and writing.
func (s *space) copyBytes(ctx context.Context, r *fileReader, off int64, to uint64, dstOff, n int64) error {
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		k, err := r.ReadAt(buf[:min(n, int64(len(buf)))], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if k == 0 {
			return nil
		}
		k, err = s.h.Write(ctx, s.ino(to), buf[:k], dstOff, WriteFlags{})
		if err != nil {
			return err
		}
		off, dstOff, n = off+int64(k), dstOff+int64(k), n-int64(k)
	}
	return nil
}
