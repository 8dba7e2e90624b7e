package list

import (
	"crypto/ed25519"
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// RootKind says how a root came about.
type RootKind uint64

// The kinds of roots.
const (
	RootRandom   RootKind = 1 // a random seed; signed by the device whose certificate it holds
	RootDerived  RootKind = 2 // seed and key follow from the account's secret; signed by the account
	RootOneToOne RootKind = 3 // of two accounts: seed and key follow from what they agree on; signed by the key whose public half the seed is
)

// Suite is the way of sealing of an epoch: ../seal/FORMAT.md, version 1.
const Suite = 1

// maxName bounds a sealed name of a device.
const maxName = 256

// maxWraps bounds the wraps of one record.
const maxWraps = 1 << 16

// minWrap and maxWrap bound the bytes of one wrap.
const (
	minWrap = 32
	maxWrap = 2048
)

// Wrap is a read key sealed to a recipient: a device, or an account (then to its recovery key).
type Wrap struct {
	To     dag.PublicKey
	Sealed []byte
}

// Root makes a space and its first epoch. It is in no batch of its own; each first batch of the access list carries it.
type Root struct {
	Kind       RootKind
	Seed       [32]byte
	Owner      AccountKeys // of a one-to-one space the one whose identity is lower
	Suite      uint64
	Commitment [32]byte // to the first read key; see seal.ReadKey.Commitment with a zero space
	// Only in that of a one-to-one space:
	Other  *AccountKeys
	Number uint64 // 0 for the first one of the two
	// Only in a random root:
	Device *Certificate
	Name   []byte // of the device, sealed
	Wraps  []Wrap // of the first read key, to the device and to the owner's recovery key

	Signature [64]byte
}

// ID is the space's.
func (t *Root) ID() dag.ID { return dag.Sum(t.Encode()) }

// Encode returns the canonical encoding.
func (t *Root) Encode() []byte { return t.encode(true) }

func (t *Root) encode(signed bool) []byte {
	w := writer{make([]byte, 0, 6<<10)}
	n := 6
	switch t.Kind {
	case RootRandom:
		n += 3
	case RootOneToOne:
		n++
	}
	if signed {
		n++
	}
	w.fields(n)
	w.uint("v", Version)
	if signed {
		w.blob("sig", t.Signature[:])
	}
	w.uint("kind", uint64(t.Kind))
	if t.Kind == RootRandom {
		w.blob("name", t.Name)
	}
	w.blob("seed", t.Seed[:])
	if t.Kind == RootOneToOne {
		t.writeTwo(&w)
		return w.b
	}
	w.text("owner")
	t.Owner.write(&w, true)
	w.uint("suite", t.Suite)
	if t.Kind == RootRandom {
		w.text("wraps")
		writeWraps(&w, t.Wraps)
	}
	w.blob("commit", t.Commitment[:])
	if t.Kind == RootRandom {
		w.text("device")
		t.Device.write(&w, true)
	}
	return w.b
}

// DecodeRoot reads what Encode wrote and refuses every other byte string. It does not check signatures.
func DecodeRoot(b []byte) (*Root, error) {
	if len(b) > maxRoot {
		return nil, fmt.Errorf("%w: a root of %d bytes", ErrFormat, len(b))
	}
	t, r := new(Root), reader{b: b}
	r.open("root")
	r.fixed("sig", t.Signature[:])
	t.Kind = RootKind(r.uint("kind"))
	if r.err == nil && (t.Kind < RootRandom || t.Kind > RootOneToOne) {
		return nil, fmt.Errorf("%w (root of kind %d)", ErrVersion, t.Kind)
	}
	random := t.Kind == RootRandom
	if random {
		t.Name = r.blob("name", maxName)
	}
	r.fixed("seed", t.Seed[:])
	if t.Kind == RootOneToOne {
		t.readTwo(&r)
		return strict(t, b, &r, t.Encode)
	}
	r.key("owner")
	t.Owner.read(&r)
	t.Suite = r.uint("suite")
	if random {
		r.key("wraps")
		t.Wraps = readWraps(&r)
	}
	r.fixed("commit", t.Commitment[:])
	if random {
		r.key("device")
		t.Device = new(Certificate)
		t.Device.read(&r)
	}
	return strict(t, b, &r, t.Encode)
}

// Sign signs the root: a random one with the device's key, a derived one with the account's, that of a one-to-one space with the agreed one.
func (t *Root) Sign(key ed25519.PrivateKey) {
	copy(t.Signature[:], ed25519.Sign(key, sum(domainRoot, t.encode(false))))
}

// Verify checks all signatures of the root.
func (t *Root) Verify() error {
	if err := t.Owner.Verify(); err != nil {
		return err
	}
	signer := t.Owner.Identity
	if t.Kind == RootOneToOne {
		if err := t.verifyTwo(); err != nil {
			return err
		}
		signer = t.Seed
	}
	if t.Kind == RootRandom {
		if t.Device.Account != t.Owner.Identity {
			return fmt.Errorf("%w: the root's device is not its owner's", ErrSignature)
		}
		if err := t.Device.Verify(); err != nil {
			return err
		}
		signer = t.Device.Device
	}
	if !ed25519.Verify(signer[:], sum(domainRoot, t.encode(false)), t.Signature[:]) {
		return fmt.Errorf("%w on the root of a space", ErrSignature)
	}
	return nil
}

func writeWraps(w *writer, wraps []Wrap) {
	w.array(len(wraps))
	for i := range wraps {
		w.array(2)
		w.bytes(wraps[i].To[:])
		w.bytes(wraps[i].Sealed)
	}
}

// readWraps reads wraps in the order of their recipients, each of which has one.
func readWraps(r *reader) []Wrap {
	n := r.want(majorArray, maxWraps, "wraps")
	if n > uint64(len(r.b)-r.off)/(minWrap+37) {
		r.fail("more wraps than there are bytes for")
	}
	if r.err != nil || n == 0 {
		return nil
	}
	wraps := make([]Wrap, n)
	for i := range wraps {
		r.pair("wrap")
		if b := r.take(r.want(majorBytes, 32, "recipient")); r.err == nil && len(b) == 32 {
			wraps[i].To = dag.PublicKey(b)
		} else {
			r.fail("a recipient that is no key")
		}
		wraps[i].Sealed = r.wrap()
		if r.err == nil && i > 0 && dag.ID(wraps[i-1].To).Compare(dag.ID(wraps[i].To)) >= 0 {
			r.fail("wraps that are not in order")
		}
		if r.err != nil {
			return nil
		}
	}
	return wraps
}

func (r *reader) pair(what string) {
	if n := r.want(majorArray, 2, what); r.err == nil && n != 2 {
		r.fail("%s of %d items", what, n)
	}
}

// wrap reads a sealed key.
func (r *reader) wrap() []byte {
	b := r.take(r.want(majorBytes, maxWrap, "wrapped key"))
	if r.err == nil && len(b) < minWrap {
		r.fail("a wrapped key of %d bytes", len(b))
	}
	return b
}
