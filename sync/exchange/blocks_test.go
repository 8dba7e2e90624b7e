package exchange_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/wire"
)

func random(seed byte, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed, byte(n), byte(n >> 8)}).Read(p)
	return p
}

// serve answers the device's questions for blocks as fn says; nil: not at all. It ends with the host.
func (r *rogue) serve(fn func(s network.Stream, m *wire.GetBlock) wire.Message) {
	go func() {
		for s := range r.asks {
			go func() {
				in := wire.NewReader(s)
				for {
					m, err := in.Read()
					if err != nil {
						return
					}
					if q, ok := m.(*wire.GetBlock); ok {
						if a := fn(s, q); a != nil {
							_ = r.send(s, a)
						}
					}
				}
			}()
		}
	}()
}

// with is a device that a rogue is connected to, and a second device where others are wanted.
func with(t *testing.T, others int) (a *device, ra *replica, rest []*replica, r *rogue) {
	a = newDevice(t, 1, 1)
	ra = newReplica(t, a, "one")
	a.e.Add(ra.Replica)
	r = newRogue(t, a, "one")
	for n := range others {
		d := newDevice(t, 1, byte(2+n), a.addr("/tcp/"))
		x := newReplica(t, d, "one")
		d.e.Add(x.Replica)
		rest = append(rest, x)
	}
	eventually(t, func() bool {
		return len(a.e.Status().Spaces[0].Peers) == 1+others && len(a.e.Status().Peers) == 1+others
	})
	return a, ra, rest, r
}

// Many blocks at once, of which each of three peers has some: all come.
func TestBlocksFromMany(t *testing.T) {
	_, ra, rest, r := with(t, 3)
	r.serve(func(_ network.Stream, m *wire.GetBlock) wire.Message {
		return &wire.Part{Request: m.Request, Absent: true}
	})
	var ids []block.ID
	for i := range 300 {
		id, err := rest[i%3].Blocks.(*block.Store).Put(random(byte(i%3), 10_000+i))
		must(t, err)
		ids = append(ids, id)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if _, err := ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A peer that takes questions and answers none costs who reads half a second where another has the block, and less than five where
// none has. What is fetched ahead does not wait for it again.
func TestStalledHolder(t *testing.T) {
	t.Parallel()
	_, ra, rest, r := with(t, 1)
	var questions atomic.Int64
	r.serve(func(network.Stream, *wire.GetBlock) wire.Message { questions.Add(1); return nil })
	for i := range 8 {
		id, err := rest[0].Blocks.(*block.Store).Put(random(1, 1000+i))
		must(t, err)
		began := time.Now()
		if _, err := ra.Blocks.(*block.Store).Get(t.Context(), id); err != nil || time.Since(began) > 2*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	}
	if questions.Load() == 0 {
		t.Error("the peer was not asked")
	}
	began := time.Now()
	if _, err := ra.Blocks.(*block.Store).Get(t.Context(), block.ID{1}); !errors.Is(err, block.ErrAbsent) || time.Since(began) > 4900*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	f := ra.fetcher()
	_, _ = f.Fetch(exchange.Prefetch(t.Context()), block.ID{2}) // may find out that it stalls
	began = time.Now()
	for n := range byte(20) {
		if _, err := f.Fetch(exchange.Prefetch(t.Context()), block.ID{3, n}); !errors.Is(err, block.ErrAbsent) {
			t.Error(err)
		}
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("twenty blocks that nobody has took %v", took)
	}
}

// Who reads what is being fetched ahead, in vain, hears so in time; and gets what a peer has that is not asked ahead of need.
func TestReadingAfterAhead(t *testing.T) {
	t.Parallel()
	_, ra, _, r := with(t, 0)
	want := random(9, 100)
	r.serve(func(_ network.Stream, m *wire.GetBlock) wire.Message {
		if m.ID == block.Sum(want) {
			return &wire.Part{Request: m.Request, Data: want}
		}
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), block.ID{5}) })
	time.Sleep(50 * time.Millisecond)
	for range 3 {
		wg.Go(func() {
			began := time.Now()
			if _, err := ra.Blocks.(*block.Store).Get(t.Context(), block.ID{5}); !errors.Is(err, block.ErrAbsent) || time.Since(began) > 4900*time.Millisecond {
				t.Errorf("%v after %v", err, time.Since(began))
			}
		})
	}
	wg.Wait()
	// The peer has stalled, and is not asked ahead of need for a while.
	for range 50 {
		wg.Go(func() { _, _ = ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), block.Sum(want)) })
	}
	if got, err := ra.Blocks.(*block.Store).Get(t.Context(), block.Sum(want)); err != nil || !bytes.Equal(got, want) {
		t.Error(err)
	}
	wg.Wait()
}

