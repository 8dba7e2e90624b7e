// Package wire is the messages that two peers exchange, as bytes.
//
// A message goes over a stream as its length (4 bytes, big-endian) and its body: a CBOR array that begins with the
// message's type. Encodings are canonical: every other byte string is refused, by encoding again. Lists of things of one
// size are one byte string, so that no list takes more memory than its bytes. ../PROTOCOL.md gives the messages.
//
// The package keeps no state and opens nothing: what a message means is said elsewhere.
package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/canon"
)

// Version is the latest version of the protocol that this implementation speaks, and MinVersion the earliest. Two peers go on in the lower of the two
// that they speak at most; who does not speak that says so, and nothing else.
const (
	Version    = 1
	MinVersion = 1
)

// Names of the protocols, one for each kind of stream.
const (
	ProtocolHello  = "/anyfs/hello/1.0.0"
	ProtocolSpace  = "/anyfs/space/1.0.0"
	ProtocolBlocks = "/anyfs/blocks/1.0.0"
	ProtocolAccess = "/anyfs/access/1.0.0"
	ProtocolGuest  = "/anyfs/guest/1.0.0"
	ProtocolNode   = "/anyfs/node/1.0.0"
	ProtocolPair   = "/anyfs/pair/1.0.0"
	ProtocolMesh   = "/anyfs/mesh/1.0.0"
	ProtocolJoin   = "/anyfs/join/1.0.0"
	ProtocolMeet   = "/anyfs/meet/1.0.0"
	ProtocolRoom   = "/anyfs/room/1.0.0"
)

// Limits fixed by the protocol.
const (
	MaxHello  = 34 << 10            // bytes of a body before the peer has proved a common space
	MaxBody   = dag.MaxFrame + 1024 // bytes of any body
	MaxTags   = 1024                // tags of one message
	MinTags   = 16                  // the fewest, with padding
	MaxCert   = 2 << 10             // bytes of a certificate
	MaxHeads  = 16                  // heads that are named; of more there is a digest
	MaxTips   = 4096                // tips of one message
	MaxSums   = 1 << 14             // ranges of one probe
	MinSums   = 64                  // ranges of the first
	MaxShorts = 1 << 16             // tips named in one message
	MaxIDs    = 1024                // IDs of one message
	MaxBack   = 1024                // batches that one Want asks for beside each that it names
	MaxFrames = 2048                // frames of one message
	MaxPart   = 256 << 10           // bytes of a block in one message
)

var (
	// ErrFormat: bytes that no writer of this protocol makes.
	ErrFormat = errors.New("wire: not canonical")
	// ErrTooLong: a message beyond its limit.
	ErrTooLong = errors.New("wire: message too long")
)

var encMode, decMode = canon.Modes(cbor.DecOptions{MaxNestedLevels: 4, MaxArrayElements: MaxFrames, MaxMapPairs: 16})

// Message is one of the messages of this package. check says whether its values are within their bounds.
type Message interface {
	kind() Kind
	check() error
}

// Append appends a message as it goes over a stream. A message beyond its bounds panics: it is ours.
func Append(dst []byte, m Message) []byte {
	if err := m.check(); err != nil {
		panic(fmt.Sprintf("wire: %T: %v", m, err))
	}
	at := len(dst)
	if p, ok := m.(bulk); ok {
		dst = append(p.appendHead(append(dst, 0, 0, 0, 0)), *p.data()...)
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
		return dst
	}
	buf := bytes.NewBuffer(append(dst, 0, 0, 0, 0))
	if err := encMode.NewEncoder(buf).Encode(m); err != nil {
		panic(fmt.Sprintf("wire: %T: %v", m, err))
	}
	dst = buf.Bytes()
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst
}

// Decode reads a body and refuses every byte string that Append does not make. The message does not alias it.
func Decode(body []byte) (Message, error) {
	m, err := decode(body)
	if p, ok := m.(bulk); ok {
		*p.data() = bytes.Clone(*p.data())
	}
	return m, err
}

// decode is Decode, but that the data of a Part and a PutBlock are those of body.
func decode(body []byte) (Message, error) {
	if len(body) > MaxBody {
		return nil, ErrTooLong
	}
	// An array of fewer than 24 items, the first of which is a number of one byte, or of two from 24 on.
	if len(body) < 2 || body[0] < 0x81 || body[0] > 0x97 || body[1] > 0x18 || body[1] == 0x18 && len(body) < 3 {
		return nil, ErrFormat
	}
	kind, long := Kind(body[1]), 1
	if kind == 0x18 {
		if kind, long = Kind(body[2]), 2; kind < 24 {
			return nil, ErrFormat
		}
	}
	m := kind.new()
	if m == nil {
		return nil, fmt.Errorf("%w: message of kind %d", ErrFormat, kind)
	}
	if p, ok := m.(bulk); ok {
		return decodeBulk(p, body, long)
	}
	if err := decMode.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("%w: %T: %w", ErrFormat, m, err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%w: %T: %w", ErrFormat, m, err)
	}
	again := same{rest: body}
	if err := encMode.NewEncoder(&again).Encode(m); err != nil || len(again.rest) > 0 {
		return nil, fmt.Errorf("%w: %T", ErrFormat, m)
	}
	return m, nil
}

// same is a writer that takes only the bytes that it holds.
type same struct{ rest []byte }

func (s *same) Write(p []byte) (int, error) {
	if !bytes.HasPrefix(s.rest, p) {
		return 0, ErrFormat
	}
	s.rest = s.rest[len(p):]
	return len(p), nil
}

// Reader reads messages from a stream. Limit bounds the next body, and may be changed between two reads.
type Reader struct {
	Limit int
	Bytes uint64 // read so far, with lengths

	r   io.Reader
	buf []byte
}

// NewReader returns a reader with the limit of a stream that has proved nothing yet.
func NewReader(r io.Reader) *Reader { return &Reader{Limit: MaxHello, r: r} }

// Read returns the next message. io.EOF ends the stream between two messages. What a length promises is allocated as it
// arrives. The data of a Part and of a PutBlock are valid until the next Read.
func (r *Reader) Read() (Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(head[:]))
	if n > int64(r.Limit) {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLong, n)
	}
	body := r.buf[:0]
	for int64(len(body)) < n {
		at := len(body)
		step := int(min(n-int64(at), int64(max(64<<10, at))))
		if cap(body)-at < step {
			body = append(make([]byte, 0, at+step), body...)
		}
		body = body[:at+step]
		if _, err := io.ReadFull(r.r, body[at:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	r.buf = body
	if cap(body) > 512<<10 {
		r.buf = nil // one long batch is no reason to keep as much for the next
	}
	r.Bytes += uint64(n) + 4
	return decode(body)
}
