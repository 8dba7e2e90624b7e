package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	mh "github.com/multiformats/go-multihash"
	"github.com/zeebo/blake3"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/tree"
)

// A space as a CAR: its root is a manifest; then come the frames of the access list, each a raw block; then each batch of
// files followed by its changes; then the blocks of content. Nothing in it is in the clear that a node would not see.

// carManifest is the root block.
type carManifest struct {
	Version uint64   `cbor:"version"`
	Space   cbor.Tag `cbor:"space"`
	Label   string   `cbor:"label,omitempty"` // of a derived space
	ACL     uint64   `cbor:"acl"`             // how many frames of the access list follow
	Batches uint64   `cbor:"batches"`         // how many batches follow these
}

// maxManifest bounds what an import reads as one.
const maxManifest = 4 << 10

// cidTag is the tag of a link in dag-cbor.
const cidTag = 42

func link(c cid.Cid) cbor.Tag {
	return cbor.Tag{Number: cidTag, Content: append([]byte{0}, c.Bytes()...)}
}

func unlink(t cbor.Tag) (cid.Cid, error) {
	b, ok := t.Content.([]byte)
	if t.Number != cidTag || !ok || len(b) < 2 || b[0] != 0 {
		return cid.Undef, errors.New("not a link")
	}
	return cid.Cast(b[1:])
}

// blake3CID is the CIDv1 of data under a codec.
func blake3CID(codec uint64, data []byte) (cid.Cid, error) {
	sum := blake3.Sum256(data)
	h, err := mh.Encode(sum[:], mh.BLAKE3)
	if err != nil {
		return cid.Undef, err
	}
	return cid.NewCidV1(codec, h), nil
}

// ExportResult says what an export holds.
type ExportResult struct {
	Batches int   `json:"batches"`
	Changes int   `json:"changes"`
	Blocks  int   `json:"blocks"`
	Bytes   int64 `json:"bytes"`
	// Absent counts blocks that are not on this device: of pruned versions.
	Absent int `json:"absent"`
	// Unpublished counts files and folders with changes that this device may not publish: they are in the mount alone.
	Unpublished int `json:"unpublished,omitempty"`
}

// Export writes a space, history and all, as a CAR of version 1. What is dirty is published first.
func (h *Home) Export(ctx context.Context, name string, w io.Writer) (ExportResult, error) {
	var res ExportResult
	s, err := h.namedSpace(name)
	if err != nil {
		return res, err
	}
	if err := s.publishAll(ctx); err != nil {
		if s.acl.MayWrite() {
			return res, err
		}
		res.Unpublished = s.info(name).KeptChanges // what may not be published any more keeps the rest from nobody
	}
	var frames [][]byte
	if err := s.acl.Export(func(f []byte) error {
		frames = append(frames, append([]byte(nil), f...))
		return nil
	}); err != nil {
		return res, fmt.Errorf("export: access list: %w", err)
	}
	batches, _, _ := s.graph.Counters()
	m := carManifest{Version: 1, Space: link(s.id.CID()), Label: h.spaceLabel(name), ACL: uint64(len(frames)), Batches: batches}
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return res, err
	}
	head, err := enc.Marshal(m)
	if err != nil {
		return res, err
	}
	root, err := blake3CID(cid.DagCBOR, head)
	if err != nil {
		return res, err
	}
	counted := &countWriter{w: w}
	cw, err := block.NewCARWriter(counted, root)
	if err != nil {
		return res, err
	}
	put := func(codec uint64, data []byte) error {
		c, err := blake3CID(codec, data)
		if err != nil {
			return err
		}
		return cw.Put(c, data)
	}
	if err := put(cid.DagCBOR, head); err != nil {
		return res, err
	}
	for _, f := range frames {
		if err := put(cid.Raw, f); err != nil {
			return res, err
		}
	}
	left := batches
	if err := s.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if left == 0 {
			return nil // came in after the count
		}
		left--
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := put(cid.DagCBOR, b.Encode()); err != nil {
			return err
		}
		for _, body := range bodies {
			if err := put(cid.DagCBOR, body); err != nil {
				return err
			}
		}
		res.Batches++
		res.Changes += len(bodies)
		return nil
	}); err != nil {
		return res, fmt.Errorf("export: %w", err)
	}
	if left != 0 {
		return res, fmt.Errorf("export: %d batches are missing from the log", left)
	}
	if err := s.exportBlocks(ctx, cw, &res); err != nil {
		return res, fmt.Errorf("export: %w", err)
	}
	if err := cw.Flush(); err != nil {
		return res, err
	}
	res.Bytes = counted.n
	return res, nil
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// spaceLabel gives the label of a derived space, by its entry in the root.
func (h *Home) spaceLabel(name string) string {
	home := h.home
	home.mu.Lock()
	defer home.mu.Unlock()
	e, _, err := home.lookup(rootDir, name)
	if err != nil || e == nil {
		return ""
	}
	n, err := home.inode(e.Ino)
	if err != nil {
		return ""
	}
	v, _ := n.Xattr(spaceXattr)
	ref, _ := parseSpaceRef(v)
	return ref.label
}

