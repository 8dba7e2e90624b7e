package sim

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/wire"
)

// Names that files and directories have: few, so that devices mean the same ones.
var (
	files = []string{"f1", "f2", "d1/f3", "d1/f4", "d2/f5", "d2/f6"}
	dirs  = []string{"d1", "d2"}
)

// harmless are what an operation may be answered with: what it is about is not there, or something else is.
var harmless = []error{fs.ErrNotExist, fs.ErrExist, fs.ErrNotDir, fs.ErrIsDir, fs.ErrNotEmpty, fs.ErrStale, fs.ErrInvalid, fs.ErrPerm}

// step does one thing.
func (w *World) step() {
	n := w.nodes[w.rnd.IntN(len(w.nodes))]
	switch k := w.rnd.IntN(100); {
	case k < 45:
		w.operate(n)
	case k < 60:
		w.carry()
	case k < 68:
		n.say("arrives", n.home.Arrive(ctx))
	case k < 76:
		n.publish()
	case k < 79:
		n.say("syncs", n.home.SyncAll(ctx))
		n.synced = len(w.values)
	case k < 82:
		w.logf("device %d settles", n.i)
		n.pump()
		n.settle()
	case k < 90:
		l := w.links[w.rnd.IntN(len(w.links))]
		if l.up && w.rnd.IntN(2) == 0 {
			w.logf("devices %d and %d part", l.a.i, l.b.i)
			l.down()
		} else if !l.up {
			w.logf("devices %d and %d meet", l.a.i, l.b.i)
			l.connect()
			l.a.pump()
			l.a.settle()
			l.b.pump()
			l.b.settle()
		}
	case k < 95:
		w.wander()
	case k < 97:
		n.skew = time.Duration(w.rnd.Int64N(int64(20*365*24*time.Hour))) - 10*365*24*time.Hour
		w.logf("the clock of device %d is %v off", n.i, n.skew)
		w.result.Faults.Clocks++
	case k < 98:
		w.logf("device %d starts anew", n.i)
		for _, l := range w.links {
			if l.other(n) != nil {
				l.down()
			}
		}
		must(n.home.Close())
		n.synced = len(w.values)
		n.close()
		n.start()
		n.attach()
	case k < 99:
		w.logf("device %d is killed", n.i)
		n.kill()
	default:
		w.logf("device %d loses its power", n.i)
		n.power()
	}
}

func (n *node) say(what string, err error) {
	n.w.logf("device %d %s", n.i, what)
	must(err)
}

func (n *node) publish() {
	n.say("publishes", n.home.Flush(ctx))
	n.synced = len(n.w.values)
	n.pump()
}

// carry hands over some messages of a connection; others wait.
func (w *World) carry() {
	var ways []*way
	for _, l := range w.links {
		ways = append(ways, l.ways...)
	}
	if len(ways) == 0 {
		return
	}
	chosen := ways[w.rnd.IntN(len(ways))]
	most := 1 + w.rnd.IntN(8)
	for _, y := range ways {
		if y != chosen && len(y.carried) > 0 {
			y.skipped = true
		}
	}
	w.logf("up to %d messages from device %d to %d", most, chosen.from.i, chosen.to.i)
	chosen.deliver(most)
	chosen.fill(w.rnd.IntN(4)) // and what is on the way is lost, if it ends
	if w.rnd.IntN(2) == 0 {
		chosen.to.settle()
	}
}

// wander has a batch come on another way than a connection: copied, early, late, twice or never.
func (w *World) wander() {
	if len(w.stray) < 4 || w.rnd.IntN(2) == 0 {
		from := w.nodes[w.rnd.IntN(len(w.nodes))]
		s := from.spaces[w.rnd.IntN(len(from.spaces))]
		kind, g := wire.Files, s.Files
		if w.rnd.IntN(4) == 0 {
			kind, g = wire.ACL, s.ACL
		}
		tips := g.Tips()
		if len(tips) == 0 {
			return
		}
		// Only what is durable may leave a device.
		must(s.Durable())
		tip := tips[w.rnd.IntN(len(tips))]
		w.stray = append(w.stray, stray{s.ID, int(kind), from.i, w.mayList(from.i), must2(g.Frame(tip.Batch))})
		if len(w.stray) > 32 {
			w.stray = w.stray[1:]
		}
		return
	}
	x := w.stray[w.rnd.IntN(len(w.stray))]
	to := w.nodes[w.rnd.IntN(len(w.nodes))]
	s := to.space(x.space)
	if s == nil {
		return
	}
	g := s.Files
	if x.kind == int(wire.ACL) {
		g = s.ACL
	}
	w.logf("a batch of device %d strays to %d", x.from, to.i)
	for _, i := range x.may {
		w.values[i].may[to.i] = true
	}
	// It may be what others wait for.
	r, err := g.Ingest(x.frame)
	must(err)
	switch r.Status {
	case dag.Pending:
		w.result.Faults.Early++
	case dag.Accepted:
		if x.kind == int(wire.ACL) {
			s.Grown()
		}
	default:
		w.result.Faults.Duplicated++
	}
	w.sum.Write(x.frame)
	to.pump()
}

