package fs

import (
	"context"
	"errors"
	"io"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// How far patches go before the content is published whole again.
const (
	maxPatches     = 256     // over one another
	maxPatchBytes  = 1 << 20 // of their edits together
	maxPatchRanges = 4096    // that they cover, and edits of one
)

// patchCost is about what a change and its batch take beside the bytes of a patch.
const patchCost = 1 << 10

// nextContent makes the content of a file that is to be published: a patch over the published one where that is small, else the
// whole content.
func (s *space) nextContent(ctx context.Context, n *index.Inode) (*assembled, error) {
	if a, err := s.patch(ctx, n); a != nil || err != nil {
		return a, err
	}
	return s.assemble(ctx, n)
}

// patch gives what was done to a file as a patch, or nil.
func (s *space) patch(ctx context.Context, n *index.Inode) (*assembled, error) {
	if n.Base == nil || !n.Base.Root.Defined() || n.Size <= inlineMax {
		return nil, nil
	}
	if len(n.Contents) != 1 || n.Contents[0] != n.Shown() {
		return nil, nil // it replaces something else than what it lies over
	}
	if n.Patched.Count >= maxPatches {
		return nil, nil
	}
	m, err := s.manifest(ctx, n.Base)
	if err != nil {
		return nil, err
	}
	edits, bytes, ok := n.Edits(maxPatchRanges, min(s.patchLimit(m), maxPatchBytes-n.Patched.Bytes))
	if !ok || n.Ext != nil && n.Ext.Len() > maxPatchRanges {
		return nil, nil
	}
	if len(edits) == 0 && n.Size == n.ShownSize() && (n.Patched.Count == 0 || n.Patched.Bytes > idlePatches) {
		return nil, nil // nothing was done to it: it is its base, or the patches are many
	}
	c := &tree.Content{Size: n.Size, Patch: make([]tree.Edit, len(edits))}
	data := make([]byte, bytes)
	r := &fileReader{ctx: ctx, s: s, n: n}
	for i, e := range edits {
		p := data[:e.Data:e.Data]
		if len(p) > 0 {
			if _, err := r.ReadAt(p, e.Off); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
		}
		c.Patch[i] = tree.Edit{Off: e.Off, Len: e.Len, Bytes: p}
		data = data[e.Data:]
	}
	return &assembled{content: c, edits: edits, sealed: bytes + patchCost}, nil
}

// patchLimit is how many bytes a patch has at most. What is in a change stays for ever, and what is in blocks can be pruned: so
// beyond what sits in changes anyway, a patch has no more bytes than a new layout and tree would.
func (s *space) patchLimit(m *manifest) int64 {
	layout := int64(0)
	if len(m.leaves) > inlineLayout || !m.plain() {
		layout = 3*int64(len(m.leaves)) + 7*int64(len(m.parts))
	}
	return min(tree.MaxPatch, max(inlineMax, layout+56*int64(len(m.leaves))))
}
