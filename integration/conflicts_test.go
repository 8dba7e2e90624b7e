package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// conflict is what conflicts --json tells of one.
type conflict struct {
	Path, Original, Device, Date string
	Gone                         bool
}

func (h *Home) conflicts(path ...string) []conflict {
	h.t.Helper()
	var list []conflict
	if err := json.Unmarshal([]byte(h.Must(append([]string{"conflicts", "--json"}, path...)...)), &list); err != nil {
		h.t.Fatal(err)
	}
	return list
}

// TestConflictsCommand: conflicts are listed on both devices, and resolved on one for both.
func TestConflictsCommand(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	for _, name := range []string{"one.txt", "two.txt", "three.txt"} {
		check(t, os.WriteFile(a.Personal(name), []byte("before\n"), 0o644))
	}
	d.Same()
	write := func(h *Home, text string) {
		for _, name := range []string{"one.txt", "two.txt", "three.txt"} {
			check(t, os.WriteFile(h.Personal(name), []byte(text), 0o644))
		}
		h.Unmount()
	}
	b.Unmount()
	write(a, "by a\n")
	b.Mount("--listen", "none")
	write(b, "by b\n")
	a.Mount("--no-discovery")
	b.Mount("--no-discovery")
	d.Connect(a, b)
	d.Eventually("the conflicts are there", func() error {
		if x, y := a.conflicts(), b.conflicts(); len(x) != 3 || fmt.Sprint(x) != fmt.Sprint(y) {
			return fmt.Errorf("%+v, %+v", x, y)
		}
		return nil
	})
	d.Same()
	list := a.conflicts()
	text := a.Must("conflicts")
	for _, c := range list {
		if !strings.Contains(text, c.Path) || !strings.Contains(text, c.Original) || c.Device == "" || len(c.Date) != 10 || c.Gone {
			t.Errorf("%+v in\n%s", c, text)
		}
	}
	if got := a.conflicts(a.Personal("two.txt")); len(got) != 1 || got[0].Original != "Personal/two.txt" {
		t.Errorf("of one file: %+v", got)
	}
	if v, err := getxattr(a.Personal("two.txt"), "user.anyfs.conflicts"); v != "1" {
		t.Errorf("the attribute is %q, %v", v, err)
	}
	copyOf := func(original string) string {
		for _, c := range list {
			if c.Original == original {
				return filepath.Join(a.Mnt, c.Path)
			}
		}
		t.Fatalf("no copy of %s in %+v", original, list)
		return ""
	}
	read := func(path string) string {
		b, err := os.ReadFile(path)
		check(t, err)
		return string(b)
	}
	one, two := read(a.Personal("one.txt")), read(copyOf("Personal/two.txt"))
	// Before the kernel forgets what it knows.
	a.Must("conflicts", "resolve", a.Personal("one.txt"), "--keep", "this")
	a.Must("conflicts", "resolve", copyOf("Personal/two.txt"), "--keep", "this")
	b.Must("conflicts", "resolve", "Personal/three.txt", "--keep", "both")
	d.Eventually("the conflicts have ended", func() error {
		if x, y := a.conflicts(), b.conflicts(); len(x)+len(y) != 0 {
			return fmt.Errorf("%+v, %+v", x, y)
		}
		return nil
	})
	tree := d.Same()
	for path := range tree {
		if strings.Contains(path, "(conflict") {
			t.Errorf("%s is left", path)
		}
	}
	if got := read(b.Personal("one.txt")); got != one {
		t.Errorf("one.txt holds %q, want %q", got, one)
	}
	if got := read(b.Personal("two.txt")); got != two {
		t.Errorf("two.txt holds %q, want %q", got, two)
	}
	if x, y := read(a.Personal("three.txt")), read(a.Personal("three (2).txt")); x == y {
		t.Errorf("both hold %q", x)
	}
	if out := a.Must("log", a.Personal("two.txt"), "--json"); strings.Count(out, `"short"`) < 3 {
		t.Errorf("the document's history is not kept: %s", out)
	}
	for args, code := range map[string]int{
		"Personal/one.txt --keep this": 3, "Personal/none --keep this": 3, "Personal/one.txt": 2, "Personal/one.txt --keep all": 2,
	} {
		r := a.Run(append([]string{"conflicts", "resolve"}, strings.Fields(args)...)...)
		if r.Code != code || !strings.Contains(r.Stderr, "anyfs: conflicts resolve: ") {
			t.Errorf("resolve %s: %+v", args, r)
		}
	}
	for _, h := range d.All {
		h.Must("verify")
	}
}