// operate does something to files.
func (w *World) operate(n *node) {
	file := func() string { return files[w.rnd.IntN(len(files))] }
	dir := func() string { return dirs[w.rnd.IntN(len(dirs))] }
	var what string
	var err error
	k := w.rnd.IntN(20)
	if w.seed%8 >= 4 && w.rnd.IntN(3) == 0 {
		// In half of the seeds people do something to the conflict copies that they see.
		if c := must2(n.home.Conflicts("Personal")); len(c) > 0 {
			what, err = n.deal(&c[w.rnd.IntN(len(c))], file())
			k = -1
		}
	}
	switch k {
	case -1:
	case 0, 1, 2:
		f := file()
		long := 0
		if w.rnd.IntN(8) == 0 {
			long = 9<<10 + w.rnd.IntN(20<<10)
		}
		what, err = "writes "+f, n.write(f, long, false)
	case 3, 4, 5:
		f := file()
		what, err = "appends to "+f, n.write(f, 0, true)
	case 6:
		f := file()
		what, err = "truncates "+f, n.truncate(f)
	case 7, 8:
		f := file()
		what, err = "replaces "+f, n.replace(f)
	case 9, 10:
		f := file()
		what, err = "unlinks "+f, n.unlink(f)
	case 11, 12:
		a, b := file(), file()
		what, err = "renames "+a+" to "+b, n.rename(a, b)
	case 13:
		a, b := file(), file()
		what, err = "links "+a+" as "+b, n.link(a, b)
	case 14:
		d := dir()
		what, err = "makes "+d, n.mkdir("", d)
	case 15:
		d := dir()
		what, err = "removes "+d, n.home.Rmdir(n.root, d)
	case 16:
		a, b := dirs[0], dirs[1]
		if w.rnd.IntN(2) == 0 {
			a, b = b, a
		}
		what, err = "renames "+a+" to "+b, n.home.Rename(n.root, a, n.root, b, 0)
	case 17:
		f := file()
		what, err = "chmods "+f, n.chmod(f)
	case 18:
		f := file()
		what, err = "sets an attribute of "+f, n.setxattr(f)
	default:
		what, err = n.program(file())
	}
	w.logf("device %d %s: %v", n.i, what, err)
	if err == nil {
		w.result.Done++
	} else if !slices.ContainsFunc(harmless, func(h error) bool { return errors.Is(err, h) }) {
		failf("device %d %s: %w", n.i, what, err)
	}
}

// deal removes, renames, resolves or writes to a conflict copy.
func (n *node) deal(c *fs.Conflict, to string) (what string, err error) {
	rel := func(p string) string { return strings.TrimPrefix(p, "Personal/") }
	name := rel(c.Path)
	stem, _, _ := strings.Cut(path.Base(name), " (conflict ")
	n.w.join(stem, path.Base(name))
	n.w.join(stem, path.Base(c.Original))
	switch k := n.w.rnd.IntN(6); k {
	case 0, 1:
		return "unlinks " + name, n.unlink(name)
	case 2:
		return "renames " + name + " to " + to, n.rename(name, to)
	case 3:
		return "writes " + name, n.write(name, 0, true)
	default:
		n.lose(stem)
		keep := fs.Keep(n.w.rnd.IntN(3))
		if r, err := n.home.ResolveConflict(c.Path, keep); err == nil {
			for _, to := range append(r.Renamed, r.Path) {
				n.w.join(stem, path.Base(to))
			}
		} else if !errors.Is(err, fs.ErrNoConflict) && !errors.Is(err, fs.ErrFolder) && !errors.Is(err, fs.ErrSeveral) {
			return "resolves " + name, err
		}
		return fmt.Sprintf("resolves %s by %d", name, keep), nil
	}
}

// parent finds the directory of a file.
func (n *node) parent(name string) (dir fs.Ino, base string, err error) {
	d, base := path.Split(name)
	dir = n.root
	if d != "" {
		a, err := n.home.Lookup(n.root, strings.TrimSuffix(d, "/"))
		if err != nil {
			return 0, "", err
		}
		if a.Mode&0o170000 != 0o040000 {
			return 0, "", fs.ErrNotDir
		}
		dir = handle(&a)
	}
	return dir, base, nil
}

func (n *node) find(name string) (fs.Ino, error) {
	dir, base, err := n.parent(name)
	if err != nil {
		return 0, err
	}
	a, err := n.home.Lookup(dir, base)
	if err != nil {
		return 0, err
	}
	if a.Mode&0o170000 != 0o100000 {
		return 0, fs.ErrIsDir
	}
	return handle(&a), nil
}

var cred = fs.Cred{UID: 1000, GID: 1000}

// value notes a line that is written.
func (n *node) value(name string, long int) []byte {
	w := n.w
	v := value{text: fmt.Sprintf("<%d by %d>", len(w.values), n.i), name: path.Base(name), node: n.i, may: map[int]bool{n.i: true}}
	w.values = append(w.values, v)
	text := []byte(v.text + "\n")
	if long > 0 {
		text = append(text, bytes.Repeat(fmt.Appendf(nil, "%d ", w.rnd.IntN(1<<30)), long/10)...)
	}
	return text
}

