package journal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

// Fixed by the format.
const (
	magic         = "anyfsjn1"
	saltBytes     = 32
	headerUse     = 4 + 4 + 8 + 8 // gen, attempt, first, synced
	headerCopy    = 512           // bytes of one header; there are two
	headerBytes   = 2 * headerCopy
	tagBytes      = 16
	frameHead     = 4 // the length of the records in it
	frameSynced   = 8 // what was known to be durable when it was sealed
	frameOverhead = frameHead + frameSynced + tagBytes
	frameMax      = 64 << 10 // bytes of records in a frame

	keyLabel     = "journal"
	fileKeyLabel = "anyfs/journal/1 file"
)

type nonce [12]byte

// set makes n the nonce of a frame. The header's consists of ones.
func (n *nonce) set(counter uint64) []byte {
	binary.BigEndian.PutUint64(n[4:], counter)
	return n[:]
}

func headerNonce() []byte {
	n := make([]byte, 12)
	for i := range n {
		n[i] = 0xff
	}
	return n
}

// header says which use of a file this is.
type header struct {
	salt    [saltBytes]byte
	gen     uint32 // of the use; uses are ordered by it
	attempt uint32 // counts the files into which this use was written anew after a failure
	first   Seq    // number of its first record
	synced  Seq    // what was durable when it began
}

// fileKey returns the AEAD of the use with that salt.
func fileKey(secret *[32]byte, salt *[saltBytes]byte) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, secret[:], salt[:], fileKeyLabel, 32)
	if err != nil {
		panic("journal: " + err.Error())
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("journal: " + err.Error())
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("journal: " + err.Error())
	}
	return aead
}

// appendHeader appends both copies.
func appendHeader(b []byte, aead cipher.AEAD, h *header) []byte {
	var one [headerCopy]byte
	copy(one[:], magic)
	copy(one[len(magic):], h.salt[:])
	at := len(magic) + saltBytes
	var use [headerUse]byte
	binary.BigEndian.PutUint32(use[0:], h.gen)
	binary.BigEndian.PutUint32(use[4:], h.attempt)
	binary.BigEndian.PutUint64(use[8:], uint64(h.first))
	binary.BigEndian.PutUint64(use[16:], uint64(h.synced))
	aead.Seal(one[:at], headerNonce(), use[:], one[:at])
	return append(append(b, one[:]...), one[:]...)
}

// openHeader reads one of the two copies.
func openHeader(b []byte, secret *[32]byte) (h header, aead cipher.AEAD, ok bool) {
	at := len(magic) + saltBytes
	if len(b) != headerCopy || string(b[:len(magic)]) != magic {
		return h, nil, false
	}
	for _, c := range b[at+headerUse+tagBytes:] {
		if c != 0 {
			return h, nil, false
		}
	}
	copy(h.salt[:], b[len(magic):])
	aead = fileKey(secret, &h.salt)
	use, err := aead.Open(nil, headerNonce(), b[at:at+headerUse+tagBytes], b[:at])
	if err != nil {
		return h, nil, false
	}
	h.gen = binary.BigEndian.Uint32(use[0:])
	h.attempt = binary.BigEndian.Uint32(use[4:])
	h.first = Seq(binary.BigEndian.Uint64(use[8:]))
	h.synced = Seq(binary.BigEndian.Uint64(use[16:]))
	return h, aead, h.gen != 0 && h.first != 0
}

// appendFrame seals body, of 1 to frameMax bytes.
func appendFrame(b []byte, aead cipher.AEAD, nonce []byte, synced Seq, body []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)))
	b = binary.BigEndian.AppendUint64(b, uint64(synced))
	b = append(b, body...)
	plain := b[at+frameHead:]
	return aead.Seal(b[:at+frameHead], nonce, plain, b[at:at+frameHead])
}

// frameSize returns the bytes of the frame that b begins with, 0 where there is none. b has at least frameHead bytes.
func frameSize(b []byte) int {
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > frameMax {
		return 0
	}
	return int(n) + frameOverhead
}

// openFrame opens a whole frame in place; on failure its bytes are lost.
func openFrame(b []byte, aead cipher.AEAD, nonce []byte) (body []byte, synced Seq, ok bool) {
	sealed := b[frameHead:]
	plain, err := aead.Open(sealed[:0], nonce, sealed, b[:frameHead])
	if err != nil {
		return nil, 0, false
	}
	return plain[frameSynced:], Seq(binary.BigEndian.Uint64(plain)), true
}

// frameFill is how many bytes a frame is filled with, ours to tune: a read of a record decrypts whole frames.
const frameFill = 16 << 10

// frames returns how many frames n bytes of records make that are written at once.
func frames(n int64) int64 { return (n + frameFill - 1) / frameFill }

func appendRecord(b, rec []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(rec)))
	return append(b, rec...)
}

func recordBytes(n int) int {
	size := n + 1
	for v := n; v >= 0x80; v >>= 7 {
		size++
	}
	return size
}

// cutRecord splits the first record off. more says that b ends within it; a length above limit is not ok. Records of no bytes
// are skipped.
func cutRecord(b []byte, limit int64) (rec, rest []byte, more, ok bool) {
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	n, k := binary.Uvarint(b)
	switch {
	case k == 0:
		return nil, b, true, true
	case k < 0 || n == 0 || n > uint64(limit) || recordBytes(int(n)) != k+int(n):
		return nil, b, false, false
	case n > uint64(len(b)-k):
		return nil, b, true, true
	}
	return b[k : k+int(n)], b[k+int(n):], false, true
}
