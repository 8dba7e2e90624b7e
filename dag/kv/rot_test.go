package kv_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/dag/kv"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func fill(tb testing.TB, db kv.DB, n int) {
	tb.Helper()
	for at := 0; at < n; at += 500 {
		must(tb, db.Update(func(tx kv.Tx) error {
			for i := at; i < at+500; i++ {
				must(tb, tx.Put("sequential", fmt.Appendf(nil, "%08d", i), bytes.Repeat([]byte{byte(i)}, 60)))
				must(tb, tx.Put("random", fmt.Appendf(nil, "%08x", uint32(i*2654435761)), []byte("value")))
				if i%100 == 0 {
					must(tb, tx.Put("large", fmt.Appendf(nil, "%08d", i), make([]byte, 10_000)))
				}
			}
			return nil
		}))
	}
}

// TestBoltRot: whatever bit of the file is wrong, nothing crashes; what is damaged gives ErrCorrupt.
func TestBoltRot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "good.db")
	db := openBolt(t, path)
	fill(t, db, 2000)
	must(t, db.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	rnd := rand.New(rand.NewPCG(1, 1))
	noticed := 0
	for i := range 400 {
		b := bytes.Clone(good)
		// Headers of pages matter most: half of the flips hit them.
		at := rnd.IntN(len(b))
		if i%2 == 0 {
			at = at&^4095 + rnd.IntN(64)
		}
		b[at] ^= 1 << rnd.IntN(8)
		bad := filepath.Join(dir, fmt.Sprint(i))
		must(t, os.WriteFile(bad, b, 0o600))
		if use(t, bad) != nil {
			noticed++
			db, err := kv.OpenBolt(bad)
			if err == nil {
				must(t, db.Close())
			} else if !errors.Is(err, kv.ErrCorrupt) {
				t.Fatalf("open again: %v", err) // the first did not let go of it
			}
		}
		must(t, os.Remove(bad))
	}
	if noticed == 0 {
		t.Error("no damage was noticed")
	}
	t.Logf("%d of 400 flips noticed", noticed)
}

func use(t *testing.T, path string) error {
	db, err := kv.OpenBolt(path)
	if err != nil {
		if !errors.Is(err, kv.ErrCorrupt) {
			t.Fatalf("open: %v", err)
		}
		return err
	}
	defer db.Close()
	err = db.Check()
	return errors.Join(err, db.View(func(tx kv.Tx) error {
		for _, bucket := range []string{"sequential", "random", "large"} {
			n := 0
			count := func(k, v []byte) bool { n++; return n < 100_000 }
			if err := errors.Join(tx.Scan(bucket, nil, count), tx.ScanBack(bucket, nil, count)); err != nil {
				return err
			}
			tx.Get(bucket, []byte("00000500"))
		}
		return nil
	}), db.Update(func(tx kv.Tx) error {
		return errors.Join(tx.Put("random", []byte("x"), []byte("y")), tx.Delete("sequential", []byte("00000700")))
	}))
}

// TestBoltShape: what comes in order fills its pages, and a small database is a small file.
func TestBoltShape(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	must(t, db.Update(func(tx kv.Tx) error { return tx.Put("b", []byte("k"), nil) }))
	if n := db.Size(); n > 3<<20 {
		t.Errorf("%d bytes for one key", n)
	}
	for at := 0; at < 100_000; at += 1000 {
		must(t, db.Update(func(tx kv.Tx) error {
			for i := at; i < at+1000; i++ {
				must(t, tx.Put("b", fmt.Appendf(nil, "k%08d", i), make([]byte, 40)))
			}
			return nil
		}))
	}
	if n := db.Size(); n > 100_000*(9+40+16)*12/10+4<<20 {
		t.Errorf("%d bytes for 100,000 keys in order", n)
	}
}

// TestBoltFailedWrite: an update whose writes fail has not happened, and the database works on.
func TestBoltFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := openBolt(t, path)
	defer db.Close()
	fill(t, db, 500)
	fd := descriptor(t, path)
	saved, err := unix.Dup(fd)
	must(t, err)
	readOnly, err := unix.Open(path, unix.O_RDONLY, 0)
	must(t, err)
	must(t, unix.Dup2(readOnly, fd))
	err = db.Update(func(tx kv.Tx) error { return tx.Put("sequential", []byte("new"), []byte("x")) })
	if err == nil || errors.Is(err, kv.ErrBroken) {
		t.Errorf("update of a read-only file: %v", err)
	}
	must(t, unix.Dup2(saved, fd))
	unix.Close(saved)
	unix.Close(readOnly)
	must(t, db.View(func(tx kv.Tx) error {
		if tx.Get("sequential", []byte("new")) != nil {
			t.Error("what failed is there")
		}
		return nil
	}))
	fill(t, db, 500)
	must(t, db.Check())
}

func descriptor(t *testing.T, path string) int {
	if runtime.GOOS != "linux" {
		without(t, "/proc")
	}
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, e := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && to == path {
			var fd int
			fmt.Sscan(e.Name(), &fd)
			return fd
		}
	}
	t.Fatal("no descriptor")
	return 0
}

// TestBoltTrim: reading a large database leaves little of it in memory.
func TestBoltTrim(t *testing.T) {
	db := openBolt(t, filepath.Join(t.TempDir(), "x.db"))
	defer db.Close()
	for range 30 {
		must(t, db.Update(func(tx kv.Tx) error {
			for range 100 {
				must(t, tx.Put("b", fmt.Appendf(nil, "%016x", rand.Uint64()), make([]byte, 10_000)))
			}
			return nil
		}))
	}
	before := mapped(t)
	must(t, db.View(func(tx kv.Tx) error {
		return tx.Scan("b", nil, func(k, v []byte) bool { return v[5000] == 0 })
	}))
	read := mapped(t)
	db.Trim()
	after := mapped(t)
	if read-before < 10<<20 || after-before > 2<<20 {
		t.Errorf("mapped: %d before, %d after reading, %d after Trim", before, read, after)
	}
	must(t, db.View(func(tx kv.Tx) error {
		return tx.Scan("b", nil, func(k, v []byte) bool { return v[5000] == 0 })
	}))
}

// mapped returns how many bytes of files this process has mapped and resident.
func mapped(t *testing.T) int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		without(t, err.Error())
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "RssFile: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	without(t, "RssFile in /proc/self/status")
	return 0
}

// without skips a test that needs what is not there, and fails it where CI is set: there everything is to be.
func without(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("this machine lacks " + what)
	}
	t.Skip("this machine lacks " + what)
}
