package fs

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// manyVersions makes a file with n versions of 200 bytes.
func manyVersions(b *testing.B, n int) *testHome {
	th := newTestHome(b)
	ino := th.create(th.root, "f", []byte("v"))
	for i := range n {
		th.write(ino, random(uint64(i), 200), 0)
		th.flush()
	}
	return th
}

// BenchmarkLog lists the newest 20 and all versions of a file with 5,000; us/version is the cost of one.
func BenchmarkLog(b *testing.B) {
	const n = 5000
	th := manyVersions(b, n)
	for _, limit := range []int{20, n} {
		b.Run(fmt.Sprint(limit), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				left := limit
				if err := th.LogEach(context.Background(), "Personal/f", func(Version) bool { left--; return left > 0 }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*limit), "us/version")
		})
	}
	b.Run("open oldest", func(b *testing.B) {
		vs := th.log("Personal/f")
		for b.Loop() {
			if _, err := th.OpenVersion(context.Background(), "Personal/f", vs[len(vs)-1].ID); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAtView lists a directory of 10,000 files as it was, after all were saved again, and reads one of them.
func BenchmarkAtView(b *testing.B) {
	const n = 10_000
	th := newTestHome(b)
	d := th.mkdir(th.root, "d")
	for i := range n {
		th.create(d, fmt.Sprint("file", i), []byte("one"))
	}
	th.flush()
	then := th.clock()
	th.tick(time.Hour)
	for i := range n {
		if i%2 == 0 {
			th.must(th.Unlink(d, fmt.Sprint("file", i)))
		} else {
			th.save(th.look(d, fmt.Sprint("file", i)), []byte("two"))
		}
	}
	th.flush()
	at := th.sub(d, ".anyfs/at").Ino
	th.Ref(at)
	b.Run("list", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			dir := th.sub(at, then.Add(time.Duration(i)).Format(time.RFC3339Nano)).Ino
			if got := len(th.list(dir)); got != n {
				b.Fatal(got)
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			dir := th.sub(at, then.Add(time.Duration(i)).Format(time.RFC3339Nano)).Ino
			if got := string(th.read(th.sub(dir, "file4321").Ino)); got != "one" {
				b.Fatal(got)
			}
		}
	})
	b.Run("trash", func(b *testing.B) {
		for b.Loop() {
			if got := len(th.deleted("Personal/d")); got != n/2 {
				b.Fatal(got)
			}
		}
	})
}
