package fs

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// leaf is one chunk of a published content: the plaintext [off, off+n) lies in the block id.
type leaf struct {
	off, n int64
	id     block.ID
	sealed uint64 // length of the block
}

// manifest lists the chunks of a content in order. Between them are holes.
type manifest struct {
	root   cid.Cid
	leaves []leaf
}

// find gives the index of the first leaf that ends behind off.
func (m *manifest) find(off int64) int {
	return sort.Search(len(m.leaves), func(i int) bool { return m.leaves[i].off+m.leaves[i].n > off })
}

// inlineLayout is how many chunks a content operation lists itself; beyond, the list is a sealed block of its own, the last
// leaf of the UnixFS tree.
const inlineLayout = 64

// maxLeaves bounds a manifest: 16 TiB of small chunks.
const maxLeaves = 1 << 24

// cacheBytes bounds what the caches of manifests, of lists of chunks and of inline contents hold, each.
const cacheBytes = 8 << 20

// cache is a small LRU by weight, safe for concurrent use.
type cache[K comparable, V any] struct {
	mu    sync.Mutex
	max   int
	sum   int
	items map[K]*list.Element
	order list.List
}

type cached[K comparable, V any] struct {
	key    K
	value  V
	weight int
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
	return e.Value.(cached[K, V]).value, true
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
	c.items[k] = c.order.PushFront(cached[K, V]{k, v, weight})
	for c.sum += weight; c.sum > c.max; {
		c.drop(c.order.Back())
	}
}

func (c *cache[K, V]) drop(e *list.Element) {
	x := c.order.Remove(e).(cached[K, V])
	c.sum -= x.weight
	delete(c.items, x.key)
}

