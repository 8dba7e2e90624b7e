package fs

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
)

// onText is what a device knows of networks, as text.
func (th *testHome) onText() string {
	th.t.Helper()
	n := must2(th.Networks())
	s, _ := th.personal()
	out := fmt.Sprintf("used %x, home on %x, Personal on %x,", short(n.Used), short(n.Of(th.home.id)), short(n.Of(s.id)))
	for _, id := range sortNetworks(n.Used) {
		out += fmt.Sprintf(" %q", n.Configs[id])
	}
	return out
}

func short(ids []NetworkID) (out []byte) {
	for _, id := range ids {
		out = append(out, id[0])
	}
	return out
}

func (th *testHome) wantOn(what string, space dag.ID, want ...NetworkID) {
	th.t.Helper()
	if got := must2(th.Networks()).Of(space); !slices.Equal(got, want) {
		th.t.Fatalf("%s: it is on %x, not on %x", what, short(got), short(want))
	}
}

// TestDefaultNetwork: the first network has all spaces, also those to come; another default moves none; all have the home space.
func TestDefaultNetwork(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	one, two := NetworkID{1}, NetworkID{2}
	personal, _ := a.personal()
	a.wantOn("before", personal.id)
	a.must(a.UseNetwork(one, []byte("one")))
	a.wantOn("the first", personal.id, one)
	a.must(a.SettleNetworks(nil))
	a.must(a.UseNetwork(two, []byte("two")))
	a.wantOn("the second", personal.id, one)
	a.wantOn("the home space", a.home.id, one, two)
	d.settle()
	b.wantOn("on the other device", personal.id, one)
	b.must(b.DefaultNetwork(two))
	if got := must2(b.Networks()).Used; got[0] != two {
		t.Fatalf("the default is %x", short(got))
	}
	b.wantOn("after another default", personal.id, one)
	d.settle()
	a.wantOn("after another default, on the other", personal.id, one)
	// A space whose entry is made now is on the new default, and was on the old one nowhere.
	info := must2(a.CreateSpace("New"))
	s := must2(a.namedSpace("New"))
	a.wantOn(info.Name, s.id, two)

	// A move: both, then the new one alone, which the old one has no part in.
	a.must(a.ChooseNetwork(personal.id, two, true))
	a.wantOn("added", personal.id, one, two)
	d.settle()
	b.must(b.ChooseNetwork(personal.id, one, false))
	d.settle()
	a.wantOn("moved", personal.id, two)
	a.must(a.DropNetwork(two))
	d.settle()
	b.wantOn("on none", personal.id)
	b.wantOn("the home space at the end", b.home.id, one)
	if got := must2(b.Networks()); !slices.Equal(got.Used, []NetworkID{one}) || got.Configs[two] != nil {
		t.Fatalf("used: %x", short(got.Used))
	}
	// What was chosen counts again when the network is used again.
	b.must(b.UseNetwork(two, []byte("two")))
	b.wantOn("used again", personal.id, two)
	a.verify()
}

// TestNetworksOfAKilledDevice: what was chosen is there after a crash.
func TestNetworksOfAKilledDevice(t *testing.T) {
	a := newTestHome(t)
	personal, _ := a.personal()
	a.must(a.UseNetwork(NetworkID{1}, []byte("one")))
	a.must(a.UseNetwork(NetworkID{2}, make([]byte, MaxNetworkConfig+1)))
	a.must(a.ChooseNetwork(personal.id, NetworkID{2}, true))
	want := a.onText()
	a.kill()
	if got := a.onText(); got != want {
		t.Errorf("after a kill:\n%s\nbefore:\n%s", got, want)
	}
	if n := must2(a.Networks()); n.Configs[NetworkID{2}] != nil {
		t.Error("a configuration of any length is kept")
	}
}

