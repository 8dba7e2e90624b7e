package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// TestKnownNames: a name stays with who had it first, across restarts; another account by it is told until it is accepted.
func TestKnownNames(t *testing.T) {
	d, err := disk.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	keys := &acl.Keys{Local: seal.NewLocal([32]byte{1})}
	h := &home{disk: d, keys: keys}
	bob, mallory := dag.PublicKey{1}, dag.PublicKey{2}
	meet := func(want int, people ...who) {
		t.Helper()
		others, err := h.meet(people)
		if err != nil || len(others) != want {
			t.Errorf("%d others, not %d, %v", len(others), want, err)
		}
		if want > 0 && others[mallory] != acl.FormatIdentity(bob) {
			t.Errorf("the other is %s", others[mallory])
		}
	}
	meet(0, who{bob, "Bob"}, who{dag.PublicKey{3}, ""}, who{dag.PublicKey{4}, "Bartholomew"})
	meet(1, who{mallory, " BOB "}, who{bob, "Bob"})
	h = &home{disk: d, keys: keys}
	meet(1, who{mallory, "bob"})
	for _, unseen := range []string{"B\ufe0fob", "Bob\u034f", "Bo\u3164b", "Bob\U000e0100", "Bo\u200bb", "\u2800Bob", "\u115fBob"} { // drawn as Bob is
		meet(1, who{mallory, unseen})
	}
	if err := h.accept(who{mallory, "Bob"}); err != nil {
		t.Fatal(err)
	}
	meet(0, who{mallory, "Bob"}, who{bob, "Bob"})
	// Who knows the disk does not know the names. (A name of three letters stands in such bytes by chance.)
	if b, err := d.ReadFile(knownName); err != nil || bytes.Contains(bytes.ToLower(b), []byte("bartholomew")) {
		t.Errorf("%v, %q", err, b)
	}
	// Others choose the names: there is an end to them.
	var many []who
	for i := range maxKnown + 10 {
		many = append(many, who{bob, fmt.Sprint(i)})
	}
	meet(0, many...)
	if known, err := h.readKnown(); err != nil || len(known) != maxKnown {
		t.Errorf("%d names, %v", len(known), err)
	}
	var out strings.Builder
	e := &env{stderr: &out}
	e.warnOther("Bob", "z6MkNow", "six-words", "")
	if out.Len() > 0 {
		t.Error("a warning about nobody")
	}
	e.warnOther("Bob\x1b[2J", "z6MkNow", "six-words", acl.FormatIdentity(bob))
	for _, want := range []string{"WARNING", "z6MkNow", "six-words", acl.Fingerprint(bob)} {
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "\x1b") {
			t.Errorf("%q without %s", out.String(), want)
		}
	}
}
