package journal

import (
	"crypto/cipher"
	"io"

	"github.com/anyfs/anyfs/dag/disk"
)

const scanBytes = 256 << 10

func scanBuf(size int64) []byte { return make([]byte, min(scanBytes, size)) }

// scanner opens the frames of one use in order. Its memory does not depend on what it reads.
type scanner struct {
	file    disk.File
	aead    cipher.AEAD
	size    int64
	pos     int64 // of the next frame
	counter uint64

	buf  []byte
	base int64 // file offset of buf[0]
	n    nonce
}

// newScanner uses buf, which is made by scanBuf for a file of this size or a larger one.
func newScanner(f *file, buf []byte) *scanner {
	return &scanner{file: f.slot.file, aead: f.aead, size: f.size, pos: headerBytes, buf: buf[:0]}
}

// peek returns n bytes at pos, fewer at the end of the file. They are valid until the next call.
func (s *scanner) peek(pos int64, n int) ([]byte, error) {
	n = int(min(int64(n), s.size-pos))
	if n <= 0 {
		return nil, nil
	}
	if pos < s.base || pos+int64(n) > s.base+int64(len(s.buf)) {
		s.base, s.buf = pos, s.buf[:min(int64(cap(s.buf)), s.size-pos)]
		k, err := s.file.ReadAt(s.buf, pos)
		s.buf = s.buf[:k]
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
	at := pos - s.base
	return s.buf[at:min(at+int64(n), int64(len(s.buf)))], nil
}

// next returns the records of the next frame, valid until the next call, and io.EOF behind the last one that opens. Any
// other error is the disk's.
func (s *scanner) next() (body []byte, synced Seq, err error) {
	b, err := s.peek(s.pos, frameHead)
	if err != nil {
		return nil, 0, err
	}
	if len(b) < frameHead {
		return nil, 0, io.EOF
	}
	size := frameSize(b)
	if size == 0 {
		return nil, 0, io.EOF
	}
	body, synced, ok, err := s.try(s.pos, size, s.counter)
	if err != nil {
		return nil, 0, err
	}
	if !ok {
		return nil, 0, io.EOF
	}
	s.pos += int64(size)
	s.counter++
	return body, synced, nil
}

func (s *scanner) try(pos int64, size int, counter uint64) (body []byte, synced Seq, ok bool, err error) {
	b, err := s.peek(pos, size)
	if err != nil || len(b) < size {
		return nil, 0, false, err
	}
	body, synced, ok = openFrame(b, s.aead, s.n.set(counter))
	if !ok {
		s.buf = s.buf[:0] // opening destroyed it
	}
	return body, synced, ok, nil
}

// probe looks, behind the last frame that opens, for frames that could not be there if that end was a crash's. It returns the
// highest record that they say was durable. What it finds is for a report only.
func (s *scanner) probe() (synced Seq) {
	pos, counter := s.pos, s.counter
	for range 64 {
		b, err := s.peek(pos, frameHead)
		if err != nil || len(b) < frameHead {
			return synced
		}
		var head [frameHead]byte
		copy(head[:], b)
		size := frameSize(head[:])
		found := false
		if size != 0 {
			_, sy, ok, err := s.try(pos, size, counter)
			if err != nil {
				return synced
			}
			if ok {
				synced = max(synced, sy)
			}
			found = ok || s.opens(pos+int64(size), counter+1)
		}
		// One bit of the length may be wrong.
		for bit := 0; bit < 8*frameHead && !found; bit++ {
			h := head
			h[3-bit/8] ^= 1 << (bit % 8)
			if k := frameSize(h[:]); k != 0 && s.opens(pos+int64(k), counter+1) {
				size, found = k, true
			}
		}
		if !found {
			return synced
		}
		pos, counter = pos+int64(size), counter+1
	}
	return synced
}

// opens reports whether a frame is at pos.
func (s *scanner) opens(pos int64, counter uint64) bool {
	b, err := s.peek(pos, frameHead)
	if err != nil || len(b) < frameHead {
		return false
	}
	size := frameSize(b)
	if size == 0 {
		return false
	}
	_, _, ok, err := s.try(pos, size, counter)
	s.buf = s.buf[:0]
	return ok && err == nil
}

// scanFile learns what is on the disk of a use, and calls fn for each frame. It is called with io held. The scanner that it
// returns stands behind the last frame.
func (f *file) scanFile(buf []byte, fn func(body []byte, synced Seq) error) (*scanner, error) {
	s := newScanner(f, buf)
	f.pos, f.done, f.counter, f.marks = headerBytes, 0, 0, nil
	for {
		body, synced, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		f.mark()
		f.pos, f.counter = s.pos, s.counter
		if fn != nil {
			if err := fn(body, synced); err != nil {
				return nil, err
			}
		}
		f.done += uint32(len(body))
	}
	f.scanned = true
	return s, nil
}

// scanOld scans a file of before the start on the first read from it.
func (j *Journal) scanOld(f *file) error {
	f.io.RLock()
	scanned := f.scanned
	f.io.RUnlock()
	if scanned {
		return nil
	}
	f.io.Lock()
	defer f.io.Unlock()
	if f.scanned {
		return nil
	}
	_, err := f.scanFile(scanBuf(f.size), nil)
	return err
}
