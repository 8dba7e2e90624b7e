// Package disktest holds what every disk.FS must do.
package disktest

import (
	"bytes"
	"errors"
	"io"
	iofs "io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag/disk"
)

// Run runs the suite; new gives an empty folder.
func Run(t *testing.T, new func(tb testing.TB) disk.FS) {
	t.Run("Names", func(t *testing.T) { names(t, new(t)) })
	t.Run("Renames", func(t *testing.T) { renames(t, new(t)) })
	t.Run("Content", func(t *testing.T) { content(t, new(t)) })
	t.Run("Unlinked", func(t *testing.T) { unlinked(t, new(t)) })
	t.Run("Atomic", func(t *testing.T) { atomic(t, new(t)) })
	t.Run("Model", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) { model(t, rt, new(t)) })
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func create(t *testing.T, d disk.FS, name, data string) {
	t.Helper()
	f, err := d.Create(name)
	must(t, err)
	_, err = f.WriteAt([]byte(data), 0)
	must(t, err)
	must(t, f.Close())
}

func names(t *testing.T, d disk.FS) {
	for _, bad := range []string{"", "/a", "../a", "a/../b", "a/", "a//b", "./a"} {
		_, err := d.Create(bad)
		wantErr(t, "create "+bad, err, iofs.ErrInvalid)
		_, err = d.Open(bad)
		wantErr(t, "open "+bad, err, iofs.ErrInvalid)
		_, err = d.ReadFile(bad)
		wantErr(t, "read "+bad, err, iofs.ErrInvalid)
		_, err = d.ReadDir(bad)
		wantErr(t, "readdir "+bad, err, iofs.ErrInvalid)
		wantErr(t, "mkdir "+bad, d.MkdirAll(bad), iofs.ErrInvalid)
		wantErr(t, "remove "+bad, d.Remove(bad), iofs.ErrInvalid)
		wantErr(t, "removeall "+bad, d.RemoveAll(bad), iofs.ErrInvalid)
		wantErr(t, "rename "+bad, d.Rename(bad, "x"), iofs.ErrInvalid)
		wantErr(t, "atomic "+bad, d.WriteFileAtomic(bad, nil), iofs.ErrInvalid)
		wantErr(t, "syncdir "+bad, d.SyncDir(bad), iofs.ErrInvalid)
	}
	must(t, d.MkdirAll("."))
	must(t, d.MkdirAll("a/b/c"))
	must(t, d.MkdirAll("a/b/c"))
	create(t, d, "a/file", "x")
	create(t, d, "a/b/f2", "y")
	if err := d.MkdirAll("a/file"); err == nil {
		t.Error("mkdir over a file succeeds")
	}
	if err := d.MkdirAll("a/file/x"); err == nil {
		t.Error("mkdir below a file succeeds")
	}
	if _, err := d.Open("a/b"); err == nil {
		t.Error("a directory opens as a file")
	}
	_, err := d.Create("a/file")
	wantErr(t, "create again", err, iofs.ErrExist)
	_, err = d.Create("a/b")
	wantErr(t, "create over a directory", err, iofs.ErrExist)
	_, err = d.Open("a/absent")
	wantErr(t, "open absent", err, iofs.ErrNotExist)
	_, err = d.ReadFile("absent/x")
	wantErr(t, "read absent", err, iofs.ErrNotExist)
	_, err = d.Create("absent/x")
	wantErr(t, "create in absent", err, iofs.ErrNotExist)
	_, err = d.ReadDir("absent")
	wantErr(t, "list absent", err, iofs.ErrNotExist)
	wantErr(t, "remove absent", d.Remove("absent"), iofs.ErrNotExist)
	got, err := d.ReadDir("a")
	must(t, err)
	if !slices.Equal(got, []string{"b", "file"}) {
		t.Errorf("listing %q", got)
	}
	if d.Remove("a/b") == nil {
		t.Error("a full directory is removed")
	}
	must(t, d.Remove("a/b/c"))
	must(t, d.RemoveAll("a"))
	must(t, d.RemoveAll("a"))
	must(t, d.RemoveAll("a/x/y"))
	got, err = d.ReadDir(".")
	must(t, err)
	if len(got) != 0 {
		t.Errorf("left: %q", got)
	}
	must(t, d.SyncDir("."))
	avail, total, err := d.Free()
	must(t, err)
	if avail <= 0 || total < avail {
		t.Errorf("free %d of %d", avail, total)
	}
}

