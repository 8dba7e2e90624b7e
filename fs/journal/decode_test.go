package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
)

var update = flag.Bool("journal.update", false, "write the golden file anew")

// counting gives bytes that count up: the salts of the golden file.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.n
		c.n++
	}
	return len(p), nil
}

func goldenRecords() [][]byte {
	return [][]byte{[]byte("one"), []byte("two"), bytes.Repeat([]byte{3}, 1000), []byte("four")}
}

// TestGolden pins the bytes of a file, and that they are read.
func TestGolden(t *testing.T) {
	const path = "testdata/v1.journal"
	d := disk.NewSim(nil)
	o := testOptions(d)
	o.FileBytes, o.LiveBytes, o.Rand = 16<<10, 1<<20, &counting{}
	j, _ := sequence(t, o, 0)
	for i, rec := range goldenRecords() {
		seq, _, err := j.Append(rec)
		must(t, err)
		if i > 0 { // the first two share a frame
			must(t, j.Sync(t.Context(), seq))
		}
	}
	must(t, j.Close())
	got, err := d.ReadFile("journal/00000001")
	must(t, err)
	if *update {
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("the file differs from the golden one")
	}
	d = disk.NewSim(nil)
	o.Disk = d
	putFile(t, d, "journal/00000007", want)
	_, recs := sequence(t, o, 0)
	for i, rec := range goldenRecords() {
		if recs[Seq(i+1)] != string(rec) {
			t.Errorf("record %d differs", i+1)
		}
	}
}

func putFile(tb testing.TB, d disk.FS, name string, data []byte) {
	tb.Helper()
	must(tb, d.MkdirAll("journal"))
	f, err := d.Create(name)
	must(tb, err)
	_, err = f.WriteAt(data, 0)
	must(tb, err)
	must(tb, f.Sync())
	must(tb, f.Close())
	must(tb, d.SyncDir("journal"))
}

func testSecret() *[32]byte {
	secret := testOptions(nil).Key.Key(keyLabel)
	return &secret
}

func golden(tb testing.TB) []byte {
	b, err := os.ReadFile("testdata/v1.journal")
	must(tb, err)
	return b
}

// FuzzHeader: what is taken for a header is the encoding of what it was taken for.
func FuzzHeader(f *testing.F) {
	b := golden(f)
	f.Add(b[:headerCopy])
	f.Add(make([]byte, headerCopy))
	f.Add([]byte(magic))
	if _, _, ok := openHeader(b[:headerCopy], testSecret()); !ok {
		f.Fatal("the golden header is refused")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, aead, ok := openHeader(b, testSecret())
		if ok && !bytes.Equal(appendHeader(nil, aead, &h)[:headerCopy], b) {
			t.Error("another header gives the same use")
		}
	})
}

// FuzzFile: whatever stands behind a header, a prefix of records is replayed, and the journal works.
func FuzzFile(f *testing.F) {
	b := golden(f)
	f.Add(b[headerBytes:4096])
	f.Add(b[headerBytes : headerBytes+40])
	f.Add([]byte{})
	f.Add([]byte{0, 1, 0, 0, 9, 9})
	f.Fuzz(func(t *testing.T, tail []byte) {
		d := disk.NewSim(nil)
		o := testOptions(d)
		o.FileBytes, o.LiveBytes = 16<<10, 1<<20
		putFile(t, d, "journal/00000001", append(bytes.Clone(b[:headerBytes]), tail...))
		j, recs := sequence(t, o, 0)
		for seq, rec := range recs {
			if int(seq) > len(goldenRecords()) || rec != string(goldenRecords()[seq-1]) {
				t.Fatalf("replays %d, which nobody wrote", seq)
			}
		}
		seq, loc, err := j.Append([]byte("next"))
		must(t, err)
		if seq != Seq(len(recs)+1) {
			t.Fatalf("goes on with %d after %d", seq, len(recs))
		}
		p := make([]byte, 4)
		must(t, j.ReadAt(loc, p, 0))
		must(t, j.Close())
	})
}

