package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
)

// Item is what a List holds.
type Item interface {
	Tag | Tip | Sum | Short | dag.ID | dag.PublicKey | block.ID
}

// List is items of one size, which go over the wire as one byte string.
type List[T Item] []T

// tipBytes is the length of a Tip: feed, batch, seq big-endian.
const tipBytes = 32 + 32 + 8

func itemBytes[T Item]() int {
	var v T
	if _, ok := any(v).(Tip); ok {
		return tipBytes
	}
	return int(unsafe.Sizeof(v))
}

// MarshalCBOR writes the items one after the other.
func (l List[T]) MarshalCBOR() ([]byte, error) {
	n := len(l) * itemBytes[T]()
	p := make([]byte, 0, n+5)
	switch {
	case n < 24:
		p = append(p, 0x40|byte(n))
	case n < 1<<8:
		p = append(p, 0x58, byte(n))
	case n < 1<<16:
		p = binary.BigEndian.AppendUint16(append(p, 0x59), uint16(n))
	default:
		p = binary.BigEndian.AppendUint32(append(p, 0x5a), uint32(n))
	}
	for i := range l {
		switch v := any(&l[i]).(type) {
		case *Tag:
			p = append(p, v[:]...)
		case *dag.ID:
			p = append(p, v[:]...)
		case *dag.PublicKey:
			p = append(p, v[:]...)
		case *block.ID:
			p = append(p, v[:]...)
		case *Sum:
			p = append(p, v[:]...)
		case *Short:
			p = append(p, v[:]...)
		case *Tip:
			p = append(append(p, v.Feed[:]...), v.Batch[:]...)
			p = binary.BigEndian.AppendUint64(p, v.Seq)
		}
	}
	return p, nil
}

// UnmarshalCBOR reads what MarshalCBOR wrote. p is one well-formed item.
func (l *List[T]) UnmarshalCBOR(p []byte) error {
	if len(p) == 0 || p[0]>>5 != 2 {
		return errors.New("a list that is no byte string")
	}
	switch {
	case p[0] < 0x58:
		p = p[1:]
	case p[0] == 0x58:
		p = p[2:]
	case p[0] == 0x59:
		p = p[3:]
	case p[0] == 0x5a:
		p = p[5:]
	default:
		return errors.New("a list too long")
	}
	size := itemBytes[T]()
	if len(p)%size != 0 {
		return fmt.Errorf("a list of %d bytes, with items of %d", len(p), size)
	}
	*l = nil
	if len(p) > 0 {
		*l = make(List[T], len(p)/size)
	}
	for i := range *l {
		b := p[i*size:]
		switch v := any(&(*l)[i]).(type) {
		case *Tag:
			copy(v[:], b)
		case *dag.ID:
			copy(v[:], b)
		case *dag.PublicKey:
			copy(v[:], b)
		case *block.ID:
			copy(v[:], b)
		case *Sum:
			copy(v[:], b)
		case *Short:
			copy(v[:], b)
		case *Tip:
			copy(v.Feed[:], b)
			copy(v.Batch[:], b[32:])
			v.Seq = binary.BigEndian.Uint64(b[64:])
		}
	}
	return nil
}
