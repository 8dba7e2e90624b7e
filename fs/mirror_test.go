package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/tree"
)

// holder gives what another device has, all but what it holds back.
type holder struct {
	from   *block.Store
	back   sync.Map // block.ID: a block that nobody gives as long as it is here
	absent atomic.Int64
	most   atomic.Int64 // at a time
	now    atomic.Int64
}

func (h *holder) Fetch(ctx context.Context, id block.ID) ([]byte, error) {
	h.most.Store(max(h.most.Load(), h.now.Add(1)))
	defer h.now.Add(-1)
	if c, ok := h.back.Load(id); ok {
		if c == nil {
			h.absent.Add(1)
			return nil, block.ErrAbsent
		}
		select {
		case <-c.(chan struct{}):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	time.Sleep(time.Millisecond)
	return h.from.GetLocal(id)
}

// Contents are fetched many at a time: one that is on its way for long, and one that nobody has, keep no other waiting, and what can be
// had of one comes.
func TestMirror(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	for i := range 20 {
		a.create(a.root, fmt.Sprint("f", i), random(uint64(i+1), 300_000))
	}
	a.create(a.root, "large", random(99, 6<<20))
	d.settle()
	from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	h := &holder{from: from.blocks}
	to.blocks.SetFetcher(h)
	slow := make(chan struct{})
	var large *tree.Content
	lacks, held := 0, false
	to.mir.mu.Lock()
	for _, w := range to.mir.want {
		c := w.c
		id, _, err := block.IDFromCID(c.Root)
		b.must(err)
		switch {
		case c.Size > 1<<20: // a block in the middle of the large one
			large = c
			n := 0
			b.must(eachLeaf(t.Context(), from.getNode, c.Root, func(l block.Leaf) error {
				if n++; n == 2 {
					h.back.Store(l.ID, nil)
				}
				lacks++
				return nil
			}))
		case !held:
			h.back.Store(id, slow)
			held = true
		}
	}
	n := len(to.mir.want)
	to.mir.mu.Unlock()
	if n != 21 || lacks < 3 {
		t.Fatalf("%d contents are wanted, %d blocks of the large one", n, lacks)
	}
	wanted := func() int {
		to.mir.mu.Lock()
		defer to.mir.mu.Unlock()
		return len(to.mir.want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.mirrorer(ctx) })
	defer wg.Wait()
	defer cancel()
	b.Mirror()
	wait := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d are wanted", what, wanted())
			}
		}
	}
	wait("all but two", func() bool { return wanted() == 2 && h.absent.Load() > 0 })
	wait("what can be had of the large one", func() bool {
		here := 0
		_ = eachLeaf(t.Context(), to.getNode, large.Root, func(l block.Leaf) error {
			if to.blocks.Has(l.ID) {
				here++
			}
			return nil
		})
		return here == lacks-1
	})
	close(slow)
	wait("the slow one", func() bool { return wanted() == 1 })
	h.back.Clear()
	wait("the last", func() bool { b.Mirror(); return wanted() == 0 })
	if n := h.most.Load(); n < 4 || n > mirrorBlocks+mirrorContents {
		t.Errorf("%d blocks were asked for at a time", n)
	}
	b.wantContent(b.root, "large", random(99, 6<<20))
}

// TestOldVersionsElsewhere: a device that came later holds what is current. That it lacks old versions is no damage, and restoring one
// fetches it.
func TestOldVersionsElsewhere(t *testing.T) {
	d := newDevices(t, 2)
	net := d.connect()
	a, b := d.all[0], d.all[1]
	f := a.create(a.root, "f", nil)
	var want [][]byte
	for i := range 3 {
		want = append(want, random(uint64(i), 3<<20))
		a.save(f, want[i])
		a.flush()
		a.tick(time.Hour)
	}
	d.settle()
	b.mirror()
	v, err := b.Verify(t.Context(), nil)
	b.must(err)
	if len(v.Problems) > 0 || v.Absent != 2 {
		t.Fatalf("verify: %v, %d contents absent", v.Problems, v.Absent)
	}
	if v, err := a.Verify(t.Context(), nil); err != nil || len(v.Problems)+v.Absent > 0 {
		t.Fatalf("verify where all was made: %+v, %v", v, err)
	}
	vs := b.contents("Personal/f")
	if len(vs) != 3 {
		t.Fatalf("%d versions", len(vs))
	}
	net[1].leave(a, true)
	if _, err := b.Restore(t.Context(), "Personal/f", vs[1].ID, ""); !errors.Is(err, ErrIO) {
		t.Fatalf("restored without anyone who has it: %v", err)
	}
	net[1].leave(a, false)
	b.Mirror() // as is told when somebody comes
	for i, to := range []string{"", "Personal/copy"} {
		must2(b.Restore(t.Context(), "Personal/f", vs[1+i].ID, to))
		at := b.look(b.root, "f")
		if to != "" {
			at = b.look(b.root, "copy")
		}
		if !bytes.Equal(b.read(at), want[1-i]) {
			t.Errorf("version %d restored shows something else", 1-i)
		}
	}
	b.flush()
	b.verify()
	d.settle()
	d.same()
	// What this device made itself is to be here.
	b.create(b.root, "own", random(9, 1<<20))
	b.flush()
	own := b.leaves("Personal/own")
	sb, _ := b.personal()
	b.must(sb.blocks.Evict(own...))
	if v := must2(b.Verify(t.Context(), nil)); len(v.Problems) == 0 {
		t.Error("that a block of its own is gone is not found")
	}
}

