// Package storetest is the suite that every dag.Store passes.
package storetest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag"
)

// Subject is a store under test. The functions are nil where it has no disk.
type Subject struct {
	dag.Store
	Checkpoint func(ok bool) error       // a checkpoint whose transaction commits or fails
	Reopen     func() (dag.Store, error) // opens it again, as after a killed process
}

// Run runs the suite. new returns an empty store.
func Run(t *testing.T, new func(tb testing.TB) Subject) {
	t.Run("Model", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) { model(rt, new(t)) })
	})
	RunFixed(t, new)
}

// RunFixed runs what is not random: the part for stores on a disk that makes each check slow.
func RunFixed(t *testing.T, new func(tb testing.TB) Subject) {
	t.Run("Damage", func(t *testing.T) { absent(t, new(t)) })
	t.Run("Parallel", func(t *testing.T) { parallel(t, new(t)) })
	t.Run("Large", func(t *testing.T) { large(t, new(t)) })
}

// world is the naive model of a store.
type world struct {
	records []dag.Record
	updates []dag.Update // of each record
	indexed int          // records that the index covers
	index   index
	saved   index // by the last checkpoint
	savedTo int
}

type index struct {
	tables [dag.Tables]map[string]string
	sets   [dag.Sets]map[uint64]map[dag.Value]bool
}

func newIndex() (x index) {
	for t := range x.tables {
		x.tables[t] = map[string]string{}
	}
	for s := range x.sets {
		x.sets[s] = map[uint64]map[dag.Value]bool{}
	}
	return x
}

func (x index) clone() index {
	c := newIndex()
	for t := range x.tables {
		for k, v := range x.tables[t] {
			c.tables[t][k] = v
		}
	}
	for s := range x.sets {
		for p, vs := range x.sets[s] {
			c.sets[s][p] = map[dag.Value]bool{}
			for v := range vs {
				c.sets[s][p][v] = true
			}
		}
	}
	return c
}

func (x index) apply(u *dag.Update) {
	for _, p := range u.Puts {
		if len(p.Value) == 0 {
			delete(x.tables[p.Table], p.Key)
			continue
		}
		x.tables[p.Table][p.Key] = string(p.Value)
	}
	for _, a := range u.Adds {
		if x.sets[a.Set][a.Prefix] == nil {
			x.sets[a.Set][a.Prefix] = map[dag.Value]bool{}
		}
		x.sets[a.Set][a.Prefix][a.Value] = true
	}
}

var keys = rapid.SliceOfN(rapid.Byte(), 1, 3)

func drawUpdate(rt *rapid.T) (u dag.Update) {
	for range rapid.IntRange(0, 6).Draw(rt, "puts") {
		u.Puts = append(u.Puts, dag.Put{
			Table: dag.Table(rapid.IntRange(0, int(dag.Tables)-1).Draw(rt, "table")),
			Key:   string(keys.Draw(rt, "key")),
			Value: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(rt, "value"),
		})
	}
	for range rapid.IntRange(0, 6).Draw(rt, "adds") {
		u.Adds = append(u.Adds, dag.Add{
			Set:    dag.Set(rapid.IntRange(0, int(dag.Sets)-1).Draw(rt, "set")),
			Prefix: rapid.Uint64Range(0, 40).Draw(rt, "prefix") << 58,
			Value:  dag.Value{A: rapid.Uint64Range(0, 3).Draw(rt, "a"), B: rapid.Uint64Range(0, 1).Draw(rt, "b")},
		})
	}
	return u
}

func model(rt *rapid.T, s Subject) {
	w := &world{index: newIndex(), saved: newIndex()}
	actions := map[string]func(*rapid.T){
		"append": func(rt *rapid.T) { w.append(rt, s) },
		"index": func(rt *rapid.T) {
			u := drawUpdate(rt)
			must(rt, s.Index(dag.Record{}, &u))
			w.index.apply(&u)
		},
		"": func(rt *rapid.T) { w.check(rt, s) },
	}
	if s.Checkpoint != nil {
		actions["checkpoint"] = func(rt *rapid.T) {
			ok := rapid.Bool().Draw(rt, "ok")
			must(rt, s.Checkpoint(ok))
			if ok {
				w.saved, w.savedTo = w.index.clone(), w.indexed
			}
		}
		actions["reopen"] = func(rt *rapid.T) {
			st, err := s.Reopen()
			must(rt, err)
			s.Store = st
			w.index, w.indexed = w.saved.clone(), w.savedTo
			w.replay(rt, s)
		}
	}
	rt.Repeat(actions)
}

func (w *world) append(rt *rapid.T, s Subject) {
	frame := rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(rt, "frame")
	if rapid.IntRange(0, 20).Draw(rt, "long") == 0 {
		frame = bytes.Repeat(frame, 200)
	}
	rec := dag.Record{
		At: s.Next(len(frame)), ID: dag.Sum(frame), Head: rapid.IntRange(0, len(frame)).Draw(rt, "head"), Frame: frame,
	}
	u := drawUpdate(rt)
	must(rt, s.Append(rec, &u))
	w.records = append(w.records, rec)
	w.updates = append(w.updates, u)
	w.index.apply(&u)
	w.indexed++
}

