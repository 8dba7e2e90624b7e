package main

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// testApp has every shape of command that arrange must handle.
func testApp() *cli.App {
	return &cli.App{
		Name:  "anyfs",
		Flags: []cli.Flag{&cli.StringFlag{Name: "home"}, &cli.BoolFlag{Name: "json"}},
		Commands: []*cli.Command{
			{Name: "mount", Flags: []cli.Flag{
				&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}},
				&cli.StringSliceFlag{Name: "o"},
				&cli.StringFlag{Name: "space"},
			}},
			{Name: "space", Subcommands: []*cli.Command{
				{Name: "create"},
				{Name: "delete", Flags: []cli.Flag{&cli.BoolFlag{Name: "yes"}}},
			}},
		},
	}
}

func TestArrange(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"mount /x", "mount -- /x"},
		{"mount -f /x", "mount --f -- /x"},
		{"mount /x -f", "mount --f -- /x"},
		{"mount /x --home /h", "--home=/h mount -- /x"},
		{"--home /h mount /x --json", "--home=/h --json mount -- /x"},
		{"mount --home=/h /x -o allow_other -o ro", "--home=/h mount --o=allow_other --o=ro -- /x"},
		{"mount --space Personal /x", "mount --space=Personal -- /x"},
		{"mount /x --space -", "mount --space=- -- /x"},
		{"mount -- --home", "mount -- --home"},
		{"mount -f -- -f", "mount --f -- -f"},
		{"mount -", "mount -- -"},
		{"space create A --json", "--json space create -- A"},
		{"space --home /h create A", "--home=/h space create -- A"},
		{"space delete A --yes", "space delete --yes -- A"},
		{"space create --help", "space create --help"},
		{"space create A -h", "space create --help"},
		{"-h", "--help"},
		{"mount -- -h", "mount -- -h"},
		{"mount -json /x", "--json mount -- /x"},
		{"mount --json=false /x", "--json=false mount -- /x"},
		{"mount --home -x /x", "--home=-x mount -- /x"},
	} {
		got, _, err := arrange(testApp(), append([]string{"anyfs"}, strings.Fields(c.in)...))
		if err != nil {
			t.Errorf("%q: %v", c.in, err)
			continue
		}
		if g := strings.Join(got[1:], " "); g != c.want {
			t.Errorf("%q gives %q, want %q", c.in, g, c.want)
		}
	}
}

func TestArrangeKeepsArgumentsWhole(t *testing.T) {
	in := []string{"anyfs", "mount", "a b", "", "--space", "c d", "--", "-e f"}
	got, _, err := arrange(testApp(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"anyfs", "mount", "--space=c d", "--", "a b", "", "-e f"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestArrangeRefuses(t *testing.T) {
	for _, c := range []struct{ in, text string }{
		{"mont /x", `there is no command "mont"`},
		{"space make", `there is no command "space make"`},
		{"mount --frob /x", "unknown flag --frob"},
		{"mount /x -x", "unknown flag -x"},
		{"mount /x --home", "--home needs a value"},
		{"--yes space delete A", "unknown flag --yes"},
	} {
		_, _, err := arrange(testApp(), append([]string{"anyfs"}, strings.Fields(c.in)...))
		if err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: %v, want %q", c.in, err, c.text)
			continue
		}
		if exitCode(err) != exitUsage {
			t.Errorf("%q: exit code %d, want %d", c.in, exitCode(err), exitUsage)
		}
	}
}

// FuzzArrange holds that no command line is lost or panics: arranging what was arranged changes nothing.
func FuzzArrange(f *testing.F) {
	for _, s := range []string{"mount /x -f", "space delete A --yes --json", "mount -- --home", "--home /h mount /x -o a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		once, _, err := arrange(testApp(), append([]string{"anyfs"}, strings.Split(line, " ")...))
		if err != nil {
			return
		}
		twice, _, err := arrange(testApp(), once)
		if err != nil {
			t.Fatalf("%q was taken as %q, and that is refused: %v", line, once, err)
		}
		if strings.Join(once, "\x00") != strings.Join(twice, "\x00") {
			t.Fatalf("%q gives %q, and that gives %q", line, once, twice)
		}
	})
}
