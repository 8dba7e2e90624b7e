package store_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
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

// simFile returns the content of the log's only segment.
func simFile(t *testing.T, sim *disk.Sim) (content []byte) {
	t.Helper()
	f, err := sim.Open("log/files-000000.log")
	must(t, err)
	defer f.Close()
	n, err := f.Size()
	must(t, err)
	content = make([]byte, n)
	if _, err := f.ReadAt(content, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	return content
}

// full is a disk on which nothing can be written in advance: what was tried stays, as where the disk is full.
type full struct {
	disk.FS
	is    bool
	tried int // to write in advance
}

type fullFile struct {
	disk.File
	d *full
}

func (d *full) Create(name string) (disk.File, error) {
	f, err := d.FS.Create(name)
	return fullFile{f, d}, err
}

func (f fullFile) Allocate(off, n int64) error {
	f.d.tried++
	if !f.d.is {
		return f.File.Allocate(off, n)
	}
	if err := f.File.Allocate(off, n/2); err != nil {
		return err
	}
	return syscall.ENOSPC
}

// What a full disk had no room to write in advance takes none of what is left, and is tried again with little.
func TestAheadOnFullDisk(t *testing.T) {
	sim := disk.NewSim(nil)
	d := &full{FS: sim}
	st, err := store.Open(store.Options{Disk: d, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}})
	must(t, err)
	frame := make([]byte, 900)
	appendOne := func() (file int64) {
		t.Helper()
		must(t, st.Append(dag.Record{At: st.Next(len(frame)), ID: dag.Sum(frame), Frame: frame}, &dag.Update{}))
		must(t, st.Sync())
		return int64(len(simFile(t, sim)))
	}
	for range 200 {
		appendOne()
	}
	d.is = true
	for appendOne() > st.Bytes() { // up to where it was written in advance
		if st.Bytes() > 1<<20 {
			t.Fatal("what is written in advance stays where the disk is full")
		}
	}
	if n := appendOne(); n != st.Bytes() {
		t.Errorf("the log has %d bytes, its file %d", st.Bytes(), n)
	}
	d.is = false
	if n := appendOne(); n <= st.Bytes() || n > st.Bytes()+16<<10 {
		t.Errorf("when there is room again, a log of %d bytes has %d", st.Bytes(), n)
	}
	before := st.Bytes()
	must(t, st.Close())
	st, err = store.Open(store.Options{Disk: sim, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}})
	must(t, err)
	if st.Bytes() != before {
		t.Errorf("opened again it has %d bytes, not %d", st.Bytes(), before)
	}
	must(t, st.Close())
}

// TestAheadAtSegmentEnd: what was written in advance up to the end of a segment is not written again for each record.
func TestAheadAtSegmentEnd(t *testing.T) {
	d := &full{FS: disk.NewSim(nil)}
	st, err := store.Open(store.Options{Disk: d, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}})
	must(t, err)
	add := func(n int) {
		t.Helper()
		frame := make([]byte, n)
		must(t, st.Append(dag.Record{At: st.Next(n), ID: dag.Sum(frame), Frame: frame}, &dag.Update{}))
	}
	const segment = 64 << 20
	for st.Bytes() < segment-1400<<10 {
		add(900 << 10)
	}
	add(segment - 400<<10 - int(st.Bytes()))
	for n := 0; st.Bytes() < segment+100<<10; n++ {
		must(t, st.Sync())
		add(1000)
	}
	if d.tried == 0 || d.tried > 12 {
		t.Errorf("written in advance %d times", d.tried)
	}
	must(t, st.Close())
}

// A log whose last record is torn at any byte ends before it, whatever there is of the zeros that were written in advance, and goes on from there.
func TestTornAhead(t *testing.T) {
	sim := disk.NewSim(nil)
	st, err := store.Open(store.Options{Disk: sim, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}})
	must(t, err)
	appendOne := func(st *store.Store, n int) {
		t.Helper()
		frame := bytes.Repeat([]byte{byte(n), 0, 1}, 20)
		must(t, st.Append(dag.Record{At: st.Next(len(frame)), ID: dag.Sum(frame), Head: 30, Frame: frame}, &dag.Update{}))
		must(t, st.Sync())
	}
	for n := range 200 {
		appendOne(st, n)
	}
	from := st.Bytes()
	appendOne(st, 1)
	end, whole := st.Bytes(), simFile(t, sim)
	if int64(len(whole)) < end+20<<10 {
		t.Fatal("little is written in advance: the test shows nothing")
	}
	for cut := from; cut <= end; cut++ {
		zeros := append(bytes.Clone(whole[:cut]), make([]byte, int64(len(whole))-cut)...)
		for _, content := range [][]byte{zeros, zeros[:cut], zeros[:end], zeros[:end+100]} {
			torn := disk.NewSim(nil)
			must(t, torn.MkdirAll("log"))
			f, err := torn.Create("log/files-000000.log")
			must(t, err)
			_, err = f.WriteAt(content, 0)
			must(t, err)
			must(t, f.Close())
			o := store.Options{Disk: torn, Dir: "log", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}}
			st, err := store.Open(o)
			must(t, err)
			want := from
			if bytes.Equal(content[:min(end, int64(len(content)))], whole[:end]) { // its last bytes may be zeros
				want = end
			}
			if st.Bytes() != want || int64(len(simFile(t, torn))) != want {
				t.Fatalf("torn at %d of %d bytes: it ends at %d, in a file of %d, not at %d", cut, len(content), st.Bytes(), len(simFile(t, torn)), want)
			}
			appendOne(st, 2)
			appendOne(st, 3)
			next := st.Bytes() // not closed, which cuts the file
			st, err = store.Open(o)
			must(t, err)
			if st.Bytes() != next {
				t.Fatalf("torn at %d, opened again: it ends at %d, not at %d", cut, st.Bytes(), next)
			}
		}
	}
}
