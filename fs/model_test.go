package fs_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount/memfs"
)

var (
	modelSteps = flag.Int("steps", 400, "operations of each run against the model")
	modelRuns  = flag.Int("runs", 12, "runs against the model")
	modelSeed  = flag.Uint64("seed", 1, "first seed of the runs against the model")
)

// vfs is what the home and its model have in common.
type vfs interface {
	Lookup(parent fs.Ino, name string) (fs.Attr, error)
	Getattr(ino fs.Ino) (fs.Attr, error)
	Setattr(ctx context.Context, ino fs.Ino, s fs.SetAttr) (fs.Attr, error)
	ReadDir(dir fs.Ino, off uint64, fn func(fs.Dirent) bool) error
	Mknod(parent fs.Ino, name string, mode, rdev uint32, c fs.Cred) (fs.Attr, error)
	Mkdir(parent fs.Ino, name string, mode uint32, c fs.Cred) (fs.Attr, error)
	Symlink(parent fs.Ino, name, target string, c fs.Cred) (fs.Attr, error)
	Link(ino, parent fs.Ino, name string) (fs.Attr, error)
	Unlink(parent fs.Ino, name string) error
	Rmdir(parent fs.Ino, name string) error
	Rename(parent fs.Ino, name string, newParent fs.Ino, newName string, flags uint32) error
	Readlink(ino fs.Ino) (string, error)
	Read(ctx context.Context, ino fs.Ino, p []byte, off int64) (int, error)
	Write(ctx context.Context, ino fs.Ino, p []byte, off int64, f fs.WriteFlags) (int, error)
	Fallocate(ctx context.Context, ino fs.Ino, mode uint32, off, n int64) error
	CopyRange(ctx context.Context, src fs.Ino, srcOff int64, dst fs.Ino, dstOff, n int64) (int64, error)
	Fsync(ctx context.Context, ino fs.Ino) error
	Getxattr(ino fs.Ino, name string) ([]byte, error)
	Setxattr(ino fs.Ino, name string, value []byte, flags uint32) error
	Listxattr(ino fs.Ino) ([]string, error)
	Removexattr(ino fs.Ino, name string) error
}

var ctx = context.Background()

// walker addresses one of the two by paths, since their numbers differ.
type walker struct {
	v    vfs
	root fs.Ino
}

func (w walker) find(path string) (fs.Attr, error) {
	a, err := w.v.Getattr(w.root)
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		if err != nil {
			return a, err
		}
		if !a.IsDir() {
			return a, fs.ErrNotDir
		}
		a, err = w.v.Lookup(a.Ino, name)
	}
	return a, err
}

func (w walker) parent(path string) (fs.Ino, string, error) {
	i := strings.LastIndexByte(path, '/')
	dir, name := "", path
	if i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	a, err := w.find(dir)
	if err == nil && !a.IsDir() {
		err = fs.ErrNotDir
	}
	return a.Ino, name, err
}

// dump is the whole tree as text.
func (w walker) dump(t *testing.T) string {
	var out []string
	var walk func(dir fs.Ino, path string)
	walk = func(dir fs.Ino, path string) {
		type entry struct {
			name string
			ino  fs.Ino
		}
		var list []entry
		if err := w.v.ReadDir(dir, 0, func(e fs.Dirent) bool {
			list = append(list, entry{e.Name, e.Ino})
			return true
		}); err != nil {
			t.Fatalf("list %s: %v", path, err)
		}
		for _, e := range list {
			a, err := w.v.Lookup(dir, e.name)
			if err != nil {
				t.Fatalf("lookup %s/%s: %v", path, e.name, err)
			}
			line := fmt.Sprintf("%s/%s %o nlink=%d %d:%d", path, e.name, a.Mode, a.Nlink, a.UID, a.GID)
			switch a.Mode & syscall.S_IFMT {
			case syscall.S_IFREG:
				b := make([]byte, a.Size)
				for off := 0; off < len(b); {
					n, err := w.v.Read(ctx, a.Ino, b[off:], int64(off))
					if err != nil || n == 0 {
						t.Fatalf("read %s/%s at %d of %d: %d, %v", path, e.name, off, len(b), n, err)
					}
					off += n
				}
				line += fmt.Sprintf(" size=%d %x", a.Size, sum(b))
			case syscall.S_IFLNK:
				target, err := w.v.Readlink(a.Ino)
				line += fmt.Sprintf(" -> %s %v", target, err)
			}
			names, err := w.v.Listxattr(a.Ino)
			if err != nil {
				t.Fatal(err)
			}
			sort.Strings(names)
			for _, n := range names {
				v, err := w.v.Getxattr(a.Ino, n)
				line += fmt.Sprintf(" %s=%q%v", n, v, err)
			}
			out = append(out, line)
			if a.IsDir() {
				walk(e.ino, path+"/"+e.name)
			}
		}
	}
	walk(w.root, "")
	sort.Strings(out)
	return strings.Join(out, "\n")
}

