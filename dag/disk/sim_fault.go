package disk

import (
	"io"
	"syscall"
)

const errNoSpace = syscall.ENOSPC

// opKind groups operations by the errors that they can meet.
type opKind uint8

const (
	opRead  opKind = iota
	opName         // changes names or sizes, takes no space
	opSpace        // takes space
	opWrite        // takes space, and may be short
	opSync
)

type fault struct {
	left   int64 // operations until it lands; 0: none is set
	err    error
	stays  bool
	landed int64
	ops    int64
}

// FailAt makes the n-th operation from now (1: the next) fail with err, once. Only operations that can meet err count:
// io.ErrShortWrite is for WriteAt and Allocate, ENOSPC also for Reserve, Create, MkdirAll and Rename, any other for all but Size and
// Close. A failing write may have written a part. After a failing Sync what was unsynced is lost in part or as a
// whole though reads still show it. n = 0 sets no fault.
func (s *Sim) FailAt(n int64, err error) { s.setFault(n, err, false) }

// FailFrom makes the n-th such operation from now and all that follow it fail: a disk that is gone or full, or, with
// CrashClone after it, a power loss at that operation.
func (s *Sim) FailFrom(n int64, err error) { s.setFault(n, err, true) }

func (s *Sim) setFault(n int64, err error, stays bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault.left, s.fault.err, s.fault.stays = n, err, stays
}

// Landed counts the operations that a fault made fail.
func (s *Sim) Landed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault.landed
}

// Ops counts all operations so far.
func (s *Sim) Ops() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault.ops
}

// step counts an operation and returns the error that it fails with.
func (s *Sim) step(k opKind) error {
	f := &s.fault
	f.ops++
	if f.left == 0 || !meets(k, f.err) {
		return nil
	}
	if f.left > 1 {
		f.left--
		return nil
	}
	if !f.stays {
		f.left = 0
	}
	f.landed++
	return f.err
}

func meets(k opKind, err error) bool {
	switch err {
	case io.ErrShortWrite:
		return k == opWrite
	case syscall.ENOSPC:
		return k == opWrite || k == opSpace
	}
	return true
}
