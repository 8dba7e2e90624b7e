package fs

import (
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/store"
)

// inSpace says how many of the account's devices are in a space.
func (th *testHome) inSpace(name string) int {
	th.t.Helper()
	m, _ := must2(th.namedSpace(name)).acl.List().State().Member(th.keys.Identity)
	return len(m.Devices)
}

// TestAdmitDevices: who made a space brings the account's devices in at once; one that comes later has a minute to enter by itself; one that was revoked
// anywhere stays out.
func TestAdmitDevices(t *testing.T) {
	d := newDevices(t, 2)
	first := d.all[0]
	d.settle()
	for _, name := range []string{"Work", "Play"} {
		must2(first.CreateSpace(name))
	}
	if n := first.inSpace("Work"); n != 1 {
		t.Fatalf("%d devices made it", n)
	}
	if !first.Heal() || first.inSpace("Work") != 2 || first.inSpace("Play") != 2 {
		t.Fatalf("%d devices", first.inSpace("Work"))
	}
	// What was given opens the space where nothing of the account's secret is.
	paired := *d.all[1].keys
	paired.Account = nil
	var frames [][]byte
	work := must2(first.namedSpace("Work"))
	first.must(work.acl.Export(func(f []byte) error { frames = append(frames, append([]byte(nil), f...)); return nil }))
	s, err := acl.ImportSpace(&paired, work.id, store.NewMem(), func(yield func([]byte) error) error {
		for _, f := range frames {
			if err := yield(f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || s.Writable() != nil {
		t.Fatal(err, s.Writable())
	}

	third := first.another(first.keys.Account)
	must2(third.CreatePersonal())
	third.find()
	fourth := first.another(first.keys.Account)
	must2(fourth.CreatePersonal())
	fourth.find()
	d.all = append(d.all, third, fourth)
	d.settle()
	first.Heal()
	if n := first.inSpace("Work"); n != 2 {
		t.Errorf("%d devices at once", n)
	}
	must2(first.RevokeDevice(fourth.keys.Device.PublicKey()))
	first.skew.Add(int64(admitAfter + time.Second))
	first.Heal()
	st := work.acl.List().State()
	if n := first.inSpace("Work"); n != 3 || !st.HasDevice(first.keys.Identity, third.keys.Device.PublicKey()) {
		t.Errorf("%d devices after a minute", n)
	}
	if first.Heal() {
		t.Error("it goes on for ever")
	}
}
