// Package backup is the form of a node's backup: records behind each other in one file, each with a checksum and bound to its place.
//
// A file holds one or more runs, each from a Begin to an End. A run adds what came since the one before it. What lies behind the last End is of
// a run that was not finished, and counts for nothing. NODES.md gives the bytes.
package backup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/anyfs/anyfs/dag"
)

// Kind says what a record holds.
type Kind uint8

// The kinds of records. Those from Held on are in no file: by them a node answers who makes one.
const (
	Begin  Kind = 1 // of a run: JSON, a Run
	File   Kind = 2 // of the node's folder: its name, a zero byte, what it holds
	Access Kind = 3 // a batch of the access list of a space
	Change Kind = 4 // a batch of its files
	Block  Kind = 5 // a block of its content
	Mark   Kind = 6 // how far a run has come in the space; JSON, the node's own
	End    Kind = 7 // of a run
	Word   Kind = 8 // of the owner of a space, whether it is to be on the network

	Held    Kind = 9  // IDs, one behind the other
	Damaged Kind = 10 // the block of this sum does not read: why
	Failed  Kind = 11 // nothing more comes: why
)

// Fixed by the form.
const (
	magic     = "anyfs backup 1\n\x00"
	head      = 80
	MaxRecord = 17 << 20 // bytes of a record's body
)

var (
	// ErrForm says that a file is no backup.
	ErrForm = errors.New("backup: that is no backup of a node")
	// ErrDamaged says that a backup is not as it was written; the error names the place.
	ErrDamaged = errors.New("backup: damaged")
	// ErrIncomplete says that no run in a file was finished.
	ErrIncomplete = errors.New("backup: the file ends before the backup does; use another one")
)

// Run is what a Begin holds.
type Run struct {
	Time    string `json:"time"` // RFC 3339, in UTC
	Node    string `json:"node"` // its peer ID
	Network string `json:"network"`
}

// Record is one record. Body may be reused after the next one is read.
type Record struct {
	At    int64 // offset of the record in the file
	Kind  Kind
	Space dag.ID // of the kinds that are of a space
	Sum   dag.ID // BLAKE3-256 of Body; of a block its ID, which a Damaged has too
	Body  []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func putHead(p []byte, at int64, kind Kind, length int, space, sum dag.ID) {
	clear(p[:head])
	p[0] = byte(kind)
	binary.LittleEndian.PutUint32(p[4:], uint32(length))
	copy(p[8:], space[:])
	copy(p[40:], sum[:])
	binary.LittleEndian.PutUint32(p[72:], headSum(p, at))
}

func headSum(p []byte, at int64) uint32 {
	place := binary.LittleEndian.AppendUint64(nil, uint64(at))
	return crc32.Update(crc32.Checksum(place, castagnoli), castagnoli, p[:72])
}

// parseHead reads the head of the record at an offset, and gives the length of its body.
func parseHead(p []byte, at int64) (r Record, n int, err error) {
	r.At, r.Kind = at, Kind(p[0])
	n = int(binary.LittleEndian.Uint32(p[4:]))
	copy(r.Space[:], p[8:])
	copy(r.Sum[:], p[40:])
	if binary.LittleEndian.Uint32(p[72:]) != headSum(p, at) || binary.LittleEndian.Uint32(p[76:]) != 0 || n > MaxRecord {
		return r, 0, fmt.Errorf("%w: the head of the record at %d", ErrDamaged, at)
	}
	return r, n, nil
}

// Writer writes records. It is used by one goroutine at a time.
type Writer struct {
	w   *bufio.Writer
	at  int64
	buf [head]byte
}

// NewWriter writes on at an offset of the file; at 0 it begins one.
func NewWriter(w io.Writer, at int64) (*Writer, error) {
	x := &Writer{w: bufio.NewWriterSize(w, 1<<20), at: at}
	if at > 0 {
		return x, nil
	}
	_, err := x.w.WriteString(magic)
	x.at = int64(len(magic))
	return x, err
}

// Put writes a record.
func (w *Writer) Put(kind Kind, space dag.ID, body []byte) error {
	return w.put(kind, space, dag.Sum(body), body)
}

// PutDamaged writes why a block does not read.
func (w *Writer) PutDamaged(space, id dag.ID, why string) error {
	return w.put(Damaged, space, id, []byte(why))
}

func (w *Writer) put(kind Kind, space, sum dag.ID, body []byte) error {
	if len(body) > MaxRecord {
		return fmt.Errorf("backup: a record of %d bytes", len(body))
	}
	putHead(w.buf[:], w.at, kind, len(body), space, sum)
	if _, err := w.w.Write(w.buf[:]); err != nil {
		return err
	}
	_, err := w.w.Write(body)
	w.at += int64(head + len(body))
	return err
}

// Flush hands on what was written.
func (w *Writer) Flush() error { return w.w.Flush() }

// At is the offset behind what was written.
func (w *Writer) At() int64 { return w.at }

// Reader reads records and checks them. It is used by one goroutine at a time.
type Reader struct {
	r   *bufio.Reader
	at  int64
	end int64 // 0: where the stream ends
	buf []byte
}

// NewReader reads a file or a stream from its beginning up to an offset; 0 is its end.
func NewReader(r io.Reader, end int64) (*Reader, error) {
	x := &Reader{r: bufio.NewReaderSize(r, 1<<20), at: int64(len(magic)), end: end}
	p := make([]byte, len(magic))
	if _, err := io.ReadFull(x.r, p); err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	if string(p) != magic {
		return nil, ErrForm
	}
	return x, nil
}

// Next reads the next record; io.EOF behind the last.
func (r *Reader) Next() (*Record, error) {
	if r.end > 0 && r.at >= r.end {
		return nil, io.EOF
	}
	var h [head]byte
	if _, err := io.ReadFull(r.r, h[:]); err == io.EOF {
		return nil, io.EOF
	} else if err != nil {
		return nil, r.cut(err)
	}
	rec, n, err := parseHead(h[:], r.at)
	if err != nil {
		return nil, err
	}
	if cap(r.buf) < n {
		r.buf = make([]byte, n)
	}
	rec.Body = r.buf[:n]
	if _, err := io.ReadFull(r.r, rec.Body); err != nil {
		return nil, r.cut(err)
	}
	if rec.Kind != Damaged && dag.Sum(rec.Body) != rec.Sum {
		return nil, fmt.Errorf("%w: %s", ErrDamaged, rec.name())
	}
	r.at += int64(head + n)
	return &rec, nil
}

func (r *Reader) cut(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("%w: it ends within the record at %d", ErrDamaged, r.at)
	}
	return err
}

