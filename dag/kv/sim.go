package kv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	iofs "io/fs"
	"path"
	"sync"

	"github.com/anyfs/anyfs/dag/disk"
)

// logCompact is the length in bytes from which on a log that is mostly history is rewritten.
const logCompact = 1 << 20

// NewSimDB opens or makes a DB in the file name of d, which is a disk.Sim in tests: the twin of OpenBolt that takes part in
// its crashes and faults. After a crash it holds the updates that returned nil, and of a later one all or nothing.
//
// The file is a log of commits, read whole when it is opened; the content is in memory. A commit is its length (4 bytes,
// big-endian), the CRC-32C of the rest (4 bytes), and its operations; the first that does not verify ends the log.
func NewSimDB(d disk.FS, name string) (DB, error) {
	l := &simLog{disk: d, name: name}
	state, err := l.open()
	if err != nil {
		return nil, fmt.Errorf("kv: open %s: %w", name, err)
	}
	return &simDB{Mem: &Mem{state: state, commit: l.commit}, log: l}, nil
}

type simDB struct {
	*Mem
	log *simLog
}

func (s *simDB) Size() int64 {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.end
}

func (s *simDB) Close() error {
	if err := s.Mem.Close(); err != nil {
		return err
	}
	return s.log.close()
}

type simLog struct {
	disk disk.FS
	name string

	mu     sync.Mutex
	file   disk.File
	end    int64
	broken bool
}

func (l *simLog) open() (memState, error) {
	tx := &memTx{writable: true}
	f, err := l.disk.Open(l.name)
	if errors.Is(err, iofs.ErrNotExist) {
		if f, err = l.disk.Create(l.name); err == nil {
			err = l.disk.SyncDir(path.Dir(l.name))
		}
	}
	if err != nil {
		return tx.state, err
	}
	l.file = f
	b, err := l.disk.ReadFile(l.name)
	if err != nil {
		f.Close()
		return tx.state, err
	}
	for {
		ops, n, ok := decodeCommit(b[l.end:])
		if !ok {
			return tx.state, l.settle(b[:l.end])
		}
		for _, op := range ops {
			tx.apply(op)
		}
		l.end += int64(n)
	}
}

// settle makes durable what was found, as OpenBolt does.
func (l *simLog) settle(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	_, err := l.file.WriteAt(b, 0)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		l.file.Close()
	}
	return err
}

func (l *simLog) commit(ops []memOp, next memState) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return ErrBroken
	}
	if l.end > logCompact && l.end > 4*next.bytes {
		return l.compact(next)
	}
	b := encodeCommit(ops)
	// The old tail behind the new one must not verify: the length of what is there is unknown, so it is cut off.
	if _, err := l.file.WriteAt(b, l.end); err != nil {
		if terr := l.file.Truncate(l.end); terr != nil {
			l.broken = true
			return fmt.Errorf("%w: %w", ErrBroken, errors.Join(err, terr))
		}
		return err
	}
	if err := l.file.Sync(); err != nil {
		l.broken = true
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	l.end += int64(len(b))
	return nil
}

// compact makes the log one commit that holds everything, next included.
func (l *simLog) compact(next memState) error {
	var ops []memOp
	for name, bucket := range next.buckets {
		bucket.Scan(func(k string, v []byte) bool {
			ops = append(ops, memOp{name, k, v})
			return true
		})
	}
	b := encodeCommit(ops)
	l.broken = true // until all has happened
	if err := l.disk.WriteFileAtomic(l.name, b); err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	f, err := l.disk.Open(l.name)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBroken, err)
	}
	l.file.Close()
	l.file, l.end, l.broken = f, int64(len(b)), false
	return nil
}

func (l *simLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = true
	return l.file.Close()
}

func encodeCommit(ops []memOp) []byte {
	b := make([]byte, 8, 64)
	for _, op := range ops {
		b = appendField(b, []byte(op.bucket))
		b = appendField(b, []byte(op.key))
		if op.value == nil {
			b = append(b, 0)
		} else {
			b = appendField(append(b, 1), op.value)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-8))
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func appendField(b, field []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(field))), field...)
}

// decodeCommit returns the operations of the commit at the start of b and its length.
func decodeCommit(b []byte) (ops []memOp, n int, ok bool) {
	if len(b) < 8 {
		return nil, 0, false
	}
	size := int64(binary.BigEndian.Uint32(b))
	if size == 0 || size > int64(len(b)-8) {
		return nil, 0, false
	}
	n = 8 + int(size)
	body := b[8:n]
	if crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) != binary.BigEndian.Uint32(b[4:]) {
		return nil, 0, false
	}
	for len(body) > 0 {
		var op memOp
		var bucket, key []byte
		if bucket, body, ok = cutField(body); !ok {
			return nil, 0, false
		}
		if key, body, ok = cutField(body); !ok || len(body) == 0 {
			return nil, 0, false
		}
		op.bucket, op.key = string(bucket), string(key)
		put := body[0] == 1
		body = body[1:]
		if put {
			var value []byte
			if value, body, ok = cutField(body); !ok {
				return nil, 0, false
			}
			op.value = append(make([]byte, 0, len(value)), value...)
		}
		ops = append(ops, op)
	}
	return ops, n, true
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	size, k := binary.Uvarint(b)
	if k <= 0 || size > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k : k+int(size)], b[k+int(size):], true
}
