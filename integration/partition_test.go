package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A network of a coordinator, three sync nodes and a file node is parted between its replicas, with a device on each side, and both devices go on,
// also with the same files. When it is joined again, the devices and the replicas are equal within a minute, and nothing is lost.
func TestPartitionOfReplicas(t *testing.T) {
	t.Parallel() // it mostly waits
	NeedFUSE(t)
	l := NewLAN(t, 7)
	node := func(kind string, h *Host, flags ...string) *Node {
		t.Helper()
		return runNode(&Node{t: t, Kind: kind, Host: h, listen: []string{"/ip4/" + h.Addr.String() + "/tcp/7328"}, flags: append(flags, "--no-relay")})
	}
	coordinator := node("coordinator", l.Hosts[0])
	var syncs []*Node
	for _, h := range l.Hosts[1:4] {
		syncs = append(syncs, node("sync", h, "--network", coordinator.File(), "--token", coordinator.Admin("token")))
	}
	node("file", l.Hosts[4], "--network", coordinator.File(), "--token", coordinator.Admin("token"))
	d := &Devices{t: t}
	for i, host := range l.Hosts[5:] {
		h := NewHome(t)
		h.Host, h.Listen = host, "/ip4/"+host.Addr.String()+"/tcp/7327"
		if i > 0 {
			d.login(h, i)
		}
		h.Mount("--no-discovery") // they have nothing but the nodes in common
		h.Must("network", "add", coordinator.File())
		d.All = append(d.All, h)
	}
	a, b := d.All[0], d.All[1]
	const lines = "one\ntwo\nthree\nfour\nfive\nsix\nseven\n"
	check(t, os.Mkdir(a.Personal("folder"), 0o755),
		os.WriteFile(a.Personal("merged"), []byte(lines), 0o644), os.WriteFile(a.Personal("replaced"), []byte("at first"), 0o644),
		os.WriteFile(a.Personal("removed"), []byte("at first"), 0o644), os.WriteFile(a.Personal("folder", "moves"), []byte("at first"), 0o644))
	d.WaitEqual()

	rounds, lasts := 2, 6*time.Second
	if Long() {
		rounds, lasts = 4, 90*time.Second // connections end, and are made anew
	}
	for round := range rounds {
		name := func(s string) string { return fmt.Sprint(s, " ", round) }
		// Another replica is cut off with the first device each time; the file node is on either side.
		one := []*Host{l.Hosts[1+round%3], l.Hosts[5]}
		if round%2 == 1 {
			one = append(one, l.Hosts[4])
		}
		lost := l.lost()
		before := changeBytes(syncs)
		l.Split(one...)
		began := time.Now()
		text := strings.Replace(lines, "one\n", name("one by a")+"\n", 1)
		other := strings.Replace(lines, "seven\n", name("seven by b")+"\n", 1)
		check(t,
			os.WriteFile(a.Personal("merged"), []byte(text), 0o644), os.WriteFile(b.Personal("merged"), []byte(other), 0o644),
			os.WriteFile(a.Personal("replaced"), []byte(name("by a")), 0o644), os.WriteFile(b.Personal("replaced"), []byte(name("by b")), 0o644),
			os.Rename(a.Personal("folder"), a.Personal("folder of a")), os.WriteFile(b.Personal("folder", name("new")), []byte("in it"), 0o644),
			os.Remove(a.Personal("removed")), os.WriteFile(b.Personal("removed"), []byte(name("and written")), 0o644),
		)
		for i := range 20 {
			check(t, os.WriteFile(a.Personal(name(fmt.Sprint("a", i))), noise(uint64(i), 1+i*3000), 0o644),
				os.WriteFile(b.Personal(name(fmt.Sprint("b", i))), noise(uint64(100+i), 1+i*3000), 0o644))
		}
		check(t, os.WriteFile(a.Personal(name("large a")), noise(7, 3<<20), 0o644), os.WriteFile(b.Personal(name("large b")), noise(8, 3<<20), 0o644))
		d.Eventually("the replicas of both sides get what is written there", func() error {
			for i, n := range changeBytes(syncs) {
				if n <= before[i] {
					return fmt.Errorf("sync node %d has %d bytes of changes, and had %d", i, n, before[i])
				}
			}
			return nil
		})
		time.Sleep(time.Until(began.Add(lasts)))
		if got := changeBytes(syncs); got[round%3] == got[(round+1)%3] {
			t.Error("replicas of both sides have the same: they were not parted")
		}
		if _, err := os.Stat(b.Personal(name("large a"))); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what is on one side shows on the other: %v", err)
		}
		l.Split()
		healed := time.Now()
		tree := d.WaitEqual()
		took := time.Since(healed)
		d.Eventually("the replicas are equal", func() error {
			if n := changeBytes(syncs); n[0] != n[1] || n[1] != n[2] {
				return fmt.Errorf("bytes of changes: %d", n)
			}
			return nil
		})
		lost = l.lost() - lost
		t.Logf("%d frames lost in %v; the devices are equal %v after it, the replicas after %v", lost, healed.Sub(began).Round(time.Millisecond), took.Round(time.Millisecond),
			time.Since(healed).Round(time.Millisecond))
		if lost == 0 {
			t.Error("no frame was lost: nothing was tried")
		}
		if len(tree) < 40 {
			t.Errorf("the tree has %d entries", len(tree))
		}
		for _, h := range d.All {
			for i := range 20 {
				check(t, wantBytes(h.Personal(name(fmt.Sprint("a", i))), noise(uint64(i), 1+i*3000)), wantBytes(h.Personal(name(fmt.Sprint("b", i))), noise(uint64(100+i), 1+i*3000)))
			}
			check(t, wantBytes(h.Personal(name("large a")), noise(7, 3<<20)), wantBytes(h.Personal(name("large b")), noise(8, 3<<20)),
				wantBytes(h.Personal("merged"), []byte(strings.Replace(text, "seven\n", name("seven by b")+"\n", 1))),
				wantBytes(h.Personal("removed"), []byte(name("and written"))), wantBytes(h.Personal("folder of a", name("new")), []byte("in it")))
			if both := contents(t, h, "replaced"); !slices.Equal(both, []string{name("by a"), name("by b")}) {
				t.Errorf("of what both replaced there is %q", both)
			}
		}
		for _, c := range a.conflicts() {
			check(t, os.Remove(filepath.Join(a.Mnt, c.Path)))
		}
		check(t, os.WriteFile(a.Personal("merged"), []byte(lines), 0o644), os.Rename(a.Personal("folder of a"), a.Personal("folder")))
		d.WaitEqual()
	}
	for _, h := range d.All {
		h.Must("verify")
	}
}

// changeBytes gives how many bytes of changes each node has.
func changeBytes(nodes []*Node) (all []int64) {
	for _, n := range nodes {
		sum := int64(0)
		for _, s := range n.Status().Spaces {
			sum += s.Changes
		}
		all = append(all, sum)
	}
	return all
}

// contents gives what a file and its conflict copies in Personal hold, sorted.
func contents(t *testing.T, h *Home, name string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(h.Personal())
	check(t, err)
	for _, e := range entries {
		if e.Name() == name || strings.HasPrefix(e.Name(), name+" (conflict") {
			b, err := os.ReadFile(h.Personal(e.Name()))
			check(t, err)
			all = append(all, string(b))
		}
	}
	slices.Sort(all)
	return all
}
