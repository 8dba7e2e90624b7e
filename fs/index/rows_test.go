package index

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag/kv"
)

// TestRows holds rows against a map, with checkpoints that succeed, fail, and are under way.
func TestRows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		db := kv.NewMem()
		r := OpenRows(db, testSealer{})
		want := map[string]string{}
		var done func(bool)
		var frozen map[string]string // what the checkpoint under way will hold
		stored := map[string]string{}
		keys := rapid.Custom(func(rt *rapid.T) string {
			return rapid.SampledFrom([]string{"a", "b", "ba"}).Draw(rt, "prefix") + fmt.Sprint(rapid.IntRange(0, 900).Draw(rt, "key"))
		})
		rt.Repeat(map[string]func(*rapid.T){
			"set": func(rt *rapid.T) {
				for range rapid.SampledFrom([]int{1, 5, 700}).Draw(rt, "n") {
					k, v := keys.Draw(rt, "k"), rapid.SampledFrom([]string{"", "", "x", "yy"}).Draw(rt, "v")
					r.Set(k, []byte(v))
					if want[k] = v; v == "" {
						delete(want, k)
					}
				}
			},
			"clear": func(rt *rapid.T) {
				if rapid.IntRange(0, 4).Draw(rt, "really") == 0 {
					r.Clear()
					clear(want)
				}
			},
			"freeze": func(rt *rapid.T) {
				if done != nil {
					return
				}
				var write func(kv.Tx) error
				write, done = r.Freeze()
				frozen = maps.Clone(want)
				if rapid.Bool().Draw(rt, "fails") {
					done(false)
					done = nil
					return
				}
				if err := db.Update(write); err != nil {
					rt.Fatal(err)
				}
			},
			"done": func(*rapid.T) {
				if done != nil {
					done(true)
					done, stored = nil, frozen
				}
			},
			"reopen": func(rt *rapid.T) {
				if done == nil && rapid.IntRange(0, 4).Draw(rt, "really") == 0 {
					r, want = OpenRows(db, testSealer{}), maps.Clone(stored)
				}
			},
			"": func(rt *rapid.T) {
				k := keys.Draw(rt, "k")
				if v, err := r.Get(k); err != nil || string(v) != want[k] {
					rt.Fatalf("%q is %q, want %q: %v", k, v, want[k], err)
				}
				prefix := rapid.SampledFrom([]string{"", "a", "b", "ba", "c"}).Draw(rt, "prefix")
				var got, expect []string
				if err := r.Scan(prefix, k, func(k string, v []byte) bool {
					got = append(got, k+"="+string(v))
					return true
				}); err != nil {
					rt.Fatal(err)
				}
				for _, q := range slices.Sorted(maps.Keys(want)) {
					if strings.HasPrefix(q, prefix) && q >= k {
						expect = append(expect, q+"="+want[q])
					}
				}
				if !slices.Equal(got, expect) {
					rt.Fatalf("rows of %q from %q: %q, want %q", prefix, k, got, expect)
				}
				if got = nil; prefix != "" {
					if err := r.ScanIn(prefix[:1], prefix, func(k string, v []byte) bool {
						got = append(got, k+"="+string(v))
						return true
					}); err != nil {
						rt.Fatal(err)
					}
					expect = nil
					for _, q := range slices.Sorted(maps.Keys(want)) {
						if strings.HasPrefix(q, prefix) {
							expect = append(expect, q+"="+want[q])
						}
					}
					if !slices.Equal(got, expect) {
						rt.Fatalf("rows of %q in %q: %q, want %q", prefix, prefix[:1], got, expect)
					}
				}
				if r.Weight() < 0 {
					rt.Fatal("a negative weight")
				}
			},
		})
	})
}

// testSealer seals nothing, but binds a value to its key.
type testSealer struct{}

func (testSealer) SealLocal(dst, plaintext, ad []byte) []byte {
	return append(append(append(dst, byte(len(ad))), ad...), plaintext...)
}

func (testSealer) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	if len(sealed) < 1+len(ad) || int(sealed[0]) != len(ad) || string(sealed[1:1+len(ad)]) != string(ad) {
		return nil, ErrCorrupt
	}
	return append(dst, sealed[1+len(ad):]...), nil
}
