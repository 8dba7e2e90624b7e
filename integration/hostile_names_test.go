package integration

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/anyfs/anyfs/fs/nametest"
	"golang.org/x/sys/unix"
)

// TestHostileNames: each name of the corpus does on the mount what it does on the local disk: the same calls succeed, and fail by the same errno; but for
// .anyfs, which is there in each folder and is not listed.
func TestHostileNames(t *testing.T) {
	names := nametest.Valid()
	for _, n := range nametest.Void() {
		if !strings.ContainsAny(n.Text, "/\x00") { // those are paths to a call, or end before their end
			names = append(names, n)
		}
	}
	work := func(log map[string]string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			at, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			check(t, err)
			defer unix.Close(at)
			check(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644))
			for _, n := range names {
				if n.Text == ".anyfs" || n.Text == "file" {
					continue
				}
				said := func(what string, err error) {
					log[n.Text] += fmt.Sprintf("%s %v; ", what, err)
				}
				fd, err := unix.Openat(at, n.Text, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
				said("create", err)
				if err == nil {
					unix.Close(fd)
				}
				var st unix.Stat_t
				said("stat", unix.Fstatat(at, n.Text, &st, unix.AT_SYMLINK_NOFOLLOW))
				said("unlink", unix.Unlinkat(at, n.Text, 0))
				said("mkdir", unix.Mkdirat(at, n.Text, 0o755))
				said("rmdir", unix.Unlinkat(at, n.Text, unix.AT_REMOVEDIR))
				said("symlink", unix.Symlinkat("../"+n.Text, at, n.Text))
				said("rename over", unix.Renameat(at, "file", at, n.Text))
				said("link", unix.Linkat(at, n.Text, at, "file", 0))
				said("rename", unix.Renameat(at, n.Text, at, n.Text+"+"))
				said("rename back", unix.Renameat(at, n.Text+"+", at, n.Text))
				if _, err := os.Lstat(filepath.Join(dir, "file")); err != nil {
					check(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o644))
				}
			}
		}
	}
	local, mounted := map[string]string{}, map[string]string{}
	first := true
	_, dir := SameAsLocal(t, TreeOptions{NoTimes: true}, func(t *testing.T, dir string) {
		log := mounted
		if first {
			log, first = local, false
		}
		work(log)(t, dir)
	})
	for _, n := range names {
		if local[n.Text] != mounted[n.Text] {
			t.Errorf("%.60q\non the disk: %s\non the mount: %s", n.Text, local[n.Text], mounted[n.Text])
		}
	}
	for what, got := range map[string]error{
		"create": second(unix.Open(filepath.Join(dir, ".anyfs"), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o644)), "mkdir": unix.Mkdir(filepath.Join(dir, ".anyfs"), 0o755),
		"symlink": unix.Symlink("x", filepath.Join(dir, ".anyfs")), "link": unix.Link(filepath.Join(dir, "file"), filepath.Join(dir, ".anyfs")),
	} {
		if !errors.Is(got, syscall.EEXIST) {
			t.Errorf("%s of .anyfs: %v", what, got)
		}
	}
	if got := unix.Rename(filepath.Join(dir, ".anyfs"), filepath.Join(dir, "of no other")); !errors.Is(got, syscall.EPERM) {
		t.Errorf("rename of .anyfs: %v", got)
	}
	if got := unix.Rename(filepath.Join(dir, "file"), filepath.Join(dir, ".anyfs")); !errors.Is(got, syscall.EISDIR) { // the kernel says so: it is a folder
		t.Errorf("rename to .anyfs: %v", got)
	}
}

// canaries is a tree that nobody is to write to, as it is: every name with what it is.
func canaries(t *testing.T, roots []string, but ...string) (out []string) {
	t.Helper()
	for _, root := range roots {
		check(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if slices.Contains(but, p) {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			var st unix.Stat_t
			if err := unix.Lstat(p, &st); err != nil {
				return err
			}
			line := fmt.Sprintf("%q %o %d", p, st.Mode, st.Ino)
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				sum, err := sumFile(p)
				if err != nil {
					return err
				}
				line += fmt.Sprintf(" %s %d", sum, st.Mtim.Nano())
			case unix.S_IFLNK:
				to, err := os.Readlink(p)
				if err != nil {
					return err
				}
				line += " -> " + to
			}
			out = append(out, line)
			return nil
		}))
	}
	return out
}

