// Package ignore matches paths against patterns in the syntax of gitignore(5).
//
// Rules are those of one file. They are byte for byte what git takes them for: names are bytes, and ? is one of them. The package does no
// I/O. Matching takes time in proportion to the lengths of path and patterns, whatever they are.
package ignore

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// MaxBytes is how much of a file counts, MaxPattern the longest pattern in bytes; a longer one matches nothing.
const (
	MaxBytes   = 256 << 10
	MaxPattern = 4096
)

// Rules are the patterns of one file, in order. The zero value and nil ignore nothing. They do not change once made.
type Rules struct {
	patterns []pattern
}

// pattern is one line.
type pattern struct {
	negated bool
	dirOnly bool
	base    bool           // it is held against the last part of a path alone
	literal string         // what it is, where re is nil
	re      *regexp.Regexp // over a string that has a rune for each byte
}

// Parse reads the lines of a file. There is no line that is wrong: what git would not match matches nothing.
func Parse(b []byte) *Rules {
	b = bytes.TrimPrefix(b[:min(len(b), MaxBytes)], []byte("\xef\xbb\xbf"))
	r := &Rules{}
	for line := range bytes.SplitSeq(b, []byte("\n")) {
		if p, ok := parseLine(string(bytes.TrimSuffix(line, []byte("\r")))); ok {
			r.patterns = append(r.patterns, p)
		}
	}
	return r
}

