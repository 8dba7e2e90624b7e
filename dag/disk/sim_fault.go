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

var kindNames = [...]string{"read", "name", "space", "write", "sync"}

type fault struct {
	left   int64 // operations until it lands; 0: none is set
	err    error
	stays  bool
	syncs  bool // only they fail
	landed [opSync + 1]int64
	ops    int64
}

// FailAt makes the n-th operation from now (1: the next) fail with err, once. Only operations that can meet err count:
// io.ErrShortWrite is for WriteAt and Allocate, ENOSPC also for Reserve, Create, MkdirAll and Rename, any other for all but Size and
// Close. A failing write may have written a part. After a failing Sync what was unsynced is lost in part or as a
// whole though reads still show it. n = 0 sets no fault.
func (s *Sim) FailAt(n int64, err error) { s.setFault(n, err, false, false) }

// FailSyncAt makes the n-th Sync of a file from now fail with err, once.
func (s *Sim) FailSyncAt(n int64, err error) { s.setFault(n, err, false, true) }

// FailFrom makes the n-th such operation from now and all that follow it fail: a disk that is gone or full, or, with
// CrashClone after it, a power loss at that operation.
func (s *Sim) FailFrom(n int64, err error) { s.setFault(n, err, true, false) }

func (s *Sim) setFault(n int64, err error, stays, syncs bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault.left, s.fault.err, s.fault.stays, s.fault.syncs = n, err, stays, syncs
}

// Left counts the operations up to the one that the fault lands on, that included; 0: none is set.
func (s *Sim) Left() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault.left
}

// Landed counts the operations that a fault made fail.
func (s *Sim) Landed() (n int64) {
	for _, k := range s.LandedOn() {
		n += k
	}
	return n
}

// LandedOn is Landed by what was to be done: "read" (and open and list), "name" (remove, truncate, sync of a directory), "space"
// (create, rename, reserve), "write" and "sync".
func (s *Sim) LandedOn() map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]int64{}
	for k, n := range s.fault.landed {
		if n > 0 {
			m[kindNames[k]] = n
		}
	}
	return m
}

// Ops counts all operations so far.
func (s *Sim) Ops() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault.ops
}

// Watch has fn called before each operation that changes the disk or makes something durable, by who does it; nil ends that. fn
// may use the Sim: what Crash gives there is what a power loss just before the operation leaves.
func (s *Sim) Watch(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch = fn
}

// Unsynced counts the operations that are not durable: those for which Crash asks.
func (s *Sim) Unsynced() int {
	n := 0
	s.Crash(func() Keep { n++; return Drop })
	return n
}

// step counts an operation and returns the error that it fails with. It is the first thing that an operation does: while it
// runs, others may.
func (s *Sim) step(k opKind) error {
	if fn := s.watch; fn != nil && k != opRead {
		s.mu.Unlock()
		fn()
		s.mu.Lock()
	}
	f := &s.fault
	f.ops++
	if f.left == 0 || !meets(k, f.err) || f.syncs && k != opSync {
		return nil
	}
	if f.left > 1 {
		f.left--
		return nil
	}
	if !f.stays {
		f.left = 0
	}
	f.landed[k]++
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
