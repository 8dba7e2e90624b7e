package kv_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/anyfs/anyfs/dag/kv"
)

// benchPut puts b.N keys in updates of 1,000.
func benchPut(b *testing.B, key func(i int) uint64) {
	db, err := kv.OpenBolt(filepath.Join(b.TempDir(), "x.db"))
	must(b, err)
	defer db.Close()
	value, k := make([]byte, 60), make([]byte, 8)
	i := 0
	for b.Loop() {
		must(b, db.Update(func(tx kv.Tx) error {
			for range 1000 {
				binary.BigEndian.PutUint64(k, key(i))
				i++
				if err := tx.Put("b", k, value); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i), "ns/key")
	b.ReportMetric(float64(db.Size())/float64(i), "B/key")
}

func BenchmarkPutSequential(b *testing.B) { benchPut(b, func(i int) uint64 { return uint64(i) }) }

func BenchmarkPutRandom(b *testing.B) { benchPut(b, func(int) uint64 { return rand.Uint64() }) }

func BenchmarkGet(b *testing.B) {
	db, err := kv.OpenBolt(filepath.Join(b.TempDir(), "x.db"))
	must(b, err)
	defer db.Close()
	const keys = 200_000
	must(b, db.Update(func(tx kv.Tx) error {
		for i := range keys {
			must(b, tx.Put("b", fmt.Appendf(nil, "%08d", i), make([]byte, 60)))
		}
		return nil
	}))
	b.ReportAllocs()
	for b.Loop() {
		k := fmt.Appendf(nil, "%08d", rand.IntN(keys))
		must(b, db.View(func(tx kv.Tx) error {
			if tx.Get("b", k) == nil {
				b.Fatal("absent")
			}
			return nil
		}))
	}
}
