package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// kindsOfFile are the kinds of files that a home holds, and after which end of the daemon every byte of them counts. Else a file
// also has room that nothing refers to, or an end that the journal has too, and a flip there must change nothing.
var kindsOfFile = []struct{ pattern, sure string }{
	{"keys.age", "unmounted killed"}, {"keys.key", ""}, {"account.age", "unmounted killed"}, {"place", "unmounted killed"},
	{"spaces/next", "unmounted killed"}, {"spaces/*/space", "unmounted killed"}, {"spaces/*/acl/*", "unmounted killed"},
	{"spaces/*/batches/*", "unmounted"}, {"spaces/*/blocks/*", "unmounted killed"}, {"spaces/*/space.db", ""}, {"journal/*", ""},
}

// flips is what is done to each kind of file.
func flips() int {
	if Long() {
		return 100
	}
	return 3
}

// TestVerifyFindsDamage flips single bits in every kind of file of a home, of one that was unmounted and of one whose daemon was
// killed: verify exits with 1 and names something, or what the home shows is what it was.
func TestVerifyFindsDamage(t *testing.T) {
	h := Mounted(t)
	check(t, os.WriteFile(h.Personal("text"), []byte("first\n"), 0o644), os.Mkdir(h.Mnt+"/Work", 0o755))
	Sh(t, h.Personal(), `
head -c 3000000 /dev/urandom > large; seq 20000 > lines; mkdir -p a/b/c; ln text a/hard; ln -s ../text a/sym
for i in $(seq 50); do echo $i > a/b/$i; done; setfattr -n user.x -v y a 2>/dev/null || true; echo w > ../Work/w`)
	h.Settle()
	Sh(t, h.Personal(), `echo second > text; echo more >> lines; rm a/b/7; mv a/b/8 a/b/c/`)
	want := ReadTree(t, h.Mnt, TreeOptions{DirTimes: true})
	h.Unmount()
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	t.Logf("ANYFS_SEED=%d", seed)
	d := &damager{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), want: want, found: map[string]int{}, quiet: map[string]int{}}
	d.flipAll("unmounted", h.Dir)

	h.Mount()
	Sh(t, h.Personal(), `for i in $(seq 100); do echo again > a/b/c/$i; done; head -c 100000 /dev/urandom > synced; sync synced; sync a/b/c/1`)
	d.want = ReadTree(t, h.Mnt, TreeOptions{DirTimes: true})
	h.Kill()
	killed := filepath.Join(t.TempDir(), "killed")
	Sh(t, "/", `cp -a --sparse=always "$A" "$B"`, "A="+h.Dir, "B="+killed)
	h.Mount()
	d.flipAll("killed", killed)
	for _, k := range kindsOfFile {
		t.Logf("%-20s %d flips found, %d without a meaning", k.pattern, d.found[k.pattern], d.quiet[k.pattern])
		if d.found[k.pattern] == 0 {
			t.Errorf("no flip in %s was found", k.pattern)
		}
	}
}

type damager struct {
	t            *testing.T
	rnd          *rand.Rand
	want         Tree
	found, quiet map[string]int // flips by kind
}

// flipAll flips bits in copies of a home, one at a time.
func (d *damager) flipAll(state, home string) {
	d.t.Helper()
	copied := &Home{t: d.t, Dir: filepath.Join(d.t.TempDir(), "home"), Mnt: filepath.Join(d.t.TempDir(), "mnt")}
	d.t.Cleanup(copied.cleanup)
	for _, k := range kindsOfFile {
		files, err := filepath.Glob(filepath.Join(home, k.pattern))
		check(d.t, err)
		if len(files) == 0 && k.pattern != "place" {
			d.t.Fatalf("%s: the home has no %s", state, k.pattern)
		}
		for n := 0; n < flips() || state == "killed" && d.found[k.pattern] == 0 && n < 50; n++ { // in some kinds half of the flips change nothing
			file := files[d.rnd.IntN(len(files))]
			if k.pattern == "journal/*" {
				file = lastWritten(d.t, files)
			}
			rel, _ := filepath.Rel(home, file)
			check(d.t, os.RemoveAll(copied.Dir))
			Sh(d.t, "/", `cp -a --sparse=always "$A" "$B"`, "A="+home, "B="+copied.Dir)
			at := d.flip(filepath.Join(copied.Dir, rel))
			d.judge(fmt.Sprintf("%s: %s, bit %d of byte %d", state, rel, at%8, at/8), k.pattern, strings.Contains(k.sure, state), copied)
		}
	}
}

// lastWritten gives the file that holds the newest records: later ones are made beforehand, with zeros.
func lastWritten(t *testing.T, files []string) string {
	t.Helper()
	slices.Sort(files)
	for _, f := range slices.Backward(files) {
		b, err := os.ReadFile(f)
		check(t, err)
		if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
			return f
		}
	}
	t.Fatal("the journal is empty")
	return ""
}

// flip changes a bit of a byte that is not zero and says which. (Zeros are mostly room that nobody uses.)
func (d *damager) flip(file string) int {
	d.t.Helper()
	b, err := os.ReadFile(file)
	check(d.t, err)
	var used []int
	for i, c := range b {
		if c != 0 {
			used = append(used, i)
		}
	}
	if len(used) == 0 {
		d.t.Fatalf("%s holds nothing", file)
	}
	i, bit := used[d.rnd.IntN(len(used))], d.rnd.IntN(8)
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	check(d.t, err, second(f.WriteAt([]byte{b[i] ^ 1<<bit}, int64(i))), f.Close())
	return 8*i + bit
}

// judge holds that the damage is found, or that the home shows what it did.
func (d *damager) judge(what, kind string, sure bool, h *Home) {
	d.t.Helper()
	r := h.Run("verify", "--json")
	var out struct {
		Problems []struct{ Where, Text string } `json:"problems"`
	}
	if err := json.Unmarshal([]byte(r.Stdout), &out); err != nil && r.Code != 0 {
		d.t.Errorf("%s: verify exits with %d and prints %q: %v", what, r.Code, r.Stdout, err)
		return
	}
	switch {
	case r.Code == 1 && len(out.Problems) > 0 && out.Problems[0].Where != "" && out.Problems[0].Text != "":
		d.found[kind]++
		return
	case r.Code != 0 || len(out.Problems) > 0:
		d.t.Errorf("%s: verify exits with %d and lists %v: %s", what, r.Code, out.Problems, r.Stderr)
		return
	case sure:
		d.t.Errorf("%s: verify finds nothing", what)
		return
	}
	d.quiet[kind]++
	h.Mount()
	got := ReadTree(d.t, h.Mnt, TreeOptions{DirTimes: true})
	h.Unmount()
	if diff := DiffTrees(d.want, got); len(diff) > 0 {
		d.t.Errorf("%s: verify finds nothing, and the trees differ:\n%s", what, strings.Join(diff, "\n"))
	}
}