func parseLine(line string) (p pattern, ok bool) {
	if strings.HasPrefix(line, "#") {
		return p, false
	}
	line = trimSpaces(line)
	if strings.HasPrefix(line, "!") {
		p.negated, line = true, line[1:]
	}
	if strings.HasSuffix(line, "/") {
		p.dirOnly, line = true, line[:len(line)-1]
	}
	if line == "" || len(line) > MaxPattern {
		return p, false
	}
	p.base = !strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if !strings.ContainsAny(line, `*?[\`) {
		p.literal = line
		return p, true
	}
	expr, ok := translate(line, p.base)
	if !ok {
		return p, false
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return p, false // too large for the library
	}
	p.re = re
	return p, true
}

// trimSpaces takes spaces off the end that no backslash stands before.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
		case '\\':
			i++
			end = min(i+1, len(s))
		default:
			end = i + 1
		}
	}
	return s[:end]
}

// Match holds a path against the rules: relative to the directory of their file, with slashes between its parts and none at the ends. The
// last pattern that matches decides; where none does, decided is false. What is below a directory that is ignored is ignored too, and is for
// the caller to find: Match looks at the path alone.
func (r *Rules) Match(path string, dir bool) (ignored, decided bool) {
	if r == nil {
		return false, false
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	var wide, wideName string
	for i := len(r.patterns) - 1; i >= 0; i-- {
		p := &r.patterns[i]
		if p.dirOnly && !dir {
			continue
		}
		yes := false
		switch {
		case p.re == nil && p.base:
			yes = name == p.literal
		case p.re == nil:
			yes = path == p.literal
		case p.base:
			if wideName == "" {
				wideName = widen(name)
			}
			yes = p.re.MatchString(wideName)
		default:
			if wide == "" {
				wide = widen(path)
			}
			yes = p.re.MatchString(wide)
		}
		if yes {
			return !p.negated, true
		}
	}
	return false, false
}

// Empty reports whether nothing is ignored.
func (r *Rules) Empty() bool { return r == nil || len(r.patterns) == 0 }

// widen gives a string that has a rune for each byte: what is matched are bytes.
func widen(s string) string {
	for i := 0; i < len(s); i++ {
		if s[i] >= 0x80 {
			out := make([]rune, len(s))
			for k := range out {
				out[k] = rune(s[k])
			}
			return string(out)
		}
	}
	return s
}

// translate gives the expression of a pattern; ok is false for one that matches nothing. base: it has no slash, and neither has what it is
// held against.
func translate(p string, base bool) (expr string, ok bool) {
	var b strings.Builder
	plain := strings.IndexAny(p, `*?[\`)
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(p); i++ {
		switch c := p[i]; c {
		case '\\':
			if i++; i == len(p) {
				return "", false
			}
			writeByte(&b, p[i])
		case '?':
			b.WriteString("[^/]")
		case '*':
			from := i
			for i+1 < len(p) && p[i+1] == '*' {
				i++
			}
			// At the start of the pattern or behind a slash; git takes off what is plain before it looks, so behind that too.
			free := i > from && !base && (from == plain || from > 0 && p[from-1] == '/')
			switch {
			case free && i+1 == len(p):
				b.WriteString(".*")
			case free && p[i+1] == '/':
				b.WriteString("(?:.*/)?")
				i++
			default:
				b.WriteString("[^/]*")
			}
		case '[':
			n, ok := writeClass(&b, p[i:])
			if !ok {
				return "", false
			}
			i += n - 1
		default:
			writeByte(&b, c)
		}
	}
	b.WriteString(`\z`)
	return b.String(), true
}

func writeByte(b *strings.Builder, c byte) { fmt.Fprintf(b, `\x{%x}`, c) }

// writeClass writes the bracket expression that p begins with, and returns its length.
func writeClass(b *strings.Builder, p string) (n int, ok bool) {
	var set [256]bool
	i := 1
	negated := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negated {
		i++
	}
	prev := -1 // the byte that a range may begin with
	for first := true; ; first = false {
		if i >= len(p) {
			return 0, false
		}
		c := p[i]
		if c == ']' && !first {
			break
		}
		switch {
		case c == '\\':
			if i++; i >= len(p) {
				return 0, false
			}
			set[p[i]], prev = true, int(p[i])
		case c == '-' && prev >= 0 && i+1 < len(p) && p[i+1] != ']':
			i++
			if p[i] == '\\' {
				if i++; i >= len(p) {
					return 0, false
				}
			}
			for k := prev; k <= int(p[i]); k++ {
				set[k] = true
			}
			prev = -1
		case c == '[' && i+1 < len(p) && p[i+1] == ':':
			end := strings.IndexByte(p[i+2:], ']')
			if end < 0 {
				return 0, false
			}
			name := p[i+2 : i+2+end]
			if !strings.HasSuffix(name, ":") || name == "" {
				set['['], prev = true, -1 // no class after all
				break
			}
			in, ok := classes[name[:len(name)-1]]
			if !ok {
				return 0, false
			}
			for k := range 128 {
				set[k] = set[k] || in(byte(k))
			}
			i += 2 + end
			prev = -1
		default:
			set[c], prev = true, int(c)
		}
		i++
	}
	b.WriteByte('[')
	some := false
	for k, in := range set {
		if in != negated && k != '/' {
			writeByte(b, byte(k))
			some = true
		}
	}
	if !some {
		return 0, false // it matches nothing
	}
	b.WriteByte(']')
	return i + 1, true
}

func isBetween(c, from, to byte) bool { return from <= c && c <= to }
func isLower(c byte) bool             { return isBetween(c, 'a', 'z') }
func isUpper(c byte) bool             { return isBetween(c, 'A', 'Z') }
func isDigit(c byte) bool             { return isBetween(c, '0', '9') }
func isAlnum(c byte) bool             { return isLower(c) || isUpper(c) || isDigit(c) }
func isGraph(c byte) bool             { return isBetween(c, 0x21, 0x7e) }

var classes = map[string]func(byte) bool{
	"alnum":  isAlnum,
	"alpha":  func(c byte) bool { return isLower(c) || isUpper(c) },
	"blank":  func(c byte) bool { return c == ' ' || c == '\t' },
	"cntrl":  func(c byte) bool { return c < 0x20 || c == 0x7f },
	"digit":  isDigit,
	"graph":  isGraph,
	"lower":  isLower,
	"print":  func(c byte) bool { return isBetween(c, 0x20, 0x7e) },
	"punct":  func(c byte) bool { return isGraph(c) && !isAlnum(c) },
	"space":  func(c byte) bool { return c == ' ' || isBetween(c, '\t', '\r') },
	"upper":  isUpper,
	"xdigit": func(c byte) bool { return isDigit(c) || isBetween(c, 'a', 'f') || isBetween(c, 'A', 'F') },
}