// TestNetworksConverge: two devices add, remove and choose networks at once, and come to the same; what only one of them touched is as it left it.
func TestNetworksConverge(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	d := newDevices(t, 2)
	d.settle()
	personal, _ := d.all[0].personal()
	const mixed = -1
	both, alone := 0, 0
	for range 40 {
		type touched struct {
			by int
			on bool
		}
		chosen, said := map[NetworkID]touched{}, ""
		for who, h := range d.all {
			steps := r.IntN(4)
			for range steps {
				id := NetworkID{byte(1 + r.IntN(3))}
				used := slices.Contains(must2(h.Networks()).Used, id)
				on := r.IntN(2) == 0
				step := r.IntN(5)
				said += fmt.Sprintf(" %d: %d of %x, %v;", who, step, id[0], on)
				switch {
				case step == 0 || !used:
					h.must(h.UseNetwork(id, []byte{id[0], byte(r.IntN(2))}))
				case step == 1:
					h.must(h.DropNetwork(id))
				case step == 2:
					h.must(h.DefaultNetwork(id))
				default:
					h.must(h.ChooseNetwork(personal.id, id, on))
					if c, ok := chosen[id]; ok && c.by != who {
						chosen[id] = touched{by: mixed}
					} else {
						chosen[id] = touched{who, on}
					}
				}
			}
			if who == 1 && steps > 0 && said != "" {
				both++
			}
		}
		d.settle()
		for _, h := range d.all {
			h.must(h.SettleNetworks(nil))
		}
		d.settle()
		first := d.all[0].onText()
		if other := d.all[1].onText(); other != first {
			t.Fatalf("after%s\none: %s\ntwo: %s", said, first, other)
		}
		now := must2(d.all[0].Networks())
		on := now.Of(personal.id)
		for id, c := range chosen {
			if c.by == mixed || !slices.Contains(now.Used, id) {
				continue
			}
			if alone++; slices.Contains(on, id) != c.on {
				t.Fatalf("after%s\nnetwork %x was chosen (%v) by one device alone: %s", said, id[0], c.on, first)
			}
		}
		if len(now.Used) > 0 && !slices.Equal(now.Of(d.all[0].home.id), sortNetworks(now.Used)) {
			t.Fatalf("the home space is not on all networks: %s", first)
		}
	}
	if both == 0 || alone == 0 {
		t.Fatalf("%d rounds of both, %d choices of one alone: nothing was tried", both, alone)
	}
}

// TestNetworksOfASharedSpace: the owner's choice is in the space, for its members; it follows the owner, and another member's does not.
func TestNetworksOfASharedSpace(t *testing.T) {
	n := &Networks{home: dag.ID{9}, Used: []NetworkID{{1}}, spaces: map[dag.ID]*spaceNetworks{}}
	space := dag.ID{1}
	for _, x := range []struct {
		what   string
		choice map[NetworkID]byte
		said   map[NetworkID][]byte
		here   bool
		want   []NetworkID
	}{
		{"nothing said: the default", nil, nil, true, []NetworkID{{1}}},
		{"the owner's", nil, map[NetworkID][]byte{{2}: nil}, true, []NetworkID{{2}}},
		{"the owner's and one's own", map[NetworkID]byte{{1}: choiceOn}, map[NetworkID][]byte{{2}: nil}, true, []NetworkID{{1}, {2}}},
		{"not the owner's", map[NetworkID]byte{{1}: choiceOn, {2}: choiceOff}, map[NetworkID][]byte{{2}: nil}, true, []NetworkID{{1}}},
		{"followed, before the space is here", map[NetworkID]byte{{2}: choiceFollowed}, nil, false, []NetworkID{{2}}},
		{"followed, and the owner took it off", map[NetworkID]byte{{2}: choiceFollowed}, nil, true, []NetworkID{{1}}},
		{"of a network that is used no more", map[NetworkID]byte{{3}: choiceOn}, nil, true, []NetworkID{{1}}},
		{"off the only one", map[NetworkID]byte{{1}: choiceOff}, nil, true, nil},
	} {
		n.spaces[space] = &spaceNetworks{choice: x.choice, said: x.said, here: x.here}
		if got := n.Of(space); !slices.Equal(got, x.want) {
			t.Errorf("%s: on %x, want %x", x.what, short(got), short(x.want))
		}
	}
}
