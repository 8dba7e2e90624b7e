package canon_test

import (
	"encoding/hex"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/dag/canon"
)

// What is decoded is of bounded depth and length, without tags and indefinite lengths; what is encoded has one form.
func TestModes(t *testing.T) {
	enc, dec := canon.Modes(cbor.DecOptions{MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 16})
	for _, x := range []struct {
		value any
		want  string
	}{{[]int(nil), "80"}, {map[string]int{"bb": 1, "a": 500}, "a261611901f462626201"}, {uint64(23), "17"}} {
		if b, err := enc.Marshal(x.value); err != nil || hex.EncodeToString(b) != x.want {
			t.Errorf("%v: %x, %v, want %s", x.value, b, err, x.want)
		}
	}
	for _, x := range []struct{ name, bytes string }{
		{"an indefinite length", "9f01ff"}, {"a tag", "c100"}, {"too deep", "818181818101"}, {"too long", "910000000000000000000000000000000000"},
	} {
		b, err := hex.DecodeString(x.bytes)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := dec.Unmarshal(b, &v); err == nil {
			t.Errorf("%s is taken: %v", x.name, v)
		}
	}
}
