package store_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

// golden is what STORE.md says of a small history, in the form of a node, whose index is not encrypted.
type golden struct {
	About string
	Log   string                       // files-000000.log
	Index map[string]map[string]string // by bucket, keys and values
}

const goldenFile = "testdata/store.json"

// small makes a history of three batches, with a checkpoint behind the second, and returns its log too.
func small(t testing.TB) (log []byte, o store.Options, g *dag.Graph) {
	sim := disk.NewSim(nil)
	o = store.Options{Disk: sim, Dir: "batches", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}}
	st, err := store.Open(o)
	must(t, err)
	g, err = dag.Open(space, st, dag.Anyone{}, dag.Options{})
	must(t, err)
	object := dag.Sum([]byte("fixed"))
	for i := range 3 {
		b, err := g.Begin(author(i/2), nil, dag.ID{})
		must(t, err)
		for _, o := range []dag.ID{{}, object} {
			_, err = b.Add(o, func(dag.Header) ([]byte, error) { return []byte{byte(i), 1, 2, 3}, nil })
			must(t, err)
		}
		_, err = b.Commit()
		must(t, err)
		if i == 1 {
			must(t, checkpoint(st, o.DB, true))
		}
	}
	must(t, st.Sync())
	log, err = sim.ReadFile("batches/files-000000.log")
	must(t, err)
	return log[:st.Bytes()], o, g // without the zeros ahead
}

// TestGolden pins the bytes of STORE.md, and that what was written is read for ever.
func TestGolden(t *testing.T) {
	log, o, g := small(t)
	now := golden{About: "A log of three batches and the index of the first two, unencrypted; all in hexadecimal. ../STORE.md says what they mean.",
		Log: hex.EncodeToString(log), Index: map[string]map[string]string{}}
	buckets := []string{".meta", ".objects", ".logs", ".chains", ".feeds", ".pasts", ".quarantine", ".runs", ".store"}
	must(t, o.DB.View(func(tx kv.Tx) error {
		for _, b := range buckets {
			m := map[string]string{}
			must(t, tx.Scan("files"+b, nil, func(k, v []byte) bool {
				m[hex.EncodeToString(k)] = hex.EncodeToString(v)
				return true
			}))
			if len(m) > 0 {
				now.Index["files"+b] = m
			}
		}
		return nil
	}))
	enc, err := json.MarshalIndent(now, "", "  ")
	must(t, err)
	enc = append(enc, '\n')
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(goldenFile, enc, 0o644))
	}
	old, err := os.ReadFile(goldenFile)
	must(t, err)
	if !bytes.Equal(old, enc) {
		t.Errorf("%s is not what the code makes; go test -update writes it anew", goldenFile)
	}

	var was golden
	must(t, json.Unmarshal(old, &was))
	d, db := disk.NewSim(nil), kv.NewMem()
	writeLog(t, d, unhex(t, was.Log))
	must(t, db.Update(func(tx kv.Tx) error {
		for b, m := range was.Index {
			for k, v := range m {
				must(t, tx.Put(b, unhex(t, k), unhex(t, v)))
			}
		}
		return nil
	}))
	st, err := store.Open(store.Options{Disk: d, Dir: "batches", DB: db, Name: "files", Seal: store.Plain{}})
	must(t, err)
	back, err := dag.Open(space, st, dag.Anyone{}, dag.Options{})
	must(t, err)
	want, err := dump(g)
	must(t, err)
	got, err := dump(back)
	must(t, err)
	if got != want {
		t.Errorf("what was written reads as\n%s\nwant\n%s", got, want)
	}
	must(t, back.Verify(nil))
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return b
}

func writeLog(t testing.TB, d disk.FS, b []byte) {
	t.Helper()
	must(t, d.MkdirAll("batches"))
	f, err := d.Create("batches/files-000000.log")
	must(t, err)
	_, err = f.WriteAt(b, 0)
	must(t, err)
	must(t, f.Close())
}

// FuzzLog: of whatever bytes a log has, Open keeps a part from the front, all of whose records read; a second Open keeps as
// much.
func FuzzLog(f *testing.F) {
	log, _, _ := small(f)
	f.Add(log)
	f.Add(log[:len(log)-1])
	f.Add(log[:24])
	f.Add([]byte{})
	flipped := bytes.Clone(log)
	flipped[60] ^= 1
	f.Add(flipped)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := disk.NewSim(nil)
		writeLog(t, d, b)
		var kept [2][]byte
		for i := range kept {
			st, err := store.Open(store.Options{Disk: d, Dir: "batches", DB: kv.NewMem(), Name: "files", Seal: store.Plain{}})
			must(t, err)
			must(t, st.Walk(0, func(rec dag.Record) error {
				again, err := st.Read(rec.At)
				must(t, err)
				head, err := st.ReadHead(rec.At)
				must(t, err)
				if again.ID != rec.ID || !bytes.Equal(again.Frame, rec.Frame) || !bytes.Equal(head.Frame, rec.Frame[:rec.Head]) {
					t.Errorf("record at %d reads in three ways", rec.At)
				}
				return nil
			}))
			must(t, st.Close())
			kept[i], err = d.ReadFile("batches/files-000000.log")
			must(t, err)
		}
		if !slices.Equal(kept[0], kept[1]) || !bytes.HasPrefix(b, kept[0]) && len(kept[0]) != 24 {
			t.Errorf("%x becomes %x, then %x", b, kept[0], kept[1])
		}
	})
}
