package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// smallBolt returns the bytes of a small database with every kind of page.
func smallBolt(tb testing.TB) []byte {
	path := filepath.Join(tb.TempDir(), "x.db")
	db, err := OpenBolt(path)
	if err != nil {
		tb.Fatal(err)
	}
	for round := range 3 {
		err := db.Update(func(tx Tx) error {
			for i := range 150 {
				if err := tx.Put("b", fmt.Appendf(nil, "%d-%d", i, round), make([]byte, 100)); err != nil {
					return err
				}
			}
			return errors.Join(tx.Put("large", []byte{byte(round)}, make([]byte, 9000)), tx.Put("small", []byte("k"), nil))
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	if err := errors.Join(db.Check(), db.Close()); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b[:min(len(b), 128*pageSize)]
}

// FuzzCheck: a damaged file is refused or has a sound structure; the checker ends, and takes no more memory than the file.
// The sums of the roots are made right, or nothing else would be looked at.
func FuzzCheck(f *testing.F) {
	good := smallBolt(f)
	if err := checkFile(bytes.NewReader(good), int64(len(good)), false); err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), uint16(0))
	f.Add(uint32(2*pageSize+8), uint16(3))
	f.Add(uint32(3*pageSize+12), uint16(0xffff))
	f.Add(uint32(pageHeader+16), uint16(7))
	f.Fuzz(func(t *testing.T, at uint32, xor uint16) {
		b := bytes.Clone(good)
		i := int(at) % (len(b) - 1)
		b[i] ^= byte(xor)
		b[i+1] ^= byte(xor >> 8)
		for id := range 2 {
			m := b[id*pageSize+pageHeader:]
			sum := fnv.New64a()
			sum.Write(m[:metaBytes-8])
			binary.NativeEndian.PutUint64(m[56:], sum.Sum64())
		}
		if err := checkFile(bytes.NewReader(b), int64(len(b)), false); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

// TestCheckHoldsWork: what work leaves is sound, pages that empty, split and merge too.
func TestCheckHoldsWork(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 3))
	db, err := OpenBolt(filepath.Join(t.TempDir(), "x.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.db.NoSync = true
	for round := range 300 {
		deletes := rnd.IntN(100)
		span := []int{20, 200, 5000}[rnd.IntN(3)]
		err := db.Update(func(tx Tx) error {
			for range rnd.IntN(400) {
				bucket, key := fmt.Sprint("b", rnd.IntN(12)), fmt.Appendf(nil, "%05d", rnd.IntN(span))
				var err error
				if rnd.IntN(100) < deletes {
					err = tx.Delete(bucket, key)
				} else {
					err = tx.Put(bucket, key, make([]byte, rnd.IntN(300)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err := errors.Join(err, db.Check()); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}
