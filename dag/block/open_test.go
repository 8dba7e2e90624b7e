package block

import (
	"sync/atomic"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
)

// counting is a disk that counts the bytes of files that are read and written.
type counting struct {
	*disk.Sim
	read, written atomic.Int64
}

type countingFile struct {
	disk.File
	d *counting
}

func (d *counting) Open(name string) (disk.File, error) {
	f, err := d.Sim.Open(name)
	return countingFile{f, d}, err
}

func (f countingFile) ReadAt(p []byte, off int64) (int, error) {
	f.d.read.Add(int64(len(p)))
	return f.File.ReadAt(p, off)
}

func (f countingFile) WriteAt(p []byte, off int64) (int, error) {
	f.d.written.Add(int64(len(p)))
	return f.File.WriteAt(p, off)
}

// TestOpenReadsHeadersAlone: of blocks that a checkpoint made durable and did not write to the index, as it does not below
// FlushEntries, Open reads the headers and writes nothing: there may be 16 GiB of them.
func TestOpenReadsHeadersAlone(t *testing.T) {
	d, db := &counting{Sim: disk.NewSim(nil)}, kv.NewMem()
	o := Options{Disk: d, Dir: "blocks", DB: db, Seal: xorSealer{}, SegmentBytes: 1 << 20}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 40, 100 << 10
	var ids []ID
	for i := range n {
		p := make([]byte, size)
		p[0] = byte(i)
		id, err := s.Put(p)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	write, done := s.Freeze()
	err = db.Update(write)
	done(err == nil)
	if err != nil {
		t.Fatal(err)
	}
	d.Sim = d.Sim.Crash(func() disk.Keep { return disk.Drop })
	d.read.Store(0)
	d.written.Store(0)
	if s, err = Open(o); err != nil {
		t.Fatal(err)
	}
	if read, written := d.read.Load(), d.written.Load(); read > n*200 || written > 0 {
		t.Errorf("opening %d blocks of %d bytes read %d bytes and wrote %d", n, size, read, written)
	}
	for _, id := range ids {
		if _, err := s.GetLocal(id); err != nil {
			t.Fatal(err)
		}
	}
	if live, _ := s.Bytes(); live != n*(size+recordHeader) {
		t.Errorf("%d bytes live", live)
	}
}
