package disk

import (
	iofs "io/fs"
	"slices"
)

type simFile struct {
	s      *Sim
	node   *simNode
	name   string
	closed bool
}

// begin counts an operation, which fails on a closed file or where the fault says so.
func (f *simFile) begin(op string, k opKind) error {
	if f.closed {
		return pathErr(op, f.name, iofs.ErrClosed)
	}
	if err := f.s.step(k); err != nil {
		return pathErr(op, f.name, err)
	}
	return nil
}

func (f *simFile) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin("read", opRead); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, pathErr("read", f.name, iofs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	return f.node.cur.read(p, off)
}

func (f *simFile) WriteAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if off < 0 {
		return 0, pathErr("write", f.name, iofs.ErrInvalid)
	}
	if err := f.begin("write", opWrite); err != nil {
		if f.closed || len(p) == 0 {
			return 0, err
		}
		n := f.s.rnd.IntN(len(p)) // a failed write may have written a part
		if f.change(fileOp{off: off, n: int64(n), data: slices.Clone(p[:n])}) != nil {
			n = 0
		}
		return n, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.change(fileOp{off: off, n: int64(len(p)), data: slices.Clone(p)}); err != nil {
		return 0, pathErr("write", f.name, err)
	}
	return len(p), nil
}

// change applies an operation to what reads give. It fails where the disk is full.
func (f *simFile) change(op fileOp) error {
	size, grown := f.node.cur.size, op.off+op.n
	if op.keep || (!op.cut && grown < size) {
		grown = size
	}
	if grown > size && f.s.used+grown-size > f.s.total {
		return errNoSpace
	}
	f.s.used += grown - size
	f.node.cur.apply(op)
	f.node.dirty = append(f.node.dirty, op)
	return nil
}

func (f *simFile) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return 0, pathErr("stat", f.name, iofs.ErrClosed)
	}
	return f.node.cur.size, nil
}

func (f *simFile) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin("truncate", opName); err != nil {
		return err
	}
	if size < 0 {
		return pathErr("truncate", f.name, iofs.ErrInvalid)
	}
	if err := f.change(fileOp{off: size, cut: true}); err != nil {
		return pathErr("truncate", f.name, err)
	}
	return nil
}

func (f *simFile) Allocate(off, n int64) error { return f.zeros("allocate", opWrite, off, n, false) }

func (f *simFile) Reserve(off, n int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin("reserve", opSpace); err != nil {
		return err
	}
	if off < 0 || n < 0 {
		return pathErr("reserve", f.name, iofs.ErrInvalid)
	}
	if n == 0 || off+n <= f.node.cur.size {
		return nil
	}
	if err := f.change(fileOp{off: off + n, cut: true}); err != nil {
		return pathErr("reserve", f.name, err)
	}
	return nil
}

func (f *simFile) PunchHole(off, n int64) error { return f.zeros("punch", opName, off, n, true) }

func (f *simFile) zeros(op string, k opKind, off, n int64, keep bool) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if err := f.begin(op, k); err != nil {
		return err
	}
	if off < 0 || n < 0 {
		return pathErr(op, f.name, iofs.ErrInvalid)
	}
	if n == 0 {
		return nil
	}
	if err := f.change(fileOp{off: off, n: n, keep: keep}); err != nil {
		return pathErr(op, f.name, err)
	}
	return nil
}

func (f *simFile) Sync() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	n := f.node
	if err := f.begin("fdatasync", opSync); err != nil {
		if !f.closed {
			// As Linux does: some of it reached the disk, the rest is marked clean, and nothing will write it again.
			n.dur = survive(&n.dur, n.dirty, randomKeep(f.s.rnd))
			n.dirty = nil
		}
		return err
	}
	for _, op := range n.dirty {
		n.dur.apply(op)
	}
	clear(n.dirty)
	n.dirty = n.dirty[:0]
	return nil
}

func (f *simFile) Uncache() {}

func (f *simFile) Ahead(off, n int64) {}

func (f *simFile) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.closed {
		return pathErr("close", f.name, iofs.ErrClosed)
	}
	f.closed = true
	return nil
}
