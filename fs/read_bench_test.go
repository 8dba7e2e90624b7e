package fs

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
)

// BenchmarkReadCold reads 10,000 files of 4 KiB in 100 directories, in the order in which they were made, from a home that was opened
// just now: what the kernel asks for when it knows all names and attributes, and no content.
func BenchmarkReadCold(b *testing.B) {
	const dirs, per, size = 100, 100, 4096
	ctx := context.Background()
	dir := b.TempDir()
	d, err := disk.OS(dir)
	must(b, err)
	account, err := acl.NewAccount(rand.Reader)
	must(b, err)
	keys, err := acl.InitKeys(d, account, "test", nil, rand.Reader)
	must(b, err)
	cred := Cred{uint32(os.Geteuid()), uint32(os.Getegid())}
	open := func() (*Home, Ino) {
		h, err := Open(ctx, Options{Disk: d, Dir: dir, Keys: keys, Rand: rand.Reader, UID: cred.UID, GID: cred.GID})
		must(b, err)
		if _, err := h.Space(PersonalName); err != nil {
			_, err = h.CreatePersonal()
			must(b, err)
		}
		root, err := h.SpaceRoot(PersonalName)
		must(b, err)
		return h, root
	}
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
