package integration

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestBlackBox does random operations on the mounts of three devices that come and go from the network, and judges them by what a
// person may expect (after Hughes, Pierce, Arts, Norell: "Mysteries of Dropbox", 2016):
//
//   - at rest, all devices show the same;
//   - each line that was written is there, at its name or in a conflict copy, unless a device that may have had it overwrote, truncated
//     or removed a file of that name;
//   - a name that was removed is there again only if somebody wrote to it, or put something there, of whom the one who removed it did
//     not know for sure.
//
// The daemons stay up; each case has a folder of its own. ANYFS_CASES sets how many there are. A case that fails is made smaller.
func TestBlackBox(t *testing.T) {
	cases := envNumber("ANYFS_CASES", 25)
	setFlag(t, "rapid.checks", fmt.Sprint(cases))
	setFlag(t, "rapid.nofailfile", "true")
	l := NewLAN(t, 3)
	d := NewLANDevices(t, l, nil)
	d.Connected()
	d.Same()
	box := &blackBox{d: d, l: l}
	began := time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		ops := rapid.SliceOfN(genBoxOp, 3, 16).Draw(rt, "ops")
		if box.cases == 0 { // so that there is a conflict, whatever is drawn
			ops = []boxOp{{1, "cut", "", ""}, {2, "cut", "", ""}, {1, "write", "f1", ""}, {2, "write", "f1", ""}}
		}
		box.run(rt, ops)
	})
	t.Logf("%d cases in %v: %v", box.cases, time.Since(began).Round(time.Second), box.counts)
	if box.counts["apart"] == 0 || box.counts["copies"] == 0 {
		t.Error("nothing was done while devices were apart, or nothing conflicted")
	}
	d.Eventually("what was removed stays so", func() error {
		for i, h := range d.All {
			if left, err := os.ReadDir(h.Personal()); err != nil || len(left) > 0 {
				return fmt.Errorf("device %d: %v, %v%s", i, left, err, box.stays(h))
			}
		}
		return nil
	})
	for _, h := range d.All {
		h.Must("verify")
		if log, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log")); err != nil || strings.Contains(string(log), `"level":"ERROR"`) {
			t.Errorf("a log tells of errors, %v: %s", err, h.logTail())
		}
	}
}

// stays says of each file that is left what was done, and by whom, and of its case what the test did.
func (b *blackBox) stays(h *Home) string {
	var said strings.Builder
	_ = filepath.WalkDir(h.Personal(), func(path string, e os.DirEntry, err error) error {
		if err == nil && path != h.Personal() {
			fmt.Fprintf(&said, "\n%s\n%s", path, h.Run("log", path).Stdout)
			said.WriteString(strings.Join(b.logs[e.Name()], "\n"))
		}
		return nil
	})
	return said.String()
}

// setFlag sets a flag for the time of a test.
func setFlag(t *testing.T, name, value string) {
	t.Helper()
	old := flag.Lookup(name).Value.String()
	check(t, flag.Set(name, value))
	t.Cleanup(func() { _ = flag.Set(name, old) })
}

// boxOp is one operation of a case.
type boxOp struct {
	Device int
	Kind   string
	A, B   string
}

func (o boxOp) String() string {
	return strings.TrimRight(fmt.Sprintf("%d: %s %s %s", o.Device, o.Kind, o.A, o.B), " ")
}

var (
	boxFiles = []string{"f1", "f2", "d1/f3", "d1/f4", "d2/f5", "d2/f6"}
	boxDirs  = []string{"d1", "d2"}
	boxKinds = []string{"write", "write", "append", "append", "truncate", "replace", "replace", "unlink", "unlink", "rename", "rename", "link",
		"mkdir", "rmdir", "rename dir", "chmod", "setxattr", "cut", "cut", "cut", "join", "wait", "rest"}
)