// TestHostileNamesGoNowhere: a space with the names of the corpus, as files, folders and links, and with links to everywhere, is exported, imported, deleted,
// restored in place and elsewhere, and copied out of the past; what each writes is in its target, and in the folders around that nothing is made, changed or
// gone. What the commands say of it steers no terminal.
func TestHostileNamesGoNowhere(t *testing.T) {
	base := t.TempDir()
	out, target := filepath.Join(base, "out"), filepath.Join(base, "target")
	for _, d := range []string{out, target, filepath.Join(out, "deep/er"), filepath.Join(base, "etc")} {
		check(t, os.MkdirAll(d, 0o755))
	}
	for _, f := range []string{"canary", "deep/canary", ".bashrc", "file", "x"} {
		check(t, os.WriteFile(filepath.Join(out, f), []byte("a canary"), 0o600))
	}
	check(t, os.Symlink(out, filepath.Join(target, "to out")), os.Symlink(filepath.Join(out, "new"), filepath.Join(target, "nowhere.car")))
	h := Mounted(t)
	roots, but := []string{base, filepath.Dir(h.Dir)}, []string{h.Dir, h.Mnt}
	before := canaries(t, roots, but...)
	unchanged := func(what string, made ...string) {
		t.Helper()
		var now []string
		for _, line := range canaries(t, roots, but...) {
			if !slices.ContainsFunc(made, func(p string) bool { return strings.HasPrefix(line, fmt.Sprintf("%q ", p)) }) {
				now = append(now, line)
			}
		}
		for _, line := range now {
			if !slices.Contains(before, line) {
				t.Fatalf("%s: made or changed: %s", what, line)
			}
		}
		if len(now) != len(before) {
			t.Fatalf("%s: %d of %d are there", what, len(now), len(before))
		}
	}

	valid := slices.DeleteFunc(nametest.Valid(), func(n nametest.Name) bool { return strings.HasSuffix(n.Text, ".anyfs-local") }) // those have no past
	want := make([]string, 0, len(valid))
	check(t, os.Mkdir(h.Personal("names"), 0o755), os.Mkdir(h.Personal("links"), 0o755))
	for i, n := range valid {
		p := h.Personal("names") + "/" + n.Text
		switch i % 3 {
		case 0:
			check(t, os.WriteFile(p, []byte(n.Text), 0o644))
		case 1:
			check(t, os.Mkdir(p, 0o755), os.WriteFile(p+"/"+n.Text, []byte(n.Text), 0o644))
		case 2:
			check(t, os.Symlink(out+"/"+n.Text, p))
		}
		want = append(want, n.Text)
	}
	slices.Sort(want)
	link := func(i int) string { return h.Personal("links", fmt.Sprint("l", i)) }
	targets := nametest.Targets(out)
	for i, to := range targets {
		check(t, os.Symlink(to, link(i)))
	}
	listed := func(what, dir string) {
		t.Helper()
		all, err := os.ReadDir(dir)
		check(t, err)
		var got []string
		for _, e := range all {
			got = append(got, e.Name())
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Fatalf("%s: %d names, want %d", what, len(got), len(want))
		}
	}
	h.Settle()
	unchanged("filled")

	car := filepath.Join(target, "personal.car")
	h.Must("export", "Personal", car)
	unchanged("exported", car)
	if r := h.Run("export", "Personal", filepath.Join(target, "nowhere.car")); r.Code == 0 {
		t.Errorf("exported to where a link is: %+v", r)
	}
	unchanged("exported to a link", car)

	// To outside by a link in the mount, which whoever writes to the space can make: not by this.
	check(t, os.WriteFile(h.Personal("file"), []byte("one"), 0o644))
	h.Settle()
	led := 0
	for i, to := range targets {
		at, err := filepath.EvalSymlinks(link(i))
		if err != nil {
			continue // it leads nowhere
		}
		if st, err := os.Stat(at); err != nil || !st.IsDir() || strings.HasPrefix(at, h.Mnt) {
			continue
		}
		led++
		if r := h.Run("restore", h.Personal("file"), "--version", time.Now().UTC().Format(time.RFC3339), "--to", link(i)+"/new"); r.Code == 0 || !strings.Contains(r.Stderr, "leads") {
			t.Errorf("restored through a link to %s: %+v", to, r)
			_ = os.Remove(filepath.Join(at, "new"))
		}
	}
	if led < 3 {
		t.Errorf("%d links lead out", led)
	}
	for i := range targets { // nor to a link itself
		if i < 4 {
			if r := h.Run("restore", h.Personal("file"), "--version", time.Now().UTC().Format(time.RFC3339), "--to", link(i)); r.Code == 0 {
				t.Errorf("restored over a link: %+v", r)
			}
		}
	}
	unchanged("restored through links", car)

	// Deleted and brought back.
	check(t, os.RemoveAll(h.Personal("names")))
	links := ReadTree(t, h.Personal("links"), TreeOptions{NoTimes: true})
	check(t, os.RemoveAll(h.Personal("links")))
	h.Settle()
	past := filepath.Join(target, "past")
	Sh(t, base, `cp -a --no-preserve=all "$FROM" "$TO"`, "FROM="+h.Personal(".anyfs/trash/names"), "TO="+past)
	listed("copied from the trash", past)
	check(t, os.RemoveAll(past))
	unchanged("copied from the trash", car)
	text := []string{h.Must("log", "--deleted", "Personal"), h.Must("status")}
	h.Must("restore", h.Personal("names"))
	listed("restored", h.Personal("names"))
	h.Must("restore", h.Personal("links"))
	SameTree(t, "restored links", links, ReadTree(t, h.Personal("links"), TreeOptions{NoTimes: true}))
	unchanged("restored in place", car)
	h.Must("restore", h.Personal("names"), "--version", time.Now().UTC().Format(time.RFC3339), "--to", h.Personal("copy/of"))
	listed("restored elsewhere", h.Personal("copy/of"))
	if r := h.Run("restore", h.Personal("names"), "--version", time.Now().UTC().Format(time.RFC3339), "--to", filepath.Join(target, "folder")); r.Code == 0 {
		t.Errorf("a folder was restored to outside: %+v", r)
	}
	unchanged("restored elsewhere", car)
	Sh(t, base, `tar -C "$FROM" -cf - . | tar -C "$TO" -xf -`, "FROM="+h.Personal("names"), "TO="+mkdir(t, past))
	listed("by tar", past)
	check(t, os.RemoveAll(past))
	unchanged("by tar", car)

	// What is said of them.
	for i, n := range valid {
		if i%3 != 0 || !slices.ContainsFunc([]rune(n.Text), func(r rune) bool { return !unicode.IsPrint(r) }) && utf8.ValidString(n.Text) {
			continue
		}
		if i%9 != 0 {
			continue // each command is a process
		}
		p := h.Personal("names") + "/" + n.Text
		text = append(text, h.Must("log", p), h.Must("status", p))
		for _, args := range [][]string{{"log", p + "/x"}, {"restore", p}, {"log", "Personal/" + n.Text + "gone"}} {
			r := h.Run(args...)
			text = append(text, r.Stdout, r.Stderr)
		}
	}
	if len(text) < 40 {
		t.Errorf("%d texts", len(text))
	}
	for _, s := range text {
		if i := strings.IndexFunc(strings.ToValidUTF8(s, "\x01"), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("it is not fit for a terminal: %q", s)
		}
	}

	// And by another device, from the file.
	other := NewHome(t)
	words := filepath.Join(t.TempDir(), "phrase")
	check(t, os.WriteFile(words, []byte(h.Phrase+"\n"), 0o600))
	other.Must("login", "--phrase-file", words, "--device-name", "other")
	other.Mount()
	roots, but = append(roots, filepath.Dir(other.Dir)), append(but, other.Dir, other.Mnt)
	before = canaries(t, roots, append(but, car)...)
	other.Must("import", car)
	listed("imported", other.Personal("names"))
	for i, to := range targets {
		if got, err := os.Readlink(other.Personal("links", fmt.Sprint("l", i))); err != nil || got != to {
			t.Errorf("a link to %.60q is one to %.60q: %v", to, got, err)
		}
	}
	other.Must("verify")
	unchanged("imported", car)

	// The test can fail: what is written outside is seen.
	check(t, os.WriteFile(filepath.Join(out, "deep/er/planted"), nil, 0o644))
	if now := canaries(t, roots, append(but, car)...); len(now) != len(before)+1 {
		t.Errorf("a file that was planted is not seen: %d, %d", len(now), len(before))
	}
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	check(t, os.Mkdir(dir, 0o755))
	return dir
}