// FuzzRecords: frames that open hold what a naive reader finds in them, however they are cut.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x03one\x03two\x00\x04four"), uint16(5))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), uint16(1))
	f.Add([]byte("\x81\x00a"), uint16(2))
	f.Add(append([]byte{0xe8, 7}, make([]byte, 1000)...), uint16(300))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		d := disk.NewSim(nil)
		o := testOptions(d)
		o.FileBytes, o.LiveBytes = 16<<10, 1<<20
		size := max(1, int(cut)%1000)
		if len(stream) > 10000 || headerBytes+len(stream)+(len(stream)/size+1)*frameOverhead > 16<<10 {
			return
		}
		h := header{gen: 5, first: 1}
		aead := fileKey(testSecret(), &h.salt)
		file := appendHeader(nil, aead, &h)
		var n nonce
		for i, rest := uint64(0), stream; len(rest) > 0; i++ {
			k := min(size, len(rest))
			file = appendFrame(file, aead, n.set(i), 0, rest[:k])
			rest = rest[k:]
		}
		file = append(file, make([]byte, 16<<10-len(file))...)
		putFile(t, d, "journal/00000001", file)
		_, recs := sequence(t, o, 0)
		rest := stream
		for seq := Seq(1); ; seq++ {
			for len(rest) > 0 && rest[0] == 0 {
				rest = rest[1:]
			}
			n, k := binary.Uvarint(rest)
			if k <= 0 || n > uint64(len(rest)-k) || k > 1 && rest[k-1] == 0 {
				if len(recs) != int(seq-1) {
					t.Fatalf("replays %d, want %d", len(recs), seq-1)
				}
				return
			}
			if recs[seq] != string(rest[k:k+int(n)]) {
				t.Fatalf("record %d differs", seq)
			}
			rest = rest[k+int(n):]
		}
	})
}

// TestRot flips each bit of a closed journal in turn: what is lost is said, and nothing else is given out.
func TestRot(t *testing.T) {
	d := disk.NewSim(nil)
	o := testOptions(d)
	o.FileBytes, o.LiveBytes = 16<<10, 1<<20
	want := map[Seq]string{}
	j, _ := sequence(t, o, 0)
	for i := range 60 {
		rec := bytes.Repeat([]byte{byte(i)}, 1+i*7)
		seq, _, err := j.Append(rec)
		must(t, err)
		want[seq] = string(rec)
		if i%4 == 0 {
			must(t, j.Sync(t.Context(), seq))
		}
	}
	must(t, j.Close())
	names, err := d.ReadDir("journal")
	must(t, err)
	said, harmless := 0, 0
	for _, name := range names {
		content, err := d.ReadFile("journal/" + name)
		must(t, err)
		for bit := 0; bit < 8*len(content); bit += 1 + bit%37 {
			if bit/8 > 3*headerCopy && content[bit/8] == 0 && bit%11 != 0 {
				continue // most zeros behind the end are alike
			}
			c := d.Crash(func() disk.Keep { return disk.Whole })
			f, err := c.Open("journal/" + name)
			must(t, err)
			_, err = f.WriteAt([]byte{content[bit/8] ^ 1<<(bit%8)}, int64(bit/8))
			must(t, err)
			oc := o
			oc.Disk = c
			got := map[Seq]string{}
			j, err := Open(oc, 0, func(seq Seq, rec []byte, loc Loc) error {
				got[seq] = string(rec)
				return nil
			})
			must(t, err)
			for seq, rec := range got {
				if want[seq] != rec {
					t.Fatalf("%s, bit %d: record %d differs", name, bit, seq)
				}
			}
			if len(got) < len(want) && !errors.Is(j.Damage(), ErrCorrupt) {
				t.Fatalf("%s, bit %d: %d of %d records, and nothing said", name, bit, len(got), len(want))
			}
			if j.Damage() != nil {
				said++
			} else {
				harmless++
			}
			must(t, j.Close())
		}
	}
	if said == 0 {
		t.Error("no flipped bit was noticed")
	}
	t.Logf("%d flips reported, %d in what nobody needs", said, harmless)
}

// TestErasureThatFailed: the header of a released file was about to be erased, and the disk took some bytes of that. Nothing is
// damaged, and where the header's second copy is whole what the file holds can be read still.
func TestErasureThatFailed(t *testing.T) {
	d := disk.NewSim(nil)
	o := testOptions(d)
	j, _ := sequence(t, o, 0)
	rec := bytes.Repeat([]byte("held"), 100)
	seq, loc, err := j.Append(rec)
	must(t, err)
	must(t, j.Sync(t.Context(), seq))
	must(t, j.Close())
	names, err := d.ReadDir(o.Dir)
	must(t, err)
	read := 0
	for k := range headerBytes + 1 {
		for _, name := range names {
			c := d.Crash(func() disk.Keep { return disk.Whole })
			f, err := c.Open(o.Dir + "/" + name)
			must(t, err)
			_, err = f.WriteAt(make([]byte, k), 0)
			must(t, err)
			must(t, f.Close())
			oc := o
			oc.Disk = c
			j, _ := sequence(t, oc, seq)
			if err := errors.Join(j.Damage(), j.Verify()); err != nil {
				t.Fatalf("%d bytes of %s were erased: %v", k, name, err)
			}
			got := make([]byte, len(rec))
			switch err := j.ReadAt(loc, got, 0); {
			case err == nil && bytes.Equal(got, rec):
				read++
			case err == nil:
				t.Fatalf("%d bytes of %s were erased: what is read is not what was written", k, name)
			case k <= headerCopy:
				t.Fatalf("%d bytes of %s were erased: %v", k, name, err)
			}
			must(t, j.Close())
		}
	}
	if read <= headerCopy {
		t.Errorf("%d times of %d it was read", read, headerBytes+1)
	}
}