func renames(t *testing.T, d disk.FS) {
	must(t, d.MkdirAll("a"))
	must(t, d.MkdirAll("b/full"))
	create(t, d, "f", "1")
	create(t, d, "g", "2")
	must(t, d.Rename("f", "g"))
	must(t, d.Rename("g", "g"))
	must(t, d.Rename("g", "a/h"))
	if got, err := d.ReadFile("a/h"); err != nil || string(got) != "1" {
		t.Errorf("renamed file: %q, %v", got, err)
	}
	wantErr(t, "rename of absent", d.Rename("g", "x"), iofs.ErrNotExist)
	wantErr(t, "rename to absent", d.Rename("a/h", "absent/x"), iofs.ErrNotExist)
	for _, bad := range [][2]string{{"a/h", "b"}, {"a", "a/h"}, {"a", "a/sub"}, {"a", "b"}} {
		if d.Rename(bad[0], bad[1]) == nil {
			t.Errorf("rename of %s to %s succeeds", bad[0], bad[1])
		}
	}
	must(t, d.Rename("a", "c"))
	wantErr(t, "rename over a directory", d.Rename("c", "b/full"), iofs.ErrExist)
	must(t, d.Rename("c", "b/c"))
	if got, err := d.ReadFile("b/c/h"); err != nil || string(got) != "1" {
		t.Errorf("moved file: %q, %v", got, err)
	}
}

func content(t *testing.T, d disk.FS) {
	f, err := d.Create("f")
	must(t, err)
	data := []byte("hello")
	_, err = f.WriteAt(data, 3)
	must(t, err)
	copy(data, "XXXXX")
	p := make([]byte, 10)
	n, err := f.ReadAt(p, 0)
	if n != 8 || err != io.EOF || string(p[:n]) != "\x00\x00\x00hello" {
		t.Errorf("read %q, %v", p[:n], err)
	}
	n, err = f.ReadAt(p, 8)
	if n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v", n, err)
	}
	must(t, f.Allocate(8, 4088))
	if size, err := f.Size(); size != 4096 || err != nil {
		t.Errorf("size %d, %v", size, err)
	}
	must(t, f.Allocate(0, 8))
	if n, err := f.ReadAt(p[:8], 0); n != 8 || err != nil || !bytes.Equal(p[:8], make([]byte, 8)) {
		t.Errorf("allocated: %q, %v", p[:8], err)
	}
	_, err = f.WriteAt(bytes.Repeat([]byte{1}, 12288), 0)
	must(t, err)
	must(t, f.PunchHole(4096, 4096))
	must(t, f.PunchHole(8192, 1<<20))
	must(t, f.PunchHole(1<<30, 1<<20))
	must(t, f.PunchHole(0, 0))
	got, err := d.ReadFile("f")
	must(t, err)
	if len(got) != 12288 || bytes.Count(got, []byte{1}) != 4096 {
		t.Errorf("after holes: %d bytes, %d ones", len(got), bytes.Count(got, []byte{1}))
	}
	must(t, f.Truncate(100))
	must(t, f.Truncate(200))
	if size, _ := f.Size(); size != 200 {
		t.Errorf("size %d", size)
	}
	must(t, f.Sync())
	if _, err := f.WriteAt(p, -1); err == nil {
		t.Error("write before the start succeeds")
	}
	if f.Allocate(-1, 1) == nil || f.Reserve(-1, 1) == nil || f.PunchHole(-1, 1) == nil || f.Truncate(-1) == nil {
		t.Error("a negative offset is taken")
	}
	if avail, _, _ := d.Free(); avail <= 0 {
		t.Errorf("free %d", avail)
	}
	must(t, f.Close())
	_, err = f.WriteAt(p, 0)
	wantErr(t, "write after close", err, iofs.ErrClosed)
	wantErr(t, "sync after close", f.Sync(), iofs.ErrClosed)
	_, err = f.Size()
	wantErr(t, "size after close", err, iofs.ErrClosed)
}

