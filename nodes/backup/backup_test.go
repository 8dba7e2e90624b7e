package backup_test

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/backup"
)

// two is a file of two runs, and where each ends.
func two(t *testing.T) (file []byte, ends [2]int64) {
	t.Helper()
	var b bytes.Buffer
	at := int64(0)
	for i := range ends {
		w, err := backup.NewWriter(&b, at)
		if err != nil {
			t.Fatal(err)
		}
		space := dag.Sum([]byte{byte(i)})
		for _, r := range []struct {
			kind backup.Kind
			body string
		}{{backup.Begin, "{}"}, {backup.File, "node.key\x00seed"}, {backup.Access, "a list"}, {backup.Change, "a change"}, {backup.Block, "a block of some length"}, {backup.Mark, "{}"}, {backup.End, ""}} {
			if err := w.Put(r.kind, space, []byte(r.body)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		at = w.At()
		if ends[i] = at; at != int64(b.Len()) {
			t.Fatalf("the writer is at %d of %d", at, b.Len())
		}
	}
	return b.Bytes(), ends
}

// read reads all of a file that counts, and says up to where that is.
func read(file []byte) (end int64, records int, err error) {
	f := bytes.NewReader(file)
	if end, err = backup.Scan(f, f.Size(), func(*backup.Record) bool { return false }, nil); err != nil || end == 0 {
		return end, 0, err
	}
	r, err := backup.NewReader(io.NewSectionReader(f, 0, end), end)
	for err == nil {
		if _, err = r.Next(); err == nil {
			records++
		}
	}
	if err == io.EOF {
		err = nil
	}
	return end, records, err
}

// Wherever a file is cut, the runs before are what it holds.
func TestCut(t *testing.T) {
	file, ends := two(t)
	for n := range int64(len(file)) + 1 {
		want, records := int64(0), 0
		for i, e := range ends {
			if n >= e {
				want, records = e, 7*(i+1)
			}
		}
		end, got, err := read(file[:n])
		if end != want || got != records || err != nil {
			t.Fatalf("cut at %d: up to %d, %d records, %v; want %d and %d", n, end, got, err, want, records)
		}
	}
}

// No byte of a file can be another without that being found; only in the end of the last run, which is gone then, is it no error.
func TestFlip(t *testing.T) {
	file, ends := two(t)
	last := ends[1] - 80
	for i := range file {
		bad := bytes.Clone(file)
		bad[i] ^= 1 << (i % 8)
		end, _, err := read(bad)
		switch {
		case int64(i) >= last:
			if end != ends[0] || err != nil {
				t.Fatalf("byte %d, in the last end: up to %d, %v", i, end, err)
			}
		case i < 16:
			if !errors.Is(err, backup.ErrForm) {
				t.Fatalf("byte %d: %v", i, err)
			}
		case !errors.Is(err, backup.ErrDamaged):
			t.Fatalf("byte %d: up to %d, %v", i, end, err)
		}
	}
}

// A record is bound to its place.
func TestMoved(t *testing.T) {
	file, ends := two(t)
	n := ends[0] - 16
	if ends[1]-ends[0] != n {
		t.Fatalf("the runs have %d and %d bytes", n, ends[1]-ends[0])
	}
	bad := bytes.Clone(file)
	copy(bad[16:], file[ends[0]:])
	copy(bad[ends[0]:], file[16:ends[0]])
	if end, _, err := read(bad); end != 0 || err != nil {
		t.Errorf("runs in another order: up to %d, %v", end, err)
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("anyfs backup 1\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		end, _, err := read(b)
		if end > int64(len(b)) || err == nil && end < 0 {
			t.Errorf("up to %d of %d", end, len(b))
		}
	})
}
