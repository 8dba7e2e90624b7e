package store

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strconv"
	"strings"
	"sync"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/crashpoint"
	"github.com/anyfs/anyfs/dag/disk"
)

const (
	segmentBits  = 26 - crashpoint.Shrink
	segmentBytes = 1 << segmentBits // of positions; a position is the segment's number and an offset in its file
)

// log is the sequence of records in segment files.
type log struct {
	disk disk.FS
	dir  string
	name string

	mu    sync.RWMutex // guards what follows; the appender alone changes it
	files []disk.File  // by number
	end   uint64       // position behind the last record
	crc   uint32       // of the last record

	buf     []byte // of the appender, as is what follows
	advance uint64 // position up to which the last segment is written in advance
	ahead   uint64 // how much that was, the last time

	syncs syncs
}

func (l *log) path(n int) string {
	base := fmt.Sprintf("%s-%06d.log", l.name, n)
	if l.dir == "" || l.dir == "." {
		return base
	}
	return l.dir + "/" + base
}

// openLog opens the segments, finds the end of the valid records from the checkpoint on, and cuts off what is behind.
func openLog(d disk.FS, dir, name string, from logState) (*log, error) {
	l := &log{disk: d, dir: dir, name: name}
	if err := d.MkdirAll(l.dirName()); err != nil {
		return nil, err
	}
	n, err := l.segments()
	if err != nil {
		return nil, err
	}
	if n == 0 && from.end > 0 {
		return nil, fmt.Errorf("%w: no segments, %d bytes expected", dag.ErrCorrupt, from.end)
	}
	for i := range n {
		f, err := d.Open(l.path(i))
		if err != nil {
			l.close()
			return nil, err
		}
		l.files = append(l.files, f)
	}
	if err := l.recover(from); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *log) dirName() string {
	if l.dir == "" {
		return "."
	}
	return l.dir
}

// segments returns how many segment files there are; numbers without a gap.
func (l *log) segments() (int, error) {
	names, err := l.disk.ReadDir(l.dirName())
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range names {
		num, ok := strings.CutPrefix(name, l.name+"-")
		if !ok {
			continue
		}
		num, ok = strings.CutSuffix(num, ".log")
		if i, err := strconv.Atoi(num); ok && err == nil && i == n {
			n++
		}
	}
	return n, nil
}

// addSegment makes the next segment file, and moves end to its start.
func (l *log) addSegment() error {
	n := len(l.files)
	f, err := l.disk.Create(l.path(n))
	if errors.Is(err, iofs.ErrExist) { // left by an attempt that failed
		if err = l.disk.Remove(l.path(n)); err == nil {
			f, err = l.disk.Create(l.path(n))
		}
	}
	if err != nil {
		return err
	}
	l.files = append(l.files, f)
	if err := l.writeSegmentHead(n); err != nil {
		l.files = l.files[:n]
		f.Close()
		return err
	}
	return nil
}

func (l *log) writeSegmentHead(n int) error {
	if _, err := l.files[n].WriteAt(encodeSegmentHead(uint32(n), l.crc), 0); err != nil {
		return err
	}
	if err := l.disk.SyncDir(l.dirName()); err != nil {
		return err
	}
	crashpoint.Here(crashpoint.BatchSegment)
	l.end = uint64(n)<<segmentBits + segmentHead
	return nil
}

// place returns the position of a record with a frame of n bytes, were it appended now.
func (l *log) place(n int) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.end%segmentBytes+recordHead+uint64(n) > segmentBytes {
		return (l.end>>segmentBits+1)<<segmentBits + segmentHead
	}
	return l.end
}

// append writes a record at its place and returns the position behind it. It is with the kernel when append returns.
func (l *log) append(rec dag.Record) (end uint64, err error) {
	if rec.At != l.place(len(rec.Frame)) || len(rec.Frame) > dag.MaxFrame || rec.Head > len(rec.Frame) {
		return 0, fmt.Errorf("store: append at %d, the end is %d", rec.At, l.position())
	}
	small, err := l.syncs.mode()
	if err != nil {
		return 0, err
	}
	f, err := l.fileFor(rec.At)
	if err != nil {
		return 0, err
	}
	buf, crc := appendRecord(l.buf[:0], &rec, l.crc) // crc is the appender's to read
	if l.buf = buf[:0]; cap(buf) > 256<<10 {
		l.buf = nil
	}
	end = rec.At + uint64(len(buf))
	if small {
		l.prewrite(f, rec.At, end)
	}
	crashpoint.Here(crashpoint.BatchAppend)
	if _, err := f.WriteAt(buf, int64(rec.At%segmentBytes)); err != nil {
		return 0, err
	}
	crashpoint.Here(crashpoint.BatchAppended)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end, l.crc = end, crc
	return end, nil
}

// fileFor returns the file of the next record, which may be a new one.
func (l *log) fileFor(at uint64) (disk.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(at>>segmentBits) == len(l.files) {
		if err := l.addSegment(); err != nil {
			return nil, err
		}
	}
	return l.files[at>>segmentBits], nil
}

// What is written ahead doubles from the least to the most: a node may open thousands of logs for a change each.
const (
	leastAhead = 16 << 10
	mostAhead  = 256 << 10
)

// prewrite fills the file with zeros some way ahead of a record: while syncs are small and frequent, they cost half as much
// where the file does not grow. A full disk is no error here, and what of the zeros it took goes: there is little left for all that is on it.
func (l *log) prewrite(f disk.File, at, end uint64) {
	had := max(at, l.advance) // in the segment of at, which ends no earlier
	if end <= had {
		return
	}
	for l.ahead = min(max(2*l.ahead, leastAhead), mostAhead); l.ahead < end-at && l.ahead < mostAhead; {
		l.ahead *= 2
	}
	n := min(l.ahead, segmentBytes-at%segmentBytes)
	if n < end-at {
		return
	}
	if f.Allocate(int64(at%segmentBytes), int64(n)) != nil {
		_ = f.Truncate(int64(had % segmentBytes)) // or it is cut when the log is opened
		l.ahead = 0
		return
	}
	l.advance = at + n
}

func (l *log) position() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.end
}

// bytes is what the log takes.
func (l *log) bytes() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return int64(len(l.files)-1)*segmentBytes + int64(l.end%segmentBytes)
}

// close gives the files up. What was written in advance goes, or each log that is not in use would take that much.
func (l *log) close() error {
	var err error
	if n := len(l.files); n > 0 && l.advance > l.end && l.end>>segmentBits == uint64(n-1) {
		err = l.files[n-1].Truncate(int64(l.end % segmentBytes))
	}
	for _, f := range l.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

func (l *log) file(at uint64) (disk.File, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if at>>segmentBits >= uint64(len(l.files)) {
		return nil, fmt.Errorf("%w: no segment for position %d", dag.ErrCorrupt, at)
	}
	return l.files[at>>segmentBits], nil
}

func readFull(f disk.File, p []byte, off int64) error {
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