// Other bytes for a block: they are not taken, their giver is left alone, and another is asked.
func TestFalseBlocks(t *testing.T) {
	a, ra, rest, r := with(t, 1)
	r.serve(func(_ network.Stream, m *wire.GetBlock) wire.Message {
		return &wire.Part{Request: m.Request, Data: []byte("other bytes")}
	})
	for i := range 8 {
		want := random(2, 1000+i)
		id, err := rest[0].Blocks.(*block.Store).Put(want)
		must(t, err)
		if got, err := ra.Blocks.(*block.Store).Get(t.Context(), id); err != nil || !bytes.Equal(got, want) {
			t.Error(err)
		}
	}
	eventually(t, func() bool { return !r.connected() })
	if n := a.log.warnings.Load(); n != 1 {
		t.Errorf("%d warnings", n)
	}
}

// A block without end is not taken in.
func TestEndlessBlock(t *testing.T) {
	_, ra, _, r := with(t, 0)
	r.serve(func(s network.Stream, m *wire.GetBlock) wire.Message {
		for r.send(s, &wire.Part{Request: m.Request, Left: 1 << 20, Data: make([]byte, wire.MaxPart)}) == nil {
		}
		return nil
	})
	before := heap()
	if _, err := ra.Blocks.(*block.Store).Get(t.Context(), block.ID{1}); !errors.Is(err, block.ErrAbsent) {
		t.Error(err)
	}
	eventually(t, func() bool { return !r.connected() })
	if grown := int64(heap()) - int64(before); grown > 32<<20 {
		t.Errorf("%d MiB more are in use", grown>>20)
	}
}

// What a peer was asked for and lacks is not asked of it again ahead of need, until it tells of new files. Who reads asks.
func TestLacks(t *testing.T) {
	_, ra, _, r := with(t, 0)
	var questions atomic.Int64
	r.serve(func(_ network.Stream, m *wire.GetBlock) wire.Message {
		questions.Add(1)
		return &wire.Part{Request: m.Request, Absent: true}
	})
	ask := func(want int64) {
		t.Helper()
		for range 5 {
			if _, err := ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), block.ID{9}); !errors.Is(err, block.ErrAbsent) {
				t.Error(err)
			}
		}
		if n := questions.Swap(0); n != want {
			t.Errorf("%d questions, not %d", n, want)
		}
	}
	ask(1)
	ask(0)
	if _, err := ra.Blocks.(*block.Store).Get(t.Context(), block.ID{9}); !errors.Is(err, block.ErrAbsent) || questions.Swap(0) != 1 {
		t.Error("who reads does not ask")
	}
	s := r.session(ra.ID)
	must(t, r.send(s, &wire.Frames{Graph: wire.Files, Frames: frames(t, r.author, "one", 1)}))
	eventually(t, func() bool { return len(ra.Files.Heads()) == 1 })
	ask(1)
}

// What came of a block is not asked for again.
func TestResume(t *testing.T) {
	_, ra, _, r := with(t, 0)
	want := random(4, 500_000)
	var offsets []uint64
	r.serve(func(s network.Stream, m *wire.GetBlock) wire.Message {
		offsets = append(offsets, m.Offset) // one question at a time
		rest := want[m.Offset:]
		if len(rest) > 100_000 {
			_ = r.send(s, &wire.Part{Request: m.Request, Data: rest[:100_000], Left: uint64(len(rest) - 100_000)})
			_ = s.CloseWrite()
			return nil
		}
		return &wire.Part{Request: m.Request, Data: rest}
	})
	id := block.Sum(want)
	for try := 0; ; try++ {
		got, err := ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), id)
		if err == nil {
			if !bytes.Equal(got, want) {
				t.Error("other bytes")
			}
			break
		}
		if try == 10 {
			t.Fatal(err)
		}
	}
	for i, o := range offsets {
		if o != uint64(i)*100_000 {
			t.Fatalf("it was asked for from %v on", offsets)
		}
	}
}