// An arrival notes what content it wants with the lock of its space held, also while that content begins to be fetched. (The two waited
// for each other for ever, when a device joined another that was busy.)
func TestMirrorBeginsBesideArrival(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.create(a.root, "f", random(1, 300_000))
	d.settle()
	to := must2(b.namedSpace(PersonalName))
	to.mir.mu.Lock()
	var w *fetching
	for _, w = range to.mir.want {
	}
	to.mir.mu.Unlock()
	if w == nil {
		t.Fatal("nothing is wanted")
	}
	begun, noted := make(chan struct{}), make(chan struct{})
	to.mu.Lock()
	go func() { to.beginFetch(w); close(begun) }()
	time.Sleep(100 * time.Millisecond) // it waits for the lock of the space
	go func() { to.wantContent(w.ino, w.c); close(noted) }()
	select {
	case <-noted:
	case <-time.After(time.Minute):
		t.Fatal("an arrival waits for a fetch that waits for it")
	}
	to.mu.Unlock()
	<-begun
}

// Who comes while a content is asked for in vain is asked for it at once, not when it is tried again by and by.
func TestMirrorAsksWhoComes(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	a.create(a.root, "f", random(1, 300_000))
	d.settle()
	from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	asked, lost := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	to.blocks.SetFetcher(fetcherFunc(func(ctx context.Context, id block.ID) ([]byte, error) {
		if calls.Add(1) == 1 { // of a peer that goes meanwhile
			close(asked)
			select {
			case <-lost:
			case <-ctx.Done():
			}
			return nil, block.ErrAbsent
		}
		return from.blocks.GetLocal(id)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.mirrorer(ctx) })
	defer wg.Wait()
	defer cancel()
	b.mirrorFresh()
	<-asked
	b.Mirror()                                                               // another came
	eventuallyIn(t, time.Second, func() bool { return !b.mirrorAll.Load() }) // it was looked who is to be asked for what
	close(lost)
	eventuallyIn(t, mirrorAgain/2, func() bool { return to.wanted() == 0 })
}

type fetcherFunc func(ctx context.Context, id block.ID) ([]byte, error)

func (f fetcherFunc) Fetch(ctx context.Context, id block.ID) ([]byte, error) { return f(ctx, id) }

func eventuallyIn(t *testing.T, within time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v", within)
		}
	}
}

// A version that another took the place of before it was here is asked for no more: it may be on no device that is left. One that another file
// shows still is.
func TestMirrorForgetsWhatNothingShows(t *testing.T) {
	d := newDevices(t, 2)
	a, b := d.all[0], d.all[1]
	old, kept := random(1, 300_000), random(2, 300_000)
	f, g := a.create(a.root, "f", old), a.create(a.root, "g", kept)
	a.create(a.root, "g too", kept)
	d.settle()
	from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
	first := map[block.ID]bool{}
	to.mir.mu.Lock()
	for _, w := range to.mir.want {
		id, _, err := block.IDFromCID(w.c.Root)
		b.must(err)
		first[id] = true
	}
	to.mir.mu.Unlock()
	if len(first) != 2 {
		t.Fatalf("%d contents are wanted", len(first))
	}
	a.save(f, random(3, 300_000))
	a.save(g, random(4, 300_000))
	d.settle()
	if n := to.wanted(); n < 4 {
		t.Fatalf("%d blocks are wanted", n)
	}
	var asked sync.Map
	to.blocks.SetFetcher(fetcherFunc(func(ctx context.Context, id block.ID) ([]byte, error) {
		asked.Store(id, true)
		return from.blocks.GetLocal(id)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { b.mirrorer(ctx) })
	defer wg.Wait()
	defer cancel()
	b.Mirror()
	eventuallyIn(t, 20*time.Second, func() bool { return to.wanted() == 0 })
	n := 0
	for id := range first {
		if _, ok := asked.Load(id); ok {
			n++
		}
	}
	if n != 1 {
		t.Errorf("of two old versions, one of which another file shows, %d were asked for", n)
	}
	if !bytes.Equal(b.read(b.look(b.root, "g too")), kept) {
		t.Error("the other file shows something else")
	}
}
