package store_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/dag/storetest"
)

// sealer encrypts with AES-GCM, so that a value in a wrong place does not open.
type sealer struct{ aead cipher.AEAD }

func newSealer() sealer {
	b, _ := aes.NewCipher(make([]byte, 16))
	a, _ := cipher.NewGCMWithRandomNonce(b)
	return sealer{a}
}

func (s sealer) SealLocal(dst, plaintext, ad []byte) []byte {
	return s.aead.Seal(dst, nil, plaintext, ad)
}
func (s sealer) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	return s.aead.Open(dst, nil, sealed, ad)
}

var errAbort = errors.New("aborted")

func subject(tb testing.TB, o store.Options) storetest.Subject {
	tb.Helper()
	st, err := store.Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	cur := st
	return storetest.Subject{
		Store:      st,
		Checkpoint: func(ok bool) error { return checkpoint(cur, o.DB, ok) },
		Reopen: func() (dag.Store, error) {
			cur.Close()
			cur, err = store.Open(o)
			return cur, err
		},
	}
}

func checkpoint(st *store.Store, db kv.DB, ok bool) error {
	write, done := st.Freeze()
	err := db.Update(func(tx kv.Tx) error {
		if err := write(tx); err != nil || ok {
			return err
		}
		return errAbort
	})
	done(err == nil)
	if err == errAbort {
		return nil
	}
	return err
}

func TestMem(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Subject { return storetest.Subject{Store: store.NewMem()} })
}

func TestSim(t *testing.T) {
	storetest.Run(t, func(tb testing.TB) storetest.Subject {
		return subject(tb, store.Options{Disk: disk.NewSim(nil), Dir: "batches", DB: kv.NewMem(), Name: "files", Seal: newSealer()})
	})
}

func TestOS(t *testing.T) {
	storetest.RunFixed(t, func(tb testing.TB) storetest.Subject { return subject(tb, onDisk(tb)) })
}

