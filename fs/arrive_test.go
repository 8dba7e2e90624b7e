package fs

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
)

// devices are the homes of one account, that exchange what they have when they are told to.
type devices struct {
	t   testing.TB
	all []*testHome
}

// newDevices makes n homes, each with the derived space Personal.
func newDevices(t testing.TB, n int) *devices {
	t.Helper()
	d := &devices{t: t, all: []*testHome{newTestHome(t)}}
	for len(d.all) < n {
		o := d.all[0].another(d.all[0].keys.Account)
		must2(o.CreatePersonal())
		o.find()
		d.all = append(d.all, o)
	}
	return d
}

// send hands b what a has of the space Personal, and b takes it in.
func (d *devices) send(a, b *testHome) {
	d.t.Helper()
	d.sendSpace(must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName)))
	d.sendSpace(a.home, b.home)
}

func (d *devices) sendSpace(from, to *space) {
	d.t.Helper()
	ctx := context.Background()
	must := from.h.must0(d.t)
	from.checkNames(d.t)
	must(from.publishAll(ctx))
	must(from.acl.List().Export(func(f []byte) error { return to.acl.List().Import(f) }))
	_, err := to.graph.Rejudge(nil)
	must(err)
	to.takes(d.t, from.lackedBy(d.t, to))
	must(to.arrive(ctx))
}

// lackedBy gives the frames of files that are here and not there.
func (s *space) lackedBy(t testing.TB, to *space) (frames [][]byte) {
	t.Helper()
	var have []dag.ID
	for _, tip := range to.graph.Tips() {
		have = append(have, tip.Batch)
	}
	s.h.must0(t)(s.graph.FramesSince(have, func(_ dag.ID, frame []byte) error {
		frames = append(frames, bytes.Clone(frame))
		return nil
	}))
	return frames
}

// takes takes frames of files into the graph; the tree comes to them by arrive.
func (s *space) takes(t testing.TB, frames [][]byte) {
	t.Helper()
	s.checkNames(t)
	for _, f := range frames {
		r, err := s.graph.Ingest(f)
		if err == nil && r.Status != dag.Accepted && r.Status != dag.Duplicate {
			err = fmt.Errorf("batch %s: %v", r.ID, r.Status)
		}
		s.h.must0(t)(err)
	}
}

// checkNames checks that unpublishedNames, which looks at what was touched, finds what is in all that is dirty.
func (s *space) checkNames(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got, err := s.unpublishedNames()
	s.h.must0(t)(err)
	for ino := range s.dirty {
		s.noteTouched(ino)
	}
	want, err := s.unpublishedNames()
	s.h.must0(t)(err)
	if !maps.Equal(got, want) {
		t.Fatalf("the unpublished names of %v were found, of %v there are", slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want)))
	}
}

