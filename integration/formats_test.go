package integration

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// kept is what an archive in testdata/formats says of itself, as kept.json: what its home and its node have to show.
type kept struct {
	Phrase   string // of its account, which is of no use but for tests
	Tree     Tree
	Versions map[string]int // of files
}

// Each format of a home and of a node that was ever released opens: a home and a node's folder, as a version of anyfs left them, show what they held, are
// sound, and can be written to; and a new device has it all from the node. ANYFS_FORMATS=NAME makes testdata/formats/NAME.tar.gz, by the version that it
// is; none is ever made anew.
func TestFormats(t *testing.T) {
	NeedFUSE(t)
	if name := os.Getenv("ANYFS_FORMATS"); name != "" {
		makeFormat(t, filepath.Join("testdata", "formats", name+".tar.gz"))
	}
	all, err := filepath.Glob("testdata/formats/*.tar.gz")
	check(t, err)
	if len(all) == 0 {
		t.Fatal("there is none")
	}
	for _, name := range all {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var k kept
			check(t, unpack(name, dir), json.Unmarshal(must(t)(os.ReadFile(filepath.Join(dir, "kept.json"))), &k))
			h := NewHome(t)
			h.Dir = filepath.Join(dir, "home")
			h.Mount()
			SameTree(t, "the home", k.Tree, anyOwner(ReadTree(t, h.Mnt, TreeOptions{})))
			for path, n := range k.Versions {
				if got := strings.Count(h.Must("log", filepath.Join(h.Mnt, path)), "\n"); got != n {
					t.Errorf("%s has %d versions, not %d", path, got, n)
				}
			}
			h.Must("verify")
			check(t, os.WriteFile(h.Personal("written now"), noise(9, 300_000), 0o644), os.WriteFile(h.Personal("edited"), []byte("now"), 0o644))
			h.Remount()
			check(t, wantBytes(h.Personal("written now"), noise(9, 300_000)), wantBytes(h.Personal("edited"), []byte("now")))
			h.Must("verify")

			n := &Node{t: t, Kind: "all", Dir: filepath.Join(dir, "node"), log: new(logged), listen: []string{formatsAt}}
			n.Start()
			t.Cleanup(n.Kill)
			b := NewHome(t)
			b.Listen = "/ip4/127.0.0.1/tcp/0"
			words := filepath.Join(dir, "phrase")
			check(t, os.WriteFile(words, []byte(k.Phrase), 0o600))
			b.Must("login", "--phrase-file", words, "--device-name", "new")
			b.Must("network", "add", n.File())
			b.Mount("--no-discovery")
			b.Sync()
			b.eventually("a new device has what the node holds", func() error {
				tree, err := readTree(b.Mnt, TreeOptions{})
				if diff := DiffTrees(k.Tree, anyOwner(tree)); err == nil && len(diff) > 0 {
					err = errors.New(strings.Join(diff, "\n"))
				}
				return err
			})
			b.Must("verify")
		})
	}
}

// formatsAt is where the nodes in the archives listen: nothing else does.
const formatsAt = "/ip4/127.0.0.90/tcp/0"

// anyOwner leaves out who owns the files: who mounts.
func anyOwner(tree Tree) Tree {
	for path, e := range tree {
		e.UID, e.GID = 0, 0
		tree[path] = e
	}
	return tree
}

// makeFormat makes an archive of a home with all that one can hold, and of a node that has it too.
func makeFormat(t *testing.T, to string) {
	t.Helper()
	if _, err := os.Stat(to); err == nil {
		t.Fatalf("%s is there: a format that was released stays as it is", to)
	}
	n := runNode(&Node{t: t, Kind: "all", listen: []string{formatsAt}})
	h := NewHome(t)
	h.Listen = "/ip4/127.0.0.1/tcp/0"
	h.Mount("--no-discovery")
	h.Must("network", "add", n.File())
	dir := h.Personal("folder")
	large := noise(1, 90_000)
	check(t, os.Mkdir(dir, 0o750), os.Mkdir(filepath.Join(h.Mnt, "Second"), 0o755),
		os.WriteFile(filepath.Join(h.Mnt, "Second", "in it"), []byte("in the second space\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "small"), []byte("small\n"), 0o640), os.WriteFile(filepath.Join(dir, "large"), large, 0o600),
		os.WriteFile(filepath.Join(dir, "empty"), nil, 0o644), os.Symlink("folder/large", h.Personal("link")), os.Link(filepath.Join(dir, "small"), h.Personal("hard link")),
		unix.Setxattr(filepath.Join(dir, "small"), "user.kept", []byte("value"), 0), unix.Mkfifo(h.Personal("pipe"), 0o600),
		os.WriteFile(h.Personal("removed"), []byte("removed later\n"), 0o644), os.WriteFile(h.Personal("named so at first"), []byte("renamed\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "name of a ümläut 文件"), []byte("names\n"), 0o644))
	for i := range 4 {
		check(t, os.WriteFile(h.Personal("edited"), fmt.Append(nil, strings.Repeat("a line\n", 50), "version ", i, "\n"), 0o644))
		h.Sync()
	}
	f, err := os.OpenFile(filepath.Join(dir, "large"), os.O_WRONLY, 0)
	check(t, err, second(f.WriteAt([]byte("patched"), 50_000)), f.Truncate(95_000), f.Close(), os.Remove(h.Personal("removed")),
		os.Rename(h.Personal("named so at first"), h.Personal("renamed")))
	h.Sync()
	h.Remount()
	h.Sync()
	k := kept{Phrase: h.Phrase + "\n", Tree: anyOwner(ReadTree(t, h.Mnt, TreeOptions{})), Versions: map[string]int{}}
	for _, path := range []string{"Personal/edited", "Personal/folder/large", "Personal/renamed"} {
		k.Versions[path] = strings.Count(h.Must("log", filepath.Join(h.Mnt, path)), "\n")
	}
	h.Unmount()
	n.Stop()
	b, err := json.MarshalIndent(k, "", " ")
	check(t, err, os.MkdirAll(filepath.Dir(to), 0o755), pack(to, map[string]string{"home": h.Dir, "node": n.Dir}, b))
}

// pack writes folders, of which logs and sockets stay out, and kept.json into an archive.
func pack(to string, dirs map[string]string, about []byte) error {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	w := tar.NewWriter(z)
	put := func(name string, b []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b))}); err != nil {
			return err
		}
		_, err := w.Write(b)
		return err
	}
	if err := put("kept.json", about); err != nil {
		return err
	}
	for name, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), "anyfs.") {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil {
				return err
			}
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			return put(filepath.Join(name, rel), b)
		})
		if err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), z.Close())
}

// unpack reads an archive into a folder.
func unpack(name, dir string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.Clean("/"+h.Name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, b, 0o600)); err != nil {
			return err
		}
	}
}
