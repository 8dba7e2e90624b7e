//go:build unix

// Package inside lets a test ask a process of the command how many goroutines it has, and what they do.
//
// No build of the product links it. TestSoak builds the command with it (go build -overlay). On SIGUSR1 the process collects its garbage, and writes the number of its
// goroutines and the bytes of its heap into the file PID in the folder that ANYFS_PROBE names, as JSON; on SIGUSR2 where its goroutines are and what
// allocated its memory, as PID.goroutine and PID.heap.
package inside

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"syscall"
)

// Sample is what a process tells of itself.
type Sample struct {
	Seq        int    // one more each time
	Goroutines int    // those of this package too
	Heap       uint64 // bytes of what is in use, and of what was given up since the last collection
	Live       uint64 // bytes of what was in use at that collection
}

func init() {
	dir := os.Getenv("ANYFS_PROBE")
	if dir == "" {
		return
	}
	c := make(chan os.Signal, 4)
	signal.Notify(c, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		seq := 0
		for s := range c {
			if s == syscall.SIGUSR2 {
				for name, debug := range map[string]int{"goroutine": 1, "heap": 1} {
					var b bytes.Buffer
					if err := pprof.Lookup(name).WriteTo(&b, debug); err == nil {
						put(filepath.Join(dir, fmt.Sprint(os.Getpid(), ".", name)), b.Bytes())
					}
				}
				continue
			}
			seq++
			runtime.GC() // what is in use, and not how far the last collection is back; twice, as pools keep what they have for one
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
			metrics.Read(live)
			b, err := json.Marshal(Sample{Seq: seq, Goroutines: runtime.NumGoroutine(), Heap: m.HeapAlloc, Live: live[0].Value.Uint64()})
			if err == nil {
				put(filepath.Join(dir, fmt.Sprint(os.Getpid())), b)
			}
		}
	}()
}

// put writes a file as a whole.
func put(name string, b []byte) {
	if os.WriteFile(name+".new", b, 0o600) == nil {
		_ = os.Rename(name+".new", name)
	}
}
