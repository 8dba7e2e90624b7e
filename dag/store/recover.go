package store

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/anyfs/anyfs/dag"
)

// recover reads records from the checkpoint on until one is not valid: there is the end.
func (l *log) recover(from logState) error {
	if len(l.files) == 0 {
		return l.addSegment()
	}
	var err error
	if l.end = from.end; l.end > 0 {
		l.crc, err = l.checksum(from)
	}
	if err != nil {
		return err
	}
	if l.end == 0 {
		l.end = segmentHead
		if _, ok, err := readSegmentHead(l.files[0], 0); err != nil {
			return err
		} else if !ok { // made, and lost before anything was in it
			return l.restart()
		}
	}
	start := l.end
	if err := l.scan(); err != nil {
		return err
	}
	if start == l.end && from.end > 0 {
		return l.truncate() // all of it was durable before the checkpoint
	}
	if err := l.rewrite(start); err != nil {
		return err
	}
	return l.truncate()
}

// rewrite writes again what the scan found from a position on. It may be in the system's cache alone, where a sync that
// failed left it marked as written: then no later sync would bring it to the disk.
func (l *log) rewrite(from uint64) error {
	var buf []byte // most have little to write again
	for n := from >> segmentBits; n <= l.end>>segmentBits; n++ {
		at, stop := from%segmentBytes, uint64(segmentBytes)
		if n == l.end>>segmentBits {
			stop = l.end % segmentBytes
		}
		if at == segmentHead || n > from>>segmentBits {
			at = 0
		}
		f := l.files[n]
		size, err := f.Size()
		if err != nil {
			return err
		}
		for stop = min(stop, uint64(size)); at < stop; {
			size := min(walkBuffer, stop-at)
			if uint64(len(buf)) < size {
				buf = make([]byte, size)
			}
			p := buf[:size]
			if err := readFull(f, p, int64(at)); err != nil {
				return err
			}
			if _, err := f.WriteAt(p, int64(at)); err != nil {
				return err
			}
			at += uint64(len(p))
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return l.disk.SyncDir(l.dirName())
}

// checksum returns that of the last record that a checkpoint covers. The record must be there: it was durable before.
func (l *log) checksum(of logState) (uint32, error) {
	if of.last == 0 {
		return 0, nil
	}
	rec, err := l.read(of.last)
	if err != nil {
		return 0, fmt.Errorf("the last record of the checkpoint: %w", err)
	}
	if rec.End != of.end {
		return 0, fmt.Errorf("%w: the last record of the checkpoint ends at %d", dag.ErrCorrupt, rec.End)
	}
	var p [4]byte
	f, err := l.file(of.last)
	if err == nil {
		err = readFull(f, p[:], int64(of.last%segmentBytes))
	}
	return binary.LittleEndian.Uint32(p[:]), err
}

// restart empties a log whose first segment has no valid head.
func (l *log) restart() error {
	l.end, l.crc = 0, 0
	if err := l.truncate(); err != nil {
		return err
	}
	return l.writeSegmentHead(0)
}

// scan moves end and crc over the valid records.
func (l *log) scan() error {
	crc := l.crc
	return l.walkFrom(l.end, &crc, 0, func(rec dag.Record, crc uint32) error {
		l.end, l.crc = rec.End, crc
		return nil
	})
}

// truncate cuts off what lies behind end, durably: an old record must not come back behind new ones.
func (l *log) truncate() error {
	last := int(l.end >> segmentBits)
	for i := len(l.files) - 1; i > last; i-- {
		if err := l.files[i].Close(); err != nil {
			return err
		}
		l.files = l.files[:i]
		if err := l.disk.Remove(l.path(i)); err != nil {
			return err
		}
		if err := l.disk.SyncDir(l.dirName()); err != nil {
			return err
		}
	}
	f := l.files[last]
	size, err := f.Size()
	if err != nil {
		return err
	}
	l.syncs.reset(l.end)
	if size <= int64(l.end%segmentBytes) {
		return nil
	}
	if err := f.Truncate(int64(l.end % segmentBytes)); err != nil {
		return err
	}
	return f.Sync()
}

// cut cuts the log back to a position that is the end of a record, or the checkpoint.
func (l *log) cut(from logState, to uint64) error {
	if to == l.position() {
		return nil
	}
	first, err := l.checksum(from)
	if err != nil {
		return err
	}
	end, crc := max(from.end, segmentHead), first
	if end < to {
		err := l.walkFrom(end, &first, 0, func(rec dag.Record, c uint32) error {
			if rec.End > to {
				return io.EOF
			}
			end, crc = rec.End, c
			return nil
		})
		if err != nil {
			return err
		}
	}
	if end != to {
		return fmt.Errorf("store: rollback to %d, which is no end of a record", to)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end, l.crc = end, crc
	return l.truncate()
}
