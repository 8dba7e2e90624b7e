package acl

import (
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestFingerprint: it follows from every bit of the account, and is no phrase.
func TestFingerprint(t *testing.T) {
	a := testAccount(t).Identity()
	f := Fingerprint(a)
	if n := len(strings.Split(f, "-")); n != fingerprintWords || f != Fingerprint(a) || !likeFingerprint(f) {
		t.Errorf("%q", f)
	}
	seen := map[string]bool{f: true}
	for bit := range 256 {
		b := a
		b[bit/8] ^= 1 << (bit % 8)
		seen[Fingerprint(b)] = true
	}
	if len(seen) != 257 {
		t.Errorf("%d fingerprints of 257 accounts", len(seen))
	}
	if _, err := AccountFromPhrase(strings.ReplaceAll(f, "-", " ")); err == nil {
		t.Error("it is a phrase")
	}
	accounts, names := []dag.PublicKey{{1}, a, {2}}, []string{"x", "y", f}
	if i, err := FindPerson(f, accounts, names); i != 1 || err != nil {
		t.Errorf("by its fingerprint the account is %d, %v, whatever another calls itself", i, err)
	}
	if _, err := FindPerson(Fingerprint(dag.PublicKey{9}), accounts, names); err == nil {
		t.Error("nobody is found by the fingerprint of another")
	}
	// Nor is who calls itself like another account, or its fingerprint.
	for _, as := range []string{FormatIdentity(a), FormatIdentity(a)[:12], f} {
		if i, err := FindPerson(as, []dag.PublicKey{{1}}, []string{as}); err == nil {
			t.Errorf("%s is account %d by its name", as, i)
		}
	}
}

func BenchmarkFingerprint(b *testing.B) {
	for b.Loop() {
		Fingerprint(dag.PublicKey{1})
	}
}
