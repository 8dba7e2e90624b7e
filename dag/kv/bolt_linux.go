package kv

import (
	"bytes"
	"os"
	"strconv"

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
	b.db.View(func(tx *bbolt.Tx) error {
		unmap(b.db.Info().Data, tx.Size())
		return nil
	})
}

// unmap gives the pages back of a map that starts at data and stays where it is meanwhile, as it does in a transaction. What is read
// afterwards faults in again. The call is a hint: a failure costs memory only.
func unmap(data uintptr, size int64) {
	size = (size + growBytes) &^ (growBytes - 1)
	unix.Syscall(unix.SYS_MADVISE, data, uintptr(size), unix.MADV_DONTNEED)
}

// mapped is how many bytes of files the process has mapped and in memory; 0 where the system does not say.
func mapped() int64 {
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return 0
	}
	defer f.Close()
	var b [128]byte
	n, _ := f.Read(b[:])
	fields := bytes.Fields(b[:n])
	if len(fields) < 3 {
		return 0
	}
	pages, err := strconv.ParseInt(string(fields[2]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// readAround takes back that the map is read at random, as bbolt tells the system: then each page that is not cached is a read of its
// own, and a folder that is listed for the first time takes hundreds. Without it the system reads what lies around with a page,
// until such reads have missed a hundred times more often than they were of use (do_sync_mmap_readahead in the kernel's mm/filemap.c), so a
// large database of which little is asked costs little more. It fills the system's cache, not the process's memory. It is a hint.
func readAround(data uintptr, size int64) {
	unix.Syscall(unix.SYS_MADVISE, data, uintptr(size), unix.MADV_NORMAL)
}
