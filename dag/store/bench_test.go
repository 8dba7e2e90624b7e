package store_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// cpu returns the CPU time of the process.
func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// world is a graph on a real disk.
type world struct {
	o     store.Options
	st    *store.Store
	g     *dag.Graph
	a     dag.Author
	aead  cipher.AEAD
	plain []byte
}

func newWorld(tb testing.TB) *world {
	w := &world{o: onDisk(tb)}
	key, _ := aes.NewCipher(make([]byte, 32))
	w.aead, _ = cipher.NewGCMWithRandomNonce(key)
	// What acl/seal makes of 500 bytes: their true length, padded to a Padmé length.
	w.plain = make([]byte, 512)
	_, w.a.Key, _ = ed25519.GenerateKey(rand.Reader)
	copy(w.a.Device[:], w.a.Key[32:])
	w.a.Account = w.a.Device
	w.open(tb)
	return w
}

var space = dag.Sum([]byte("space"))

func (w *world) open(tb testing.TB) {
	var err error
	if w.st, err = store.Open(w.o); err != nil {
		tb.Fatal(err)
	}
	if w.g, err = dag.Open(space, w.st, dag.Anyone{}, dag.Options{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { w.st.Close() })
}

func (w *world) seal(h dag.Header) ([]byte, error) {
	rand.Read(w.plain[:16])
	return w.aead.Seal(nil, nil, w.plain, h.Object[:]), nil
}

// batch makes a batch with a change of each object; fewer than n objects are new ones.
func (w *world) batch(tb testing.TB, objects []dag.ID) (*dag.Batch, []dag.ID) {
	b, err := w.g.Begin(w.a, nil, dag.ID{1})
	if err != nil {
		tb.Fatal(err)
	}
	ids := make([]dag.ID, len(objects))
	for i, o := range objects {
		if ids[i], err = b.Add(o, w.seal); err != nil {
			tb.Fatal(err)
		}
	}
	batch, err := b.Commit()
	if err != nil {
		tb.Fatal(err)
	}
	return batch, ids
}

func (w *world) checkpoint(tb testing.TB) {
	if err := checkpoint(w.st, w.o.DB, true); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkAppend makes sealed, signed, durable changes of 500 bytes in batches of 100, with a checkpoint each 20,000.
func BenchmarkAppend(b *testing.B) {
	for _, fresh := range []bool{false, true} {
		name := "objects=100"
		if fresh {
			name = "objects=new"
		}
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			_, objects := w.batch(b, make([]dag.ID, 100))
			start, n := cpu(), 0
			for b.Loop() {
				if fresh {
					clear(objects)
				}
				w.batch(b, objects)
				if n++; n%200 == 0 {
					w.checkpoint(b)
				}
				if err := w.st.Sync(); err != nil {
					b.Fatal(err)
				}
			}
			w.checkpoint(b)
			report(b, w, cpu()-start, n*100)
		})
	}
}

// BenchmarkAppendFull makes batches that are full: 240 new objects, with the 4 KiB of a small file each.
func BenchmarkAppendFull(b *testing.B) {
	w := newWorld(b)
	w.plain = make([]byte, 4096)
	objects := make([]dag.ID, 240)
	b.ReportAllocs()
	start, n := cpu(), 0
	for b.Loop() {
		clear(objects)
		w.batch(b, objects)
		if n++; n%80 == 0 {
			w.checkpoint(b)
		}
	}
	report(b, w, cpu()-start, n*len(objects))
}

func report(b *testing.B, w *world, used time.Duration, changes int) {
	b.ReportMetric(float64(used.Nanoseconds())/float64(changes), "cpu-ns/change")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(changes), "ns/change")
	b.ReportMetric(float64(w.st.Bytes())/float64(changes), "logB/change")
	b.ReportMetric(float64(w.st.Bytes()+w.o.DB.Size())/float64(changes), "diskB/change")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkIngest receives the same.
func BenchmarkIngest(b *testing.B) {
	from := newWorld(b)
	_, objects := from.batch(b, make([]dag.ID, 100))
	var frames [][]byte
	for range 1000 {
		from.batch(b, objects)
	}
	from.g.FramesSince(nil, func(_ dag.ID, f []byte) error {
		frames = append(frames, f)
		return nil
	})
	var w *world
	var used time.Duration
	n := 0
	for b.Loop() {
		if n%len(frames) == 0 {
			b.StopTimer()
			w = newWorld(b)
			b.StartTimer()
		}
		start := cpu()
		res, err := w.g.Ingest(frames[n%len(frames)])
		if err != nil || res.Status != dag.Accepted {
			b.Fatal(res, err)
		}
		if n++; n%200 == 0 {
			w.checkpoint(b)
		}
		used += cpu() - start
	}
	size := 0
	for _, f := range frames {
		size += len(f)
	}
	b.ReportMetric(float64(size)/float64(len(frames)*100), "wireB/change")
	report(b, w, used, n*100)
}