var names = map[Kind]string{
	Begin: "the beginning of a run", File: "a file of the node's folder", Access: "a batch of the access list", Change: "a batch of files",
	Block: "a block", Mark: "a mark", End: "the end of a run", Word: "an owner's word",
}

// name says which record it is, for a person.
func (r *Record) name() string {
	s := fmt.Sprintf("the record at %d, %s", r.At, names[r.Kind])
	if r.Space != (dag.ID{}) {
		s += " of space " + r.Space.String()
	}
	return s
}

// Err says of a record what is wrong with it.
func (r *Record) Err(err error) error { return fmt.Errorf("backup: %s: %w", r.name(), err) }

// Scan reads the heads of the records of a file of a size. It calls fn for each, with a nil Body, and take for those that fn wants, with all of it.
// It returns the offset behind the last End; what follows that, or does not read, is of a run that was not finished. Damage before it is an
// error. A file without any run gives 0; one that is no backup ErrForm.
func Scan(f io.ReaderAt, size int64, fn func(*Record) (want bool), take func(*Record) error) (end int64, err error) {
	p := make([]byte, head)
	n, err := f.ReadAt(p[:len(magic)], 0)
	if err != nil && err != io.EOF {
		return 0, err
	}
	if string(p[:n]) != magic[:n] {
		return 0, ErrForm
	}
	if n < len(magic) {
		return 0, nil // the first run was killed at once
	}
	at := int64(len(magic))
	var torn error
	for at < size {
		var rec Record
		var n int
		if size-at < head {
			torn = fmt.Errorf("%w: it ends within the record at %d", ErrDamaged, at)
			break
		}
		if _, err := f.ReadAt(p, at); err != nil {
			return 0, err
		}
		if rec, n, torn = parseHead(p, at); torn != nil {
			break
		}
		if at+int64(head+n) > size {
			torn = fmt.Errorf("%w: it ends within the record at %d", ErrDamaged, at)
			break
		}
		if fn(&rec) {
			rec.Body = make([]byte, n)
			if _, err := f.ReadAt(rec.Body, at+head); err != nil {
				return 0, err
			}
			if dag.Sum(rec.Body) != rec.Sum {
				return 0, fmt.Errorf("%w: %s", ErrDamaged, rec.name())
			}
			if err := take(&rec); err != nil {
				return 0, err
			}
		}
		at += int64(head + n)
		if rec.Kind == End {
			end = at
		}
	}
	if torn != nil {
		if hidden, err := endBehind(f, at, size); err != nil {
			return 0, err
		} else if hidden {
			return 0, torn // a run that was finished lies behind: this is no torn tail
		}
	}
	return end, nil
}

// endBehind reports whether the head of an End stands anywhere behind an offset.
func endBehind(f io.ReaderAt, at, size int64) (bool, error) {
	const step = 1 << 20
	buf := make([]byte, step+head)
	for from := at + 1; from+head <= size; from += step {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-from)], from)
		if err != nil && err != io.EOF {
			return false, err
		}
		for i := 0; i+head <= n && i < step; i++ {
			// Cheap tests first: this looks at each byte.
			if buf[i] != byte(End) || buf[i+1] != 0 {
				continue
			}
			if _, _, err := parseHead(buf[i:i+head], from+int64(i)); err == nil {
				return true, nil
			}
		}
	}
	return false, nil
}
