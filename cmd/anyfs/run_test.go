package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"
)

// person is an env with nobody at a terminal, and what it saw.
type person struct {
	*env
	out, talk bytes.Buffer
	vars      map[string]string
}

func newPerson(t *testing.T) *person {
	p := &person{vars: map[string]string{"HOME": t.TempDir()}}
	p.env = &env{
		stdin: strings.NewReader(""), stdout: &p.out, stderr: &p.talk,
		getenv: func(k string) string { return p.vars[k] },
		getwd:  func() (string, error) { return p.vars["HOME"], nil },
	}
	return p
}

// do runs a command line and gives its exit code.
func (p *person) do(args ...string) int {
	p.out.Reset()
	p.talk.Reset()
	return run(context.Background(), p.env, append([]string{"anyfs"}, args...))
}

func TestCommandsWithoutDaemon(t *testing.T) {
	p := newPerson(t)
	if code := p.do("init", "--device-name", "bench"); code != exitDone {
		t.Fatalf("init: %d, %s", code, &p.talk)
	}
	phrase := p.out.String()
	if len(strings.Fields(phrase)) != 12 || strings.Count(phrase, "\n") != 1 {
		t.Fatalf("init prints %q", phrase)
	}
	if code := p.do("account", "phrase"); code != exitDone || p.out.String() != phrase {
		t.Errorf("account phrase: %d, %q", code, &p.out)
	}
	if code := p.do("space", "create", "Work"); code != exitDone {
		t.Errorf("space create: %d, %s", code, &p.talk)
	}
	var s statusResult
	if code := p.do("status", "--json"); code != exitDone || json.Unmarshal(p.out.Bytes(), &s) != nil {
		t.Fatalf("status: %d, %s", code, &p.talk)
	}
	if len(s.Spaces) != 2 || s.Spaces[0].Name != "Personal" || s.Spaces[1].Name != "Work" || s.Device.Name != "bench" || s.PID != 0 {
		t.Errorf("status says %+v", s)
	}
	st, err := os.Stat(p.home)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("the home %s: %v, %v", p.home, st, err)
	}
	if _, err := os.Stat(filepath.Join(p.home, setupName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mark of a home that is not set up is still there: %v", err)
	}
}

