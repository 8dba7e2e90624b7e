package fs

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
)

var update = flag.Bool("update", false, "write testdata anew")

// samples has one record of each kind.
func samples() map[string][]byte {
	out := map[string][]byte{}
	add := func(name string, k recordKind, encode func(*writer)) {
		w := newRecord(nil, k, 3)
		encode(w)
		out[name] = w.b
	}
	add("create", recCreate, (&createRecord{Ino: 17, Parent: 1, Name: "a", Mode: 0100644, Time: 1e18, Owned: true, UID: 1, GID: 2}).encode)
	add("create symlink", recCreate, (&createRecord{Ino: 18, Parent: 1, Name: "l", Mode: 0120777, Time: 5, Target: "a/b"}).encode)
	add("create space", recCreate, (&createRecord{Ino: 19, Parent: 1, Name: "s", Mode: 040755, Xattr: ".space", Value: []byte{1, 2}, Takes: 17}).encode)
	add("link", recLink, (&linkRecord{Ino: 17, Parent: 1, Name: "b", Time: -1}).encode)
	add("unlink", recUnlink, (&unlinkRecord{Parent: 1, Name: "b", Time: 7}).encode)
	add("rename", recRename, (&renameRecord{Parent: 1, Name: "a", NewParent: 20, NewName: "c", Takes: true, Time: 8}).encode)
	add("setattr", recSetattr, (&setattrRecord{Ino: 17, Set: setMode | setSize, Mode: 0600, Size: 1 << 40, Time: 9}).encode)
	add("write", recWrite, func(w *writer) {
		(&writeRecord{Ino: 17, Off: 4096, Time: 10, KillPriv: true, Data: []byte("data")}).encode(w)
	})
	add("seal", recSeal, (&sealRecord{Ino: 17, Off: 1, Len: 2, Skip: 3, Block: block.ID{4}, Size: 5, Time: 6}).encode)
	add("fallocate", recFallocate, (&fallocateRecord{Ino: 17, Mode: 3, Off: 1, N: 2, Time: 3}).encode)
	add("xattr", recXattr, (&xattrRecord{Ino: 17, Name: "user.x", Value: []byte("y"), Time: 3}).encode)
	add("arrive", recArrive, (&arriveRecord{
		Mark: 5000, Time: 77, Drop: []entryAt{{1, "old", 17}}, Add: []entryAt{{1, "new", 17}, {17, "in it", 18}},
		Inos: []uint64{17, 18}, Put: [][]byte{{1, 2, 3}, {4}}, Objs: []objectAt{{dag.ID{9}, 18}},
		Gone:   []goneAt{{trashRemoved, entryAt{1, "gone", 19}, 76, dag.ID{8}, 0100000, 12}},
		Graves: []objectAt{{dag.ID{7}, 20}},
	}).encode)
	add("published", recPublished, (&publishedRecord{Seq: 99, Batch: dag.ID{7}, Mark: 1000, Changes: []publishedChange{
		{Ino: 17, Object: dag.ID{1}, Change: dag.ID{1}, New: true, Links: []placed{{Key: 1, Place: 0, Made: true, Parent: 1, Name: "a"}}, Content: 2, Base: []byte{9}},
		{Ino: 18, Object: dag.ID{2}, Change: dag.ID{3}, Content: -1, Gone: 2},
		{Ino: 19, Object: dag.ID{4}, Change: dag.ID{5}, Size: 1 << 20, Edits: []index.PatchEdit{{Off: 5, Len: 4096, Data: 4096}, {Off: 9000, Len: 10, Data: 3}}},
	}}).encode)
	return out
}

// decodeRecord parses a record, and gives its canonical form.
func decodeRecord(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errRecord
	}
	r := &reader{b: b[1:]}
	slot := r.uint()
	if r.bad || slot > 1<<16-1 {
		return nil, errRecord
	}
	k := recordKind(b[0])
	w := newRecord(nil, k, uint16(slot))
	type record interface {
		decode(*reader) error
		encode(*writer)
	}
	var rec record
	switch k {
	case recCreate:
		rec = &createRecord{}
	case recLink:
		rec = &linkRecord{}
	case recUnlink:
		rec = &unlinkRecord{}
	case recRename:
		rec = &renameRecord{}
	case recSetattr:
		rec = &setattrRecord{}
	case recSeal:
		rec = &sealRecord{}
	case recFallocate:
		rec = &fallocateRecord{}
	case recXattr:
		rec = &xattrRecord{}
	case recPublished:
		rec = &publishedRecord{}
	case recArrive:
		rec = &arriveRecord{}
	case recWrite:
		var c writeRecord
		if err := c.decode(r); err != nil {
			return nil, err
		}
		c.encode(w)
		return w.b, nil
	default:
		return nil, errRecord
	}
	if err := rec.decode(r); err != nil {
		return nil, err
	}
	rec.encode(w)
	return w.b, nil
}

func TestRecordVectors(t *testing.T) {
	const file = "testdata/records.json"
	got := map[string]string{}
	for name, b := range samples() {
		got[name] = hex.EncodeToString(b)
		again, err := decodeRecord(b)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s: %x came back as %x, %v", name, b, again, err)
		}
		for n := range b {
			if name != "write" && n < len(b) {
				if _, err := decodeRecord(b[:n]); err == nil {
					t.Errorf("%s: its first %d bytes are taken for a record", name, n)
				}
			}
		}
	}
	if *update {
		b, err := json.MarshalIndent(got, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0644); err != nil {
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
	if len(want) != len(got) {
		t.Errorf("%d vectors, %d samples", len(want), len(got))
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s: %s, the vector says %s", name, got[name], v)
		}
	}
}

func FuzzRecord(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeRecord(b)
		if err != nil {
			return
		}
		// What decodes has a canonical form that decodes to itself.
		again, err := decodeRecord(c)
		if err != nil || !bytes.Equal(again, c) {
			t.Fatalf("%x came back as %x, %v", c, again, err)
		}
	})
}
