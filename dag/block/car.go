package block

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ipfs/go-cid"
)

// CARWriter writes blocks as a CAR of version 1: a header with the roots, then each block with its CID.
type CARWriter struct {
	w *bufio.Writer
}

// maxCARRoots keeps the number in one byte of CBOR.
const (
	maxCARRoots  = 23
	maxCARHeader = 32 + maxCARRoots*(5+cidLen)
)

// NewCARWriter writes the header. A CAR has at least one root, here at most 23.
func NewCARWriter(w io.Writer, roots ...cid.Cid) (*CARWriter, error) {
	if len(roots) == 0 || len(roots) > maxCARRoots {
		return nil, errors.New("block: a CAR of no or too many roots")
	}
	// The header is dag-cbor: {"roots": [links], "version": 1}. A link is tag 42 on the CID after a zero byte.
	h := append([]byte{0xa2, 0x65}, "roots"...)
	h = append(h, 0x80|byte(len(roots)))
	for _, c := range roots {
		b := c.Bytes()
		if len(b) > 254 {
			return nil, errors.New("block: a CAR with a root of unknown form")
		}
		h = append(h, 0xd8, 42, 0x58, byte(len(b)+1), 0)
		h = append(h, b...)
	}
	h = append(append(append(h, 0x67), "version"...), 1)
	cw := &CARWriter{bufio.NewWriterSize(w, 64<<10)}
	if _, err := cw.w.Write(binary.AppendUvarint(nil, uint64(len(h)))); err != nil {
		return nil, err
	}
	_, err := cw.w.Write(h)
	return cw, err
}

// Put writes a block. That data is what the CID names is the caller's to know.
func (cw *CARWriter) Put(c cid.Cid, data []byte) error {
	var head [binary.MaxVarintLen64 + cidLen]byte
	b := binary.AppendUvarint(head[:0], uint64(c.ByteLen()+len(data)))
	if _, err := cw.w.Write(append(b, c.Bytes()...)); err != nil {
		return err
	}
	_, err := cw.w.Write(data)
	return err
}

// Flush writes what is buffered. It must be called in the end.
func (cw *CARWriter) Flush() error { return cw.w.Flush() }

// CARReader reads what CARWriter wrote, block by block: any CAR of version 1 with up to 23 roots whose CIDs are of version 1
// with blake3-256, whatever their codec.
type CARReader struct {
	r     *bufio.Reader
	roots []cid.Cid
}

// NewCARReader reads the header.
func NewCARReader(r io.Reader) (*CARReader, error) {
	cr := &CARReader{r: bufio.NewReaderSize(r, carBuffer)}
	b, err := cr.section(maxCARHeader)
	if err != nil {
		return nil, fmt.Errorf("block: header of a CAR: %w", err)
	}
	in := reading{b: b}
	in.literal("\xa2\x65roots")
	n := 0
	if p := in.take(1); p != nil && p[0] > 0x80 && p[0] <= 0x80+maxCARRoots {
		n = int(p[0] - 0x80)
	}
	for range n {
		in.literal("\xd8\x2a\x58\x25\x00")
		c, err := blake3CID(in.take(cidLen))
		if err != nil {
			return nil, err
		}
		cr.roots = append(cr.roots, c)
	}
	in.literal("\x67version\x01")
	if in.end(); in.bad || n == 0 {
		return nil, errCAR
	}
	return cr, nil
}

// Roots returns the roots that the header names.
func (cr *CARReader) Roots() []cid.Cid { return cr.roots }

// Next returns the next block, verified against its CID, and io.EOF behind the last. The bytes are the caller's. It
// allocates no more than has come.
func (cr *CARReader) Next() (cid.Cid, []byte, error) {
	b, err := cr.section(cidLen + MaxSize)
	if err == io.EOF {
		return cid.Undef, nil, io.EOF
	}
	if err != nil {
		return cid.Undef, nil, fmt.Errorf("block: read a CAR: %w", err)
	}
	if len(b) < cidLen {
		return cid.Undef, nil, errCAR
	}
	c, err := blake3CID(b[:cidLen])
	if err != nil {
		return cid.Undef, nil, err
	}
	if Sum(b[cidLen:]) != ID(b[4:cidLen]) {
		return cid.Undef, nil, fmt.Errorf("%w: %s in a CAR", ErrCorrupt, c)
	}
	return c, b[cidLen:], nil
}

// section reads a length and as many bytes; io.EOF only where it would begin.
func (cr *CARReader) section(most uint64) ([]byte, error) {
	head, err := cr.r.Peek(binary.MaxVarintLen64)
	if len(head) == 0 {
		return nil, err
	}
	in := reading{b: head}
	n := in.uvarint()
	if in.bad && err == io.EOF {
		return nil, io.ErrUnexpectedEOF
	}
	if in.bad || n > most {
		return nil, errCAR
	}
	cr.r.Discard(len(head) - len(in.b))
	// Memory grows with what comes, not with what is announced.
	var pieces [][]byte
	for left := n; left > 0 || len(pieces) == 0; left -= min(left, carPiece) {
		p := make([]byte, min(left, carPiece))
		if _, err := io.ReadFull(cr.r, p); err != nil {
			return nil, noEOF(err)
		}
		pieces = append(pieces, p)
	}
	if len(pieces) == 1 {
		return pieces[0], nil
	}
	whole := make([]byte, 0, n)
	for _, p := range pieces {
		whole = append(whole, p...)
	}
	return whole, nil
}

const (
	carBuffer = 8 << 10
	carPiece  = 32 << 10 // of a section, at a time
)

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// blake3CID reads a binary CID of version 1 with blake3-256 and a codec of one byte.
func blake3CID(b []byte) (cid.Cid, error) {
	if len(b) != cidLen || b[0] != 1 || b[1] >= 0x80 || b[2] != rawPrefix[2] || b[3] != rawPrefix[3] {
		return cid.Undef, fmt.Errorf("%w: a CID that is not of version 1 with blake3-256", errCAR)
	}
	_, c, err := cid.CidFromBytes(b)
	return c, err
}

// errCAR is returned for what is no CAR that this package reads.
var errCAR = errors.New("block: not a CAR of blake3-256 blocks")

// ExportCAR writes the tree under root as a CAR: each node before what is under it, leaves in order, a block that comes
// again in a row of leaves once.
//
// It refuses trees as Leaves does, and returns w's error or get's. It holds one block and MaxDepth nodes in memory.
func ExportCAR(ctx context.Context, w io.Writer, root cid.Cid, get GetFunc) error {
	cw, err := NewCARWriter(w, root)
	if err != nil {
		return err
	}
	var last ID
	if err := walkTree(ctx, get, root, func(id ID, data []byte) error {
		return cw.Put(id.NodeCID(), data)
	}, func(l Leaf) error {
		if l.ID == last {
			return nil // as the blocks of a file full of one byte
		}
		last = l.ID
		data, err := get(ctx, l.ID.CID())
		if err != nil {
			return err
		}
		if l.Size > 0 && uint64(len(data)) != l.Size {
			return errLeafSize
		}
		return cw.Put(l.ID.CID(), data)
	}); err != nil {
		return err
	}
	return cw.Flush()
}

var errLeafSize = errors.New("block: a leaf is not as long as its node says")