func (h *Home) must0(t testing.TB) func(error) {
	return func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// settle lets all exchange until nothing is new.
func (d *devices) settle() {
	d.t.Helper()
	for range 10 {
		before := d.batches()
		for _, a := range d.all {
			for _, b := range d.all {
				if a != b {
					d.send(a, b)
				}
			}
		}
		if d.batches() == before {
			return
		}
	}
	d.t.Fatal("the devices do not come to rest")
}

func (d *devices) batches() (n uint64) {
	for _, h := range d.all {
		for _, s := range h.each() {
			b, _, _ := s.graph.Counters()
			n += b
		}
	}
	return n
}

// same fails where the devices show different trees, or one shows another than want, or its index is not what its history says.
func (d *devices) same(want ...string) {
	d.t.Helper()
	first := d.tree(d.all[0])
	for i, h := range d.all[1:] {
		if got := d.tree(h); !slices.Equal(got, first) {
			d.t.Fatalf("device 0 shows\n  %s\ndevice %d\n  %s", strings.Join(first, "\n  "), i+1, strings.Join(got, "\n  "))
		}
	}
	if want != nil && !slices.Equal(first, want) {
		d.t.Fatalf("the devices show\n  %s\nwant\n  %s", strings.Join(first, "\n  "), strings.Join(want, "\n  "))
	}
	for _, h := range d.all {
		h.verify()
	}
}

// tree lists what a device shows in Personal: a line for each name, sorted.
func (d *devices) tree(h *testHome) []string {
	d.t.Helper()
	var out []string
	var walk func(dir Ino, at string)
	walk = func(dir Ino, at string) {
		if len(at) > 1000 {
			d.t.Fatalf("a directory below itself: %.60s…", at)
		}
		h.must(h.ReadDir(dir, 0, func(e Dirent) bool {
			a, err := h.Lookup(dir, e.Name)
			h.must(err)
			line := fmt.Sprintf("%s%s %o", at, e.Name, a.Mode)
			switch a.Mode & 0170000 {
			case 0100000:
				line += fmt.Sprintf(" %q", h.read(handle(&a)))
			case 0120000:
				line += " -> " + must2(h.Readlink(handle(&a)))
			}
			for _, x := range must2(h.Listxattr(handle(&a))) {
				line += fmt.Sprintf(" %s=%q", x, must2(h.Getxattr(handle(&a), x)))
			}
			out = append(out, line)
			if a.Mode&0170000 == 0040000 {
				walk(handle(&a), at+e.Name+"/")
			}
			return true
		}))
	}
	walk(h.root, "")
	slices.Sort(out)
	return out
}

func handle(a *Attr) Ino {
	if a.Handle != 0 {
		return a.Handle
	}
	return a.Ino
}

func (h *Home) dir(t *testing.T, parent Ino, name string) Ino {
	t.Helper()
	a, err := h.Mkdir(parent, name, 0o755, Cred{1000, 1000})
	if err != nil {
		t.Fatal(err)
	}
	return a.Ino
}

// TestArrival: what one device does shows on the other.
func TestArrival(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	dir := a.dir(t, a.root, "dir")
	a.create(a.root, "f", []byte("one"))
	a.create(dir, "g", []byte("in a directory"))
	a.create(dir, "big", random(1, 100<<10))
	must2(a.Symlink(a.root, "link", "dir/g", Cred{1000, 1000}))
	f := a.look(a.root, "f")
	must2(a.Link(f, dir, "f too"))
	a.must(a.Setxattr(f, "user.colour", []byte("red"), 0))
	d.sendBlocks(a, b)
	d.settle()
	d.same()
	if n := len(d.tree(b)); n != 6 {
		t.Fatalf("%d entries", n)
	}

	// And back: changes, moves, removals.
	at := b.look(b.root, "dir")
	b.must(b.Rename(b.root, "f", at, "moved", 0))
	b.must(b.Unlink(at, "g"))
	b.must(b.Rename(b.root, "dir", b.root, "renamed", 0))
	b.write(b.look(at, "moved"), []byte("TWO!"), 0)
	d.settle()
	d.same()
	a.wantContent(a.look(a.root, "renamed"), "moved", []byte("TWO!"))
	a.wantContent(a.look(a.root, "renamed"), "f too", []byte("TWO!"))

	// A kill changes nothing of it.
	for _, h := range d.all {
		h.kill()
		h.must(h.arriveAll())
	}
	d.same()
	b.must(b.Unlink(b.look(b.root, "renamed"), "big"))
	b.must(b.Unlink(b.look(b.root, "renamed"), "moved"))
	b.must(b.Unlink(b.look(b.root, "renamed"), "f too"))
	b.must(b.Rmdir(b.root, "renamed"))
	d.settle()
	d.same(`link 120777 -> dir/g`)
}

func (h *Home) arriveAll() error {
	for _, s := range h.each() {
		if err := s.arrive(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// sendBlocks lets a device ask another for blocks.
func (d *devices) sendBlocks(from, to *testHome) {
	d.t.Helper()
	to.must(from.Flush(context.Background()))
	must2(to.namedSpace(PersonalName)).blocks.SetFetcher(fetchFrom{must2(from.namedSpace(PersonalName))})
}

// fetchFrom gets blocks from another device's space.
type fetchFrom struct{ s *space }

func (f fetchFrom) Fetch(ctx context.Context, id block.ID) ([]byte, error) {
	return f.s.blocks.Get(ctx, id)
}

// TestWriteToAReplacedVersion: what a program writes through a file that it has open is not lost when another device's version took
// the place of the one that it opened: it is merged, or both is kept.
func TestWriteToAReplacedVersion(t *testing.T) {
	for _, how := range []string{"open", "closed at once", "killed"} {
		t.Run(how, func(t *testing.T) {
			d := newDevices(t, 2)
			a, b := d.all[0], d.all[1]
			a.create(a.root, "f", []byte("at first"))
			d.settle()
			old := b.look(b.root, "f")
			b.Ref(old)
			a.write(a.look(a.root, "f"), []byte("by a, and longer"), 0)
			d.settle()
			if got := b.read(b.look(b.root, "f")); string(got) != "by a, and longer" {
				t.Fatalf("f shows %q", got)
			}
			if got := b.read(old); string(got) != "at first" {
				t.Fatalf("the open file shows %q", got)
			}
			b.write(old, []byte("by b through the open file"), 0)
			switch how {
			case "closed at once":
				b.Unref(old)
			case "killed":
				b.must(b.Fsync(t.Context(), old))
				b.kill()
				b.must(b.arriveAll())
			}
			d.settle()
			d.same()
			whole := strings.Join(d.tree(a), "\n")
			for _, text := range []string{"by a, and longer", "by b through the open file"} {
				if !strings.Contains(whole, text) {
					t.Errorf("%q is lost:\n%s", text, whole)
				}
			}
		})
	}
}

// TestDurableStays: what a device told its peers that it holds is there after a power loss, also where it did not arrive in the tree.
func TestDurableStays(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	d.settle()
	a.create(a.root, "f", []byte("held by both"))
	from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	a.must(from.publishAll(t.Context()))
	to.takes(t, from.lackedBy(t, to))
	want := to.graph.Heads()
	for _, r := range b.Replicas() {
		b.must(r.Durable())
	}
	b.Home.abandon()
	b.sim = b.sim.Crash(func() disk.Keep { return disk.Drop }) // nothing that was not synced
	b.open()
	if got := must2(b.namedSpace(PersonalName)).graph.Heads(); !slices.Equal(got, want) {
		t.Fatalf("after the power loss the heads are %v, want %v", got, want)
	}
	b.must(b.arriveAll())
	b.wantContent(b.root, "f", []byte("held by both"))
}

// TestThreeDevicesAtOnce: conflicts of three end too.
func TestThreeDevicesAtOnce(t *testing.T) {
	for i := range concurrentOps {
		x := &concurrentOps[i]
		t.Run(x.name, func(t *testing.T) {
			d := newDevices(t, 3)
			a := d.all[0]
			a.plantPair()
			d.settle()
			for k, h := range d.all {
				x.do(h, fmt.Sprint("device", k))
			}
			d.settle()
			d.same()
			whole := strings.Join(d.tree(a), "\n")
			for k := range d.all {
				if text := strings.ReplaceAll(x.text, "WHO", fmt.Sprint("device", k)); !strings.Contains(whole, text) {
					t.Errorf("%q is lost:\n%s", text, whole)
				}
			}
		})
	}
}

// TestWriteToWhatGetsAnotherLink: what is written to a file and not published is not lost when the file comes with another link of the
// same name: it was renamed on another device, and linked back.
func TestWriteToWhatGetsAnotherLink(t *testing.T) {
	for _, over := range []bool{false, true} {
		d := newDevices(t, 2)
		a, b := d.all[0], d.all[1]
		a.create(a.root, "f", []byte("at first"))
		if over {
			a.create(a.root, "g", []byte("in the way"))
		}
		d.settle()
		a.tick(time.Hour) // this is no save
		f := a.look(a.root, "f")
		a.must(a.Rename(a.root, "f", a.root, "g", 0))
		a.flush()
		must2(a.Link(f, a.root, "f"))
		at := b.look(b.root, "f")
		zero := int64(0)
		must2(b.Setattr(t.Context(), at, SetAttr{Size: &zero}))
		b.write(at, []byte("by b, not published"), 0)
		d.sendSpace(must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName)))
		b.wantContent(b.root, "f", []byte("by b, not published"))
		d.settle()
		d.same()
		for _, h := range d.all {
			h.wantContent(h.root, "f", []byte("by b, not published"))
			h.wantContent(h.root, "g", []byte("by b, not published"))
			h.verify()
		}
	}
}

// TestRoundFitsInMemory: a round takes in no more objects than the tree keeps in memory, however small their changes are. Else the plan of
// the round folds some from their history again.
func TestRoundFitsInMemory(t *testing.T) {
	const files = cacheObjects + cacheObjects/16
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	for i := range files {
		must2(a.Mknod(a.root, fmt.Sprint(i), 0100644, 0, Cred{1000, 1000}))
	}
	from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	must(t, from.publishAll(t.Context()))
	must(t, from.acl.List().Export(func(f []byte) error { return to.acl.List().Import(f) }))
	_, err := to.graph.Rejudge(nil)
	must(t, err)
	to.takes(t, from.lackedBy(t, to))

	to.pubMu.Lock()
	defer to.pubMu.Unlock()
	all, rounds := 0, 0
	for end, start := false, uint64(0); !end; rounds++ {
		_, end, err = to.foldArrived(t.Context())
		must(t, err)
		came := 0
		must(t, to.graph.Since(start, func(at, _ uint64, _ *dag.Batch, bodies [][]byte) error {
			if at < to.in.st.next {
				came += len(bodies)
			}
			return nil
		}))
		if came > cacheObjects {
			t.Errorf("round %d took in %d changes, more than the %d objects that are kept", rounds, came, cacheObjects)
		}
		all, start = all+came, to.in.st.next
	}
	if all < files || rounds < 2 {
		t.Errorf("%d changes came in %d rounds", all, rounds)
	}
}