// exportBlocks writes every block that a content of the history refers to, once.
func (s *space) exportBlocks(ctx context.Context, cw *block.CARWriter, res *ExportResult) error {
	done := map[block.ID]bool{}
	put := func(c cid.Cid) ([]byte, error) {
		id, _, err := block.IDFromCID(c)
		if err != nil {
			return nil, err
		}
		b, err := s.blocks.Get(ctx, id)
		if errors.Is(err, block.ErrAbsent) {
			if !done[id] {
				res.Absent++
				done[id] = true
			}
			return nil, err
		}
		if err != nil || done[id] {
			return b, err
		}
		done[id] = true
		res.Blocks++
		return b, cw.Put(c, b)
	}
	return s.eachContent(ctx, func(_ *dag.Batch, c *tree.Content) error {
		err := eachLeaf(ctx, func(_ context.Context, c cid.Cid) ([]byte, error) { return put(c) }, c.Root, func(l block.Leaf) error {
			_, err := put(l.ID.CID())
			if errors.Is(err, block.ErrAbsent) {
				return nil
			}
			return err
		})
		if errors.Is(err, block.ErrAbsent) || errors.Is(err, errLeaves) { // nobody can read it
			return nil
		}
		return err
	})
}

// eachContent calls fn for every content in blocks that any change of the space holds.
func (s *space) eachContent(ctx context.Context, fn func(*dag.Batch, *tree.Content) error) error {
	return s.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.contentsOf(b, bodies, func(_ dag.ID, c *tree.Content) error { return fn(b, c) })
	})
}

