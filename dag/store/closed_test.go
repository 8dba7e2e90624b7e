package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
)

// A store that is closed takes what its records take: a node keeps a hundred thousand of them.
func TestClosedStoreTakesNoMore(t *testing.T) {
	dir := t.TempDir()
	d, err := disk.OS(dir)
	must(t, err)
	o := store.Options{Disk: d, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}}
	size := func() int64 {
		f, err := d.Open(filepath.Join("log", "files-000000.log"))
		must(t, err)
		defer f.Close()
		n, err := f.Size()
		must(t, err)
		return n
	}
	var last int64
	for round := range 3 {
		st, err := store.Open(o)
		must(t, err)
		if st.Bytes() < last {
			t.Fatalf("%d bytes are left of %d", st.Bytes(), last)
		}
		for range 4 {
			frame := make([]byte, 100)
			must(t, st.Append(dag.Record{At: st.Next(len(frame)), ID: dag.Sum(frame), Frame: frame}, &dag.Update{}))
			must(t, st.Sync())
		}
		if size() <= st.Bytes() {
			t.Fatal("nothing is written in advance: the test shows nothing")
		}
		if n := size(); n > 32<<10 {
			t.Errorf("%d bytes are written for a few records: thousands of logs may be open", n)
		}
		last = st.Bytes()
		must(t, st.Close())
		if n := size(); n != last {
			t.Errorf("round %d: the file has %d bytes, the log %d", round, n, last)
		}
	}
}

// TestAhead: what is written in advance grows with the log, which is seldom made longer by a record.
func TestAhead(t *testing.T) {
	dir := t.TempDir()
	d, err := disk.OS(dir)
	must(t, err)
	st, err := store.Open(store.Options{Disk: d, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}})
	must(t, err)
	defer st.Close()
	var last int64
	grown := 0
	frame := make([]byte, 900)
	for range 600 {
		must(t, st.Append(dag.Record{At: st.Next(len(frame)), ID: dag.Sum(frame), Frame: frame}, &dag.Update{}))
		must(t, st.Sync())
		info, err := os.Stat(filepath.Join(dir, "log", "files-000000.log"))
		must(t, err)
		if info.Size() > last {
			last = info.Size()
			grown++
		}
	}
	if most := int(st.Bytes()>>18) + 6; grown > most {
		t.Errorf("a log of %d bytes was made longer %d times, not %d at most", st.Bytes(), grown, most)
	}
}
