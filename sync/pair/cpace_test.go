package pair

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/gtank/ristretto255"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scalar(t *testing.T, s string) *ristretto255.Scalar {
	t.Helper()
	x := ristretto255.NewScalar()
	if err := x.Decode(unhex(t, s)); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestDraftVectors holds the agreement against the vectors of the draft for ristretto255 and SHA-512.
func TestDraftVectors(t *testing.T) {
	password, channel := []byte("Password"), []byte("\nAinitiator\nBresponder")
	session := unhex(t, "7e4b4791d6a8ef019b936c79fb7f2c57")
	want := "11435061636552697374726574746f3235350850617373776f726464" +
		hex.EncodeToString(make([]byte, 100)) + "160a41696e69746961746f720a42726573706f6e646572107e4b4791d6a8ef019b936c79fb7f2c57"
	if got := hex.EncodeToString(generatorString(password, channel, session)); got != want {
		t.Errorf("the generator string is %s", got)
	}
	if got := hex.EncodeToString(generator(password, channel, session).Encode(nil)); got != "5e25411ca1ad7c9debfd0b33ad987a95cefef2d3f15dcc8bd26415a5dfe2e15a" {
		t.Errorf("the generator is %s", got)
	}
	a := with(password, channel, session, scalar(t, "da3d23700a9e5699258aef94dc060dfda5ebb61f02a5ea77fad53f4ff0976d08"))
	b := with(password, channel, session, scalar(t, "d2316b454718c35362d83d69df6320f38578ed5984651435e2949762d900b80d"))
	if got := hex.EncodeToString(a.share[:]); got != "383a85dd236978f17f8c8545b50dabc52a39fcdab2cf8bc531ce040ff77ca82d" {
		t.Errorf("the first share is %s", got)
	}
	if got := hex.EncodeToString(b.share[:]); got != "a6206309c0e8e5f579295e35997ac4300ab3fecec3c17f7b604f3e698fa1383c" {
		t.Errorf("the second share is %s", got)
	}
	ka, err := a.key(b.share, true, []byte("ADa"), []byte("ADb"))
	if err != nil {
		t.Fatal(err)
	}
	kb, err := b.key(a.share, false, []byte("ADa"), []byte("ADb"))
	if err != nil {
		t.Fatal(err)
	}
	isk := unhex(t, "e91ccb2c0f5e0d0993a33956e3be59754f3f2b07db57631f5394452ea2e7b4354674eb1f5686c078462bf83bec72e8743df440108e638f3526d9b90e85be096f")
	if !bytes.Equal(ka[:], isk) || ka != kb {
		t.Errorf("the keys are %x and %x", ka, kb)
	}
}

// TestDraftRefused: shares that are none, and the one that gives a key without a password, are refused.
func TestDraftRefused(t *testing.T) {
	s := scalar(t, "7cd0e075fa7955ba52c02759a6c90dbbfc10e6d40aea8d283e407d88cf538a05")
	r := &run{secret: s}
	for _, h := range []string{
		"2b3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		if _, err := r.key([32]byte(unhex(t, h)), true, nil, nil); !errors.Is(err, errShare) {
			t.Errorf("%s: %v", h, err)
		}
	}
	x := ristretto255.NewElement()
	if err := x.Decode(unhex(t, "2c3c6b8c4f3800e7aef6864025b4ed79bd599117e427c41bd47d93d654b4a51c")); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(x.ScalarMult(s, x).Encode(nil)); got != "7c13645fe790a468f62c39beb7388e541d8405d1ade69d1778c5fe3e7f6b600e" {
		t.Errorf("the product is %s", got)
	}
}
