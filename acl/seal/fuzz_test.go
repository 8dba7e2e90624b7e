package seal

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// What opens was sealed here: opening never panics, and blocks that open whole open in parts, to the same.
func FuzzOpenChunk(f *testing.F) {
	s, _, _ := space1(f)
	seeds := 0
	for _, n := range []int{0, 1, 100, SegmentBytes - 4, 40 << 10} {
		block, err := s.SealChunk(nil, pattern(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(block, int64(n/2), 100)
		f.Add(block[:len(block)-1], int64(0), 0)
		f.Add(block, int64(math.MaxInt64), 100) // the end of what is asked for does not fit into a number
		seeds++
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, block []byte, off int64, n int) {
		plain, err := s.OpenChunk(nil, block)
		if err != nil && !errors.Is(err, ErrForged) && !errors.Is(err, ErrNoKey) {
			t.Fatalf("error of another kind: %v", err)
		}
		if n < 0 || n > 1<<20 || off < 0 {
			return
		}
		p := make([]byte, n)
		got, rerr := s.ReadChunk(bytes.NewReader(block), int64(len(block)), nil, p, off)
		if err != nil {
			return // a read of a part may not touch what is damaged
		}
		want := plain[min(off, int64(len(plain))):]
		want = want[:min(len(want), n)]
		if rerr != nil && rerr != io.EOF || !bytes.Equal(p[:got], want) {
			t.Fatalf("%d at %d of %d: got %d, %v", n, off, len(plain), got, rerr)
		}
	})
}

func FuzzOpenChange(f *testing.F) {
	s, id, second := space1(f)
	h := header(id, second, dag.ID{7}, dag.ID{8})
	for _, n := range []int{0, 1, 31, 32, 500} {
		payload, err := s.SealChange(h, pattern(n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		plain, err := s.OpenChange(h, payload)
		if err != nil && !errors.Is(err, ErrForged) {
			t.Fatalf("error of another kind: %v", err)
		}
		if err == nil && len(payload) != paddedLen(len(plain))+nonceBytes+tagBytes {
			t.Fatal("another padding is taken")
		}
	})
}

// One padded form of each plaintext, and no other bytes unpad.
func FuzzUnpad(f *testing.F) {
	f.Add(append(append([]byte("text"), padMark), make([]byte, 27)...))
	f.Add([]byte{})
	f.Add(make([]byte, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := unpad(b)
		if err != nil {
			return
		}
		again := make([]byte, paddedLen(len(plain)))
		copy(again, plain)
		again[len(plain)] = padMark
		if !bytes.Equal(again, b) {
			t.Fatal("two padded forms")
		}
	})
}

func FuzzOpenSmall(f *testing.F) {
	l := NewLocal([32]byte{1})
	k := ReadKey{2}
	private, err := KEM().NewPrivateKey(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	wrap, err := Wrap(private.PublicKey(), []byte("i"), k)
	if err != nil {
		f.Fatal(err)
	}
	field, err := k.SealField("l", nil, []byte("x"), nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{l.SealLocal(nil, []byte("x"), nil), wrap, field, nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err1 := l.OpenLocal(nil, b, nil)
		_, err2 := k.OpenField("l", nil, b)
		_, err3 := Unwrap(private, []byte("i"), b)
		for _, err := range []error{err1, err2, err3} {
			if err != nil && !errors.Is(err, ErrForged) {
				t.Fatalf("error of another kind: %v", err)
			}
		}
	})
}

func TestWrap(t *testing.T) {
	private, err := KEM().NewPrivateKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	wrap, err := Wrap(private.PublicKey(), []byte("place"), ReadKey{1})
	if err != nil || len(wrap) != WrapBytes {
		t.Fatalf("%d bytes, %v", len(wrap), err)
	}
	if k, err := Unwrap(private, []byte("place"), wrap); err != nil || k != (ReadKey{1}) {
		t.Fatal(err)
	}
	if _, err := Unwrap(private, []byte("another"), wrap); !errors.Is(err, ErrForged) {
		t.Errorf("another place: %v", err)
	}
	for n := range wrap {
		if _, err := Unwrap(private, []byte("place"), wrap[:n]); !errors.Is(err, ErrForged) {
			t.Fatalf("cut to %d: %v", n, err)
		}
		if n%40 == 0 {
			bad := bytes.Clone(wrap)
			bad[n] ^= 1
			if _, err := Unwrap(private, []byte("place"), bad); !errors.Is(err, ErrForged) {
				t.Fatalf("byte %d: %v", n, err)
			}
		}
	}
	if _, err := Unwrap(private, []byte("place"), append(wrap, 0)); !errors.Is(err, ErrForged) {
		t.Errorf("longer: %v", err)
	}
}

func TestField(t *testing.T) {
	k := ReadKey{1}
	sealed, err := k.SealField("name", []byte("ad"), []byte("text"), nil)
	if err != nil || len(sealed) != 4+FieldOverhead {
		t.Fatal(err)
	}
	if got, err := k.OpenField("name", []byte("ad"), sealed); err != nil || string(got) != "text" {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"label": second(k.OpenField("other", []byte("ad"), sealed)),
		"ad":    second(k.OpenField("name", nil, sealed)),
		"key":   second(ReadKey{2}.OpenField("name", []byte("ad"), sealed)),
		"cut":   second(k.OpenField("name", []byte("ad"), sealed[:10])),
	} {
		if !errors.Is(err, ErrForged) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if _, err := k.SealField("name", nil, nil, bytes.NewReader(nil)); err == nil {
		t.Error("no randomness")
	}
}

func second(_ []byte, err error) error { return err }