var genBoxOp = rapid.Custom(func(t *rapid.T) boxOp {
	o := boxOp{Device: rapid.IntRange(0, 2).Draw(t, "device"), Kind: rapid.SampledFrom(boxKinds).Draw(t, "kind")}
	file := func(label string) string { return rapid.SampledFrom(boxFiles).Draw(t, label) }
	switch o.Kind {
	case "rename", "link":
		o.A, o.B = file("a"), file("b")
	case "mkdir", "rmdir":
		o.A = rapid.SampledFrom(boxDirs).Draw(t, "a")
	case "rename dir":
		o.A, o.B = "d1", "d2"
		if rapid.Bool().Draw(t, "back") {
			o.A, o.B = "d2", "d1"
		}
	case "cut", "join", "wait", "rest":
	default:
		o.A = file("a")
	}
	return o
})

// blackBox is the devices, and counts of what was done.
type blackBox struct {
	d      *Devices
	l      *LAN
	cases  int
	counts map[string]int
	logs   map[string][]string // of each case what was done, by the name of its folder
}

// boxValue is a line that was written.
type boxValue struct {
	text string
	name string  // of the file that it was written to
	may  [3]bool // the devices that may have it
}

// boxEvent is something that a name may be there for.
type boxEvent struct {
	name    string
	known   [3]bool // to these for sure
	removed bool    // by who knew of it
}

// boxLoss is an operation with which a device may have taken away what it had.
type boxLoss struct {
	name string
	had  map[int]bool // values
}

// boxCase is one case.
type boxCase struct {
	*blackBox
	t      *rapid.T
	dir    string
	apart  [3]bool
	values []boxValue
	events []boxEvent
	losses []boxLoss
	groups map[string]string // names between which files were moved or linked, by one of them
	log    []string
}

