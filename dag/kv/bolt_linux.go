package kv

import (
	"os"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// giveUp lets go of the file of a database that could not be opened. Where damage made bbolt panic its map is there still, and
// that keeps the lock.
func giveUp(f *os.File) {
	unix.Flock(int(f.Fd()), unix.LOCK_UN)
	f.Close()
}

// Trim gives the pages of the map back. They stay in the system's cache of the file; what is read again faults in.
func (b *Bolt) Trim() {
	b.reads.Store(0)
	// A transaction keeps the map where it is. The call is a hint: a failure costs memory only.
	b.db.View(func(tx *bbolt.Tx) error {
		bytes := (tx.Size() + growBytes) &^ (growBytes - 1)
		unix.Syscall(unix.SYS_MADVISE, b.db.Info().Data, uintptr(bytes), unix.MADV_DONTNEED)
		return nil
	})
}
