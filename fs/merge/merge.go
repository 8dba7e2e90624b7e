// Package merge merges texts line by line.
//
// Merge takes two texts that were made from one base, and gives the text with the changes of both, or says that they
// conflict. The result depends on the three texts alone: there is no time limit, and the limits on size and work are part
// of the definition, which fs/TREE.md gives. Every device computes the same bytes.
//
// The package is pure: it keeps no state, and its functions may run in parallel.
package merge

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// Version names the definition of the merge. A result depends on it.
const Version = 1

// MaxText is the length in bytes of the longest text that is merged, and MaxTexts how many Fold takes.
const (
	MaxText  = 1 << 20
	MaxTexts = 16
)

// IsText reports whether b can be merged: at most MaxText bytes of UTF-8 without NUL.
func IsText(b []byte) bool {
	return len(b) <= MaxText && bytes.IndexByte(b, 0) < 0 && utf8.Valid(b)
}

// Fold merges several texts that were made from one base, from the first on. It reports false when they conflict, or when
// one of them is no text, or there are more than MaxTexts of them or none.
func Fold(base []byte, texts ...[]byte) ([]byte, bool) {
	if len(texts) == 0 || len(texts) > MaxTexts {
		return nil, false
	}
	merged := texts[0]
	if !IsText(merged) {
		return nil, false
	}
	for _, t := range texts[1:] {
		var ok bool
		if merged, ok = Merge(base, merged, t); !ok {
			return nil, false
		}
	}
	return merged, true
}

// Merge returns the text with the changes from base to a and from base to b. It reports false when changes of the two
// overlap or have no unchanged line between them, unless they are the same, and when one of the three is no text.
// Merge(base, a, b) equals Merge(base, b, a). The result may be one of the arguments.
func Merge(base, a, b []byte) ([]byte, bool) {
	if !IsText(base) || !IsText(a) || !IsText(b) {
		return nil, false
	}
	switch {
	case bytes.Equal(a, b), bytes.Equal(b, base):
		return a, true
	case bytes.Equal(a, base):
		return b, true
	}
	t := newTable()
	o, x, y := t.lines(base), t.lines(a), t.lines(b)
	left, right := diff(o, x, len(t.text)), diff(o, y, len(t.text))
	out := make([]int32, 0, max(len(x), len(y)))
	at := 0 // in o
	for len(left) > 0 || len(right) > 0 {
		// The next region: the first hunk, and all that touch what is in it already.
		from, to := len(o)+1, 0
		if len(left) > 0 {
			from = left[0].from
		}
		if len(right) > 0 {
			from = min(from, right[0].from)
		}
		to = from
		i, j := 0, 0
		for {
			switch {
			case i < len(left) && left[i].from <= to:
				to = max(to, left[i].to)
				i++
				continue
			case j < len(right) && right[j].from <= to:
				to = max(to, right[j].to)
				j++
				continue
			}
			break
		}
		out = append(out, o[at:from]...)
		switch {
		case j == 0:
			out = render(out, o, left[:i], from, to)
		case i == 0:
			out = render(out, o, right[:j], from, to)
		default:
			n := len(out)
			out = render(out, o, left[:i], from, to)
			if !slices.Equal(out[n:], render(nil, o, right[:j], from, to)) {
				return nil, false
			}
		}
		at, left, right = to, left[i:], right[j:]
	}
	out = append(out, o[at:]...)
	size := 0
	for _, l := range out {
		size += len(t.text[l])
	}
	merged := make([]byte, 0, size)
	for _, l := range out {
		merged = append(merged, t.text[l]...)
	}
	return merged, len(merged) <= MaxText
}

// render appends the lines from..to of o as they are after the hunks.
func render(out, o []int32, hunks []hunk, from, to int) []int32 {
	for _, h := range hunks {
		out = append(append(out, o[from:h.from]...), h.lines...)
		from = h.to
	}
	return append(out, o[from:to]...)
}

// table numbers distinct lines, so that comparing two costs one comparison.
type table struct {
	index map[string]int32
	text  []string
}

func newTable() *table { return &table{index: make(map[string]int32)} }

// lines cuts text behind each newline. What is behind the last newline is a line too, if it is not empty.
func (t *table) lines(text []byte) []int32 {
	out := make([]int32, 0, bytes.Count(text, []byte{'\n'})+1)
	for len(text) > 0 {
		n := bytes.IndexByte(text, '\n') + 1
		if n == 0 {
			n = len(text)
		}
		i, ok := t.index[string(text[:n])]
		if !ok {
			i = int32(len(t.text))
			s := string(text[:n])
			t.index[s] = i
			t.text = append(t.text, s)
		}
		out = append(out, i)
		text = text[n:]
	}
	return out
}