// readContent fills p from offset off of a content, which at names where it is inline in a change.
func (s *space) readContent(ctx context.Context, c *tree.Content, at tree.Ref, p []byte, off int64) error {
	if !c.Root.Defined() {
		b := c.Inline
		if len(b) == 0 && len(c.Layout) > 0 {
			var err error
			if b, err = s.inline(at); err != nil {
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
	for i := m.find(off); len(p) > 0; i++ {
		if i == len(m.leaves) || m.leaves[i].off >= off+int64(len(p)) {
			clear(p)
			return nil
		}
		l := m.leaves[i]
		if gap := l.off - off; gap > 0 {
			clear(p[:gap])
			p, off = p[gap:], l.off
		}
		k := min(int64(len(p)), l.off+l.n-off)
		if err := s.readBlock(ctx, l.id, p[:k], off-l.off); err != nil {
			return err
		}
		p, off = p[k:], off+k
	}
	return nil
}

// readBlock fills p from offset off of the plaintext of a block.
func (s *space) readBlock(ctx context.Context, id block.ID, p []byte, off int64) error {
	r, size, err := s.blocks.Reader(ctx, id)
	if err != nil {
		return s.blockError(id, err)
	}
	n, err := s.keys.ReadChunk(r, size, p, off)
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
	err = fmt.Errorf("space %s: block %s: %w", s.id, id, err)
	s.h.report(err)
	return fmt.Errorf("%w: %w", ErrIO, err)
}

// manifest gives the chunks of a content that is not inline.
func (s *space) manifest(ctx context.Context, c *tree.Content) (*manifest, error) {
	// The tree of blocks does not say where in the file they lie: equal roots may have other places.
	key := string(binary.AppendUvarint(encodeLayout(c.Layout), uint64(c.Size))) + string(c.LayoutBlock[:]) + c.Root.KeyString()
	if m, ok := s.h.manifests.get(key); ok {
		return m, nil
	}
	m := &manifest{root: c.Root}
	err := block.Leaves(ctx, s.getNode, c.Root, func(l block.Leaf) error {
		if len(m.leaves) == maxLeaves {
			return fmt.Errorf("more than %d chunks", maxLeaves)
		}
		if l.Size == 0 { // the root is the leaf: no node says its size
			size, _ := s.blocks.Size(l.ID)
			l.Size = uint64(size)
		}
		m.leaves = append(m.leaves, leaf{id: l.ID, sealed: l.Size})
		return nil
	})
	if err != nil {
		return nil, s.contentError(c.Root, err)
	}
	layout := c.Layout
	if !c.LayoutBlock.IsZero() {
		if len(m.leaves) == 0 || m.leaves[len(m.leaves)-1].id != c.LayoutBlock {
			return nil, s.contentError(c.Root, errors.New("the list of chunks is not its last leaf"))
		}
		m.leaves = m.leaves[:len(m.leaves)-1]
		var err error
		if layout, err = s.readLayout(ctx, c.LayoutBlock); err != nil {
			return nil, s.contentError(c.Root, err)
		}
	}
	if len(layout) != len(m.leaves) {
		return nil, s.contentError(c.Root, fmt.Errorf("%d chunks, and %d places for them", len(m.leaves), len(layout)))
	}
	var end int64
	for i, l := range layout {
		if l.Off < end || l.Len <= 0 || l.Len > c.Size || l.Off > c.Size-l.Len {
			return nil, s.contentError(c.Root, errors.New("chunks overlap or lie behind the end"))
		}
		m.leaves[i].off, m.leaves[i].n = l.Off, l.Len
		end = l.Off + l.Len
	}
	s.h.manifests.put(key, m, 64*len(m.leaves)+256)
	return m, nil
}

func (s *space) contentError(root cid.Cid, err error) error {
	err = fmt.Errorf("space %s: content %s: %w", s.id, root, err)
	s.h.report(err)
	return fmt.Errorf("%w: %w", ErrIO, err)
}

func (s *space) getNode(ctx context.Context, c cid.Cid) ([]byte, error) {
	id, _, err := block.IDFromCID(c)
	if err != nil {
		return nil, err
	}
	return s.blocks.Get(ctx, id)
}

// encodeLayout writes a list of chunks: for each the gap before it and its length, as varints.
func encodeLayout(layout []tree.Chunk) []byte {
	var b []byte
	var end int64
	for _, l := range layout {
		b = binary.AppendUvarint(b, uint64(l.Off-end))
		b = binary.AppendUvarint(b, uint64(l.Len))
		end = l.Off + l.Len
	}
	return b
}

// readLayout reads the block that lists the chunks of a content.
func (s *space) readLayout(ctx context.Context, id block.ID) ([]tree.Chunk, error) {
	b, err := s.blocks.Get(ctx, id)
	if err == nil {
		b, err = s.keys.OpenChunk(nil, b)
	}
	if err != nil {
		return nil, err
	}
	return decodeLayout(b)
}

func decodeLayout(b []byte) ([]tree.Chunk, error) {
	var out []tree.Chunk
	var end int64
	for len(b) > 0 {
		gap, k := binary.Uvarint(b)
		if k <= 0 || gap > 1<<62 {
			return nil, errors.New("damaged list of chunks")
		}
		b = b[k:]
		n, k := binary.Uvarint(b)
		if k <= 0 || n > 1<<62 || len(out) == maxLeaves {
			return nil, errors.New("damaged list of chunks")
		}
		b = b[k:]
		c := tree.Chunk{Off: end + int64(gap), Len: int64(n)}
		if c.Off < 0 || c.Off+c.Len < 0 {
			return nil, errors.New("damaged list of chunks")
		}
		out = append(out, c)
		end = c.Off + c.Len
	}
	return out, nil
}

// inline gives the bytes that a content operation holds itself.
func (s *space) inline(at tree.Ref) ([]byte, error) {
	if b, ok := s.h.inlines.get(at); ok {
		return b, nil
	}
	p, err := s.payload(at.Change)
	if err != nil {
		err = fmt.Errorf("space %s: content in change %s: %w", s.id, at.Change, err)
		s.h.report(err)
		return nil, fmt.Errorf("%w: %w", ErrIO, err)
	}
	c := contentAt(p, at.Place)
	if c == nil {
		return nil, fmt.Errorf("%w: change %s has no content at %d", ErrIO, at.Change, at.Place)
	}
	s.h.inlines.put(at, c.Inline, len(c.Inline)+128)
	return c.Inline, nil
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
			for i := m.find(from); i < len(m.leaves) && from < min(to, limit); i++ {
				l := m.leaves[i]
				if l.off >= min(to, limit) {
					break
				}
				if l.off > from {
					add(sharedPiece{n: l.off - from, hole: true})
					from = l.off
				}
				k := min(l.off+l.n, to, limit) - from
				add(sharedPiece{n: k, skip: from - l.off, size: l.n, id: l.id})
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
