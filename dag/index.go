package dag

import (
	"encoding/binary"
	"fmt"
)

// The index of a graph in the tables and sets of its store (the index is this device's own: FORMAT.md does not pin it).
//
//	meta        "state" → counters and frontier
//	chains      chain number (4) → a feed or a branch of one
//	feeds       chain number (4), seq/64 (6) → positions of the chain's batches
//	pasts       position (8) → the vector of a batch, for every 64th of a chain
//	objects     object number (8) → id, heads and newest refs of an object
//	logs        object number (8), clock (8), batch prefix (8) → older refs, all from that place in the order on
//	quarantine  position (8) → chain and clock of a batch in quarantine
//	batches     set: position and chain; clock
//	objects     set: object number
//	changes     set: object number and chain; clock

const (
	chainBits = 24
	maxChains = 1 << chainBits
	maxAt     = 1 << 40 // so that a position and a chain number fit into 64 bits
)

// Prefix returns the first 8 bytes as a number.
func (id ID) Prefix() uint64 { return binary.BigEndian.Uint64(id[:]) }

func key32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func key64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func feedKey(chain uint32, page uint64) []byte {
	k := binary.BigEndian.AppendUint32(make([]byte, 0, 10), chain)
	return append(k, byte(page>>40), byte(page>>32), byte(page>>24), byte(page>>16), byte(page>>8), byte(page))
}

func logKey(object, clock, batch uint64) []byte {
	k := binary.BigEndian.AppendUint64(make([]byte, 0, 24), object)
	k = binary.BigEndian.AppendUint64(k, clock)
	return binary.BigEndian.AppendUint64(k, batch)
}

func packAt(at uint64, chain uint32) uint64 { return at<<chainBits | uint64(chain) }

func unpackAt(v uint64) (at uint64, chain uint32) { return v >> chainBits, uint32(v & (maxChains - 1)) }

// errIndex says that the index holds what no graph wrote.
func errIndex(what string) error { return fmt.Errorf("%w: %s", ErrIndex, what) }

// decoder reads the index's own encodings: fixed fields and uvarints. The first fault stays.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return make([]byte, n)
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) id() (id ID) {
	copy(id[:], d.take(32))
	return id
}

// count reads a number of items of at least size bytes each, which must be there.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)/size) {
		d.bad = true
		return 0
	}
	return int(n)
}

func (d *decoder) err(what string) error {
	if d.bad || len(d.b) != 0 {
		return errIndex(what)
	}
	return nil
}