func unlinked(t *testing.T, d disk.FS) {
	f, err := d.Create("f")
	must(t, err)
	must(t, d.Remove("f"))
	create(t, d, "f", "new")
	_, err = f.WriteAt([]byte("old"), 0)
	must(t, err)
	must(t, f.Sync())
	p := make([]byte, 3)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "old" {
		t.Errorf("read %q, %v", p, err)
	}
	if got, _ := d.ReadFile("f"); string(got) != "new" {
		t.Errorf("the new file holds %q", got)
	}
	must(t, f.Close())
}

func atomic(t *testing.T, d disk.FS) {
	must(t, d.MkdirAll("a"))
	create(t, d, "a/f.tmp", "left by a crash")
	must(t, d.WriteFileAtomic("a/f", []byte("one, longer")))
	must(t, d.WriteFileAtomic("a/f", []byte("two")))
	must(t, d.WriteFileAtomic("a/empty", nil))
	if got, err := d.ReadFile("a/f"); err != nil || string(got) != "two" {
		t.Errorf("read %q, %v", got, err)
	}
	if got, err := d.ReadFile("a/empty"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("read %q, %v", got, err)
	}
	if got, _ := d.ReadDir("a"); !slices.Equal(got, []string{"empty", "f"}) {
		t.Errorf("listing %q", got)
	}
}

// model compares random operations on one file with a byte slice.
func model(t *testing.T, rt *rapid.T, d disk.FS) {
	f, err := d.Create("f")
	must(t, err)
	defer f.Close()
	var want []byte
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	offs := rapid.IntRange(0, 3000)
	for range rapid.IntRange(1, 30).Draw(rt, "ops") {
		off, n := offs.Draw(rt, "off"), offs.Draw(rt, "n")
		switch rapid.SampledFrom(strings.Fields("write write allocate reserve punch truncate sync reopen")).Draw(rt, "op") {
		case "write":
			p := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, n)
			k, err := f.WriteAt(p, int64(off))
			must(t, err)
			if k != n {
				rt.Fatalf("wrote %d of %d", k, n)
			}
			if n > 0 {
				grow(off + n)
				copy(want[off:], p)
			}
		case "allocate":
			must(t, f.Allocate(int64(off), int64(n)))
			if n > 0 {
				grow(off + n)
				clear(want[off : off+n])
			}
		case "reserve":
			must(t, f.Reserve(int64(off), int64(n)))
			if n > 0 {
				grow(off + n)
			}
		case "punch":
			must(t, f.PunchHole(int64(off), int64(n)))
			if off < len(want) {
				clear(want[off:min(off+n, len(want))])
			}
		case "truncate":
			must(t, f.Truncate(int64(n)))
			grow(n)
			want = want[:n]
			want = bytes.Clone(want)
		case "sync":
			must(t, f.Sync())
		case "reopen":
			must(t, f.Close())
			f, err = d.Open("f")
			must(t, err)
		}
		if size, err := f.Size(); err != nil || size != int64(len(want)) {
			rt.Fatalf("size %d, %v; want %d", size, err, len(want))
		}
		got, err := d.ReadFile("f")
		must(t, err)
		if !bytes.Equal(got, want) {
			rt.Fatalf("content differs")
		}
	}
}
