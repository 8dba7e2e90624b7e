//go:build linux && amd64

// Package clock sets the wall clock of a process off, by the duration in ANYFS_CLOCK, for all of it, libraries too; the monotonic clock stays.
//
// No build of the product links it. TestClocksOff builds the command with it (go build -overlay). A process has the time from the kernel's shared
// object (vDSO), past every preloaded library, and a time namespace sets only monotonic clocks off; so what the runtime calls there is replaced by
// some instructions that call it and add to the seconds.
package clock

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clockGettime is the address that the runtime calls; zero where it has none.
//
//go:linkname clockGettime runtime.vdsoClockgettimeSym
var clockGettime uintptr

func init() {
	off, err := time.ParseDuration(os.Getenv("ANYFS_CLOCK"))
	if err != nil {
		return // not set
	}
	if err := shift(off); err != nil {
		fmt.Fprintln(os.Stderr, "clock:", err)
		os.Exit(1)
	}
}

// shift is not undone.
func shift(off time.Duration) error {
	if clockGettime == 0 {
		return fmt.Errorf("the kernel gives no clock_gettime")
	}
	code, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("map a page: %w", err)
	}
	b := append(code[:0], 0x48, 0xb8) // mov rax, the kernel's
	b = binary.LittleEndian.AppendUint64(b, uint64(clockGettime))
	b = append(b,
		0x85, 0xff, // test edi, edi: which clock
		0x74, 0x02, // jz: the real one
		0xff, 0xe0, // jmp rax
		0x56,       // push rsi: where the time goes
		0xff, 0xd0, // call rax
		0x5e,       // pop rsi
		0x48, 0xb9) // mov rcx, seconds
	b = binary.LittleEndian.AppendUint64(b, uint64(int64(off/time.Second)))
	b = append(b,
		0x48, 0x01, 0x0e, // add [rsi], rcx
		0xc3) // ret
	if err := unix.Mprotect(code, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return fmt.Errorf("make it executable: %w", err)
	}
	before := time.Now()
	clockGettime = uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if got := time.Now().Round(0).Sub(before.Round(0)); got < off.Truncate(time.Second) || got > off+time.Minute {
		return fmt.Errorf("the clock moved by %v, not %v", got, off)
	}
	return nil
}
