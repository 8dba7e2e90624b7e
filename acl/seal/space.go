package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anyfs/anyfs/dag"
	"github.com/zeebo/blake3"
)

// Space holds the read keys of one space and seals and opens with them. The zero Space is not usable.
type Space struct {
	id  dag.ID
	rnd io.Reader // nil: crypto/rand; guarded by rmu otherwise
	rmu sync.Mutex

	pools *pools

	refresh func() // see Refresh; nil: nothing

	mu   sync.Mutex // held by writers of ring
	ring atomic.Pointer[ring]
}

// ring is an immutable set of epochs.
type ring struct {
	epochs      map[dag.ID]*epoch
	commitments map[[32]byte]*epoch
	first       *epoch // keys the gear table and the name hash
	current     *epoch
	low         []*epoch // those with the lowest IDs, in order; at most MaxTags
}

// NewSpace returns the keyring of a space, without keys yet.
func NewSpace(space dag.ID) *Space { return NewSpaceRand(space, nil) }

// NewSpaceRand is NewSpace with a source of nonces, read under a lock; nil means crypto/rand.
func NewSpaceRand(space dag.ID, rnd io.Reader) *Space {
	s := &Space{id: space, rnd: rnd, pools: newPools()}
	s.ring.Store(&ring{})
	return s
}

// Refresh has fn called before keys are looked at, from then on: it may Add keys that have come, and SetCurrent. What it looks at itself it takes
// from Held. It is called often, from many goroutines, and is set before the space is used by others.
func (s *Space) Refresh(fn func()) { s.refresh = fn }

// keys are those of now.
func (s *Space) keys() *ring {
	if s.refresh != nil {
		s.refresh()
	}
	return s.ring.Load()
}

// ID is the space the keys belong to.
func (s *Space) ID() dag.ID { return s.id }

// EpochKey is the read key of an epoch.
type EpochKey struct {
	ID  dag.ID
	Key ReadKey
}

// Add adds the key of an epoch. The first one that is added is the current one until SetCurrent names another; an epoch
// that is known already stays as it is.
//
// The first epoch is the one whose id is the space's; until it is there the epoch that was added first stands in
// for it. Its key, alone, keys GearTable and NameHash.
func (s *Space) Add(id dag.ID, k ReadKey) { s.AddAll([]EpochKey{{id, k}}) }

// AddAll is Add for several, in their order: one by one each costs as much as all that are here.
func (s *Space) AddAll(keys []EpochKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ring.Load()
	keys = slices.DeleteFunc(slices.Clone(keys), func(k EpochKey) bool { return old.epochs[k.ID] != nil })
	if len(keys) == 0 {
		return
	}
	n := &ring{make(map[dag.ID]*epoch, len(old.epochs)+len(keys)), make(map[[32]byte]*epoch, len(old.epochs)+len(keys)), old.first, old.current, slices.Clone(old.low)}
	for id, e := range old.epochs {
		n.epochs[id], n.commitments[e.commitment] = e, e
	}
	for _, k := range keys {
		if n.epochs[k.ID] == nil {
			n.add(s.id, newEpoch(s.id, k.ID, k.Key, s.pools))
		}
	}
	s.ring.Store(n)
}

// add adds an epoch to a ring that nobody else has yet.
func (r *ring) add(space dag.ID, e *epoch) {
	r.epochs[e.id], r.commitments[e.commitment] = e, e
	if r.first == nil || e.id == space {
		r.first = e
	}
	if r.current == nil {
		r.current = e
	}
	at, _ := slices.BinarySearchFunc(r.low, e, func(a, b *epoch) int { return a.id.Compare(b.id) })
	r.low = slices.Insert(r.low, at, e)
	r.low = r.low[:min(len(r.low), MaxTags)]
}

// SetCurrent makes an epoch the one that new blocks are sealed in. It returns ErrNoKey where its key is absent.
func (s *Space) SetCurrent(id dag.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.ring.Load()
	e, ok := old.epochs[id]
	if !ok {
		return ErrNoKey
	}
	s.ring.Store(&ring{old.epochs, old.commitments, old.first, e, old.low})
	return nil
}

// Current is the epoch that new blocks are sealed in; false where there is no key at all.
func (s *Space) Current() (dag.ID, bool) {
	if e := s.keys().current; e != nil {
		return e.id, true
	}
	return dag.ID{}, false
}

