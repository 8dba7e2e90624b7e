package fs

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
)

// TestSnapshots saves one file many times: some changes carry a snapshot, a fold begins at the last of them, and gives what a
// fold of everything gives.
func TestSnapshots(t *testing.T) {
	th := newTestHome(t)
	ctx := context.Background()
	ino := th.create(th.root, "doc", nil)
	// The state of a file grows with each content it had, and snapshots become rarer with it; modes leave it small.
	const saves = 600
	for i := range saves {
		mode := uint32(i % 512)
		_, err := th.Setattr(ctx, ino, SetAttr{Mode: &mode})
		th.must(err)
		th.must(th.Flush(ctx))
	}
	s, local, err := th.space(ino)
	th.must(err)
	n, err := s.publishedInode(local)
	th.must(err)
	with := 0
	th.must(s.graph.Changes(n.Object, func(e dag.Entry) error {
		p, err := s.open(&e)
		if err == nil && p.Snapshot != nil {
			with++
		}
		return err
	}))
	// Each carries one with probability 1/64, or 1/32 when the last lies 128 back or more: that 600 hold none has a chance of 10^-7.
	if with == 0 || with > saves/8 {
		t.Fatalf("%d of %d changes carry a snapshot", with, saves)
	}
	short, cost, err := s.stateOf(n.Object)
	th.must(err)
	// That none of 450 in a row carries one has a chance of about 10^-5.
	if cost.Changes > saves*3/4 {
		t.Fatalf("a fold went through %d of %d changes", cost.Changes, saves)
	}
	long, _, err := s.machine(n.Object).Fold(s.graph, n.Object, nil)
	th.must(err)
	if !bytes.Equal(short.Encode(), long.Encode()) {
		t.Fatal("a fold from a snapshot differs from one of everything")
	}
	th.sound()
}

// TestFoldWithoutKey: a change whose key is not here ends a fold. It is no empty operation: with the key it would be another.
func TestFoldWithoutKey(t *testing.T) {
	th := newTestHome(t)
	ino := th.create(th.root, "doc", []byte("text"))
	th.must(th.Flush(context.Background()))
	s, local, err := th.space(ino)
	th.must(err)
	n, err := s.publishedInode(local)
	th.must(err)
	keys := s.keys
	defer func() { s.keys = keys }()
	s.keys = seal.NewSpace(s.id)
	if _, _, err := s.stateOf(n.Object); !errors.Is(err, seal.ErrNoKey) {
		t.Errorf("a fold without the key gives %v", err)
	}
	if _, _, err := s.foldAll(context.Background()); !errors.Is(err, seal.ErrNoKey) {
		t.Errorf("a tree without the key gives %v", err)
	}
}