// TestDamagedSpace damages the database of a space: the others work, and what is wrong is said.
func TestDamagedSpace(t *testing.T) {
	p := newPerson(t)
	for _, line := range []string{"init", "space create Work"} {
		if code := p.do(strings.Fields(line)...); code != exitDone {
			t.Fatalf("%s: %s", line, &p.talk)
		}
	}
	db := filepath.Join(p.home, "spaces", "0002", "space.db")
	whole, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]byte{
		"garbage": bytes.Repeat([]byte{0x55}, len(whole)), "cut off": whole[:5000], "short": []byte("damaged"),
		"no pages": append(bytes.Clone(whole[:8192]), make([]byte, len(whole)-8192)...),
	} {
		if err := os.WriteFile(db, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		var s statusResult
		if code := p.do("status", "--json"); code != exitDone || json.Unmarshal(p.out.Bytes(), &s) != nil || len(s.Spaces) != 2 {
			t.Fatalf("%s: status: %d, %s", what, code, &p.talk)
		}
		if w := s.Spaces[1]; w.Name != "Work" || w.State != "damaged" || w.Problem == "" || s.Spaces[0].State != "local" {
			t.Errorf("%s: status says %+v", what, s.Spaces)
		}
		if code := p.do("status"); code != exitDone || !strings.Contains(p.out.String(), "Work CAN'T BE USED") {
			t.Errorf("%s: status: %d, %s", what, code, &p.out)
		}
		if code := p.do("verify"); code != exitFailed || !strings.Contains(p.out.String()+p.talk.String(), "spaces/0002") {
			t.Errorf("%s: verify: %d, %s, %s", what, code, &p.out, &p.talk)
		}
		if code := p.do("log", "Personal"); code != exitDone {
			t.Errorf("%s: log of another space: %s", what, &p.talk)
		}
		if code := p.do("log", "Work"); code == exitDone {
			t.Errorf("%s: log of the space: %s", what, &p.out)
		}
	}
	if code := p.do("space", "info", "Work"); code != exitDone || !strings.Contains(p.out.String(), "damaged") {
		t.Errorf("space info: %d, %s", code, &p.out)
	}
	if err := os.WriteFile(db, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := p.do("verify"); code != exitDone {
		t.Errorf("verify of what is whole again: %s, %s", &p.out, &p.talk)
	}
	if err := os.WriteFile(db, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := p.do("space", "delete", "Work"); code != exitDone {
		t.Errorf("space delete: %s", &p.talk)
	}
	if code := p.do("verify"); code != exitDone {
		t.Errorf("verify after the deletion: %s, %s", &p.out, &p.talk)
	}
}

// TestSetUpAfterCrash holds that a home whose making was cut short gets its Personal when it is opened next.
func TestSetUpAfterCrash(t *testing.T) {
	p := newPerson(t)
	if code := p.do("init"); code != exitDone {
		t.Fatal(&p.talk)
	}
	if code := p.do("space", "delete", "Personal"); code != exitDone {
		t.Fatal(&p.talk)
	}
	if p.do("space", "list"); p.out.Len() != 0 {
		t.Fatalf("a deleted Personal came back: %s", &p.out)
	}
	if err := os.WriteFile(filepath.Join(p.home, setupName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if p.do("space", "list"); !strings.Contains(p.out.String(), "Personal") {
		t.Errorf("no Personal after a making that was cut short: %s%s", &p.out, &p.talk)
	}
}

func TestExitCodes(t *testing.T) {
	p := newPerson(t)
	for _, c := range []struct {
		line string
		code int
		says string
	}{
		{"", exitUsage, "anyfs: name a command"},
		{"help", exitDone, ""},
		{"frob", exitUsage, `anyfs: there is no command "frob"`},
		{"mount", exitUsage, "anyfs: mount: expected DIR"},
		{"mount a b", exitUsage, "anyfs: mount: expected DIR"},
		{"mount -o frob x", exitUsage, `anyfs: mount: option "frob" is not known`},
		{"space", exitUsage, "anyfs: space: say what to do: create"},
		{"space list", exitNotFound, "anyfs: space list: there is no account"},
		{"status --timeout 5s", exitUsage, "anyfs: status: --timeout goes with --wait"},
		{"status --wait --timeout soon", exitUsage, `anyfs: status: "soon" is no duration`},
		{"status --wait --timeout -1s", exitUsage, `anyfs: status: "-1s" is no duration`},
		{"status --wait --timeout=", exitUsage, `anyfs: status: "" is no duration`},
		{"prune --keep-last some", exitUsage, `anyfs: prune: "some" is no number of versions`},
		{"prune --keep-last -1", exitUsage, `anyfs: prune: "-1" is no number of versions`},
		{"prune --keep-within=", exitUsage, `anyfs: prune: "" is no duration`},
		{"--version", exitDone, ""},
		{"status --version", exitUsage, "anyfs: status: unknown flag --version"},
		{"mount .", exitUsage, "lies in"},
		{"mount .local/share/anyfs/m", exitUsage, "lies in the home"},
		{"unmount nowhere", exitFailed, "nowhere is not mounted"},
		{"prune --keep-within x", exitUsage, `anyfs: prune: "x" is no duration`},
		{"login", exitUsage, "anyfs: login: stdin is no terminal"},
		{"init --passphrase", exitPassphrase, "anyfs: init: stdin is no terminal"},
	} {
		if code := p.do(strings.Fields(c.line)...); code != c.code || !strings.Contains(p.talk.String(), c.says) {
			t.Errorf("%q: code %d, want %d; says %q, want %q", c.line, code, c.code, &p.talk, c.says)
		}
	}
}

func TestReport(t *testing.T) {
	for _, c := range []struct{ command, text, want string }{
		{"mount", "/x is not empty; pick another folder", "anyfs: mount: /x is not empty; pick another folder\n"},
		{"mount", "mount: /x is not empty", "anyfs: mount: /x is not empty\n"},
		{"space create", "create: no", "anyfs: space create: no\n"},
		{"", "there is none", "anyfs: there is none\n"},
		{"mount", "", ""},
	} {
		var b bytes.Buffer
		report(&b, c.command, errors.New(c.text))
		if b.String() != c.want {
			t.Errorf("%q, %q: %q, want %q", c.command, c.text, &b, c.want)
		}
	}
}

func TestResolve(t *testing.T) {
	all, one := &home{place: place{Dir: "/m"}}, &home{place: place{Dir: "/m", Space: "S"}}
	known := func(p string) bool {
		return slices.Contains([]string{"Personal/a", "Personal/d/a", "Personal/b", "S/b"}, p)
	}
	for _, c := range []struct {
		h          *home
		given, abs string
		want       string // "!" for an error
	}{
		{all, "/m/Personal/a", "/m/Personal/a", "Personal/a"},
		{all, "/m", "/m", ""},
		{all, "a", "/m/Personal/a", "Personal/a"},
		{all, "Personal/a", "/elsewhere/Personal/a", "Personal/a"},
		{all, "Personal/b", "/m/Personal/d/Personal/b", "Personal/b"},
		{all, "./Personal/b", "/m/Personal/d/Personal/b", "Personal/b"},
		{all, "Personal/c", "/m/Personal/d/Personal/c", "Personal/d/Personal/c"},
		{all, "a", "/m/Personal/d/a", "Personal/d/a"},
		{all, "../b", "/m/Personal/none/b", "Personal/none/b"},
		{all, "/Personal/b", "/m/none/b", "none/b"},
		{one, "S/b", "/m/d/S/b", "S/b"},
		{all, "../../a", "/elsewhere/a", "a"},
		{all, "/mm/x", "/mm/x", "!"},
		{one, "/m/a", "/m/a", "S/a"},
		{one, "/m", "/m", "S"},
		{&home{}, "/m/a", "/m/a", "!"},
		{&home{}, "Personal/a", "/m/Personal/a", "Personal/a"},
	} {
		got, err := c.h.find(pathParam{Given: c.given, Abs: c.abs}, known)
		if (err != nil) != (c.want == "!") || err == nil && got != c.want {
			t.Errorf("%q (%q) in %+v: %q, %v; want %q", c.given, c.abs, c.h.place, got, err, c.want)
		}
	}
}

func TestRealParent(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, dir+"/self"); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		dir + "/self/a":       dir + "/a",
		dir + "/self":         dir + "/self", // the last part is not followed
		dir + "/self/no/such": dir + "/no/such",
		"/":                   "/",
	} {
		if got := realParent(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestParseAge(t *testing.T) {
	const day = 24 * time.Hour
	for in, want := range map[string]time.Duration{"36h": 36 * time.Hour, "30d": 30 * day, "8w": 56 * day, "2y": 730 * day, "1h30m": 90 * time.Minute, "0d": 0} {
		if got, err := parseAge(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "-1h", "-3d", "1.5d", "9999999999y", "d", "03d", "1d1h"} {
		if got, err := parseAge(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
}

func TestInUTC(t *testing.T) {
	tokyo := time.FixedZone("Tokyo", 9*3600)
	for in, want := range map[string]string{
		"2026-01-31T12:00:05.5":     "2026-01-31T03:00:05.599999999Z",
		"2026-01-31T12:00":          "2026-01-31T03:00:59.999999999Z",
		"2026-01-31":                "2026-01-31T14:59:59.999999999Z",
		"2026-01-31 12:00:05Z":      "2026-01-31T12:00:05.999999999Z",
		"2026-01-31T12:00:05+01:00": "2026-01-31T11:00:05.999999999Z",
		"q3xw7zba":                  "q3xw7zba",
		"":                          "",
	} {
		if got := inUTC(in, tokyo); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
		if got := inUTC(inUTC(in, tokyo), time.UTC); got != want {
			t.Errorf("%q in UTC does not stay: %q", in, got)
		}
	}
}

// TestPathsOfAnyBytes: a path reaches the daemon as it was given, UTF-8 or not.
func TestPathsOfAnyBytes(t *testing.T) {
	for _, p := range []pathParam{
		{}, {Given: "Personal/ü", Abs: "/m/Personal/ü", Through: []string{"/m"}}, {Given: "\xff", Abs: "/m/\xff"}, {Given: "a\xc3", Abs: "/m/a\xc3", Through: []string{"/"}}, {Given: "x", Abs: "/\xfe/x"},
	} {
		b, err := json.Marshal(restoreParams{Path: p, To: &p})
		if err != nil {
			t.Fatal(err)
		}
		var back restoreParams
		if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back.Path, p) || !reflect.DeepEqual(*back.To, p) {
			t.Errorf("%+q arrives as %+q and %+q: %v", p, back.Path, back.To, err)
		}
	}
	sent := resolveParams{pathParam{Given: "\xff", Abs: "/m/\xff"}, "both"} // what is beside a path arrives too
	b, err := json.Marshal(sent)
	var back resolveParams
	if err := errors.Join(err, json.Unmarshal(b, &back)); err != nil || !reflect.DeepEqual(back, sent) {
		t.Errorf("%+q arrives as %+q: %v", sent, back, err)
	}
	var p pathParam
	if json.Unmarshal([]byte(`{"given":1}`), &p) == nil {
		t.Error("a path that is a number")
	}
}

func TestFormatBytes(t *testing.T) {
	for in, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10240: "10 KiB", 1023 << 10: "1.0 MiB", 5 << 30: "5.0 GiB", 1<<63 - 1: "8.0 EiB"} {
		if got := formatBytes(in); got != want {
			t.Errorf("%d: %q, want %q", in, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{"plain ü": "plain ü", "a\x1b[31mb": "a\ufffd[31mb", "x\ny": "x\ufffdy", "\xff": "\ufffd", "\u202eabc": "\ufffdabc"} {
		if got := printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	p := newPerson(t)
	if code := p.do("init"); code != exitDone {
		t.Fatal(&p.talk)
	}
	for _, c := range []struct{ line, want string }{
		{"anyfs mo", "mount"},
		{"anyfs space ", "create list info policy network rename delete"},
		{"anyfs space info P", "Personal"},
		{"anyfs --home /none space info P", ""},
		{"anyfs export ", "Personal"},
		{"anyfs export Personal ", ""},
		{"anyfs mount --s", "--space"},
		{"anyfs mount --space ", "Personal"},
		{"anyfs mount --space P", "Personal"},
		{"anyfs mount --space Personal ", ""},
		{"anyfs restore --to ", ""},
		{"anyfs log --", "--deleted --home --json --help"},
		{"anyfs restore --v", "--version"},
		{"anyfs --v", "--version"},
		{"anyfs help sp", "space"},
		{"anyfs help space r", "rename"},
		{"anyfs frob ", ""},
		{"anyfs space frob ", ""},
		{"anyfs space info -- P", "Personal"},
		{"anyfs space network Pers", "Personal"},
		{"anyfs space network Personal ", "list add remove"},
		{"anyfs completion z", "zsh"},
		{"anyfs status /tm", ""},
		{"anyfs --j", "--json"},
	} {
		if strings.Contains(c.line, "/none") {
			p.home = "/none"
		}
		got := complete(context.Background(), newApp(p.env), p.env, strings.Split(c.line, " "))
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%q: %q, want %q", c.line, g, c.want)
		}
		p.home = filepath.Join(p.vars["HOME"], ".local/share/anyfs")
	}
}

// TestHelpHasExamples holds that every command that does something shows how.
func TestHelpHasExamples(t *testing.T) {
	var walk func(path string, commands []*cli.Command)
	walk = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			name := path + " " + c.Name
			if len(c.Subcommands) > 0 {
				walk(name, c.Subcommands)
			} else if !c.Hidden && !strings.Contains(c.Description, "Examples:\n  ") {
				t.Errorf("the help of%s has no examples", name)
			}
		}
	}
	walk("", newApp(newPerson(t).env).Commands)
}
