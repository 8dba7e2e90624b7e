package fs

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"
)

// BenchmarkReadCold reads 10,000 files of 4 KiB in 100 directories, in the order in which they were made, from a home that was opened
// just now: what the kernel asks for when it knows all names and attributes, and no content.
func BenchmarkReadCold(b *testing.B) {
	const dirs, per, size = 100, 100, 4096
	ctx, cred, open := benchHome(b)
	h, root := open()
	buf := make([]byte, size)
	for i := range dirs {
		sub, err := h.Mkdir(root, fmt.Sprintf("d%03d", i), 0755, cred)
		must(b, err)
		for j := range per {
			f, err := h.Mknod(sub.Ino, fmt.Sprintf("f%04d", j), 0100644, 0, cred)
			must(b, err)
			_, _ = rand.Read(buf)
			_, err = h.Write(ctx, f.Ino, buf, 0, WriteFlags{})
			must(b, err)
		}
		must(b, h.Flush(ctx))
	}
	must(b, h.checkpoint(ctx))
	must(b, h.Close())
	var cpu time.Duration
	for b.Loop() {
		b.StopTimer()
		h, root := open()
		var inos []Ino
		for i := range dirs {
			sub, err := h.Lookup(root, fmt.Sprintf("d%03d", i))
			must(b, err)
			for j := range per {
				f, err := h.Lookup(sub.Ino, fmt.Sprintf("f%04d", j))
				must(b, err)
				inos = append(inos, f.Ino)
			}
		}
		began := cpuUsed()
		b.StartTimer()
		for _, ino := range inos {
			n, err := h.Read(ctx, ino, buf, 0)
			must(b, err)
			if n != size {
				b.Fatalf("%d bytes", n)
			}
		}
		b.StopTimer()
		cpu += cpuUsed() - began
		must(b, h.Close())
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N*dirs*per), "us/file")
	b.ReportMetric(cpu.Seconds()*1e6/float64(b.N*dirs*per), "cpu-us/file")
}