// contentsOf calls fn for every content in blocks that the changes of a batch hold, with the object that it is of, until fn returns an error, which it returns.
func (s *space) contentsOf(b *dag.Batch, bodies [][]byte, fn func(object dag.ID, c *tree.Content) error) error {
	for i, body := range bodies {
		c, err := dag.DecodeChange(body)
		if err != nil {
			return err
		}
		p, err := s.open(&dag.Entry{ID: b.Changes[i], Change: c, Batch: b})
		if err != nil {
			continue // an empty operation for everybody
		}
		object := c.Object
		if object.IsZero() {
			object = b.Changes[i]
		}
		for j := range p.Ops {
			if k := p.Ops[j].Content; k != nil && k.Root.Defined() {
				if err := fn(object, k); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// maxCARBlock bounds one block of an import: a frame of the access list or a batch, a change, or a block of content.
const maxCARBlock = 8 << 20

// Import takes in a space that Export wrote, under the name as. Where that is empty the account's Personal gets its own name,
// and another space the name otherwise. A space that is here already is a *TakenError, as is a taken name, unless nothing was ever made in it: a
// device that has just logged in has such a Personal, and the import takes its place. ErrNoKey says that no key of the
// space is on this device, as when it is another account's.
func (h *Home) Import(ctx context.Context, r io.Reader, as, otherwise string) (SpaceInfo, error) {
	br, err := carv2.NewBlockReader(bufio.NewReaderSize(r, 1<<20), carv2.WithTrustedCAR(true), carv2.MaxAllowedSectionSize(maxCARBlock))
	if err != nil {
		return SpaceInfo{}, fmt.Errorf("this is no CAR file: %w", err)
	}
	im := &importer{next: func() (cid.Cid, []byte, error) {
		b, err := br.Next()
		if err != nil {
			return cid.Undef, nil, err
		}
		// Nothing in the file is believed: each block must be what its CID says.
		sum, err := blake3CID(b.Cid().Type(), b.RawData())
		if err == nil && !sum.Equals(b.Cid()) {
			err = fmt.Errorf("block %s is damaged", b.Cid())
		}
		return b.Cid(), b.RawData(), err
	}}
	if len(br.Roots) != 1 {
		return SpaceInfo{}, errors.New("this CAR file is no export of a space: it has not one root")
	}
	m, id, err := im.manifest(br.Roots[0])
	if err != nil {
		return SpaceInfo{}, fmt.Errorf("this CAR file is no export of a space: %w", noEnd(err))
	}
	name := as
	if name == "" {
		if name = otherwise; m.Label == labelPersonal {
			name = PersonalName
		}
	}
	return h.createSpace(name, m.Label, id, func(st dag.Store) (*acl.Space, error) {
		return acl.ImportSpace(h.keys, id, st, func(yield func([]byte) error) error {
			for range m.ACL {
				_, b, err := im.next()
				if err != nil {
					return noEnd(err)
				}
				if err := yield(b); err != nil {
					return err
				}
			}
			return nil
		})
	}, func(s *space) error { return im.fill(ctx, s, m.Batches) })
}

type importer struct {
	next func() (cid.Cid, []byte, error)
}

func (im *importer) manifest(root cid.Cid) (m carManifest, id dag.ID, err error) {
	c, b, err := im.next()
	if err != nil {
		return m, id, err
	}
	if !c.Equals(root) || len(b) > maxManifest {
		return m, id, errors.New("its first block is no manifest")
	}
	dec, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode()
	if err != nil {
		return m, id, err
	}
	if err := dec.Unmarshal(b, &m); err != nil {
		return m, id, err
	}
	if m.Version != 1 {
		return m, id, fmt.Errorf("its version is %d; a newer anyfs may read it", m.Version)
	}
	l, err := unlink(m.Space)
	if err == nil {
		id, err = dag.IDFromCID(l)
	}
	return m, id, err
}

// fill takes the batches and the blocks into a new space, and makes its index.
func (im *importer) fill(ctx context.Context, s *space, batches uint64) error {
	for n := range batches {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, b, err := im.next()
		if err != nil {
			return fmt.Errorf("batch %d of %d: %w", n+1, batches, noEnd(err))
		}
		batch, err := dag.DecodeBatch(b)
		if err != nil {
			return fmt.Errorf("batch %d: %w", n+1, err)
		}
		bodies := make([][]byte, len(batch.Changes))
		for i := range bodies {
			if _, bodies[i], err = im.next(); err != nil {
				return fmt.Errorf("batch %d: change %d: %w", n+1, i, noEnd(err))
			}
		}
		res, err := s.graph.Ingest(dag.EncodeFrame(batch, bodies))
		if err != nil {
			return fmt.Errorf("batch %s: %w", batch.ID(), err)
		}
		if res.Status == dag.Pending {
			return fmt.Errorf("batch %s: what it builds on is not in the file", batch.ID())
		}
	}
	for {
		c, b, err := im.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if _, _, err := block.IDFromCID(c); err != nil {
			return err
		}
		if _, err := s.blocks.Put(b); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	if err := s.rebuild(ctx); err != nil {
		return err
	}
	return s.settleImport(ctx)
}

// settleImport looks whether all content came: what is current must be whole, and what is not whole of the rest was pruned
// where the file was made, and is noted as pruned here too.
func (s *space) settleImport(ctx context.Context) error {
	p := pruner{s: s, now: s.h.opt.Clock().UnixNano()}
	var pruned []block.ID
	err := p.each(ctx, func(c *tree.Content, current bool, _ int64) error {
		if s.isWhole(ctx, c.Root) {
			return nil
		}
		if current {
			return fmt.Errorf("content %s is not whole: the file was cut off", c.Root)
		}
		id, _, err := block.IDFromCID(c.Root)
		pruned = append(pruned, id)
		return err
	})
	if err != nil || len(pruned) == 0 {
		return err
	}
	return s.notePruned(pruned)
}

// noEnd turns the end of a file into an error.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
