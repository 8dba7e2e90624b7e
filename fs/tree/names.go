package tree

import (
	"encoding/base32"
	"encoding/binary"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zeebo/blake3"

	"github.com/anyfs/anyfs/dag"
)

// Parts of the name of a conflict copy, all fixed by the format.
const (
	copyLabel   = "anyfs/tree/copy/1"
	copyTag     = " (conflict "
	copyLetters = 4  // of the hash, where nothing else has the name
	allLetters  = 52 // of the whole hash
	maxExt      = 16 // bytes behind the dot
	maxDevice   = 32 // bytes of a device's name
	noDevice    = "unknown"
)

// loser is what the name of a conflict copy is made of.
type loser struct {
	name   string // the name that it lost
	device string
	time   int64
	object dag.ID
	change dag.ID // the losing change: of a link its placement's, of a content value its own
	place  uint32
}

var letters = base32.StdEncoding.WithPadding(base32.NoPadding)

// copyName returns the name of a conflict copy with the first k letters of its hash, and '_' for each beyond 52.
func (l *loser) copyName(k int) string {
	h := blake3.New()
	h.WriteString(copyLabel)
	h.Write(l.object[:])
	h.Write(l.change[:])
	h.Write(binary.BigEndian.AppendUint32(nil, l.place))
	hash := letters.EncodeToString(h.Sum(nil))
	stem, ext := splitName(l.name)
	day := time.Unix(0, l.time).UTC().Format("2006-01-02")
	tail := func(k int) string {
		s := hash[:min(k, allLetters)] + strings.Repeat("_", max(0, k-allLetters))
		return copyTag + deviceName(l.device) + " " + day + " " + s + ")" + ext
	}
	t := tail(k)
	if len(stem)+len(t) > MaxName {
		// What is cut off may have told it from others: the whole hash does.
		t = tail(max(k, allLetters))
		stem = cut(stem, max(0, MaxName-len(t)))
	}
	return stem + t
}

// splitName cuts a name before its extension: the last dot, unless it comes first, with 1 to 16 bytes behind it, none of
// them a space or a parenthesis.
func splitName(name string) (stem, ext string) {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || i == len(name)-1 || len(name)-i-1 > maxExt || strings.ContainsAny(name[i:], " ()") {
		return name, ""
	}
	return name[:i], name[i:]
}

// cut shortens s to at most n bytes, between characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// deviceName makes a device's name fit for a file name: '/' and control characters and what is not UTF-8 become '_', and
// "(conflict" loses its parenthesis, so that the last one of a name is the tag's.
func deviceName(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '/' || r == utf8.RuneError || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, s)
	if s = strings.ReplaceAll(cut(s, maxDevice), "(conflict", "_conflict"); s == "" {
		return noDevice
	}
	return s
}

// lostName returns the name that a conflict copy of the given name would have lost. ok is false when the name is that of no
// conflict copy, whole when it cannot be told because the stem may have been cut.
func lostName(name string) (lost string, whole, ok bool) {
	i := strings.LastIndex(name, copyTag)
	j := strings.LastIndexByte(name, ')')
	if i < 0 || j < i {
		return "", false, false
	}
	k := strings.LastIndexByte(name[:j], ' ')
	if j-k-1 >= allLetters {
		return "", false, true
	}
	lost = name[:i] + name[j+1:]
	return lost, true, ValidName(lost)
}
