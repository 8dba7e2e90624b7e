package dag_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// TestRoom: whoever takes batches in from elsewhere asks for room before, and may use the graph for it.
func TestRoom(t *testing.T) {
	from := newGraph(t)
	put(t, from, author(0), "root ", dag.ID{}, dag.ID{})
	var frames [][]byte
	if err := from.FramesSince(nil, func(_ dag.ID, f []byte) error { frames = append(frames, f); return nil }); err != nil {
		t.Fatal(err)
	}
	var to *dag.Graph
	asked := 0
	to, err := dag.Open(from.Space(), store.NewMem(), dag.Anyone{}, dag.Options{Room: func() {
		asked++
		if tips := to.Tips(); len(tips) > 0 {
			t.Errorf("%d tips before anything was taken in", len(tips))
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.IngestAll(frames, func(_ dag.Result, err error) error { return err }); err != nil || asked != 1 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}