// onDisk returns the options of a store on a real disk, with bbolt.
func onDisk(tb testing.TB) store.Options {
	dir := tb.TempDir()
	d, err := disk.OS(dir)
	if err != nil {
		tb.Fatal(err)
	}
	db, err := kv.OpenBolt(filepath.Join(dir, "db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return store.Options{Disk: d, Dir: "batches", DB: db, Name: "files", Seal: newSealer()}
}

func seedKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
}

// TestRollback cuts the log back to a mark, as the recovery of a space does, and never below a checkpoint.
func TestRollback(t *testing.T) {
	sim := disk.NewSim(nil)
	h, err := openHome(sim, &ended{})
	must(t, err)
	rnd := rand.New(rand.NewPCG(4, 4))
	var marks []store.Mark
	for i := range 30 {
		must(t, h.write(rnd))
		marks = append(marks, h.st.Mark())
		if i == 9 {
			must(t, checkpoint(h.st, h.o.DB, true))
		}
	}
	if err := h.st.Rollback(marks[20]); err == nil {
		t.Error("rolled back under an open graph")
	}
	for _, c := range []struct{ to, want int }{{25, 26}, {12, 13}, {3, 10}} {
		st, err := store.Open(h.o)
		must(t, err)
		if err := st.Rollback(marks[c.to] + 1); err == nil && c.to > 10 {
			t.Error("rolled back to the middle of a record")
		}
		must(t, st.Rollback(marks[c.to]))
		after := &home{sim: sim, o: h.o, st: st, auth: h.auth}
		after.g, err = dag.Open(space, st, dag.Anyone{}, dag.Options{})
		must(t, err)
		n, _, _ := after.g.Counters()
		if int(n) != c.want {
			t.Errorf("rolled back to %d: %d batches", c.to, n)
		}
		must(t, h.check(after))
		if c.want < 12 { // it goes on from there
			must(t, after.write(rnd))
			must(t, after.g.Verify(nil))
		}
		st.Close()
	}
	st, err := store.Open(store.Options{Disk: disk.NewSim(nil), DB: kv.NewMem(), Seal: store.Plain{}, Name: "n"})
	must(t, err)
	must(t, st.Rollback(0)) // nothing was ever noted
}

// TestDamage flips each byte of a log: whatever is read is either what was written, or ErrCorrupt.
func TestDamage(t *testing.T) {
	sim := disk.NewSim(nil)
	h, err := openHome(sim, &ended{})
	must(t, err)
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 6 {
		must(t, h.write(rnd))
	}
	must(t, checkpoint(h.st, h.o.DB, true))
	want, err := dump(h.g)
	must(t, err)
	frames := make(map[dag.ID][]byte)
	must(t, h.g.Batches(func(b *dag.Batch, _ [][]byte) error {
		frames[b.ID()], err = h.g.Frame(b.ID())
		return err
	}))
	f, err := sim.Open("batches/files-000000.log")
	must(t, err)
	var b [1]byte
	found, kept := 0, 0
	for off := int64(0); off < h.st.Bytes(); off += 1 + rnd.Int64N(20) {
		f.ReadAt(b[:], off)
		f.WriteAt([]byte{b[0] ^ 1<<(off%8)}, off)
		g, err := dag.Open(space, h.st, dag.Anyone{}, dag.Options{})
		must(t, err)
		if got, err := dump(g); err == nil && got != want || err != nil && !errors.Is(err, dag.ErrCorrupt) {
			t.Fatalf("flipped at %d: %v", off, err)
		}
		// No peer is sent what is damaged: it would hold that against the sender.
		for id, frame := range frames {
			switch got, err := g.Frame(id); {
			case errors.Is(err, dag.ErrCorrupt):
				kept++
			case err != nil || !bytes.Equal(got, frame):
				t.Fatalf("flipped at %d: %v is given as another: %v", off, id, err)
			}
		}
		if err := g.Verify(nil); errors.Is(err, dag.ErrCorrupt) {
			found++
		} else {
			t.Fatalf("flipped at %d: not found: %v", off, err)
		}
		f.WriteAt(b[:], off)
	}
	if found < 50 || kept < 50 {
		t.Errorf("found %d, kept from others %d", found, kept)
	}
	must(t, h.g.Verify(nil))
}

// TestVerifyGoesOn: damage does not keep verify from what lies behind it.
func TestVerifyGoesOn(t *testing.T) {
	sim := disk.NewSim(nil)
	h, err := openHome(sim, &ended{})
	must(t, err)
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 20 {
		must(t, h.write(rnd))
	}
	must(t, checkpoint(h.st, h.o.DB, true))
	f, err := sim.Open("batches/files-000000.log")
	must(t, err)
	var ats []uint64
	must(t, h.st.Walk(0, func(rec dag.Record) error { ats = append(ats, rec.At); return nil }))
	bad := []uint64{ats[2], ats[len(ats)-2]}
	for _, at := range bad {
		var b [1]byte
		f.ReadAt(b[:], int64(at)+100)
		b[0] ^= 1
		f.WriteAt(b[:], int64(at)+100)
	}
	g, err := dag.Open(space, h.st, dag.Anyone{}, dag.Options{})
	must(t, err)
	said := ""
	must(t, g.Verify(func(err error) {
		if !errors.Is(err, dag.ErrCorrupt) {
			t.Error(err)
		}
		said += err.Error() + "\n"
	}))
	for _, at := range bad {
		if n := strings.Count("\n"+said, fmt.Sprintf("\n%v: batches/files-000000.log: record at %d\n", dag.ErrCorrupt, at)); n != 1 {
			t.Errorf("damage at %d is told %d times:\n%s", at, n, said)
		}
	}
}

// TestSegments fills two segment files and begins a third.
func TestSegments(t *testing.T) {
	d, err := disk.OS(t.TempDir())
	must(t, err)
	o := store.Options{Disk: d, Dir: "b", DB: kv.NewMem(), Name: "n", Seal: store.Plain{}}
	st, err := store.Open(o)
	must(t, err)
	rnd := rand.New(rand.NewPCG(6, 6))
	var ats []uint64
	var sizes []int
	id := func(i int) dag.ID { return dag.ID{byte(i)} }
	for i := range 140 {
		frame := bytes.Repeat([]byte{byte(i)}, dag.MaxFrame-rnd.IntN(50_000))
		rec := dag.Record{At: st.Next(len(frame)), ID: id(i), Head: 100, Frame: frame}
		must(t, st.Append(rec, &dag.Update{}))
		ats, sizes = append(ats, rec.At), append(sizes, len(frame))
		if i == 30 || i == 100 {
			must(t, checkpoint(st, o.DB, true))
		}
	}
	if ats[139]>>26 != 2 {
		t.Fatal(ats[139])
	}
	must(t, st.Sync())
	for range 2 {
		i := 0
		must(t, st.Walk(0, func(rec dag.Record) error {
			if rec.At != ats[i] || len(rec.Frame) != sizes[i] || rec.ID != id(i) {
				t.Fatalf("record %d", i)
			}
			i++
			return nil
		}))
		if i != 140 {
			t.Fatal(i)
		}
		spans := make([]dag.Span, 140)
		for i := range spans {
			spans[i] = dag.Span{At: ats[i], Off: uint32(sizes[i]) - 5, Len: 5}
		}
		must(t, st.ReadSpans(spans))
		for i := range spans {
			if spans[i].Data[4] != byte(i) {
				t.Fatal(i)
			}
		}
		st.Close()
		st, err = store.Open(o)
		must(t, err)
		if st.Indexed() >= ats[139] {
			t.Fatal(st.Indexed())
		}
	}
	must(t, st.Rollback(store.Mark(ats[110])))
	must(t, st.Append(dag.Record{At: st.Next(3), Frame: []byte("end")}, &dag.Update{}))
	must(t, st.Close())
	st, err = store.Open(o)
	must(t, err)
	if names, err := d.ReadDir("b"); err != nil || len(names) != 2 {
		t.Fatal(names, err)
	}
	rec, err := st.Read(ats[110])
	if err != nil || string(rec.Frame) != "end" {
		t.Fatal(err)
	}
}

// TestOldRecords: what an older life of the file left behind a cut does not come back behind new records.
func TestOldRecords(t *testing.T) {
	sim := disk.NewSim(nil)
	o := store.Options{Disk: sim, DB: kv.NewMem(), Name: "n", Seal: store.Plain{}}
	st, err := store.Open(o)
	must(t, err)
	put := func(st *store.Store, s string) uint64 {
		at := st.Next(len(s))
		must(t, st.Append(dag.Record{At: at, Frame: []byte(s)}, &dag.Update{}))
		return at
	}
	put(st, "first")
	mark := st.Mark()
	put(st, "second")
	third := put(st, "third")
	old := make([]byte, uint64(st.Mark())-third)
	f, err := sim.Open("n-000000.log")
	must(t, err)
	_, err = f.ReadAt(old, int64(third))
	must(t, err)

	st, err = store.Open(o)
	must(t, err)
	must(t, st.Rollback(mark))
	if at := put(st, "SECOND"); at+52+6 != third {
		t.Fatal(at, third)
	}
	_, err = f.WriteAt(old, int64(third)) // as if the cut had been lost
	must(t, err)
	st, err = store.Open(o)
	must(t, err)
	if st.Mark() != store.Mark(third) {
		t.Errorf("the log ends at %d, want %d", st.Mark(), third)
	}
}

// TestRuns: sets are found in every phase of a checkpoint, and runs that were merged do not stay.
func TestRuns(t *testing.T) {
	o := store.Options{Disk: disk.NewSim(nil), DB: kv.NewMem(), Name: "n", Seal: newSealer()}
	st, err := store.Open(o)
	must(t, err)
	find := func(phase string, n int) {
		for i := range n {
			vs, err := st.Find(dag.SetChanges, dag.Sum([]byte{byte(i), byte(i >> 8)}).Prefix(), nil)
			if err != nil || len(vs) == 0 || vs[0].A != uint64(i) {
				t.Fatalf("%s: %d of %d: %v %v", phase, i, n, vs, err)
			}
		}
	}
	const each = 10
	for r := range 130 {
		var u dag.Update
		for i := r * each; i < (r+1)*each; i++ {
			u.Adds = append(u.Adds, dag.Add{Set: dag.SetChanges, Prefix: dag.Sum([]byte{byte(i), byte(i >> 8)}).Prefix(), Value: dag.Value{A: uint64(i)}})
		}
		must(t, st.Index(dag.Record{}, &u))
		n := (r + 1) * each
		write, done := st.Freeze()
		find("frozen", n)
		must(t, o.DB.Update(write))
		find("written", n)
		done(true)
		find("done", n)
	}
	keys := 0
	must(t, o.DB.View(func(tx kv.Tx) error {
		return tx.Scan("n.runs", nil, func(_, _ []byte) bool { keys++; return true })
	}))
	if keys > 80 {
		t.Errorf("%d keys for %d entries", keys, 130*each)
	}
}

// TestReadsAreBounded: going through an object's changes takes the memory of a few, however long they are, also where many
// have one clock.
func TestReadsAreBounded(t *testing.T) {
	o := onDisk(t)
	st, err := store.Open(o)
	must(t, err)
	defer st.Close()
	g, err := dag.Open(space, st, dag.Anyone{}, dag.Options{})
	must(t, err)
	object, payload := dag.Sum([]byte("fixed")), make([]byte, 1<<20-4096)
	add := func(g *dag.Graph, a dag.Author, n byte) *dag.Batch {
		b, err := g.Begin(a, nil, dag.ID{})
		must(t, err)
		payload[0] = n
		_, err = b.Add(object, func(dag.Header) ([]byte, error) { return payload, nil })
		must(t, err)
		batch, err := b.Commit()
		must(t, err)
		return batch
	}
	const each = 24
	for i := range each { // at one clock
		mem, err := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
		must(t, err)
		frame, err := mem.Frame(add(mem, author(i), byte(i)).ID())
		must(t, err)
		_, err = g.Ingest(frame)
		must(t, err)
	}
	for i := range each {
		add(g, author(100), byte(i))
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for name, walk := range map[string]func(dag.ID, func(dag.Entry) error) error{"on": g.Changes, "back": g.ChangesBack} {
		n, most := 0, int64(0)
		must(t, walk(object, func(e dag.Entry) error {
			n++
			most = max(most, heap()-before)
			return nil
		}))
		if n != 2*each || most > 8<<20 {
			t.Errorf("%s: %d changes of 1 MiB, at most %d bytes at a time", name, n, most)
		}
	}
}