func (b *blackBox) run(t *rapid.T, ops []boxOp) {
	if b.counts == nil {
		b.counts, b.logs = map[string]int{}, map[string][]string{}
	}
	b.cases++
	c := &boxCase{blackBox: b, t: t, dir: fmt.Sprintf("case %d", b.cases), groups: map[string]string{}}
	b.l.SetAll(Cable{})
	defer b.l.SetAll(Cable{})
	defer func() {
		if b.logs[c.dir] = c.log; t.Failed() {
			t.Logf("%s:\n%s", c.dir, strings.Join(c.log, "\n"))
		}
	}()
	for _, dir := range append([]string{""}, boxDirs...) {
		if err := os.Mkdir(c.path(0, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"f1", "d1/f3", "d2/f5"} {
		c.do(boxOp{0, "write", f, ""})
	}
	c.event(0, "d1")
	c.event(0, "d2")
	c.rest()
	for _, o := range ops {
		c.do(o)
	}
	c.rest()
	c.judge()
	// A device may have ended a conflict, as the others did, after it made its mark: what it made for that may be on its way to one that shows the same. It goes with
	// what is removed here.
	var err error
	for range 20 {
		if err = os.RemoveAll(c.path(0, "")); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("removing the case: %v", err)
}

func (c *boxCase) path(device int, rel string) string {
	return c.d.All[device].Personal(c.dir, rel)
}

// harmless are what an operation may be answered with: what it is about is not there, or something else is.
var harmless = []error{unix.ENOENT, unix.EEXIST, unix.ENOTDIR, unix.EISDIR, unix.ENOTEMPTY}

func (c *boxCase) do(o boxOp) {
	began := time.Now()
	err := c.try(o)
	c.log = append(c.log, fmt.Sprintf("%v %v: %v", began.Format("05.000"), o, err))
	if err != nil && !slices.ContainsFunc(harmless, func(h error) bool { return errors.Is(err, h) }) {
		c.t.Fatalf("%v: %v", o, err)
	}
	c.counts[o.Kind]++
	if err == nil && c.apart[o.Device] {
		c.counts["apart"]++
	}
	c.spread()
}

func (c *boxCase) try(o boxOp) error {
	a, b := c.path(o.Device, o.A), c.path(o.Device, o.B)
	name, to := filepath.Base(o.A), filepath.Base(o.B)
	switch o.Kind {
	case "write", "append", "replace":
		v := fmt.Sprintf("<%d by %d>\n", len(c.values), o.Device)
		flags, at := os.O_CREATE|os.O_WRONLY|os.O_TRUNC, a
		switch o.Kind {
		case "append":
			flags = os.O_CREATE | os.O_WRONLY | os.O_APPEND
		case "replace":
			at += fmt.Sprintf(".tmp%d", len(c.values))
		}
		f, err := os.OpenFile(at, flags, 0o644)
		if err != nil {
			return err
		}
		_, err = f.WriteString(v)
		if err = errors.Join(err, f.Close()); err == nil && o.Kind == "replace" {
			if err = os.Rename(at, a); err != nil {
				return errors.Join(err, os.Remove(at))
			}
		}
		if err != nil {
			return err
		}
		if o.Kind != "append" {
			c.loss(o.Device, name)
		}
		c.values = append(c.values, boxValue{text: v, name: name})
		c.values[len(c.values)-1].may[o.Device] = true
		c.event(o.Device, name)
		c.event(o.Device, filepath.Dir(o.A))
	case "truncate":
		if err := os.Truncate(a, 0); err != nil {
			return err
		}
		c.loss(o.Device, name)
		c.event(o.Device, name)
		c.event(o.Device, filepath.Dir(o.A))
	case "unlink":
		if err := unix.Unlink(a); err != nil {
			return err
		}
		c.loss(o.Device, name)
		c.remove(o.Device, name)
	case "rename", "rename dir":
		if o.A == o.B {
			return nil
		}
		if err := os.Rename(a, b); err != nil {
			return err
		}
		c.join(name, to)
		c.loss(o.Device, to)
		c.remove(o.Device, name)
		c.event(o.Device, to)
		c.event(o.Device, filepath.Dir(o.B))
	case "link":
		if err := os.Link(a, b); err != nil {
			return err
		}
		c.join(name, to)
		c.event(o.Device, to)
		c.event(o.Device, filepath.Dir(o.B))
	case "mkdir":
		if err := os.Mkdir(a, 0o755); err != nil {
			return err
		}
		c.event(o.Device, name)
	case "rmdir":
		if err := unix.Rmdir(a); err != nil {
			return err
		}
		c.remove(o.Device, name)
	case "chmod":
		return os.Chmod(a, 0o600|os.FileMode(o.Device))
	case "setxattr":
		return unix.Setxattr(a, "user.by", fmt.Appendf(nil, "%d", len(c.log)), 0)
	case "cut":
		c.l.Hosts[o.Device].Set(Cable{Down: true})
		c.apart[o.Device] = true
	case "join":
		c.l.Hosts[o.Device].Set(Cable{})
		c.apart[o.Device] = false
	case "wait":
		time.Sleep(60 * time.Millisecond)
	case "rest":
		c.rest()
	}
	return nil
}

// spread notes what devices that are connected may have of each other.
func (c *boxCase) spread() {
	for i := range c.values {
		v := &c.values[i]
		has := false
		for k := range v.may {
			has = has || v.may[k] && !c.apart[k]
		}
		for k := range v.may {
			v.may[k] = v.may[k] || has && !c.apart[k]
		}
	}
}

func (c *boxCase) loss(device int, name string) {
	had := map[int]bool{}
	for i := range c.values {
		if c.values[i].may[device] {
			had[i] = true
		}
	}
	c.losses = append(c.losses, boxLoss{name, had})
}

func (c *boxCase) event(device int, name string) {
	e := boxEvent{name: name}
	e.known[device] = true
	c.events = append(c.events, e)
}

func (c *boxCase) remove(device int, name string) {
	// Where the device has the name elsewhere too, it is not said which one went.
	for _, p := range boxFiles {
		for _, dir := range []string{"", "d1", "d2"} {
			if filepath.Base(p) != name {
				continue
			}
			if _, err := os.Lstat(c.path(device, filepath.Join(dir, name))); err == nil {
				return
			}
		}
	}
	for i := range c.events {
		if e := &c.events[i]; e.name == name && e.known[device] {
			e.removed = true
		}
	}
}

// join notes that what is done to one name may show at another.
func (c *boxCase) join(a, b string) {
	a, b = c.group(a), c.group(b)
	if a != b {
		c.groups[a] = b
	}
}

func (c *boxCase) group(name string) string {
	for c.groups[name] != "" {
		name = c.groups[name]
	}
	return name
}

// rest connects all, and waits until they show the same and go on doing so.
func (c *boxCase) rest() {
	c.l.SetAll(Cable{})
	c.apart = [3]bool{}
	c.spread()
	// What is published before a mark comes before it everywhere.
	for _, h := range c.d.All {
		if r := h.Run("status", "--wait", "--timeout", "30s"); r.Code != 0 {
			c.t.Fatalf("status --wait: %+v", r)
		}
	}
	mark := fmt.Sprintf("mark %d", len(c.log))
	for i := range c.d.All {
		if err := os.Mkdir(c.path(i, fmt.Sprintf("%s %d", mark, i)), 0o755); err != nil {
			c.t.Fatal(err)
		}
	}
	var problem string
	same := 0
	for end := time.Now().Add(30 * time.Second); same < 2; time.Sleep(15 * time.Millisecond) {
		if time.Now().After(end) {
			for i, h := range c.d.All {
				c.t.Logf("device %d: %s", i, h.Run("status").Stdout)
			}
			c.t.Fatalf("the devices do not come to rest: %s", problem)
		}
		if problem = c.unequal(mark); problem == "" {
			same++
		} else {
			same = 0
		}
	}
	for i := range c.d.All {
		if err := os.Remove(c.path(0, fmt.Sprintf("%s %d", mark, i))); err != nil {
			c.t.Fatal(err)
		}
	}
	for i := range c.events {
		c.events[i].known = [3]bool{true, true, true}
	}
}

// unequal says in what the devices differ, or that one has not heard of all.
func (c *boxCase) unequal(mark string) string {
	var first Tree
	for i := range c.d.All {
		tree, err := readTree(c.path(i, ""), TreeOptions{})
		if err != nil {
			return err.Error()
		}
		for k := range c.d.All {
			if _, ok := tree[fmt.Sprintf("%s %d", mark, k)]; !ok {
				return fmt.Sprintf("device %d has not heard of device %d", i, k)
			}
		}
		if i == 0 {
			first = tree
		} else if diff := DiffTrees(first, tree); len(diff) > 0 {
			return fmt.Sprintf("device %d differs from device 0:\n  %s", i, strings.Join(diff, "\n  "))
		}
	}
	return ""
}

// judge holds what the devices show at rest against what was done.
func (c *boxCase) judge() {
	whole, names := "", map[string]bool{}
	if err := filepath.WalkDir(c.path(0, ""), func(path string, e os.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, syscall.ENOENT) && strings.Contains(path, "mark ") {
				return nil
			}
			return err
		}
		if name := e.Name(); strings.Contains(name, " (conflict") {
			c.counts["copies"]++
		} else if path != c.path(0, "") {
			names[name] = true
		}
		if e.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			whole += string(b)
		}
		return nil
	}); err != nil {
		c.t.Fatal(err)
	}
	for i, v := range c.values {
		if strings.Contains(whole, v.text) {
			continue
		}
		if !slices.ContainsFunc(c.losses, func(l boxLoss) bool { return l.had[i] && c.group(l.name) == c.group(v.name) }) {
			c.t.Errorf("%q, written to %s, is lost: nobody who may have had it took it away", v.text, v.name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if strings.HasPrefix(name, "mark ") {
			continue
		}
		if !slices.ContainsFunc(c.events, func(e boxEvent) bool { return !e.removed && c.group(e.name) == c.group(name) }) {
			c.t.Errorf("%s is there, though who removed it knew all that it could be there for", name)
		}
	}
	if c.t.Failed() {
		c.t.Logf("the tree: %v\ncontents: %q", slices.Sorted(maps.Keys(names)), whole)
	}
}
