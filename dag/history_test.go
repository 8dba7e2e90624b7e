package dag_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// A history is frames in the order in which a replica of space gets them, what becomes of each, and what the replica shows
// in the end.
type history struct {
	Space   string       `json:"space"`
	Frames  []historic   `json:"frames"`
	Heads   []string     `json:"heads"`
	Order   []string     `json:"order"` // of the batches
	Objects []historical `json:"objects"`
}

type historic struct {
	Hex     string   `json:"hex"`
	Batch   string   `json:"batch"`
	Outcome string   `json:"outcome"` // accepted, duplicate, pending, or a fault
	Missing []string `json:"missing,omitempty"`
}

type historical struct {
	Object  string   `json:"object"`
	Changes []string `json:"changes"` // in total order
	Heads   []string `json:"heads"`
}

func texts(ids []dag.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.String()
	}
	return out
}

// script makes the frames: two devices that write at once, one of them twice the same, a branch, joins, a forgery.
func script(t *testing.T) (frames [][]byte) {
	take := func(g *dag.Graph, b *dag.Batch) *dag.Batch {
		f, err := g.Frame(b.ID())
		must(t, err)
		frames = append(frames, f)
		return b
	}
	a, b := newGraph(t), newGraph(t)
	first, ids := put(t, a, author(1), "root ", dag.ID{}, dag.ID{}, dag.Sum([]byte("fixed")))
	take(a, first)
	send(t, a, b, first.ID())
	x, _ := put(t, a, author(1), "x", ids[0], ids[1])
	branch, _ := put(t, b, author(1), "x", ids[0]) // the same change as in x, in a branch of the first device's feed
	y, _ := put(t, b, author(2), "y", ids[0])
	take(b, y)
	take(b, branch)
	take(a, x)
	for _, id := range []*dag.Batch{branch, y} {
		send(t, b, a, id.ID())
	}
	z, _ := put(t, a, author(2), "z", ids[0])
	last, _ := put(t, a, author(1), "last", ids[0], ids[1], dag.ID{})
	take(a, last)
	take(a, z)
	take(a, last)
	c := &dag.Change{Object: ids[1], Parents: []dag.ID{ids[0]}, Payload: []byte("a parent of another object")}
	frames = append(frames, forge(*last, []*dag.Change{c}, author(1), func(b *dag.Batch, _ []*dag.Change) {}))
	frames = append(frames, forge(*last, nil, author(1), func(b *dag.Batch, _ []*dag.Change) { b.Clock++ }))
	frames = append(frames, forge(*last, nil, author(2), func(b *dag.Batch, _ []*dag.Change) {}))
	return frames
}

// TestHistory pins acceptance and order.
func TestHistory(t *testing.T) {
	if *update {
		h := history{Space: space.String()}
		for _, f := range script(t) {
			b, _, err := dag.DecodeFrame(f)
			must(t, err)
			h.Frames = append(h.Frames, historic{Hex: hex.EncodeToString(f), Batch: b.ID().String()})
		}
		play(t, &h)
		if len(h.Objects[0].Changes) != 5 { // the change of the branch once
			t.Fatal(h.Objects[0].Changes)
		}
		golden(t, "history.json", h)
	}
	p, err := os.ReadFile("testdata/history.json")
	must(t, err)
	var h history
	must(t, json.Unmarshal(p, &h))
	if len(h.Frames) < 8 {
		t.Fatal(len(h.Frames))
	}
	got := h
	play(t, &got)
	golden(t, "history.json", got)
}

// play gives the frames to a replica and fills in what it says.
func play(t *testing.T, h *history) {
	g := newGraph(t)
	frames := make([]historic, len(h.Frames))
	for i, f := range h.Frames {
		p, err := hex.DecodeString(f.Hex)
		must(t, err)
		res, err := g.Ingest(p)
		f.Missing = nil
		switch {
		case errors.Is(err, dag.ErrInvalid):
			f.Outcome = "invalid"
		case errors.Is(err, dag.ErrSignature):
			f.Outcome = "wrong signature"
		default:
			must(t, err)
			f.Outcome = map[dag.Status]string{dag.Accepted: "accepted", dag.Duplicate: "duplicate", dag.Pending: "pending"}[res.Status]
			if len(res.Missing) > 0 {
				f.Missing = texts(res.Missing)
			}
		}
		frames[i] = f
	}
	h.Frames, h.Heads, h.Order, h.Objects = frames, texts(g.Heads()), nil, nil
	must(t, g.Batches(func(b *dag.Batch, _ [][]byte) error {
		h.Order = append(h.Order, b.ID().String())
		return nil
	}))
	must(t, g.Objects(func(id dag.ID) error {
		o := historical{Object: id.String(), Heads: texts(g.ObjectHeads(id))}
		err := g.Changes(id, func(e dag.Entry) error {
			o.Changes = append(o.Changes, e.ID.String())
			return nil
		})
		h.Objects = append(h.Objects, o)
		return err
	}))
}

// TestManyFeeds: where one member made thousands of feeds, finding what lies in the past of a batch takes the memory of one
// vector, not of one for each batch on the way.
func TestManyFeeds(t *testing.T) {
	feeds := 4000
	if testing.Short() {
		feeds = 1000
	}
	st := store.NewMem()
	g, err := dag.Open(space, st, dag.Anyone{}, dag.Options{})
	must(t, err)
	var first dag.ID
	for i := range feeds {
		a := author(i)
		b := &dag.Batch{Version: 1, Space: space, Account: a.Account, Device: a.Device, Seq: 1, Clock: 1}
		signBatch(b, a)
		_, err := g.Ingest(dag.EncodeFrame(b, nil))
		must(t, err)
		if i == 0 {
			first = b.ID()
		}
	}
	last, _ := put(t, g, author(feeds), "x", dag.ID{}) // joins them
	g, err = dag.Open(space, st, dag.Anyone{}, dag.Options{CacheBytes: 1})
	must(t, err)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	in, err := g.InPast(first, last.ID())
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; !in || err != nil || took > uint64(feeds)*8<<10 {
		t.Errorf("%v, %v, with %d bytes", in, err, took)
	}
	// Nor does judging them anew hold all vectors at a time.
	watched := &watchedStore{Mem: st}
	g, err = dag.Open(space, watched, &hide{last.ID()}, dag.Options{CacheBytes: 1})
	must(t, err)
	start, most, n := heapInUse(), int64(0), 0
	watched.get = func() {
		if n++; n%1000 == 0 {
			most = max(most, heapInUse()-start)
		}
	}
	_, err = g.Rejudge(nil)
	must(t, err)
	if heads, err := g.Quarantined(); err != nil || len(heads) != 1 || n < feeds || most > 24<<20 {
		t.Errorf("%v, %v, with %d bytes", heads, err, most)
	}
}

// watchedStore tells of each look into a table.
type watchedStore struct {
	*store.Mem
	get func()
}

func (w *watchedStore) Get(t dag.Table, key []byte) ([]byte, error) {
	if w.get != nil {
		w.get()
	}
	return w.Mem.Get(t, key)
}

// heapInUse is what is alive.
func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
