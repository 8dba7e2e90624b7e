package disk

import (
	"io"
	"slices"
)

const pageBytes = 16 << 10

type page [pageBytes]byte

// image is a file's content. Its pages are shared among images until one of them changes, and are nil where there are only
// zeros: files of simulated disks are large, many, and mostly empty.
type image struct {
	size  int64
	pages []*page // all that size needs; what is behind size in the last one is zeros
	own   []bool  // the pages that no other image has
}

// fileOp is a change to a file's content that is not durable yet.
type fileOp struct {
	off  int64
	n    int64
	data []byte // n bytes; nil: zeros
	cut  bool   // the file was cut or extended to off bytes, and nothing else
	keep bool   // the size stays as it is (a hole)
}

// share returns the same content as an image of its own.
func (m *image) share() image {
	clear(m.own)
	return image{m.size, slices.Clone(m.pages), make([]bool, len(m.pages))}
}

func (m *image) apply(op fileOp) {
	if op.cut {
		m.resize(op.off)
		return
	}
	end := op.off + op.n
	if op.keep {
		end = min(end, m.size)
	} else if end > m.size {
		m.resize(end)
	}
	switch {
	case op.off >= end:
	case op.data != nil:
		m.write(op.data[:end-op.off], op.off)
	default:
		m.zero(op.off, end)
	}
}

// resize cuts the content, or extends it with zeros.
func (m *image) resize(size int64) {
	if size < m.size {
		m.zero(size, m.size)
	}
	n := int((size + pageBytes - 1) / pageBytes)
	if n < len(m.pages) {
		clear(m.pages[n:])
		m.pages, m.own = m.pages[:n], m.own[:n]
	}
	m.pages = append(m.pages, make([]*page, n-len(m.pages))...)
	m.own = append(m.own, make([]bool, n-len(m.own))...)
	m.size = size
}

// write puts p at off; all of it is before the end.
func (m *image) write(p []byte, off int64) {
	for len(p) > 0 {
		n := copy(m.mine(off)[off%pageBytes:], p)
		p, off = p[n:], off+int64(n)
	}
}

// mine returns the page at off, for writing.
func (m *image) mine(off int64) *page {
	i := off / pageBytes
	if !m.own[i] {
		fresh := new(page)
		if m.pages[i] != nil {
			*fresh = *m.pages[i]
		}
		m.pages[i], m.own[i] = fresh, true
	}
	return m.pages[i]
}

// zero puts zeros from off to end, which is not behind the content's.
func (m *image) zero(off, end int64) {
	for off < end {
		from := off % pageBytes
		to := min(from+end-off, pageBytes)
		switch i := off / pageBytes; {
		case m.pages[i] == nil:
		case from == 0 && (to == pageBytes || end == m.size):
			m.pages[i], m.own[i] = nil, false
		default:
			clear(m.mine(off)[from:to])
		}
		off += to - from
	}
}

// read fills p from off on, as ReaderAt does.
func (m *image) read(p []byte, off int64) (n int, err error) {
	if off >= m.size {
		return 0, io.EOF
	}
	if int64(len(p)) > m.size-off {
		p, err = p[:m.size-off], io.EOF
	}
	for n < len(p) {
		part := p[n:min(len(p), n+pageBytes-int(off%pageBytes))]
		if from := m.pages[off/pageBytes]; from != nil {
			copy(part, from[off%pageBytes:])
		} else {
			clear(part)
		}
		n, off = n+len(part), off+int64(len(part))
	}
	return n, err
}

// copyFrom takes what src has between off and end, which is not behind the end of either. Both are in one sector.
func (m *image) copyFrom(src *image, off, end int64) {
	from := src.pages[off/pageBytes]
	if from == nil {
		m.zero(off, end)
		return
	}
	m.write(from[off%pageBytes:][:end-off], off)
}

// same reports whether two images have the same content.
func (m *image) same(o *image) bool {
	if m.size != o.size {
		return false
	}
	for i, p := range m.pages {
		q := o.pages[i]
		if p == q {
			continue
		}
		if p == nil {
			p, q = q, p
		}
		if q == nil && *p != (page{}) || q != nil && *p != *q {
			return false
		}
	}
	return true
}

func (m *image) bytes() []byte {
	b := make([]byte, m.size)
	_, _ = m.read(b, 0)
	return b
}
