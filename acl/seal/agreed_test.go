package seal

import (
	"errors"
	"testing"
)

// TestAgreedWrap: a wrap opens with its key and place only, at its length only, and each bit of it counts.
func TestAgreedWrap(t *testing.T) {
	agreed := AgreedKey([]byte("secret"), []byte("with"))
	if agreed == AgreedKey([]byte("secret"), []byte("another")) || agreed == AgreedKey([]byte("other secret"), []byte("with")) {
		t.Error("one key for two")
	}
	k := ReadKey{1}
	wrap := WrapAgreed(agreed, []byte("place"), k)
	if got, err := UnwrapAgreed(agreed, []byte("place"), wrap); err != nil || got != k || len(wrap) != AgreedWrapBytes {
		t.Fatal(err, len(wrap))
	}
	refused := func(agreed ReadKey, info string, wrap []byte) {
		t.Helper()
		if _, err := UnwrapAgreed(agreed, []byte(info), wrap); !errors.Is(err, ErrForged) {
			t.Error(err)
		}
	}
	refused(agreed, "elsewhere", wrap)
	refused(ReadKey{2}, "place", wrap)
	for n := range wrap {
		refused(agreed, "place", wrap[:n])
		wrap[n] ^= 1
		refused(agreed, "place", wrap)
		wrap[n] ^= 1
	}
	refused(agreed, "place", append(wrap, 0))
}
