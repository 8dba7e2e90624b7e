package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// bulk is a message that carries bytes of a block behind all else. These are most of what goes over a network: they are written and read without the
// general encoder, which copies them twice. The bytes are the same.
type bulk interface {
	Message
	appendHead(dst []byte) []byte     // the body but for its data
	takeHead(b []byte) ([]byte, bool) // reads what follows the kind up to the data, not whether it is canonical
	data() *[]byte
}

var (
	_ bulk = (*Part)(nil)
	_ bulk = (*PutBlock)(nil)
)

func (m *Part) data() *[]byte     { return &m.Data }
func (m *PutBlock) data() *[]byte { return &m.Data }

func (m *Part) appendHead(dst []byte) []byte {
	dst = append(dst, 0x85, byte(KindPart))
	dst = appendUint(dst, 0, m.Request)
	absent := byte(0xf4)
	if m.Absent {
		absent = 0xf5
	}
	dst = append(dst, absent)
	dst = appendUint(dst, 0, m.Left)
	return appendUint(dst, 2, uint64(len(m.Data)))
}

func (m *Part) takeHead(b []byte) ([]byte, bool) {
	var ok bool
	if m.Request, b, ok = takeUint(b, 0); !ok || len(b) == 0 {
		return nil, false
	}
	m.Absent = b[0] == 0xf5 // a byte that is neither of the two is not what is written again
	m.Left, b, ok = takeUint(b[1:], 0)
	return b, ok
}

func (m *PutBlock) appendHead(dst []byte) []byte {
	dst = append(dst, 0x85, 0x18, byte(KindPutBlock))
	dst = appendUint(dst, 0, m.Request)
	dst = append(appendUint(dst, 2, uint64(len(m.ID))), m.ID[:]...)
	dst = appendUint(dst, 0, m.Left)
	return appendUint(dst, 2, uint64(len(m.Data)))
}

func (m *PutBlock) takeHead(b []byte) ([]byte, bool) {
	var ok bool
	if m.Request, b, ok = takeUint(b, 0); !ok {
		return nil, false
	}
	var n uint64
	if n, b, ok = takeUint(b, 2); !ok || n != uint64(len(m.ID)) || len(b) < len(m.ID) {
		return nil, false
	}
	m.Left, b, ok = takeUint(b[copy(m.ID[:], b):], 0)
	return b, ok
}

// appendUint appends the shortest head of a CBOR item of a major type.
func appendUint(dst []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n < 1<<8:
		return append(dst, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

// takeUint reads such a head. That it is the shortest is seen when it is written again.
func takeUint(b []byte, major byte) (n uint64, rest []byte, ok bool) {
	if len(b) == 0 || b[0]>>5 != major {
		return 0, nil, false
	}
	info := b[0] & 31
	b = b[1:]
	if info < 24 {
		return uint64(info), b, true
	}
	if info > 27 || len(b) < 1<<(info-24) {
		return 0, nil, false
	}
	for _, c := range b[:1<<(info-24)] {
		n = n<<8 | uint64(c)
	}
	return n, b[1<<(info-24):], true
}

// decodeBulk reads the body of a message with data, which are those of body. kind is how many bytes the message's kind takes.
func decodeBulk(m bulk, body []byte, kind int) (Message, error) {
	bad := func() (Message, error) { return nil, fmt.Errorf("%w: %T", ErrFormat, m) }
	b, ok := m.takeHead(body[1+kind:])
	if !ok {
		return bad()
	}
	n, b, ok := takeUint(b, 2)
	if !ok || n != uint64(len(b)) {
		return bad()
	}
	*m.data() = b
	var again [64]byte
	if head := body[:len(body)-len(b)]; !bytes.Equal(m.appendHead(again[:0]), head) {
		return bad()
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %T: %w", ErrFormat, m, err)
	}
	return m, nil
}
