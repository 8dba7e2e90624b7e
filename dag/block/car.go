package block

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"

	"github.com/ipfs/go-cid"
)

// CARWriter writes blocks as a CAR of version 1: a header with the roots, then each block with its CID.
type CARWriter struct {
	w *bufio.Writer
}

// NewCARWriter writes the header. A CAR has at least one root, here at most 23.
func NewCARWriter(w io.Writer, roots ...cid.Cid) (*CARWriter, error) {
	if len(roots) == 0 || len(roots) > 23 {
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