// BenchmarkOneByOne makes each change a durable batch of its own; fsync is what the disk takes for itself.
func BenchmarkOneByOne(b *testing.B) {
	w := newWorld(b)
	_, objects := w.batch(b, make([]dag.ID, 1))
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	f.Write(make([]byte, 1<<20))
	f.Sync()
	var bare, ours time.Duration
	n := 0
	for b.Loop() {
		t := time.Now()
		w.batch(b, objects)
		if err := w.st.Sync(); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(t)
		t = time.Now()
		f.WriteAt(binary.BigEndian.AppendUint64(nil, uint64(n)), int64(n*700%(1<<20)))
		unix.Fdatasync(int(f.Fd()))
		bare += time.Since(t)
		n++
	}
	b.ReportMetric(float64(ours)/float64(bare), "fdatasyncs")
}

// BenchmarkOpenObject opens an object of 10,000 changes that lie in batches of 100 objects, and one in batches of its own.
func BenchmarkOpenObject(b *testing.B) {
	for _, width := range []int{1, 100} {
		b.Run(map[int]string{1: "alone", 100: "among100"}[width], func(b *testing.B) {
			w := newWorld(b)
			_, objects := w.batch(b, make([]dag.ID, width))
			for i := range 10000 {
				w.batch(b, objects)
				if i%500 == 0 {
					w.checkpoint(b)
				}
			}
			w.checkpoint(b)
			cold := func() {
				var err error
				if w.g, err = dag.Open(space, w.st, dag.Anyone{}, dag.Options{}); err != nil {
					b.Fatal(err)
				}
			}
			b.Run("all", func(b *testing.B) {
				for b.Loop() {
					cold()
					n := 0
					if err := w.g.Changes(objects[0], func(dag.Entry) error { n++; return nil }); err != nil || n != 10001 {
						b.Fatal(n, err)
					}
				}
			})
			b.Run("last200", func(b *testing.B) {
				for b.Loop() {
					cold()
					n := 0
					w.g.ChangesBack(objects[0], func(dag.Entry) error {
						if n++; n == 200 {
							return os.ErrClosed
						}
						return nil
					})
				}
			})
		})
	}
}

// BenchmarkLateAppend compares the first and the 40,000th change of an object.
func BenchmarkLateAppend(b *testing.B) {
	w := newWorld(b)
	_, objects := w.batch(b, make([]dag.ID, 1))
	add := func(b *testing.B) {
		for b.Loop() {
			w.batch(b, objects)
		}
	}
	b.Run("first", add)
	for i := range 40000 {
		w.batch(b, objects)
		if i%10000 == 0 {
			w.checkpoint(b)
		}
	}
	b.Run("after40000", add)
}

// BenchmarkFoldObject opens an object of 10,000 changes of 500 bytes as an application does: from its newest snapshot, with
// nothing of the graph in memory.
func BenchmarkFoldObject(b *testing.B) {
	w := newWorld(b)
	_, objects := w.batch(b, make([]dag.ID, 100))
	object := objects[0]
	// The state is the last 2,000 bytes of what the payloads say; a payload is 512 bytes and perhaps a snapshot.
	m := dag.Machine[[]byte, []byte]{
		New: func() []byte { return nil },
		Open: func(e dag.Entry) (p, snapshot []byte, err error) {
			if p, err = w.aead.Open(nil, nil, e.Change.Payload, e.Change.Object[:]); err != nil {
				return nil, nil, dag.ErrEmpty
			}
			if len(p) > 512 {
				snapshot = p[512:]
			}
			return p[:512], snapshot, nil
		},
		Apply: func(s []byte, _ dag.Entry, p []byte) []byte {
			s = append(s, p[:16]...)
			return s[max(0, len(s)-2000):]
		},
		Encode: func(s []byte) []byte { return s },
		Decode: func(p []byte) ([]byte, error) { return append([]byte(nil), p...), nil },
	}
	trust := dag.TrustMap{}
	rnd := mrand.New(mrand.NewPCG(1, 1))
	var state []byte
	cost, snapshots := dag.Cost{}, 0
	for i := range 10000 {
		var snapshot []byte
		if cost.Due(len(state), rnd.Uint64()) {
			snapshot, cost = state, dag.Cost{}
			snapshots++
		}
		bd, err := w.g.Begin(w.a, nil, dag.ID{1})
		if err != nil {
			b.Fatal(err)
		}
		plain := append(append([]byte(nil), w.plain...), snapshot...)
		binary.BigEndian.PutUint64(plain, uint64(i))
		id, err := bd.Add(object, func(h dag.Header) ([]byte, error) { return w.aead.Seal(nil, nil, plain, h.Object[:]), nil })
		if err != nil {
			b.Fatal(err)
		}
		for _, o := range objects[1:5] {
			if _, err := bd.Add(o, w.seal); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := bd.Commit(); err != nil {
			b.Fatal(err)
		}
		if snapshot != nil {
			trust.Trust(id)
		}
		state = m.Apply(state, dag.Entry{}, plain)
		cost.Changes++
		cost.Bytes += len(plain)
		if i%2000 == 1999 {
			w.checkpoint(b)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		g, err := dag.Open(space, w.st, dag.Anyone{}, dag.Options{})
		if err != nil {
			b.Fatal(err)
		}
		got, _, err := m.Fold(g, object, trust)
		if err != nil || !bytes.Equal(got, state) {
			b.Fatal(len(got), err)
		}
	}
	b.ReportMetric(float64(snapshots), "snapshots")
}