func (n *node) lose(name string) {
	n.w.losses = append(n.w.losses, loss{path.Base(name), n.w.mayBe(n.i)})
}

func (n *node) put(ino fs.Ino, b []byte, off int64) error {
	for len(b) > 0 {
		k, err := n.home.Write(ctx, ino, b, off, fs.WriteFlags{})
		if err != nil {
			return err
		}
		b, off = b[k:], off+int64(k)
	}
	return nil
}

// write writes to a file, which it makes where it is not there.
func (n *node) write(name string, long int, add bool) error {
	dir, base, err := n.parent(name)
	if err != nil {
		return err
	}
	ino, err := n.find(name)
	if errors.Is(err, fs.ErrNotExist) {
		var a fs.Attr
		if a, err = n.home.Mknod(dir, base, 0o100644, 0, cred); err == nil {
			ino = handle(&a)
		}
	}
	if err != nil {
		return err
	}
	off := int64(0)
	if add {
		a, err := n.home.Getattr(ino)
		if err != nil {
			return err
		}
		off = a.Size
	} else {
		zero := int64(0)
		n.lose(name)
		if _, err := n.home.Setattr(ctx, ino, fs.SetAttr{Size: &zero}); err != nil {
			return err
		}
	}
	return n.put(ino, n.value(name, long), off)
}

func (n *node) truncate(name string) error {
	ino, err := n.find(name)
	if err != nil {
		return err
	}
	n.lose(name)
	zero := int64(0)
	_, err = n.home.Setattr(ctx, ino, fs.SetAttr{Size: &zero})
	return err
}

func (n *node) replace(name string) error {
	dir, base, err := n.parent(name)
	if err != nil {
		return err
	}
	tmp := fmt.Sprintf(".tmp%d", len(n.w.values))
	a, err := n.home.Mknod(dir, tmp, 0o100644, 0, cred)
	if err != nil {
		return err
	}
	if to, err := n.home.Lookup(dir, base); err == nil && to.Mode&0o170000 == 0o040000 {
		return errors.Join(fs.ErrIsDir, n.home.Unlink(dir, tmp))
	}
	text := n.value(name, 0)
	if err := n.put(handle(&a), text, 0); err != nil {
		return err
	}
	n.lose(name) // what was there, and not what has just been written
	delete(n.w.losses[len(n.w.losses)-1].had, len(n.w.values)-1)
	return n.home.Rename(dir, tmp, dir, base, 0)
}

func (n *node) unlink(name string) error {
	dir, base, err := n.parent(name)
	if err != nil {
		return err
	}
	n.lose(name)
	return n.home.Unlink(dir, base)
}

func (n *node) rename(a, b string) error {
	from, old, err := n.parent(a)
	if err != nil {
		return err
	}
	to, name, err := n.parent(b)
	if err != nil || a == b {
		return err
	}
	n.lose(b)
	if err := n.home.Rename(from, old, to, name, 0); err != nil {
		return err
	}
	n.w.join(path.Base(a), path.Base(b))
	return nil
}

func (n *node) link(a, b string) error {
	ino, err := n.find(a)
	if err != nil {
		return err
	}
	to, name, err := n.parent(b)
	if err != nil {
		return err
	}
	if _, err := n.home.Link(ino, to, name); err != nil {
		return err
	}
	n.w.join(path.Base(a), path.Base(b))
	return nil
}

func (n *node) mkdir(at, name string) error {
	_, err := n.home.Mkdir(n.root, path.Join(at, name), 0o755, cred)
	return err
}

func (n *node) chmod(name string) error {
	ino, err := n.find(name)
	if err != nil {
		return err
	}
	mode := uint32(0o600 | n.w.rnd.IntN(64))
	_, err = n.home.Setattr(ctx, ino, fs.SetAttr{Mode: &mode})
	return err
}

func (n *node) setxattr(name string) error {
	ino, err := n.find(name)
	if err != nil {
		return err
	}
	return n.home.Setxattr(ino, "user.by", fmt.Appendf(nil, "%d %d", n.i, n.w.rnd.IntN(100)), 0)
}

// program opens a file, writes through one that it has open, or closes one.
func (n *node) program(name string) (string, error) {
	if len(n.open) == 0 || len(n.open) < 3 && n.w.rnd.IntN(3) == 0 {
		ino, err := n.find(name)
		if err == nil {
			n.home.Ref(ino)
			n.open = append(n.open, openFile{ino, name})
		}
		return "opens " + name, err
	}
	k := n.w.rnd.IntN(len(n.open))
	o := n.open[k]
	if n.w.rnd.IntN(3) == 0 {
		n.home.Unref(o.ino)
		n.open = slices.Delete(n.open, k, k+1)
		return "closes " + o.name, nil
	}
	a, err := n.home.Getattr(o.ino)
	if err != nil {
		return "looks at " + o.name, err
	}
	if a.Nlink == 0 {
		return "leaves the removed " + o.name, nil
	}
	return "appends to the open " + o.name, n.put(o.ino, n.value(o.name, 0), a.Size)
}