// Has says whether the key of an epoch is here.
func (s *Space) Has(id dag.ID) bool { return s.keys().epochs[id] != nil }

// Key returns the key of an epoch, for wrapping it to others.
func (s *Space) Key(id dag.ID) (ReadKey, bool) {
	s.keys()
	return s.Held(id)
}

// Held is Key of what is here without a refreshing: see Refresh.
func (s *Space) Held(id dag.ID) (ReadKey, bool) {
	e := s.ring.Load().epochs[id]
	if e == nil {
		return ReadKey{}, false
	}
	return e.key, true
}

// nonce fills a random nonce.
func (s *Space) nonce(p []byte) error {
	if s.rnd != nil {
		s.rmu.Lock()
		defer s.rmu.Unlock()
	}
	return fill(s.rnd, p)
}

// epoch is what the read key of one epoch derives to.
type epoch struct {
	id         dag.ID
	key        ReadKey
	commitment [32]byte
	pools      *pools
	prk        []byte
	names      sipKey
	root       cipher.AEAD
	macs       sync.Pool // of *mac
	objects    [cacheSlots]atomic.Pointer[cachedAEAD[dag.ID]]
	blockNonce sync.Pool // of *blake3.Hasher
	pageNonce  sync.Pool // of *blake3.Hasher
	blockSub   sync.Pool // of *blake3.Hasher
	blocks     [cacheSlots]atomic.Pointer[cachedAEAD[blockNonce]]
}

// cacheSlots bounds the AEADs kept per epoch, of objects and of blocks each: about 1.3 KB a slot, once used.
const cacheSlots = 64

type cachedAEAD[K comparable] struct {
	of   K
	aead cipher.AEAD
}

func newEpoch(space, id dag.ID, k ReadKey, p *pools) *epoch {
	e := &epoch{id: id, key: k, prk: k.extract(space), pools: p}
	if id == space {
		e.commitment = k.Commitment(dag.ID{})
	} else {
		e.commitment = k.Commitment(space)
	}
	e.names = newSipKey(expand(e.prk, labelNames))
	e.root = newAEAD(expand(e.prk, labelRoot))
	e.macs.New = func() any { return newMAC(e.prk) }
	e.blockNonce.New = hasherMaker(expand(e.prk, labelBlockNonce))
	e.pageNonce.New = hasherMaker(expand(e.prk, labelPageNonce))
	e.blockSub.New = hasherMaker(expand(e.prk, labelBlockKey))
	return e
}

func hasherMaker(key [keyBytes]byte) func() any {
	return func() any {
		h, err := blake3.NewKeyed(key[:])
		if err != nil {
			panic("seal: " + err.Error())
		}
		return h
	}
}

// object returns the AEAD for the changes of an object; the zero ID stands for roots.
func (e *epoch) object(id dag.ID) cipher.AEAD {
	if id.IsZero() {
		return e.root
	}
	slot := &e.objects[id[0]%cacheSlots]
	if c := slot.Load(); c != nil && c.of == id {
		return c.aead
	}
	a := newAEAD(e.objectKey(id))
	slot.Store(&cachedAEAD[dag.ID]{id, a})
	return a
}

// objectKey is expand(prk, labelObject ‖ id), whose one block of HKDF is one HMAC, with the keyed HMAC at hand.
func (e *epoch) objectKey(id dag.ID) (k [keyBytes]byte) {
	m := e.macs.Get().(*mac)
	m.Reset()
	copy(m.info[len(labelObject):], id[:])
	m.Write(m.info[:])
	m.Sum(m.out[:0])
	k = m.out
	e.macs.Put(m)
	return k
}

// mac is an HMAC under an epoch's prk.
type mac struct {
	hash.Hash
	info [len(labelObject) + len(dag.ID{}) + 1]byte // as HKDF-Expand numbers its first block
	out  [keyBytes]byte
}

func newMAC(prk []byte) *mac {
	m := &mac{Hash: hmac.New(sha256.New, prk)}
	copy(m.info[:], labelObject)
	m.info[len(m.info)-1] = 1
	return m
}

// newAEAD is AES-256-GCM with 12-byte nonces and 16-byte tags.
func newAEAD(key [keyBytes]byte) cipher.AEAD {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic("seal: " + err.Error())
	}
	a, err := cipher.NewGCM(c)
	if err != nil {
		panic("seal: " + err.Error())
	}
	return a
}
