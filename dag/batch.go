package dag

import (
	"crypto/ed25519"
	"fmt"

	"github.com/zeebo/blake3"
)

// signDomain stands before what a device signs, so that no other signature of its key can be taken for a batch's.
const signDomain = "anyfs/batch/1\x00"

func errTooLong(what string) error { return fmt.Errorf("%w: %s beyond its limit", ErrFormat, what) }

// form says which fields an encoding of a batch has.
type form uint8

const (
	whole    form = iota // the batch, whose hash is its ID
	unsigned             // without the signature: what is signed
	headOnly             // without the links to its changes: as in a frame
)

// Encode returns the canonical encoding, whose hash is the batch's ID.
func (b *Batch) Encode() []byte { return b.append(make([]byte, 0, b.room()), whole) }

// ID returns the hash of the encoding. A batch that came out of a graph knows it.
func (b *Batch) ID() ID {
	if !b.id.IsZero() {
		return b.id
	}
	return b.digest(whole)
}

// SigningBytes returns what the device signs: a domain, then the hash of the encoding without the signature.
func (b *Batch) SigningBytes() []byte {
	h := b.digest(unsigned)
	return append([]byte(signDomain), h[:]...)
}

// digest hashes an encoding, without making all of it where it is long: whoever sent a batch is not known yet.
func (b *Batch) digest(f form) ID {
	if len(b.Changes) <= fewChanges {
		var few [1024]byte // on the stack; most are shorter
		p := few[:0]
		if n := b.room(); n > len(few) {
			p = make([]byte, 0, n)
		}
		return Sum(b.append(p, f))
	}
	buf := b.appendHead(make([]byte, 0, 2048+b.headRoom()), f)
	buf = appendHead(append(buf, "\x67changes"...), majorArray, uint64(len(b.Changes)))
	h := blake3.New()
	for i := range b.Changes {
		if cap(buf)-len(buf) < linkBytes {
			h.Write(buf)
			buf = buf[:0]
		}
		buf = appendLink(buf, b.Changes[i])
	}
	h.Write(buf)
	var id ID
	h.Sum(id[:0])
	return id
}

// fewChanges make an encoding that is hashed in one piece.
const fewChanges = 128

// Verify reports whether the signature is the device's.
func (b *Batch) Verify() bool {
	return ed25519.Verify(b.Device[:], b.SigningBytes(), b.Signature[:])
}

// room is enough for every form, headRoom for what comes before the links to the changes.
func (b *Batch) room() int { return b.headRoom() + 16 + len(b.Changes)*linkBytes }

func (b *Batch) headRoom() int { return 420 + (len(b.Deps)+len(b.ACL)+1)*linkBytes }

func (b *Batch) append(p []byte, f form) []byte {
	p = b.appendHead(p, f)
	if f != headOnly {
		p = append(p, "\x67changes"...)
		p = appendLinks(p, b.Changes)
	}
	return p
}

// appendHead writes all but the links to the changes.
func (b *Batch) appendHead(p []byte, f form) []byte {
	pairs := uint64(12)
	if f != whole {
		pairs--
	}
	if b.Prev.IsZero() {
		pairs--
	}
	if b.Epoch.IsZero() {
		pairs--
	}
	p = appendHead(p, majorMap, pairs)
	p = append(p, "\x61v"...)
	p = appendHead(p, majorUint, b.Version)
	p = append(p, "\x63acl"...)
	p = appendLinks(p, b.ACL)
	p = append(p, "\x63seq"...)
	p = appendHead(p, majorUint, b.Seq)
	if f != unsigned {
		p = append(p, "\x63sig\x58\x40"...)
		p = append(p, b.Signature[:]...)
	}
	p = append(p, "\x64deps"...)
	p = appendLinks(p, b.Deps)
	if !b.Prev.IsZero() {
		p = append(p, "\x64prev"...)
		p = appendLink(p, b.Prev)
	}
	p = append(p, "\x65clock"...)
	p = appendHead(p, majorUint, b.Clock)
	if !b.Epoch.IsZero() {
		p = append(p, "\x65epoch"...)
		p = appendDigest(p, (*[32]byte)(&b.Epoch))
	}
	p = append(p, "\x65space"...)
	p = appendDigest(p, (*[32]byte)(&b.Space))
	p = append(p, "\x66device"...)
	p = appendDigest(p, (*[32]byte)(&b.Device))
	p = append(p, "\x67account"...)
	return appendDigest(p, (*[32]byte)(&b.Account))
}

// DecodeBatch reads what Encode wrote and refuses every other byte string. It checks what can be seen in the batch alone,
// but for the signature.
func DecodeBatch(p []byte) (*Batch, error) {
	if len(p) > maxBatch {
		return nil, errTooLong("batch")
	}
	b := new(Batch)
	r := reader{b: p}
	r.batch(b, whole)
	if err := r.done(); err != nil {
		return nil, err
	}
	return b, nil
}

// maxHead and maxBatch bound the two encodings of a batch.
const (
	maxHead  = 512 + (MaxDeps+MaxACLHeads+1)*linkBytes
	maxBatch = maxHead + MaxChanges*linkBytes
)

// batch reads the whole or the headOnly form.
func (r *reader) batch(b *Batch, f form) {
	pairs, version := r.fields("batch")
	b.Version = version
	r.expect("\x63acl", "acl")
	b.ACL = r.links(MaxACLHeads, nil, "acl")
	r.sorted(b.ACL, "acl")
	r.expect("\x63seq", "seq")
	b.Seq = r.head(majorUint, MaxClock, "seq")
	r.expect("\x63sig\x58\x40", "sig")
	copy(b.Signature[:], r.take(64, "sig"))
	r.expect("\x64deps", "deps")
	b.Deps = r.links(MaxDeps, nil, "deps")
	r.sorted(b.Deps, "deps")
	want := uint64(9)
	if r.has("\x64prev") {
		want++
		b.Prev = r.link("prev")
		if r.err == nil && b.Prev.IsZero() {
			r.fail(ErrFormat, "prev of zeroes")
		}
	}
	r.expect("\x65clock", "clock")
	b.Clock = r.clock()
	if r.has("\x65epoch") {
		want++
		b.Epoch = r.digest("epoch")
		if r.err == nil && b.Epoch.IsZero() {
			r.fail(ErrFormat, "epoch of zeroes")
		}
	}
	r.expect("\x65space", "space")
	b.Space = r.digest("space")
	r.expect("\x66device", "device")
	b.Device = r.digest("device")
	r.expect("\x67account", "account")
	b.Account = r.digest("account")
	if f == whole {
		want++
		r.expect("\x67changes", "changes")
		b.Changes = r.links(MaxChanges, nil, "changes")
	}
	if r.err == nil && pairs != want {
		r.fail(ErrFormat, "batch with another number of fields")
	}
	r.feed(b)
}

// feed checks the place in the feed.
func (r *reader) feed(b *Batch) {
	switch {
	case r.err != nil:
	case b.Seq == 0:
		r.fail(ErrFormat, "seq of zero")
	case (b.Seq == 1) != b.Prev.IsZero():
		r.fail(ErrFormat, "seq 1 with prev, or a later one without")
	case b.Seq > b.Clock:
		r.fail(ErrFormat, "seq above the clock")
	case b.Seq > 1 && contains(b.Deps, b.Prev):
		r.fail(ErrFormat, "prev among the deps")
	}
}

// contains reports whether the sorted ids hold id. They are few.
func contains(ids []ID, id ID) bool {
	for i := range ids {
		if ids[i] == id {
			return true
		}
	}
	return false
}
