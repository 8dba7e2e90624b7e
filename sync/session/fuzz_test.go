package session_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

var update = flag.Bool("update", false, "write the seeds in testdata/fuzz anew")

// replay is the device that takes in what was recorded or made up; it is the same in every run.
func replay(t testing.TB, whole int) *replica {
	r := newReplicaWith(t, 0, whole)
	for range 3 {
		r.write(0)
		r.write(1)
	}
	r.step()
	r.settle()
	return r
}

// recorded is what each end of a real exchange sends to the other, as messages with their lengths.
func recorded(t testing.TB, whole int) (out [2][]byte) {
	a, b := replay(t, whole), newReplicaWith(t, 1, whole)
	for range 20 {
		b.write(1)
	}
	b.write(0)
	l := connect(t, a, b)
	l.record = &out
	settle(t, []*replica{a, b}, []*link{l})
	a.write(1)
	b.write(1)
	settle(t, []*replica{a, b}, []*link{l})
	same(t, []*replica{a, b})
	return out
}

// seeds are the exchanges that the fuzz target starts from: what the other end sent, whole and in parts.
func seeds(t testing.TB) map[string][]byte {
	s := map[string][]byte{}
	for name, whole := range map[string]int{"whole": 0, "probes": -1} {
		r := recorded(t, whole)
		s["other-"+name] = r[1]
		s["own-"+name] = r[0] // all comes back
		s["half-"+name] = r[1][:len(r[1])/2]
	}
	return s
}

const seedFolder = "testdata/fuzz/FuzzSession"

func TestSeeds(t *testing.T) {
	all := seeds(t)
	if *update {
		if err := os.MkdirAll(seedFolder, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, p := range all {
			text := fmt.Sprintf("go test fuzz v1\nbool(%v)\n[]byte(%q)\n", name[len(name)-1] == 's', p)
			if err := os.WriteFile(filepath.Join(seedFolder, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, p := range all {
		b, err := os.ReadFile(filepath.Join(seedFolder, name))
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("go test fuzz v1\nbool(%v)\n[]byte(%q)\n", name[len(name)-1] == 's', p); string(b) != want {
			t.Errorf("%s is no longer what is exchanged: -update writes it anew", name)
		}
		// All that an honest peer sends is taken, and brings what it has.
		if name[:5] == "other" {
			r := replay(t, map[bool]int{true: -1}[name[len(name)-1] == 's'])
			if err := feed(t, r, p); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n, _, _ := r.graphs[1].Counters(); n < 20 {
				t.Errorf("%s: %d batches", name, n)
			}
		}
	}
}

// feed lets a session take what decodes, and reads what it says.
func feed(t testing.TB, r *replica, p []byte) error {
	s := r.space.New(session.Peer{Name: "fuzz", Wake: func() {}})
	defer s.Close()
	r.settle()
	say := func() {
		for n := 0; ; n++ {
			m, err := s.Next()
			if err != nil {
				t.Fatalf("an error of its own: %v", err)
			}
			if m == nil {
				return
			}
			wire.Append(nil, m)
			if n > 10_000 {
				t.Fatal("it does not end to speak")
			}
		}
	}
	for n := 0; len(p) >= 4; n++ {
		size := min(int(binary.BigEndian.Uint32(p)), len(p)-4)
		m, err := wire.Decode(p[4 : 4+size])
		p = p[4+size:]
		if err != nil {
			continue // a stream would end here; what follows is worth a look
		}
		if err := s.Receive(m); err != nil {
			return err
		}
		if n%2 == 0 {
			say()
		}
		if r.events {
			r.step()
		}
	}
	r.settle()
	s.Tick()
	say()
	s.Status(wire.ACL)
	s.Status(wire.Files)
	return nil
}

// FuzzSession feeds a session with whatever decodes: it ends with a fault of the peer or goes on, and holds what it held.
func FuzzSession(f *testing.F) {
	f.Fuzz(func(t *testing.T, probes bool, p []byte) {
		whole := 0
		if probes {
			whole = -1
		}
		r := replay(t, whole)
		var before [2]uint64
		for kind, g := range r.graphs {
			before[kind], _, _ = g.Counters()
		}
		if err := feed(t, r, p); err != nil && !errors.Is(err, session.ErrPeer) {
			t.Fatal(err)
		}
		for kind, g := range r.graphs {
			if n, _, _ := g.Counters(); n < before[kind] {
				t.Fatalf("%d batches, of %d", n, before[kind])
			}
		}
	})
}
