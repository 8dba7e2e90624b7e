package fs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// historyRecord is a record of a restore.
type historyRecord interface {
	encode(*writer)
	decode(*reader) error
}

func historySamples() map[string]historyRecord {
	return map[string]historyRecord{
		"refs empty": &refsRecord{Ino: 17, Mode: 0100644, Mtime: 5, Time: 6},
		"refs": &refsRecord{
			Ino: 18, Mode: 0104755, Owned: true, UID: 3, GID: 4, Mtime: -5, Time: 1e18,
			Xattrs: []index.Xattr{{Name: "user.a", Value: []byte("1")}, {Name: "user.b", Value: []byte{}}},
			Base:   []byte{1, 2, 3}, BaseAt: tree.Ref{Change: dag.ID{9}, Place: 2},
		},
		"refs patched": &refsRecord{Ino: 18, Mode: 0100644, Base: []byte{1}, BaseAt: tree.Ref{Change: dag.ID{9}}, Patched: []byte{4, 5}},
		"refs symlink": &refsRecord{Ino: 19, Mode: 0120777, Time: 1, Target: "a/b"},
		"place over":   &placeRecord{Ino: 18, Over: 17, Time: 7},
		"place": &placeRecord{
			Ino: 18, Parent: 1, Name: "n", Time: 8, Object: dag.ID{1}, Link: tree.Ref{Change: dag.ID{1}}, Val: tree.Ref{Change: dag.ID{2}, Place: 3},
			Contents: []tree.Ref{{Change: dag.ID{4}, Place: 5}}, Same: true, Xattrs: []string{"user.c"}, TrashDir: 1, TrashAt: 1 << 62, TrashBefore: 16,
		},
	}
}

func kindOfHistory(r historyRecord) recordKind {
	if _, ok := r.(*refsRecord); ok {
		return recRefs
	}
	return recPlace
}

func TestHistoryRecordVectors(t *testing.T) {
	const file = "testdata/history_records.json"
	got := map[string]string{}
	for name, rec := range historySamples() {
		w := newRecord(nil, kindOfHistory(rec), 3)
		rec.encode(w)
		got[name] = hex.EncodeToString(w.b)
		again := reflect.New(reflect.TypeOf(rec).Elem()).Interface().(historyRecord)
		if err := again.decode(&reader{b: w.b[2:]}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		x := newRecord(nil, kindOfHistory(rec), 3)
		if again.encode(x); !bytes.Equal(w.b, x.b) {
			t.Errorf("%s came back as %x, not %x", name, x.b, w.b)
		}
		for n := 2; n < len(w.b); n++ {
			if err := reflect.New(reflect.TypeOf(rec).Elem()).Interface().(historyRecord).decode(&reader{b: w.b[2:n]}); err == nil {
				t.Errorf("%s: its first %d bytes are taken for a record", name, n)
			}
		}
	}
	if *update {
		b, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("records\n%v\nthe vectors say\n%v", got, want)
	}
}

func FuzzHistoryRecord(f *testing.F) {
	n := 0
	for _, rec := range historySamples() {
		w := &writer{}
		rec.encode(w)
		f.Add(w.b)
		n++
	}
	if n < 5 {
		f.Fatal("the seeds are gone")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, rec := range []historyRecord{&refsRecord{}, &placeRecord{}} {
			if rec.decode(&reader{b: b}) != nil {
				continue
			}
			w := &writer{}
			rec.encode(w)
			again := reflect.New(reflect.TypeOf(rec).Elem()).Interface().(historyRecord)
			if err := again.decode(&reader{b: w.b}); err != nil {
				t.Fatalf("%x: %v", w.b, err)
			}
			x := &writer{}
			if again.encode(x); !bytes.Equal(w.b, x.b) {
				t.Fatalf("%x came back as %x", w.b, x.b)
			}
		}
	})
}

func FuzzTrashEntry(f *testing.F) {
	f.Add(append(append([]byte{1}, make([]byte, 32)...), 8, 'a'))
	f.Add(append([]byte{3}, make([]byte, 33)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parseTrash(5, 6, &index.Entry{Name: string(b), Ino: 7, Type: 0100000})
		if ok && (e.dir != 5 || e.at != 6 || e.ino != 7 || len(e.name) > len(b)-34) {
			t.Fatalf("%+v", e)
		}
	})
}

func FuzzVersionTime(f *testing.F) {
	for _, s := range []string{"2026", "2026-01", "2026-01-31", "2026-01-31T12", "2026-01-31T12:00:05.123Z", "2026-01-31 12:00+01:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := ParseVersionTime(s, testZone)
		if err != nil {
			return
		}
		again, err := ParseVersionTime(at.Format("2006-01-02T15:04:05.999999999Z07:00"), testZone)
		if at.Year() < 10000 && (err != nil || !again.Equal(at)) {
			t.Fatalf("%q is %s, and that is %s: %v", s, at, again, err)
		}
	})
}
