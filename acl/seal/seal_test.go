package seal

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"pgregory.net/rapid"
)

// space1 is a space with two epochs; its current one is not the first.
func space1(t testing.TB) (*Space, dag.ID, dag.ID) {
	t.Helper()
	id, second := dag.Sum([]byte("a space")), dag.Sum([]byte("its second epoch"))
	s := NewSpace(id)
	s.Add(id, ReadKey{1})
	s.Add(second, ReadKey{2})
	s.Add(second, ReadKey{3}) // known already
	if err := s.SetCurrent(second); err != nil {
		t.Fatal(err)
	}
	return s, id, second
}

func header(space, epoch dag.ID, object dag.ID, parents ...dag.ID) dag.Header {
	return dag.Header{Space: space, Object: object, Parents: parents, Epoch: epoch, Clock: 7, Device: dag.PublicKey{9}}
}

func TestChangeOpensOnlyInItsPlace(t *testing.T) {
	s, id, second := space1(t)
	p, q := dag.Sum([]byte("p")), dag.Sum([]byte("q"))
	h := header(id, second, p, q)
	sealed, err := s.SealChange(h, []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.OpenChange(h, sealed); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
	places := map[string]func(*dag.Header){
		"object":  func(h *dag.Header) { h.Object = q },
		"root":    func(h *dag.Header) { h.Object = dag.ID{} },
		"parents": func(h *dag.Header) { h.Parents = []dag.ID{p} },
		"no more": func(h *dag.Header) { h.Parents = nil },
		"one more": func(h *dag.Header) {
			h.Parents = []dag.ID{q, q}
		},
		"epoch":  func(h *dag.Header) { h.Epoch = id },
		"clock":  func(h *dag.Header) { h.Clock++ },
		"device": func(h *dag.Header) { h.Device[3]++ },
	}
	for name, move := range places {
		moved := h
		move(&moved)
		if _, err := s.OpenChange(moved, sealed); !errors.Is(err, ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", name, err)
		}
	}
	elsewhere := h
	elsewhere.Space = p
	if _, err := s.OpenChange(elsewhere, sealed); !errors.Is(err, ErrSpace) {
		t.Errorf("space: got %v", err)
	}
	unknown := h
	unknown.Epoch = p
	if _, err := s.OpenChange(unknown, sealed); !errors.Is(err, ErrNoKey) {
		t.Errorf("unknown epoch: got %v", err)
	}
	if _, err := s.SealChange(unknown, nil); !errors.Is(err, ErrNoKey) {
		t.Errorf("seal in an unknown epoch: got %v", err)
	}
	// The same keys under another space's id open nothing.
	other := NewSpace(p)
	other.Add(p, ReadKey{1})
	other.Add(second, ReadKey{2})
	if _, err := other.OpenChange(elsewhere, sealed); !errors.Is(err, ErrForged) {
		t.Errorf("another space with the same keys: got %v", err)
	}
}

func TestChangeOfEveryLength(t *testing.T) {
	s, id, second := space1(t)
	h := header(id, second, dag.ID{})
	for n := range 700 {
		plain := bytes.Repeat([]byte{0x80}, n) // the pad mark itself
		if n%2 == 1 {
			clear(plain)
		}
		sealed, err := s.SealChange(h, plain)
		if err != nil {
			t.Fatal(err)
		}
		if want := paddedLen(n) + nonceBytes + tagBytes; len(sealed) != want {
			t.Fatalf("%d bytes sealed to %d, want %d", n, len(sealed), want)
		}
		got, err := s.OpenChange(h, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if n%50 == 0 {
			for cut := range sealed {
				if _, err := s.OpenChange(h, sealed[:cut]); !errors.Is(err, ErrForged) {
					t.Fatalf("%d of %d bytes: %v", cut, len(sealed), err)
				}
			}
		}
	}
	if _, err := s.SealChange(h, make([]byte, MaxChange+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
}

func TestPadme(t *testing.T) {
	last := 0
	for n := 1; n < 5<<20; n += 1 + n/1000 {
		p := padme(n)
		switch {
		case p < n, p < last:
			t.Fatalf("padme(%d) = %d", n, p)
		case n > 8 && float64(p) > 1.12*float64(n):
			t.Fatalf("padme(%d) = %d: more than 12%%", n, p)
		case padme(p) != p:
			t.Fatalf("padme(%d) = %d is not a fixed point", n, p)
		case p > SegmentBytes && p%1024 != 0:
			t.Fatalf("padme(%d) = %d: a length could straddle two segments", n, p)
		}
		last = p
	}
}

// lengths are those at which chunks take another form.
func lengths() []int {
	l := []int{0, 1, 2, 3, 4, 5, 8191, 8192, 8193}
	for _, at := range []int{SegmentBytes, 2 * SegmentBytes, 64 << 10, 256 << 10, 1 << 20} {
		for d := -6; d <= 6; d++ {
			l = append(l, at+d)
		}
	}
	return append(l, 1<<20+123457, MaxChunk-1, MaxChunk)
}

func TestChunkOfEveryShape(t *testing.T) {
	s, _, _ := space1(t)
	src := make([]byte, MaxChunk)
	rand.Read(src)
	for _, n := range lengths() {
		block, err := s.SealChunk([]byte("before"), src[:n])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(block, []byte("before")) {
			t.Fatal("dst is lost")
		}
		block = block[6:]
		if len(block) != BlockSize(n) {
			t.Fatalf("%d bytes: block of %d, want %d", n, len(block), BlockSize(n))
		}
		again, _ := s.SealChunk(nil, src[:n])
		if !bytes.Equal(again, block) {
			t.Fatalf("%d bytes: not deterministic", n)
		}
		got, err := s.OpenChunk([]byte("x"), block)
		if err != nil || !bytes.Equal(got[1:], src[:n]) || got[0] != 'x' {
			t.Fatalf("%d bytes: %v", n, err)
		}
		size, err := s.ChunkSize(bytes.NewReader(block), int64(len(block)))
		if err != nil || size != int64(n) {
			t.Fatalf("%d bytes: size %d, %v", n, size, err)
		}
	}
	if _, err := s.SealChunk(nil, make([]byte, MaxChunk+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if _, err := NewSpace(dag.ID{}).SealChunk(nil, nil); !errors.Is(err, ErrNoKey) {
		t.Fatalf("got %v", err)
	}
}

func TestReadChunkAgreesWithReaderAt(t *testing.T) {
	s, _, _ := space1(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(rapid.IntRange(0, 600<<10), rapid.SampledFrom(lengths())).Draw(t, "n")
		plain := make([]byte, n)
		for i := range plain {
			plain[i] = byte(i * 7 >> 3)
		}
		block, err := s.SealChunk(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			off := rapid.OneOf(rapid.IntRange(0, n+10), rapid.Just(n), rapid.Just(n/SegmentBytes*SegmentBytes)).Draw(t, "off")
			want := make([]byte, rapid.OneOf(rapid.IntRange(0, 2*SegmentBytes), rapid.IntRange(0, n+10)).Draw(t, "len"))
			got := make([]byte, len(want))
			wantN, wantErr := bytes.NewReader(plain).ReadAt(want, int64(off))
			gotN, gotErr := s.ReadChunk(bytes.NewReader(block), int64(len(block)), nil, got, int64(off))
			if gotN != wantN || !bytes.Equal(got[:gotN], want[:wantN]) || (len(want) > 0 && gotErr != wantErr) {
				t.Fatalf("%d at %d of %d: got %d, %v, want %d, %v", len(want), off, n, gotN, gotErr, wantN, wantErr)
			}
		}
	})
}

// countingReader notes which bytes were asked for.
type countingReader struct {
	io.ReaderAt
	bytes int
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	c.bytes += len(p)
	return c.ReaderAt.ReadAt(p, off)
}

func TestSmallReadTouchesOneSegment(t *testing.T) {
	s, _, _ := space1(t)
	block, _ := s.SealChunk(nil, make([]byte, 1<<20))
	for _, off := range []int64{0, 4096, 512 << 10, 1<<20 - 256<<10} {
		r := &countingReader{ReaderAt: bytes.NewReader(block)}
		if _, err := s.ReadChunk(r, int64(len(block)), nil, make([]byte, 4096), off); err != nil {
			t.Fatal(err)
		}
		if r.bytes > blockHead+sealedSegment {
			t.Errorf("4 KiB at %d read %d bytes", off, r.bytes)
		}
	}
}

func TestDamagedBlocks(t *testing.T) {
	s, _, _ := space1(t)
	for _, n := range []int{0, 1, 100, SegmentBytes, 40 << 10} {
		block, _ := s.SealChunk(nil, make([]byte, n))
		for i := 0; i < len(block); i += 1 + i/40 {
			bad := bytes.Clone(block)
			bad[i] ^= 0x10
			want := ErrForged
			if i < 32 {
				want = ErrNoKey
			}
			if _, err := s.OpenChunk(nil, bad); !errors.Is(err, want) {
				t.Fatalf("%d bytes, byte %d: %v", n, i, err)
			}
			// A read of the whole touches what is damaged, wherever it is.
			if _, err := s.ReadChunk(bytes.NewReader(bad), int64(len(bad)), nil, make([]byte, n+1), 0); !errors.Is(err, want) {
				t.Fatalf("%d bytes, byte %d: read gives %v", n, i, err)
			}
			if _, err := s.OpenChunk(nil, block[:i]); !errors.Is(err, ErrForged) {
				t.Fatalf("cut to %d: %v", i, err)
			}
			// A source that is shorter than it says.
			_, err := s.ReadChunk(bytes.NewReader(block[:i]), int64(len(block)), nil, make([]byte, n+1), 0)
			if !errors.Is(err, ErrForged) {
				t.Fatalf("source cut to %d: %v", i, err)
			}
		}
		if _, err := s.OpenChunk(nil, append(bytes.Clone(block), 0)); !errors.Is(err, ErrForged) {
			t.Fatalf("longer: %v", err)
		}
	}
}

func TestSwappedSegments(t *testing.T) {
	s, _, _ := space1(t)
	block, _ := s.SealChunk(nil, make([]byte, 64<<10))
	a, b := block[blockHead:blockHead+sealedSegment], block[blockHead+sealedSegment:blockHead+2*sealedSegment]
	swapped := append(append(append(bytes.Clone(block[:blockHead]), b...), a...), block[blockHead+2*sealedSegment:]...)
	if _, err := s.OpenChunk(nil, swapped); !errors.Is(err, ErrForged) {
		t.Fatalf("got %v", err)
	}
	// Cut at a segment's end to a size that a block can have: the number of segments does not fit.
	for size := len(block) - 1; size > blockHead; size-- {
		if _, ok := innerSize(int64(size)); !ok {
			continue
		}
		if _, err := s.OpenChunk(nil, block[:size]); !errors.Is(err, ErrForged) {
			t.Fatalf("cut to %d: %v", size, err)
		}
	}
}

// TestCutWithAPlantedLength: who chose the content put, at the end of each segment, the length that a block which ends there has. Cut there it does not open: the
// number of segments is sealed in each.
func TestCutWithAPlantedLength(t *testing.T) {
	s, _, _ := space1(t)
	plain := make([]byte, 64<<10)
	cuts := 0
	for end := SegmentBytes; end < len(plain); end += SegmentBytes {
		if _, err := trueLength(end, binary.BigEndian.AppendUint32(nil, uint32(end-lengthBytes))); err != nil {
			continue // no block ends there
		}
		binary.BigEndian.PutUint32(plain[end-lengthBytes:], uint32(end-lengthBytes))
		cuts++
	}
	block, err := s.SealChunk(nil, plain)
	if err != nil || cuts < 3 {
		t.Fatal(cuts, err)
	}
	for n := 1; n < 4; n++ {
		if _, err := s.OpenChunk(nil, block[:blockHead+n*sealedSegment]); !errors.Is(err, ErrForged) {
			t.Errorf("cut to %d segments: %v", n, err)
		}
	}
}

// TestFalseLength: a block that a holder of the key sealed with another length than its padding has is refused, and not read beyond its end.
func TestFalseLength(t *testing.T) {
	s, _, _ := space1(t)
	for _, n := range []uint32{0, 57, 3900, 4096, 4097, MaxChunk, MaxChunk + 1, 1<<32 - 1} {
		e := s.keys().current
		inner := make([]byte, padme(4092+lengthBytes))
		binary.BigEndian.PutUint32(inner[len(inner)-lengthBytes:], n)
		block := append(bytes.Clone(e.commitment[:]), make([]byte, blockNonceBytes)...)
		c := e.chunkCipher(blockNonce{}, len(inner))
		block = c.seal(block, 0, inner)
		c.free()
		if _, err := s.OpenChunk(nil, block); !errors.Is(err, ErrForged) {
			t.Errorf("a length of %d in a block of %d: %v", n, len(inner), err)
		}
		if _, err := s.ReadChunk(bytes.NewReader(block), int64(len(block)), nil, make([]byte, 1), 4091); !errors.Is(err, ErrForged) {
			t.Errorf("read of a length of %d in a block of %d: %v", n, len(inner), err)
		}
	}
	// One whose size no block has.
	e := s.keys().current
	inner := binary.BigEndian.AppendUint32(make([]byte, 4093), 4093)
	c := e.chunkCipher(blockNonce{}, len(inner))
	block := c.seal(append(bytes.Clone(e.commitment[:]), make([]byte, blockNonceBytes)...), 0, inner)
	c.free()
	if _, err := s.OpenChunk(nil, block); !errors.Is(err, ErrForged) {
		t.Errorf("a block of %d bytes, which padding never gives: %v", len(inner), err)
	}
}

func TestBlockOfAnotherSpace(t *testing.T) {
	s, _, _ := space1(t)
	other := NewSpace(dag.Sum([]byte("another")))
	other.Add(other.ID(), ReadKey{3})
	block, _ := other.SealChunk(nil, []byte("text"))
	if _, err := s.OpenChunk(nil, block); !errors.Is(err, ErrNoKey) {
		t.Fatalf("got %v", err)
	}
	// With the very same key the blocks still differ and do not open.
	same := NewSpace(other.ID())
	same.Add(same.ID(), ReadKey{1})
	block, _ = same.SealChunk(nil, []byte("text"))
	if _, err := s.OpenChunk(nil, block); !errors.Is(err, ErrForged) {
		t.Fatalf("got %v", err)
	}
}

func TestEpochs(t *testing.T) {
	s, id, second := space1(t)
	if cur, ok := s.Current(); !ok || cur != second {
		t.Fatalf("current %v, %v", cur, ok)
	}
	table, hash := s.GearTable(), s.NameHash([]byte("dir"), "name")
	block, _ := s.SealChunk(nil, []byte("text"))
	if err := s.SetCurrent(id); err != nil {
		t.Fatal(err)
	}
	if other, _ := s.SealChunk(nil, []byte("text")); bytes.Equal(other, block) {
		t.Error("blocks of two epochs are equal")
	}
	if got, err := s.OpenChunk(nil, block); err != nil || string(got) != "text" {
		t.Errorf("block of another epoch: %q, %v", got, err)
	}
	if s.GearTable() != table || s.NameHash([]byte("dir"), "name") != hash {
		t.Error("gear table or name hash changed with the epoch")
	}
	late := NewSpace(id) // the first epoch's key comes last
	late.Add(second, ReadKey{2})
	late.Add(id, ReadKey{1})
	if late.GearTable() != table || late.NameHash([]byte("dir"), "name") != hash {
		t.Error("gear table or name hash depends on the order of keys")
	}
	if err := s.SetCurrent(dag.ID{5}); !errors.Is(err, ErrNoKey) {
		t.Errorf("got %v", err)
	}
	if k, ok := s.Key(second); !ok || k != (ReadKey{2}) || !s.Has(second) || s.Has(dag.ID{5}) {
		t.Error("keys are not kept")
	}
	if s.NameHash([]byte("a"), "bc") == s.NameHash([]byte("ab"), "c") {
		t.Error("the name hash does not separate directory and name")
	}
	if s.NameHash(nil, "x")>>63 != 0 {
		t.Error("the name hash has 64 bits")
	}
}

func TestLocal(t *testing.T) {
	l := NewLocal([32]byte{1})
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		ad := rapid.SliceOf(rapid.Byte()).Draw(t, "ad")
		sealed := l.SealLocal([]byte("ab"), plain, ad)[2:]
		if len(sealed) != len(plain)+LocalOverhead {
			t.Fatal("length")
		}
		got, err := l.OpenLocal([]byte("cd"), sealed, ad)
		if err != nil || !bytes.Equal(got[2:], plain) || string(got[:2]) != "cd" {
			t.Fatalf("%v", err)
		}
		if _, err := l.OpenLocal(nil, sealed, append(ad, 1)); !errors.Is(err, ErrForged) {
			t.Fatalf("other ad: %v", err)
		}
		if _, err := l.Derive("x").OpenLocal(nil, sealed, ad); !errors.Is(err, ErrForged) {
			t.Fatalf("other key: %v", err)
		}
		cut := rapid.IntRange(0, len(sealed)-1).Draw(t, "cut")
		if _, err := l.OpenLocal(nil, sealed[:cut], ad); !errors.Is(err, ErrForged) {
			t.Fatalf("cut: %v", err)
		}
		sealed[cut]++
		if _, err := l.OpenLocal(nil, sealed, ad); !errors.Is(err, ErrForged) {
			t.Fatalf("damaged: %v", err)
		}
	})
	if l.Key("a") == l.Key("b") || l.Key("a") == l.Derive("a").key || l.Hash64([]byte("a")) == l.Derive("a").Hash64([]byte("a")) {
		t.Error("keys of two uses are equal")
	}
}

// The vectors of the SipHash-2-4 paper's reference implementation: key 00..0f, input 00..n-1.
func TestSipHashVectors(t *testing.T) {
	var key [keyBytes]byte
	for i := range 16 {
		key[i] = byte(i)
	}
	k := newSipKey(key)
	want := map[int]uint64{0: 0x726fdb47dd0e0e31, 1: 0x74f839c593dc67fd, 7: 0xab0200f58b01d137, 8: 0x93f5f5799a932462, 15: 0xa129ca6149be45e5}
	for n, w := range want {
		in := make([]byte, n)
		for i := range in {
			in[i] = byte(i)
		}
		h := k.begin()
		h.write(in)
		if got := h.sum(); got != w {
			t.Errorf("%d bytes: %x, want %x", n, got, w)
		}
		h = k.begin() // the same in two pieces
		h.write(in[:n/3])
		h.write(in[n/3:])
		if got := h.sum(); got != w {
			t.Errorf("%d bytes in pieces: %x, want %x", n, got, w)
		}
	}
}

func TestLengthFieldThatLies(t *testing.T) {
	s, _, _ := space1(t)
	e := s.ring.Load().current
	inner := padme(5000 + lengthBytes)
	for _, n := range []uint32{0, 1, uint32(inner), 4_000_000_000, 1 << 31} {
		plain := make([]byte, inner)
		binary.BigEndian.PutUint32(plain[inner-4:], n)
		nonce := blockNonce{1, 2, 3}
		block := append(append([]byte{}, e.commitment[:]...), nonce[:]...)
		c := e.chunkCipher(nonce, inner)
		block = c.seal(block, 0, plain)
		if _, err := s.OpenChunk(nil, block); !errors.Is(err, ErrForged) {
			t.Errorf("length %d: %v", n, err)
		}
		if _, err := s.ChunkSize(bytes.NewReader(block), int64(len(block))); !errors.Is(err, ErrForged) {
			t.Errorf("length %d: %v", n, err)
		}
	}
}