func sum(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// step does one random operation on both sides and compares what they answer. A script of the run is kept for the report.
func step(r *rand.Rand, a, b walker, largest int) (what string, x, y error) {
	names := []string{"a", "b", "c", "d1", "d1/a", "d1/b", "d1/d2", "d1/d2/a", "d3", "d3/a", "d3/d2"}
	path := func() string { return names[r.IntN(len(names))] }
	cred := fs.Cred{UID: 1000, GID: 1000}
	both := func(text string, fn func(w walker) error) (string, error, error) { return text, fn(a), fn(b) }
	data := func(n int) []byte {
		p := make([]byte, n)
		seed := byte(r.Uint32())
		for i := range p {
			p[i] = seed + byte(i*7+i>>8)
		}
		return p
	}
	size := func() int {
		switch r.IntN(12) {
		case 0:
			return 0
		case 1, 2:
			return 1 + r.IntN(min(200<<10, largest))
		case 3:
			return min(largest, 900<<10+r.IntN(300<<10))
		}
		return 1 + r.IntN(9000)
	}
	p, q := path(), path()
	k := r.IntN(100)
	if k >= 84 && k < 89 && largest < 1<<20 {
		k = 99 // a copy is several writes: only some of them may survive a crash
	}
	switch {
	case k < 12:
		return both("create "+p, func(w walker) error {
			dir, name, err := w.parent(p)
			if err == nil {
				_, err = w.v.Mknod(dir, name, 0100644, 0, cred)
			}
			return err
		})
	case k < 20:
		return both("mkdir "+p, func(w walker) error {
			dir, name, err := w.parent(p)
			if err == nil {
				_, err = w.v.Mkdir(dir, name, 0755, cred)
			}
			return err
		})
	case k < 40:
		d, off, app := data(size()), int64(r.IntN(100<<10)), r.IntN(3) == 0
		if r.IntN(3) == 0 {
			off = 0
		}
		return both(fmt.Sprintf("write %s %d+%d append=%v", p, off, len(d), app), func(w walker) error {
			f, err := w.find(p)
			if err != nil {
				return err
			}
			if len(d) == 0 {
				return nil
			}
			n, err := w.v.Write(ctx, f.Ino, d, off, fs.WriteFlags{Append: app})
			if err == nil && n < len(d) {
				return fmt.Errorf("short write: %d", n)
			}
			return err
		})
	case k < 46:
		n := int64(size())
		return both(fmt.Sprintf("truncate %s %d", p, n), func(w walker) error {
			f, err := w.find(p)
			if err == nil {
				_, err = w.v.Setattr(ctx, f.Ino, fs.SetAttr{Size: &n})
			}
			return err
		})
	case k < 54:
		return both("unlink "+p, func(w walker) error {
			dir, name, err := w.parent(p)
			if err == nil {
				err = w.v.Unlink(dir, name)
			}
			return err
		})
	case k < 58:
		return both("rmdir "+p, func(w walker) error {
			dir, name, err := w.parent(p)
			if err == nil {
				err = w.v.Rmdir(dir, name)
			}
			return err
		})
	case k < 72:
		flags := []uint32{0, 0, 0, fs.RenameNoReplace, fs.RenameExchange}[r.IntN(5)]
		return both(fmt.Sprintf("rename %s %s %d", p, q, flags), func(w walker) error {
			from, name, err := w.parent(p)
			if err != nil {
				return err
			}
			to, newName, err := w.parent(q)
			if err == nil {
				err = w.v.Rename(from, name, to, newName, flags)
			}
			return err
		})
	case k < 76:
		return both(fmt.Sprintf("link %s %s", p, q), func(w walker) error {
			f, err := w.find(p)
			if err != nil {
				return err
			}
			to, name, err := w.parent(q)
			if err == nil {
				_, err = w.v.Link(f.Ino, to, name)
			}
			return err
		})
	case k < 78:
		return both("symlink "+p, func(w walker) error {
			dir, name, err := w.parent(p)
			if err == nil {
				_, err = w.v.Symlink(dir, name, "x/"+q, cred)
			}
			return err
		})
	case k < 84:
		off, n := int64(r.IntN(150<<10)), int64(1+r.IntN(150<<10))
		mode := []uint32{0, fs.FallocKeepSize, fs.FallocKeepSize | fs.FallocPunchHole, fs.FallocZeroRange, fs.FallocZeroRange | fs.FallocKeepSize}[r.IntN(5)]
		return both(fmt.Sprintf("fallocate %s %d+%d mode %x", p, off, n, mode), func(w walker) error {
			f, err := w.find(p)
			if err == nil && f.IsDir() {
				err = fs.ErrIsDir // the kernel does not let it come
			} else if err == nil {
				err = w.v.Fallocate(ctx, f.Ino, mode, off, n)
			}
			return err
		})
	case k < 89:
		so, do, n := int64(r.IntN(100<<10)), int64(r.IntN(100<<10)), int64(r.IntN(200<<10))
		return both(fmt.Sprintf("copy %s+%d %s+%d %d", p, so, q, do, n), func(w walker) error {
			f, err := w.find(p)
			if err != nil {
				return err
			}
			g, err := w.find(q)
			if err != nil {
				return err
			}
			if f.IsDir() || g.IsDir() || p == q || f.Ino == g.Ino || f.Mode&syscall.S_IFMT != syscall.S_IFREG || g.Mode&syscall.S_IFMT != syscall.S_IFREG {
				return fs.ErrInvalid
			}
			_, err = w.v.CopyRange(ctx, f.Ino, so, g.Ino, do, n)
			return err
		})
	case k < 92:
		m := uint32(r.IntN(01000))
		return both(fmt.Sprintf("chmod %s %o", p, m), func(w walker) error {
			f, err := w.find(p)
			if err == nil {
				_, err = w.v.Setattr(ctx, f.Ino, fs.SetAttr{Mode: &m})
			}
			return err
		})
	case k < 94:
		u := uint32(1000 + r.IntN(2))
		return both(fmt.Sprintf("chown %s %d", p, u), func(w walker) error {
			f, err := w.find(p)
			if err == nil {
				_, err = w.v.Setattr(ctx, f.Ino, fs.SetAttr{UID: &u})
			}
			return err
		})
	case k < 98:
		name, value := fmt.Sprintf("user.x%d", r.IntN(3)), data(r.IntN(100))
		flags := uint32(r.IntN(3))
		if r.IntN(3) == 0 {
			return both("removexattr "+p+" "+name, func(w walker) error {
				f, err := w.find(p)
				if err == nil {
					err = w.v.Removexattr(f.Ino, name)
				}
				return err
			})
		}
		return both("setxattr "+p+" "+name, func(w walker) error {
			f, err := w.find(p)
			if err == nil {
				err = w.v.Setxattr(f.Ino, name, value, flags)
			}
			return err
		})
	}
	return both("fsync "+p, func(w walker) error {
		f, err := w.find(p)
		if err == nil {
			err = w.v.Fsync(ctx, f.Ino)
		}
		return err
	})
}

func errnoOf(err error) string {
	var e syscall.Errno
	if err == nil {
		return "ok"
	}
	if errors.As(err, &e) {
		return e.Error()
	}
	return "?" + err.Error()
}

// TestAgainstModel does random operations on a home and on a filesystem in memory, and compares every answer and, from time to
// time, the trees: with publications, checkpoints, orderly restarts and kills between.
func TestAgainstModel(t *testing.T) {
	runs := *modelRuns
	if testing.Short() {
		runs = min(runs, 3)
	}
	for run := range runs {
		seed := *modelSeed + uint64(run)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 99))
			th := fs.NewTestHome(t)
			m := memfs.New(memfs.Options{UID: 1000, GID: 1000})
			a, b := walker{th.Home, th.Root()}, walker{m, fs.RootIno}
			var script []string
			report := func(format string, args ...any) {
				t.Helper()
				from := max(0, len(script)-60)
				t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(script[from:], "\n"))
			}
			restart := func(how string, fn func()) {
				script = append(script, how)
				fn()
				a = walker{th.Home, th.Root()}
			}
			for range *modelSteps {
				switch r.IntN(60) {
				case 0:
					restart("flush", func() {
						if err := th.Flush(ctx); err != nil {
							report("flush: %v", err)
						}
					})
				case 1:
					restart("checkpoint", func() {
						if err := th.Checkpoint(); err != nil {
							report("checkpoint: %v", err)
						}
					})
				case 2:
					restart("reopen", th.Reopen)
				case 3:
					restart("sync, kill", func() {
						if err := th.SyncAll(ctx); err != nil {
							report("sync: %v", err)
						}
						th.Kill()
					})
				case 4:
					restart("age", th.Age)
				}
				what, x, y := step(r, a, b, 1<<21)
				script = append(script, fmt.Sprintf("%s: %s", what, errnoOf(x)))
				if x != nil && y != nil && strings.HasPrefix(what, "rename") {
					continue // of two faults, which one is told first is the kernel's to decide
				}
				if errnoOf(x) != errnoOf(y) {
					report("%s: the home says %v, the model %v", what, x, y)
				}
				if r.IntN(40) == 0 {
					if got, want := a.dump(t), b.dump(t); got != want {
						report("trees differ:\nhome:\n%s\nmodel:\n%s", got, want)
					}
				}
			}
			restart("reopen", th.Reopen)
			if got, want := a.dump(t), b.dump(t); got != want {
				report("trees differ at the end:\nhome:\n%s\nmodel:\n%s", diffLines(got, want), "")
			}
		})
	}
}

// diffLines gives the lines that stand in one text alone.
func diffLines(a, b string) string {
	in := map[string]int{}
	for _, l := range strings.Split(a, "\n") {
		in[l]++
	}
	for _, l := range strings.Split(b, "\n") {
		in[l]--
	}
	var out bytes.Buffer
	for l, n := range in {
		switch {
		case n > 0:
			fmt.Fprintln(&out, "home: ", l)
		case n < 0:
			fmt.Fprintln(&out, "model:", l)
		}
	}
	return out.String()
}
