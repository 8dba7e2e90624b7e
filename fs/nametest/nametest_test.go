package nametest

import (
	"slices"
	"strings"
	"testing"
)

// TestCorpus: the corpus is as large as it is said to be, and says of each name what Linux says.
func TestCorpus(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range All() {
		if seen[n.Text] {
			t.Errorf("%q stands twice", n.Text)
		}
		seen[n.Text] = true
	}
	if len(seen) < 300 {
		t.Errorf("%d names", len(seen))
	}
	void := func(s string) bool {
		return s == "" || s == "." || s == ".." || s == ".anyfs" || len(s) > max || strings.ContainsAny(s, "/\x00")
	}
	for _, n := range Valid() {
		if void(n.Text) {
			t.Errorf("%q is no name", n.Text)
		}
	}
	for _, n := range Void() {
		if !void(n.Text) {
			t.Errorf("%q is a name", n.Text)
		}
	}
	if ts := Targets("/out"); slices.ContainsFunc(ts, func(s string) bool { return s == "" || len(s) > 4095 || strings.Contains(s, "\x00") }) {
		t.Error("a target that no link has")
	}
}
