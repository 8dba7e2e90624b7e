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

// BenchmarkCreate makes files of 4 KiB, 1,000 in a folder: open, write, close.
func BenchmarkCreate(b *testing.B) {
	inEachBench(b, func(b *testing.B, m *testMount, top string) {
		data := make([]byte, 4096)
		i, dir := 0, ""
		for b.Loop() {
			if i%1000 == 0 {
				dir = filepath.Join(top, fmt.Sprint("d", i/1000))
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

// inEachBench runs a benchmark on each backend: the one in memory shows what the mount costs, the home what it adds.
func inEachBench(b *testing.B, bench func(b *testing.B, m *testMount, top string)) {
	for name, open := range backends {
		b.Run(name, func(b *testing.B) {
			m := mountOn(b, open(b))
			top := m.dir
			if name != "mem" {
				top += "/Personal"
			}
			bench(b, m, top)
		})
	}
}

func BenchmarkWrite1M(b *testing.B) {
	inEachBench(b, func(b *testing.B, _ *testMount, top string) {
		data := make([]byte, 1<<20)
		fd, err := unix.Open(top+"/f", unix.O_CREAT|unix.O_WRONLY, 0o644)
		must(b, err)
		b.SetBytes(1 << 20)
		for i := 0; b.Loop(); i++ {
			data[i%len(data)]++
			_, err := unix.Pwrite(fd, data, int64(i%256)<<20)
			must(b, err)
		}
		must(b, unix.Close(fd))
	})
}

// BenchmarkRead1M reads past the page cache.
func BenchmarkRead1M(b *testing.B) {
	inEachBench(b, func(b *testing.B, _ *testMount, top string) {
		data := make([]byte, 1<<20)
		fd, err := unix.Open(top+"/f", unix.O_CREAT|unix.O_RDWR, 0o644)
		must(b, err)
		for i := range 256 {
			data[i]++
			_, err := unix.Pwrite(fd, data, int64(i)<<20)
			must(b, err)
		}
		must(b, unix.Fsync(fd))
		b.SetBytes(1 << 20)
		for i := 0; b.Loop(); i++ {
			if i%256 == 0 {
				must(b, unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
			}
			_, err := unix.Pread(fd, data, int64(i%256)<<20)
			must(b, err)
		}
		must(b, unix.Close(fd))
	})
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
