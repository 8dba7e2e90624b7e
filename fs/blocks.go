package fs

import (
	"context"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// What stat(2) says of the space that a file takes: the bytes that are not holes. Where the chunks of a published content lie
// stands in its operation; of many, in a block, which is not read under a lock.

// blocksUnknown are the Blocks of an Attr of which only a block could tell them.
const blocksUnknown = -1

// maxCounted bounds the extents that are counted for one stat. A file with more, none of which is published, counts as full.
const maxCounted = 1 << 14

// knownLayout gives the chunks of a base content, where no block has to be read for them; nil is an empty one.
func (s *space) knownLayout(c *tree.Content) ([]tree.Chunk, bool) {
	switch {
	case c == nil:
		return nil, true
	case len(c.Inline) > 0:
		return []tree.Chunk{{Off: 0, Len: int64(len(c.Inline))}}, true
	case c.LayoutBlock.IsZero():
		return c.Layout, true
	default:
		return s.h.layouts.get(manifestKey(c))
	}
}

// layout gives the chunks of a base content; nil is an empty one.
func (s *space) layout(ctx context.Context, c *tree.Content) ([]tree.Chunk, error) {
	if l, ok := s.knownLayout(c); ok {
		return l, nil
	}
	m, err := s.manifest(ctx, c)
	if err != nil {
		return nil, err
	}
	l := m.chunks()
	s.h.layouts.put(manifestKey(c), l, 16*len(l)+256)
	return l, nil
}

// dataBlocks counts what of a file is not holes, in units of 512 bytes. layout are the chunks of its base.
func dataBlocks(n *index.Inode, layout []tree.Chunk) int64 {
	limit := min(n.Limit(), n.Size)
	// shown is what the base shows of [from, to), holes not counted; the ranges that it is asked for rise.
	at := 0
	shown := func(from, to int64) (sum int64) {
		to = min(to, limit)
		for at < len(layout) && layout[at].Off+layout[at].Len <= from {
			at++
		}
		for i := at; i < len(layout) && layout[i].Off < to; i++ {
			c := layout[i]
			sum += max(0, min(c.Off+c.Len, to)-max(c.Off, from))
		}
		return sum
	}
	sum, from := int64(0), int64(0)
	if n.Ext != nil {
		if n.Ext.Len() > maxCounted {
			return (n.Size + 511) / 512
		}
		n.Ext.Range(0, n.Size, func(off int64, x index.Extent) bool {
			sum += shown(from, off)
			if from = off + x.Len; x.Src.Kind != index.SourceZero {
				sum += x.Len
			}
			return true
		})
	}
	sum += shown(from, limit)
	return (min(sum, n.Size) + 511) / 512
}

// counted completes the attributes of an inode with its Blocks, where they are unknown: as of a full file, when the block that
// could tell is not on this device. No lock is held.
func (s *space) counted(local uint64, a Attr) Attr {
	if a.Blocks != blocksUnknown {
		return a
	}
	a.Blocks = (a.Size + 511) / 512
	s.mu.Lock()
	n, err := s.ix.Inode(local)
	if err == nil && n != nil {
		n = n.Clone()
	}
	s.mu.Unlock()
	if err != nil || n == nil || n.Base == nil || !n.Base.LayoutBlock.IsZero() && !s.blocks.Has(n.Base.LayoutBlock) {
		return a
	}
	if layout, err := s.layout(context.Background(), n.Base); err == nil { // else who reads it will be told
		a.Blocks = dataBlocks(n, layout)
	}
	return a
}
