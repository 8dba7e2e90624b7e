//go:build !linux

package kv

import "os"

// giveUp lets go of the file of a database that could not be opened.
func giveUp(f *os.File) { f.Close() }

// Trim does nothing where there is no call that drops pages of a map and keeps the map.
func (b *Bolt) Trim() { b.reads.Store(0) }

func unmap(uintptr, int64) {}

// readAround does nothing: the system's own choice stands.
func readAround(uintptr, int64) {}

func mapped() int64 { return 0 }
