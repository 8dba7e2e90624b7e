package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	mrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
)

// another is the home of another device: of the same account, or of another where that is nil.
func (th *testHome) another(account *acl.Account) *testHome {
	th.t.Helper()
	sim := disk.NewSim(mrand.New(mrand.NewPCG(3, 4)))
	var err error
	if account == nil {
		account, err = acl.NewAccount(rand.Reader)
		th.must(err)
	}
	keys, err := acl.InitKeys(sim, account, "other", nil, rand.Reader)
	th.must(err)
	o := &testHome{t: th.t, sim: sim, keys: keys, rand: th.rand}
	o.open()
	th.t.Cleanup(o.leave)
	return o
}

// carSections gives where each section of a CAR ends, the header's first.
func carSections(t *testing.T, car []byte) (ends []int) {
	t.Helper()
	for at := 0; at < len(car); {
		n, k := binary.Uvarint(car[at:])
		if k <= 0 {
			t.Fatalf("no length at %d", at)
		}
		at += k + int(n)
		ends = append(ends, at)
	}
	return ends
}

// TestImportOfAnotherAccount: without a key of the space it is refused, and leaves nothing.
func TestImportOfAnotherAccount(t *testing.T) {
	th := newTestHome(t)
	th.fill()
	var car bytes.Buffer
	_, err := th.Export(context.Background(), PersonalName, &car)
	th.must(err)
	o := th.another(nil)
	if _, err := o.Import(context.Background(), &car, "foreign", ""); !errors.Is(err, ErrNoKey) {
		t.Fatalf("import of another account's space: %v, want ErrNoKey", err)
	}
	o.wantNoTrace("foreign")
	o.reopen()
	o.sound()
}

// wantNoTrace holds that there is no space of that name, and no folder but that of the home's own space.
func (th *testHome) wantNoTrace(name string) {
	th.t.Helper()
	if _, err := th.Space(name); err == nil {
		th.t.Fatalf("there is a space %q", name)
	}
	names, err := th.sim.ReadDir(spacesDir)
	th.must(err)
	if got := strings.Join(names, " "); got != "0000 next" {
		th.t.Fatalf("the folder of spaces holds %q", got)
	}
}

// TestImportOfACutFile cuts an export at the end of each of its sections, where nothing but what is missing tells it.
func TestImportOfACutFile(t *testing.T) {
	th := newTestHome(t)
	want := th.fill()
	var car bytes.Buffer
	_, err := th.Export(context.Background(), PersonalName, &car)
	th.must(err)
	o := th.another(th.keys.Account)
	ends := carSections(t, car.Bytes())
	for _, end := range ends[:len(ends)-1] {
		if _, err := o.Import(context.Background(), bytes.NewReader(car.Bytes()[:end]), "cut", ""); err == nil {
			t.Fatalf("a file cut off at %d of %d was taken in", end, car.Len())
		}
		o.wantNoTrace("cut")
	}
	_, err = o.Import(context.Background(), &car, "", "Imported")
	th.must(err)
	o.find()
	o.check(o.root, want)
	o.sound()
}

// TestImportOfPruned: what was pruned where the file was made is known as pruned here too, and no damage.
func TestImportOfPruned(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "f", random(1, 1<<20))
	th.flush()
	th.save(ino, random(2, 1<<20))
	th.flush()
	th.prune(KeepPolicy{}, false)
	var car bytes.Buffer
	res, err := th.Export(context.Background(), PersonalName, &car)
	th.must(err)
	if res.Absent == 0 {
		t.Fatal("nothing was pruned")
	}
	o := th.another(th.keys.Account)
	_, err = o.Import(context.Background(), &car, "", "Imported")
	th.must(err)
	o.find()
	for range 2 {
		o.wantContent(o.root, "f", random(2, 1<<20))
		vs := o.contents("Personal/f")
		if len(vs) != 2 || vs[0].Pruned || !vs[1].Pruned {
			t.Fatalf("versions after the import: %+v", vs)
		}
		if _, err := o.OpenVersion(context.Background(), "Personal/f", vs[1].ID); !errors.Is(err, ErrPruned) {
			t.Fatalf("opening a pruned version: %v", err)
		}
		o.sound()
		o.reopen()
	}
}

// TestImportOverTheUntouched: a Personal in which nothing was ever made, as after a login, gives way; one in which something
// was made does not. Whatever operation of the disk is the last, one of the two is there afterwards.
func TestImportOverTheUntouched(t *testing.T) {
	th := newTestHome(t)
	want := th.fill()
	var car bytes.Buffer
	_, err := th.Export(context.Background(), PersonalName, &car)
	th.must(err)
	base := th.another(th.keys.Account)
	_, err = base.CreatePersonal()
	th.must(err)
	base.find()
	base.reopen() // so that it is durable
	landed, taken := int64(0), 0
	for n := int64(1); ; n += 1 + n/20 {
		o := base.on(uint64(n))
		o.sim.FailFrom(n, errors.New("the disk is gone"))
		_, err := o.Import(context.Background(), bytes.NewReader(car.Bytes()), "", "Imported")
		failed := o.sim.Landed() > 0
		landed += o.sim.Landed()
		o.sim.FailFrom(1<<60, nil)
		if !failed {
			th.must(err)
			o.find()
			o.check(o.root, want)
			o.sound()
			o.closeSpaces()
			break
		}
		after := &testHome{t: t, sim: o.sim.CrashClone(mrand.New(mrand.NewPCG(uint64(n), 2))), keys: o.keys, rand: o.rand}
		after.open()
		o.closeSpaces()
		spaces, err := after.Spaces()
		th.must(err)
		if len(spaces) != 1 {
			t.Fatalf("failure %d: there are %d spaces: %+v", n, len(spaces), spaces)
		}
		root, err := after.SpaceRoot(spaces[0].Name)
		th.must(err)
		if names := after.list(root); len(names) > 0 {
			after.check(root, want)
			taken++
		}
		after.sound()
		after.closeSpaces()
	}
	if landed == 0 || taken == 0 {
		t.Errorf("%d failures landed, after %d of them the import was there", landed, taken)
	}

	base.create(base.root, "mine", []byte("mine"))
	var here *TakenError
	if _, err := base.Import(context.Background(), &car, "", "Imported"); !errors.As(err, &here) || !here.Here || here.Name != PersonalName || !errors.Is(err, ErrExist) {
		t.Fatalf("import over a space in use: %v", err)
	}
	base.wantContent(base.root, "mine", []byte("mine"))
}
