package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const ext4Magic = 0xef53

// localFolder gives a folder of an ext4 that is mounted as ours is: nosuid and nodev.
func localFolder(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		without(t, "root's rights, which this test needs")
	}
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755))
	mounted := func() { t.Cleanup(func() { detach(dir) }) }
	var st unix.Statfs_t
	check(t, unix.Statfs(dir, &st))
	if st.Type != ext4Magic || !settledClock(dir) {
		Need(t, "mkfs.ext4", "mount")
		img := filepath.Join(t.TempDir(), "ext4")
		check(t, os.WriteFile(img, nil, 0o600), os.Truncate(img, 256<<20))
		Sh(t, "/", "mkfs.ext4 -q -I 256 "+img)
		if r, err := run(shell("/", "mount -o loop,nosuid,nodev "+img+" "+dir)); err != nil || r.Code != 0 {
			without(t, fmt.Sprintf("an ext4 to compare with: %v %s", err, r.Stderr))
		}
		mounted()
		return dir
	}
	check(t, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	mounted()
	check(t, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV, ""))
	return dir
}

// begin starts an actor in each of two folders.
func (d *differ) begin(t *testing.T, dirs [2]string) {
	t.Helper()
	for i, dir := range dirs {
		a, err := newActor(dir)
		check(t, err)
		d.sides[i] = a
	}
}

// end ends them, so that the mount can go.
func (d *differ) end() {
	for i, a := range d.sides {
		if a != nil {
			a.close()
		}
		d.sides[i] = nil
	}
}

// openToOthers mounts the home so that other users can use it, with opt.
func openToOthers(t *testing.T, h *Home, opt string) {
	t.Helper()
	NeedFUSE(t)
	check(t, os.Chmod(filepath.Dir(h.Dir), 0o755), os.Chmod(filepath.Dir(filepath.Dir(h.Dir)), 0o755))
	h.Mount("-o", "allow_other"+opt)
}

// TestStrangersChown holds that a chown which changes nothing, and which the kernel therefore lets anybody do, takes neither suid
// nor sgid from the file of another.
func TestStrangersChown(t *testing.T) {
	if os.Geteuid() != 0 {
		without(t, "root's rights, which this test needs")
	}
	h := NewHome(t)
	openToOthers(t, h, "")
	check(t, os.Chmod(h.Personal(), 0o777))
	a, err := newActor(h.Personal())
	check(t, err)
	defer a.close()
	mode := func() uint32 {
		var st unix.Stat_t
		check(t, unix.Stat(h.Personal("f"), &st))
		return st.Mode & 0o7777
	}
	for _, c := range []struct {
		who  cred
		want uint32
	}{{cred{65534, 65534, nil}, 0o6755}, {cred{65532, 65532, nil}, 0o755}} {
		check(t, os.WriteFile(h.Personal("f"), nil, 0o644), os.Chown(h.Personal("f"), 65532, 0), unix.Chmod(h.Personal("f"), 0o6755))
		a.as(c.who, func() { _ = unix.Chown("f", -1, -1) })
		if got := mode(); got != c.want {
			t.Errorf("after a chown by %v the mode is %o, want %o", c.who, got, c.want)
		}
	}
}

