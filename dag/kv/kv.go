// Package kv is the ordered key-value store in which checkpoints are kept.
//
// A DB holds buckets, which are made by the first Put into them; in a bucket keys are ordered bytewise. Updates are atomic
// and durable. OpenBolt is the one on disk; NewMem and NewSimDB are its twins in memory and on a simulated disk. All pass
// the suite in kvtest. Keys and values are sealed by the callers: the package does no cryptography, and nothing but
// the checksum of its root says that a page is whole, so callers verify what they read.
package kv

import (
	"errors"
	"fmt"
	"syscall"
)

// MaxKey is the longest key in bytes, MaxValue the longest value. The shortest key is one byte.
const (
	MaxKey   = 32768
	MaxValue = 32 << 20
)

var (
	// ErrReadOnly is returned by Put, Delete and Clear within View.
	ErrReadOnly = errors.New("kv: read-only transaction")
	// ErrUpdate is returned by ScanBack within Update.
	ErrUpdate = errors.New("kv: no scanning back within an update")
	// ErrKey is returned for a key that is empty or longer than MaxKey, ErrValue for a value longer than MaxValue.
	ErrKey   = errors.New("kv: key has a bad length")
	ErrValue = errors.New("kv: value is too long")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("kv: closed")
	// ErrCorrupt says that the file is damaged. What it was about to return is not returned.
	ErrCorrupt = errors.New("kv: corrupt")
	// ErrInUse is returned where another process has the database open.
	ErrInUse = errors.New("kv: another process has it open")
	// ErrBroken says that an earlier commit failed in such a way that nobody knows whether it is durable. The DB must be
	// opened again; it will then hold that commit whole or not at all, durably.
	ErrBroken = fmt.Errorf("kv: a commit failed, open again: %w", syscall.EIO)
)

// DB is safe for concurrent use. Views see the state of the last Update that returned before they began, and run beside
// each other and beside one Update; a second Update waits for the first.
type DB interface {
	// View runs fn on a snapshot. It should be short (below 50 ms): while it runs, pages that updates give up are not
	// reused. It returns fn's error.
	View(fn func(Tx) error) error
	// Update runs fn and makes what it did durable when it returns nil; else nothing of it happened (but see ErrBroken).
	// Within fn there may be no other Update, nor a View by the same goroutine.
	Update(fn func(Tx) error) error
	// Size is that of the file (for a DB in memory: of keys and values) in bytes.
	Size() int64
	// Trim gives the memory that caches the file back to the system. It is cheap, and done by the DB itself after each
	// Update and every few thousand reads.
	Trim()
	// Buckets lists, in order, the buckets that hold something; there may be empty ones among them.
	Buckets() ([]string, error)
	// Check walks everything and returns an error matching ErrCorrupt when the structure is damaged.
	Check() error
	// Close waits for running transactions.
	Close() error
}

// Tx is used by one goroutine at a time, within the function that it was given to. Byte slices that it returns are valid
// until that function returns, and must not be changed. Those given to it are copied.
type Tx interface {
	// Get returns nil when the key is absent, and a non-nil slice for an empty value.
	Get(bucket string, key []byte) []byte
	Put(bucket string, key, value []byte) error
	// Delete of an absent key does nothing.
	Delete(bucket string, key []byte) error
	// Clear deletes all keys of a bucket, at once.
	Clear(bucket string) error
	// Scan calls fn for the keys from `from` on (nil: from the first), ascending, until it returns false. fn must not
	// change the bucket.
	Scan(bucket string, from []byte, fn func(k, v []byte) bool) error
	// ScanBack calls fn for the keys from `from` down (nil: from the last), descending, until it returns false.
	// It works within View only.
	ScanBack(bucket string, from []byte, fn func(k, v []byte) bool) error
}

func checkPair(key, value []byte) error {
	if len(key) == 0 || len(key) > MaxKey {
		return fmt.Errorf("%w: %d bytes", ErrKey, len(key))
	}
	if len(value) > MaxValue {
		return fmt.Errorf("%w: %d bytes", ErrValue, len(value))
	}
	return nil
}
