package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A Part is most of what goes over a network: it is written and read without the general encoder, which copies its data twice. The
// bytes are the same.

// appendHead appends the body of a Part but for its data.
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

// decode reads the body of a Part; its data are those of body.
func (m *Part) decode(body []byte) (Message, error) {
	bad := fmt.Errorf("%w: %T", ErrFormat, m)
	if body[0] != 0x85 {
		return nil, bad
	}
	var ok bool
	b := body[2:]
	if m.Request, b, ok = takeUint(b, 0); !ok || len(b) == 0 {
		return nil, bad
	}
	m.Absent = b[0] == 0xf5 // a byte that is neither of the two is seen below
	if m.Left, b, ok = takeUint(b[1:], 0); !ok {
		return nil, bad
	}
	n, b, ok := takeUint(b, 2)
	if !ok || n != uint64(len(b)) {
		return nil, bad
	}
	m.Data = b
	var again [32]byte
	if head := body[:len(body)-len(b)]; !bytes.Equal(m.appendHead(again[:0]), head) {
		return nil, bad
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %T: %w", ErrFormat, m, err)
	}
	return m, nil
}