// TestReadOnlySameAsExt4 does random calls on folders that are mounted to read only.
func TestReadOnlySameAsExt4(t *testing.T) {
	local := localFolder(t)
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	t.Logf("ANYFS_SEED=%d", seed)
	h := NewHome(t)
	openToOthers(t, h, "")
	dirs := [2]string{h.Personal("differ"), local + "/differ"}
	for _, dir := range dirs {
		check(t, os.Mkdir(dir, 0o777))
	}
	d := newDiffer()
	d.begin(t, dirs)
	defer d.end()
	c := &caller{rnd: rand.New(rand.NewPCG(seed, 0)), creds: creds}
	if _, diff := d.play(1000, func(i int) *call {
		if i%8 == 0 {
			c.know(d.sides[1])
		}
		return c.next()
	}); diff != "" {
		t.Fatalf("ANYFS_SEED=%d: %s", seed, diff)
	}
	d.end()
	h.Unmount()
	openToOthers(t, h, ",ro")
	check(t, unix.Mount("", local, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, ""))
	clear(d.outcomes)
	d.begin(t, dirs)
	// A bind mount refuses after permissions were checked, and a whole filesystem before: root sees no difference.
	c.creds = []cred{root}
	for _, a := range d.sides {
		a.do(func() { check(t, unix.Chdir("1/2/3/4/5/6/7/8/9")) })
	}
	for i := range 3000 {
		if i%50 == 0 {
			c.know(d.sides[1])
		}
		k := c.next()
		for strings.HasPrefix(k.text, "access") { // it may ask for what not even root may
			k = c.next()
		}
		if diff := d.compare(k); diff != "" {
			t.Errorf("ANYFS_SEED=%d: %v: %s", seed, k, diff)
		}
	}
	readOnly := 0
	for _, results := range d.outcomes {
		readOnly += results["EROFS"]
	}
	if readOnly == 0 {
		t.Error("nothing failed with EROFS")
	}
	t.Logf("%d of 3000 calls failed with EROFS", readOnly)
}

// TestSameAsExt4 does random calls of several users on the mount and on an ext4, and compares what comes of each, and the trees
// in the end; then again after unmount and mount. ANYFS_CALLS sets their number, ANYFS_SEED repeats a run. What differs is
// made smaller before it is shown.
func TestSameAsExt4(t *testing.T) {
	local := localFolder(t)
	seed := envNumber("ANYFS_SEED", uint64(time.Now().UnixNano()))
	total := int(envNumber("ANYFS_CALLS", 20_000))
	t.Logf("ANYFS_SEED=%d", seed)
	h := NewHome(t)
	openToOthers(t, h, "")
	here := h.Personal("differ")
	dirs := [2]string{here, local + "/differ"}
	for _, dir := range dirs {
		check(t, os.Mkdir(dir, 0o777))
	}
	if !settledClock(local) {
		without(t, "times that are fine enough to compare, on the local filesystem")
	}
	d := newDiffer()
	d.begin(t, dirs)
	defer d.end()
	c := &caller{rnd: rand.New(rand.NewPCG(seed, 0)), creds: creds}
	failed := map[string]int{}
	const run = 500 // then both begin anew, before what is there hides what is not
	for done := 0; done < total; done += run {
		calls, diff := d.play(run, func(i int) *call {
			if i%8 == 0 {
				c.know(d.sides[1])
			}
			return c.next()
		})
		if diff != "" {
			few, smaller := d.shrink(calls)
			if smaller == "" {
				few, smaller = calls, diff+"(and it does not come again)"
			}
			var text []string
			for _, c := range few {
				text = append(text, c.String())
			}
			failed[smaller]++
			t.Errorf("ANYFS_SEED=%d, after %d calls: after\n%s\n%s", seed, done, strings.Join(text, "\n"), smaller)
			if len(failed) >= 5 {
				t.FailNow()
			}
			continue
		}
		if c.chance(20) {
			d.end()
			before := listAll(here)
			h.Unmount()
			h.Mount("-o", "allow_other")
			if after := listAll(here); strings.Join(before, "\n") != strings.Join(after, "\n") {
				t.Fatalf("ANYFS_SEED=%d: unmount and mount changed\n%s\nto\n%s", seed, strings.Join(missing(before, after), "\n"),
					strings.Join(missing(after, before), "\n"))
			}
			d.begin(t, dirs)
		}
	}
	calls, successes, errnos := 0, 0, map[string]bool{}
	for name, results := range d.outcomes {
		if results[""] == 0 {
			t.Errorf("no %s succeeded", name)
		}
		for errno, n := range results {
			calls += n
			if errno == "" {
				successes += n
			} else {
				errnos[name+" "+errno] = true
			}
		}
	}
	t.Logf("%d calls of %d kinds, no difference; %d succeeded, the others failed in %d ways: %v", calls, len(d.outcomes), successes, len(errnos), d.outcomes)
}