// replay does what dag.Open does: it indexes what the log has and the index lacks.
func (w *world) replay(rt *rapid.T, s Subject) {
	from := s.Indexed()
	must(rt, s.Walk(from, func(rec dag.Record) error {
		if w.indexed == len(w.records) {
			return errors.New("more records than were written")
		}
		if err := same(rec, w.records[w.indexed]); err != nil {
			return err
		}
		u := &w.updates[w.indexed]
		w.index.apply(u)
		w.indexed++
		return s.Index(rec, u)
	}))
	if w.indexed != len(w.records) {
		rt.Fatalf("%d records of %d", w.indexed, len(w.records))
	}
}

func same(got, want dag.Record) error {
	if got.At != want.At || got.ID != want.ID || got.Head != want.Head || !bytes.Equal(got.Frame, want.Frame) {
		return fmt.Errorf("record %d: got %d bytes at %d, want %d bytes", want.At, len(got.Frame), got.At, len(want.Frame))
	}
	return nil
}

func (w *world) check(rt *rapid.T, s Subject) {
	w.checkLog(rt, s)
	for t := range w.index.tables {
		w.checkTable(rt, s, dag.Table(t))
	}
	set := dag.Set(rapid.IntRange(0, int(dag.Sets)-1).Draw(rt, "set"))
	for p := range uint64(41) {
		vs, err := s.Find(set, p<<58, nil)
		must(rt, err)
		got := map[dag.Value]bool{}
		for _, v := range vs {
			got[v] = true
		}
		want := w.index.sets[set][p<<58]
		if len(got) != len(want) {
			rt.Fatalf("set %d prefix %d: got %v want %v", set, p, got, want)
		}
		for v := range want {
			if !got[v] {
				rt.Fatalf("set %d prefix %d: lacks %v", set, p, v)
			}
		}
	}
}

func (w *world) checkLog(rt *rapid.T, s Subject) {
	if len(w.records) == 0 {
		return
	}
	var spans []dag.Span
	var of []int
	for range rapid.IntRange(0, 8).Draw(rt, "spans") {
		i := rapid.IntRange(0, len(w.records)-1).Draw(rt, "record")
		n := len(w.records[i].Frame)
		if rapid.Bool().Draw(rt, "head") {
			spans = append(spans, dag.Span{At: w.records[i].At, Len: uint32(rapid.IntRange(0, n).Draw(rt, "len")), Head: true})
		} else {
			off := rapid.IntRange(0, n).Draw(rt, "off")
			spans = append(spans, dag.Span{At: w.records[i].At, Off: uint32(off), Len: uint32(rapid.IntRange(0, n-off).Draw(rt, "len"))})
		}
		of = append(of, i)
	}
	must(rt, s.ReadSpans(spans))
	for k, sp := range spans {
		rec := w.records[of[k]]
		want := rec.Frame[sp.Off : sp.Off+sp.Len]
		if sp.Head {
			if int(sp.Len) < rec.Head {
				want = nil
			} else {
				want = rec.Frame[:rec.Head]
				if sp.ID != rec.ID {
					rt.Fatal("span with another ID")
				}
			}
			if (sp.Data == nil) != (want == nil) {
				rt.Fatalf("head span of %d bytes, head of %d: %v", sp.Len, rec.Head, sp.Data == nil)
			}
		}
		if !bytes.Equal(sp.Data, want) {
			rt.Fatalf("span %d+%d of record %d", sp.Off, sp.Len, of[k])
		}
	}
	i := rapid.IntRange(0, len(w.records)-1).Draw(rt, "record")
	rec, err := s.Read(w.records[i].At)
	must(rt, err)
	must(rt, same(rec, w.records[i]))
	head, err := s.ReadHead(w.records[i].At)
	must(rt, err)
	if head.ID != rec.ID || !bytes.Equal(head.Frame, rec.Frame[:rec.Head]) || head.End != rec.End {
		rt.Fatal("head")
	}
	must(rt, s.Walk(rec.At, func(rec dag.Record) error {
		i++
		return same(rec, w.records[i-1])
	}))
	if i != len(w.records) {
		rt.Fatalf("walk ended at %d of %d", i, len(w.records))
	}
}

