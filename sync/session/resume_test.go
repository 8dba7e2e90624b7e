package session_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/wire"
)

// A connection that is cut again and again, in the middle of a transfer in both directions: what arrived is not sent again.
func TestNothingTwice(t *testing.T) {
	for _, whole := range []int{0, -1} {
		a, b := newReplicaWith(t, 0, whole), newReplicaWith(t, 1, whole)
		all := []*replica{a, b}
		for range 1500 {
			a.write(1)
			b.write(1)
		}
		arrived := map[dag.ID]int{}
		cuts := 0
		for ; ; cuts++ {
			if cuts > 500 {
				t.Fatal("it does not get on")
			}
			l := connect(t, a, b)
			for step := 0; step < 7+cuts%7; step++ {
				for _, r := range all {
					if r.events {
						r.step()
					}
					if r.unsaid {
						r.settle()
					}
				}
				for end := range 2 {
					l.send(end)
				}
				for end := range 2 {
					if len(l.in[end]) > 0 {
						if f, ok := l.in[end][0].(*wire.Frames); ok {
							for _, p := range f.Frames {
								batch, _, err := dag.DecodeFrame(p)
								must(t, err)
								arrived[batch.ID()]++
							}
						}
						l.receive(end)
					}
				}
			}
			l.close()
			if n, _, _ := a.graphs[1].Counters(); n == 3000 {
				if n, _, _ := b.graphs[1].Counters(); n == 3000 {
					break
				}
			}
		}
		if cuts == 0 {
			t.Error("it was never cut")
		}
		if len(arrived) != 3000 {
			t.Errorf("%d batches arrived", len(arrived))
		}
		for id, n := range arrived {
			if n > 1 {
				t.Errorf("%v came %d times", id, n)
			}
		}
		t.Logf("%d cuts", cuts)
	}
}
