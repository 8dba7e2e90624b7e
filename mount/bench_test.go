package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The work here is what people do; the backend in memory shows what the mount itself costs. Files are written with
// plain system calls, as a program in C does.

// BenchmarkCreate makes files of 4 KiB: open, write, close.
func BenchmarkCreate(b *testing.B) {
	for _, perDir := range []int{1000} {
		b.Run(fmt.Sprint(perDir), func(b *testing.B) {
			m := mountOn(b, newMem())
			data := make([]byte, 4096)
			i := 0
			dir := ""
			for b.Loop() {
				if i%perDir == 0 {
					dir = filepath.Join(m.dir, fmt.Sprint("d", i/perDir))
					must(b, unix.Mkdir(dir, 0o755))
				}
				fd, err := unix.Open(fmt.Sprintf("%s/f%d", dir, i), unix.O_CREAT|unix.O_WRONLY|unix.O_EXCL, 0o644)
				must(b, err)
				_, err = unix.Write(fd, data)
				must(b, err)
				must(b, unix.Close(fd))
				i++
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkWrite1M(b *testing.B) {
	m := mountOn(b, newMem())
	data := make([]byte, 1<<20)
	fd, err := unix.Open(m.dir+"/f", unix.O_CREAT|unix.O_WRONLY, 0o644)
	must(b, err)
	b.SetBytes(1 << 20)
	for i := 0; b.Loop(); i++ {
		_, err := unix.Pwrite(fd, data, int64(i%256)<<20)
		must(b, err)
	}
	must(b, unix.Close(fd))
}

func BenchmarkRead1M(b *testing.B) {
	m := mountOn(b, newMem())
	data := make([]byte, 1<<20)
	fd, err := unix.Open(m.dir+"/f", unix.O_CREAT|unix.O_RDWR, 0o644)
	must(b, err)
	for i := range 256 {
		_, err := unix.Pwrite(fd, data, int64(i)<<20)
		must(b, err)
	}
	b.SetBytes(1 << 20)
	for i := 0; b.Loop(); i++ {
		if i%256 == 0 { // past the page cache
			must(b, unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
		}
		_, err := unix.Pread(fd, data, int64(i%256)<<20)
		must(b, err)
	}
	must(b, unix.Close(fd))
}

func BenchmarkAppend100(b *testing.B) {
	m := mountOn(b, newMem())
	data := make([]byte, 100)
	fd, err := unix.Open(m.dir+"/f", unix.O_CREAT|unix.O_WRONLY|unix.O_APPEND, 0o644)
	must(b, err)
	for b.Loop() {
		_, err := unix.Write(fd, data)
		must(b, err)
	}
	must(b, unix.Close(fd))
}

func BenchmarkStatWarm(b *testing.B) {
	m := mountOn(b, newMem())
	must(b, os.WriteFile(m.dir+"/f", nil, 0o644))
	var st unix.Stat_t
	for b.Loop() {
		must(b, unix.Stat(m.dir+"/f", &st))
	}
}

func BenchmarkListCold(b *testing.B) {
	const n = 10000
	m := mountOn(b, newMem())
	for i := range n {
		fd, err := unix.Open(fmt.Sprintf("%s/f%d", m.dir, i), unix.O_CREAT|unix.O_WRONLY, 0o644)
		must(b, err)
		must(b, unix.Close(fd))
	}
	id := uint64(rootID)
	for b.Loop() {
		m.f.kernel.InodeNotify(id, 0, 0)
		d, err := os.Open(m.dir)
		must(b, err)
		names, err := d.Readdirnames(-1)
		must(b, err)
		if len(names) != n {
			b.Fatal(len(names))
		}
		d.Close()
	}
	b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds(), "files/s")
}
