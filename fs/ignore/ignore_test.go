package ignore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		rules string
		path  string // with a slash at the end it is a directory
		want  bool
	}{
		{"", "a", false},
		{"# a", "# a", false},
		{`\#a`, "#a", true},
		{`\!a`, "!a", true},
		{"a", "a", true},
		{"a", "b/a", true},
		{"a", "aa", false},
		{"/a", "a", true},
		{"/a", "b/a", false},
		{"a/b", "a/b", true},
		{"a/b", "c/a/b", false},
		{"a/", "a", false},
		{"a/", "a/", true},
		{"a/", "b/a/", true},
		{"a/b/", "a/b/", true},
		{"*.o", "x.o", true},
		{"*.o", "d/x.o", true},
		{"/*.o", "d/x.o", false},
		{"d/*.o", "d/x.o", true},
		{"d/*.o", "d/e/x.o", false},
		{"*.o\n!x.o", "x.o", false},
		{"!x.o\n*.o", "x.o", true},
		{"**/a", "a", true},
		{"**/a", "b/c/a", true},
		{"a/**", "a/b/c", true},
		{"a/**", "a/", false},
		{"a/**/b", "a/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**/b", "ab", false},
		{"a**b", "axxb", true},
		{"c/a**b", "c/a/b", false},
		{"a**/b", "a/x/b", true},
		{"?**/b", "a/x/b", false},
		{"**", "a", true},
		{"a  ", "a", true},
		{`a\ `, "a ", true},
		{"a\t", "a\t", true},
		{"a\r\nb\r\n", "b", true},
		{"\xef\xbb\xbfa", "a", true},
		{`a\`, "a", false},
		{"[ab]c", "bc", true},
		{"[!ab]c", "cc", true},
		{"[^ab]c", "bc", false},
		{"[a-c]", "b", true},
		{"[]a]", "]", true},
		{"[]-a]", "^", true},
		{"[a-]", "-", true},
		{`[\]]`, "]", true},
		{"[[:digit:]]x", "5x", true},
		{"[[:nothing:]]x", "5x", false},
		{"[a", "[a", false},
		{"a[/]b", "a/b", false},
		{"[!a]", "\xff", true},
		{"?", "ä", false},
		{"??", "ä", true},
		{"foo/*", "foo/a", true},
		{"foo/*", "foo/a/b", false},
		{"/", "a", false},
		{"!", "a", false},
	} {
		dir := strings.HasSuffix(c.path, "/")
		got, _ := Parse([]byte(c.rules)).Match(strings.TrimSuffix(c.path, "/"), dir)
		if got != c.want {
			t.Errorf("%q against %q: %v", c.path, c.rules, got)
		}
	}
}

// TestHostile: no pattern takes long.
func TestHostile(t *testing.T) {
	began := time.Now()
	r := Parse([]byte(strings.Repeat("*a", 1000) + "b\n" + strings.Repeat("[a-z]*", 600) + "1\n" + strings.Repeat("**/", 1000) + "x"))
	r.Match(strings.Repeat("a", 255), false)
	r.Match(strings.Repeat("a/", 2000)+"a", false)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestAgainstGit holds random rules and paths against what git says.
func TestAgainstGit(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("git is not installed")
		}
		t.Skip("git is not installed")
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("IGNORE_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(seed, 1))
	words := func(list []string, n int) string {
		var b strings.Builder
		for range 1 + r.IntN(n) {
			b.WriteString(list[r.IntN(len(list))])
		}
		return b.String()
	}
	// The last is a byte that is no character.
	inPattern := []string{"a", "b", "/", "/", "*", "**", "?", "[ab]", "[!a]", "[a-", "]", "!", "#", " ", `\`, "-", "[[:alpha:]]", "ä", "\xe4", "^", "[]-a]"}
	inName := []string{"a", "b", "]", "!", "#", " ", "-", "ä", "[", "^", "\xe4"}
	const rounds = 60
	checked, matched := 0, 0
	for range rounds {
		dir := t.TempDir()
		run := func(in []byte, args ...string) []byte {
			cmd := exec.Command(git, append([]string{"-C", dir, "-c", "core.excludesFile=/dev/null"}, args...)...)
			cmd.Stdin = bytes.NewReader(in)
			cmd.Env = append(os.Environ(), "HOME="+dir, "GIT_CONFIG_NOSYSTEM=1")
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil && cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("git %v: %v\n%s", args, err, errs.Bytes())
			}
			return out
		}
		run(nil, "init", "-q")
		var rules strings.Builder
		for range 1 + r.IntN(4) {
			rules.WriteString(words(inPattern, 5) + "\n")
		}
		if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte(rules.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		var paths []string
		var in bytes.Buffer
		for range 200 {
			parts := make([]string, 1+r.IntN(3))
			for i := range parts {
				parts[i] = words(inName, 3)
			}
			// Names that exist as another kind would confuse git: they do not exist, and git takes what ends with a slash for a directory.
			p := strings.Join(parts, "/")
			paths = append(paths, p)
			in.WriteString(p + "\x00")
		}
		said := map[string]bool{}
		out := bytes.Split(run(in.Bytes(), "check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"), []byte{0})
		for i := 0; i+3 < len(out); i += 4 {
			said[string(out[i+3])] = len(out[i+2]) > 0 && out[i+2][0] != '!'
		}
		parsed := Parse([]byte(rules.String()))
		for _, p := range paths {
			// git ignores what is below a directory that is ignored.
			want := false
			for i := range p {
				if p[i] == '/' && !want {
					want, _ = parsed.Match(p[:i], true)
				}
			}
			if !want {
				want, _ = parsed.Match(p, false)
			}
			if said[p] != want {
				t.Fatalf("seed %d: %q against %q: git says %v", seed, p, rules.String(), said[p])
			}
			if checked++; want {
				matched++
			}
		}
	}
	if matched < checked/50 {
		t.Errorf("%d of %d paths matched: that says little", matched, checked)
	}
}
