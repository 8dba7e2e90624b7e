package tree

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestConflictMark holds the bytes of a mark, and what is none.
func TestConflictMark(t *testing.T) {
	c := Conflict{Of: dag.Sum([]byte("an object")), Lost: "a.txt", Name: "a (conflict my laptop 2026-11-27 ABCD).txt"}
	want := "84015820" + hex.EncodeToString(c.Of[:]) + "45612e747874" +
		"582a612028636f6e666c696374206d79206c6170746f7020323032362d31312d3237204142434429" + "2e747874"
	b := c.Value()
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("the mark is %s, want %s", got, want)
	}
	got, ok := ParseConflict(b)
	if !ok || got != c {
		t.Errorf("%+v, %v", got, ok)
	}
	if device, day := c.Made(); device != "my laptop" || day != "2026-11-27" {
		t.Errorf("made by %q at %q", device, day)
	}
	for i := range b {
		if _, ok := ParseConflict(b[:i]); ok {
			t.Errorf("%d of %d bytes are a mark", i, len(b))
		}
	}
	for what, bad := range map[string][]byte{
		"nothing":       nil,
		"more":          append(bytes.Clone(b), 0),
		"a new version": append([]byte{0x84, 2}, b[2:]...),
		"a slash":       bytes.Replace(b, []byte("a.txt"), []byte("a/txt"), 1),
	} {
		if c, ok := ParseConflict(bad); ok {
			t.Errorf("%s is a mark: %+v", what, c)
		}
	}
	for _, name := range []string{"", "x", "x (conflict )", "x (conflict a)", ") (conflict ", "x (conflict a b"} {
		c := Conflict{Name: name}
		if device, day := c.Made(); device != "" && day != "" {
			t.Errorf("%q was made by %q at %q", name, device, day)
		}
	}
}

func TestOrdinaryName(t *testing.T) {
	long := strings.Repeat("ä", 127) + "x"
	for _, x := range []struct {
		lost string
		n    int
		want string
	}{
		{"report.odt", 2, "report (2).odt"},
		{"Makefile", 13, "Makefile (13)"},
		{".profile", 2, ".profile (2)"},
		{long, 2, strings.Repeat("ä", 125) + " (2)"},
	} {
		if got := OrdinaryName(x.lost, x.n); got != x.want || !ValidName(got) {
			t.Errorf("%q: %q, want %q", x.lost, got, x.want)
		}
	}
}