func (w *world) checkTable(rt *rapid.T, s Subject, t dag.Table) {
	want := w.index.tables[t]
	sorted := make([]string, 0, len(want))
	for k := range want {
		sorted = append(sorted, k)
	}
	sort.Strings(sorted)
	key := string(keys.Draw(rt, "probe"))
	if len(sorted) > 0 && rapid.Bool().Draw(rt, "known") {
		key = rapid.SampledFrom(sorted).Draw(rt, "key")
	}
	v, err := s.Get(t, []byte(key))
	must(rt, err)
	if string(v) != want[key] || (v == nil) != (want[key] == "") {
		rt.Fatalf("table %d get %x: %x, want %x", t, key, v, want[key])
	}
	i, exact := slices.BinarySearch(sorted, key)
	near := func(name string, k, v []byte, err error, i int) {
		must(rt, err)
		wantKey, wantValue := "", ""
		if i >= 0 && i < len(sorted) {
			wantKey, wantValue = sorted[i], want[sorted[i]]
		}
		if string(k) != wantKey || string(v) != wantValue || (k == nil) != (wantKey == "") {
			rt.Fatalf("table %d %s %x: %x, want %x", t, name, key, k, wantKey)
		}
	}
	k, v, err := s.Ceil(t, []byte(key))
	near("ceil", k, v, err, i)
	if !exact {
		i--
	}
	k, v, err = s.Floor(t, []byte(key))
	near("floor", k, v, err, i)
}

func must(tb rapid.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// absent asks for what is not there: that is damage, never a panic.
func absent(t *testing.T, s Subject) {
	rec := dag.Record{At: s.Next(5), ID: dag.Sum(nil), Head: 2, Frame: []byte("hello")}
	must(t, s.Append(rec, &dag.Update{}))
	for _, at := range []uint64{0, rec.At + 1, rec.At + 1000, 1 << 39} {
		if _, err := s.Read(at); !errors.Is(err, dag.ErrCorrupt) {
			t.Errorf("read at %d: %v", at, err)
		}
		if _, err := s.ReadHead(at); !errors.Is(err, dag.ErrCorrupt) {
			t.Errorf("read head at %d: %v", at, err)
		}
	}
	if err := s.ReadSpans([]dag.Span{{At: 1 << 39, Len: 3}}); !errors.Is(err, dag.ErrCorrupt) {
		t.Errorf("spans: %v", err)
	}
	if err := s.Append(rec, &dag.Update{}); err == nil {
		t.Error("a record was appended where another is")
	}
}

// parallel reads beside a writer and checkpoints.
func parallel(t *testing.T, s Subject) {
	const n = 300
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			frame := bytes.Repeat([]byte{byte(i)}, 100+i)
			u := dag.Update{
				Puts: []dag.Put{{Table: dag.TableObjects, Key: string(key(i)), Value: frame}},
				Adds: []dag.Add{{Set: dag.SetChanges, Prefix: uint64(i) * 0x9e3779b97f4a7c15, Value: dag.Value{A: uint64(i)}}},
			}
			must(t, s.Append(dag.Record{At: s.Next(len(frame)), ID: dag.Sum(frame), Head: 1, Frame: frame}, &u))
			if i%50 == 49 && s.Checkpoint != nil {
				must(t, s.Checkpoint(i%100 == 99))
			}
			if i%20 == 0 {
				must(t, s.Sync())
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for seen := 0; seen < n; {
				k, v, err := s.Floor(dag.TableObjects, key(n))
				must(t, err)
				if k == nil {
					continue
				}
				i := int(binary.BigEndian.Uint32(k))
				if i+1 < seen || len(v) != 100+i {
					t.Errorf("at %d of %d: %d bytes", i, seen, len(v))
				}
				seen = i + 1
				vs, err := s.Find(dag.SetChanges, uint64(i/2)*0x9e3779b97f4a7c15, nil)
				must(t, err)
				if len(vs) == 0 || vs[0].A != uint64(i/2) {
					t.Errorf("%d is not found: %v", i/2, vs)
				}
			}
		})
	}
	wg.Wait()
}

func key(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)) }

// large fills sets with many checkpoints, so that runs are merged.
func large(t *testing.T, s Subject) {
	const rounds, each = 90, 40
	prefix := func(i int) uint64 { return dag.Sum(key(i)).Prefix() }
	for r := range rounds {
		var u dag.Update
		for i := r * each; i < (r+1)*each; i++ {
			u.Adds = append(u.Adds, dag.Add{Set: dag.SetBatches, Prefix: prefix(i), Value: dag.Value{A: uint64(i), B: 7}})
		}
		frame := key(r)
		must(t, s.Append(dag.Record{At: s.Next(len(frame)), ID: dag.Sum(frame), Frame: frame}, &u))
		if s.Checkpoint != nil {
			must(t, s.Checkpoint(true))
		}
	}
	for again := range 2 {
		for i := range rounds * each {
			vs, err := s.Find(dag.SetBatches, prefix(i), nil)
			must(t, err)
			if len(vs) != 1 || vs[0] != (dag.Value{A: uint64(i), B: 7}) {
				t.Fatalf("%d: %v", i, vs)
			}
		}
		if vs, err := s.Find(dag.SetBatches, 12345, nil); err != nil || len(vs) > 0 {
			t.Fatal(vs, err)
		}
		if again == 0 && s.Reopen != nil {
			st, err := s.Reopen()
			must(t, err)
			s.Store = st
		}
	}
}
