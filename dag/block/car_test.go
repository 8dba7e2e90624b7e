package block

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

func TestCARRoundTrip(t *testing.T) {
	var buf bytes.Buffer
	sum := Sum([]byte("root"))
	h, _ := mh.Encode(sum[:], mh.BLAKE3)
	roots := []cid.Cid{cid.NewCidV1(cid.DagCBOR, h), Sum(nil).CID()}
	w, err := NewCARWriter(&buf, roots...)
	if err != nil {
		t.Fatal(err)
	}
	bodies := [][]byte{nil, []byte("root"), bytes.Repeat([]byte("x"), 200_000)}
	for _, b := range bodies {
		if err := w.Put(Sum(b).CID(), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Put(roots[0], []byte("root")); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	r, err := NewCARReader(iotest.OneByteReader(&buf))
	if err != nil || len(r.Roots()) != 2 || r.Roots()[0] != roots[0] || r.Roots()[1] != roots[1] {
		t.Fatal(r.Roots(), err)
	}
	for i := range 4 {
		c, data, err := r.Next()
		if err != nil || Sum(data) != ID(c.Hash()[2:]) || i < 3 && !bytes.Equal(data, bodies[i]) {
			t.Fatal(c, len(data), err)
		}
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Fatal(err)
	}
	// Cut anywhere but between two blocks, or with a bit flipped, it is refused.
	ends := 0
	for n := range min(len(whole), 500) {
		if readAll(whole[:n]) == nil {
			ends++
		}
		flipped := bytes.Clone(whole)
		flipped[n] ^= 4
		if r, err := NewCARReader(bytes.NewReader(flipped)); err == nil && r.Roots()[0] == roots[0] && r.Roots()[1] == roots[1] && readAll(flipped) == nil {
			// Only a codec can be another.
			t.Logf("a flip at %d is not seen", n)
			if codec := flipped[n]; codec != 0x55^4 && codec != 0x71^4 {
				t.Fatal("and it is no codec")
			}
		}
	}
	if ends != 3 {
		t.Errorf("%d ends in the first 500 bytes", ends)
	}
}

func TestCARRefuses(t *testing.T) {
	var buf bytes.Buffer
	w, err := NewCARWriter(&buf, Sum(nil).CID())
	if err = errors.Join(err, w.Flush()); err != nil {
		t.Fatal(err)
	}
	head, c := buf.Bytes(), Sum(nil).CID().Bytes()
	good := slices.Concat(head, []byte{cidLen}, c)
	if err := readAll(good); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":            {},
		"a longer varint":    slices.Concat(head, []byte{cidLen | 0x80, 0}, c),
		"a length too great": slices.Concat(head, []byte{0xff, 0xff, 0xff, 0x7f}, c),
		"a short section":    slices.Concat(head, []byte{3}, c[:3]),
		"sha2-256":           slices.Concat(head, []byte{cidLen, 1, 0x55, 0x12, 0x20}, make([]byte, 32)),
		"version 2":          bytes.Replace(good, []byte("version\x01"), []byte("version\x02"), 1),
		"no root":            append([]byte{17, 0xa2, 0x65}, "roots\x80\x67version\x01"...),
		"an endless header":  {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
	} {
		if err := readAll(b); err == nil {
			t.Errorf("a CAR with %s was read", name)
		}
	}
}

func readAll(b []byte) error {
	r, err := NewCARReader(bytes.NewReader(b))
	for err == nil {
		_, _, err = r.Next()
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// FuzzCAR: what reads without an error writes to the same bytes.
func FuzzCAR(f *testing.F) {
	var buf bytes.Buffer
	w, err := NewCARWriter(&buf, Sum(nil).CID())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	for _, b := range []string{"a", ""} {
		if err := errors.Join(w.Put(Sum([]byte(b)).CID(), []byte(b)), w.Flush()); err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Clone(buf.Bytes()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewCARReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := NewCARWriter(&out, r.Roots()...)
		if err != nil {
			t.Fatal(err)
		}
		for {
			c, data, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return
			}
			w.Put(c, data)
		}
		if w.Flush(); !bytes.Equal(out.Bytes(), b) {
			t.Fatalf("%x reads and writes to %x", b, out.Bytes())
		}
	})
}

// FuzzOpen opens a store over one segment file of any content: it must open, hold only what verifies, take more, and
// open again as it was.
func FuzzOpen(f *testing.F) {
	d := disk.NewSim(nil)
	s, err := Open(options(d, kv.NewMem()))
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range []string{"one", "two", "", "three"} {
		if _, err := s.Put([]byte(b)); err != nil {
			f.Fatal(err)
		}
	}
	seed, err := d.ReadFile("blocks/000001.seg")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-2])
	f.Add(bytes.Replace(seed, []byte("two"), []byte("too"), 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, db := disk.NewSim(nil), kv.NewMem()
		if err := errors.Join(d.MkdirAll("blocks"), d.WriteFileAtomic("blocks/000001.seg", b)); err != nil {
			t.Fatal(err)
		}
		s := open(t, d, db)
		if _, err := s.Put([]byte("another")); err != nil {
			t.Fatal(err)
		}
		if bad := damage(t, s); len(bad) > 0 {
			t.Fatal(bad)
		}
		n := s.Len()
		if s = open(t, d, db); s.Len() != n {
			t.Fatalf("%d blocks, then %d", n, s.Len())
		}
		if err := s.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		if s = open(t, d, db); s.Len() != n || len(damage(t, s)) > 0 {
			t.Fatalf("%d blocks, then %d", n, s.Len())
		}
	})
}