// Who reads does not wait for what is fetched ahead, be it the same block.
func TestReadingFirst(t *testing.T) {
	_, ra, _, r := with(t, 0)
	want := random(5, 1000)
	var questions atomic.Int64
	r.serve(func(_ network.Stream, m *wire.GetBlock) wire.Message {
		questions.Add(1)
		if m.ID == block.Sum(want) {
			return &wire.Part{Request: m.Request, Data: want}
		}
		time.Sleep(10 * time.Millisecond) // it answers those ahead, but slowly
		return &wire.Part{Request: m.Request, Absent: true}
	})
	var wg sync.WaitGroup
	for n := range byte(200) {
		wg.Go(func() { _, _ = ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), block.ID{7, n}) })
	}
	eventually(t, func() bool { return questions.Load() > 0 })
	wg.Go(func() { _, _ = ra.Blocks.(*block.Store).Get(exchange.Prefetch(t.Context()), block.Sum(want)) })
	time.Sleep(5 * time.Millisecond)
	if _, err := ra.Blocks.(*block.Store).Get(t.Context(), block.Sum(want)); err != nil {
		t.Error(err)
	}
	if n := questions.Load(); n > 100 {
		t.Errorf("%d questions were asked before it came", n)
	}
	wg.Wait()
}

// A block that comes slowly comes; one of which a byte comes now and then does not keep who reads.
func TestSlowHolder(t *testing.T) {
	t.Parallel()
	_, ra, _, r := with(t, 0)
	want := random(6, 200_000)
	r.serve(func(s network.Stream, m *wire.GetBlock) wire.Message {
		p := wire.Append(nil, &wire.Part{Request: m.Request, Data: want})
		piece, wait := 10_000, 300*time.Millisecond
		if m.ID != block.Sum(want) {
			piece, wait = 1, time.Second
		}
		for ; len(p) > 0; p = p[min(piece, len(p)):] {
			if _, err := s.Write(p[:min(piece, len(p))]); err != nil {
				return nil
			}
			time.Sleep(wait)
		}
		return nil
	})
	began := time.Now()
	if got, err := ra.Blocks.(*block.Store).Get(t.Context(), block.Sum(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if took := time.Since(began); took < absentAfter {
		t.Errorf("it came within %v: the test shows nothing", took)
	}
	began = time.Now()
	if _, err := ra.Blocks.(*block.Store).Get(t.Context(), block.ID{1}); !errors.Is(err, block.ErrAbsent) || time.Since(began) > time.Minute {
		t.Errorf("%v after %v", err, time.Since(began))
	}
}

const absentAfter = 4 * time.Second

// A block was damaged on the disk just after it was put, and is given without being hashed again: who gets it leaves the giver alone for a while. The giver
// doubts its disk from then on: the next who asks is told that the block is not here, and stays.
func TestDamagedBlockIsGivenOnce(t *testing.T) {
	_, _, rest, _ := with(t, 2)
	d := disk.NewSim(nil)
	blocks, err := block.Open(block.Options{Disk: d, Dir: "blocks", DB: kv.NewMem(), Seal: store.Plain{}})
	must(t, err)
	giver := newDevice(t, 1, 9, rest[0].d.addr("/tcp/"), rest[1].d.addr("/tcp/"))
	rg := newReplica(t, giver, "one")
	rg.Blocks = blocks
	giver.e.Add(rg.Replica)
	has := func(r *replica) bool {
		return slices.ContainsFunc(r.d.e.Status().Spaces[0].Peers, func(p exchange.SpacePeer) bool { return p.ID == giver.e.Status().ID })
	}
	eventually(t, func() bool { return has(rest[0]) && has(rest[1]) })

	const size = 1 << 20
	id, err := blocks.Put(random(7, size))
	must(t, err)
	f, err := d.Open("blocks/000001.seg")
	must(t, err)
	defer f.Close()
	info, err := f.Size()
	must(t, err)
	_, err = f.WriteAt(make([]byte, 16), info-size/2)
	must(t, err)

	fetch := func(r *replica) {
		t.Helper()
		if data, err := r.fetcher().Fetch(t.Context(), id); !errors.Is(err, block.ErrAbsent) {
			t.Fatalf("%d bytes, %v", len(data), err)
		}
	}
	fetch(rest[0])
	eventually(t, func() bool { return !has(rest[0]) })
	eventually(t, func() bool { _, err := blocks.GetToGive(id, nil); return errors.Is(err, block.ErrCorrupt) })
	fetch(rest[1])
	if !has(rest[1]) {
		t.Error("the second who asked has left too")
	}
}
