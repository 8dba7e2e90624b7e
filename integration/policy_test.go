package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// noise gives bytes that do not compress.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 3))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

type pathContent struct {
	Content string   `json:"content"`
	Pin     string   `json:"pin"`
	HeldBy  []string `json:"held_by"`
}

func (h *Home) content(path string) (c pathContent) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.Must("status", path, "--json")), &c); err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *Home) wantContent(path string, want []byte) {
	h.t.Helper()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		h.t.Errorf("%s: %d bytes, %v", path, len(got), err)
	}
}

// blocksOnDisk is how much a home's blocks take.
func (h *Home) blocksOnDisk() (sum int64) {
	names, _ := filepath.Glob(filepath.Join(h.Dir, "spaces", "*", "blocks", "*"))
	for _, name := range names {
		var st syscall.Stat_t
		if syscall.Stat(name, &st) == nil {
			sum += st.Blocks * 512
		}
	}
	return sum
}

// TestContentOnDemand: with two devices, of which the second holds content on demand: it comes when it is read, goes under a receipt, stays
// where it is pinned, and with nobody there everything but reading what is absent works at once.
func TestContentOnDemand(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	b.Must("space", "policy", "Personal", "on-demand")
	var want [][]byte
	check(t, os.Mkdir(a.Personal("dir"), 0o755))
	for i := range 8 {
		want = append(want, noise(uint64(i), 3<<20))
		check(t, os.WriteFile(a.Personal("dir", fmt.Sprint(i)), want[i], 0o644))
	}
	a.Settle()
	d.Eventually("the names are there", func() error {
		for i := range want {
			st, err := os.Stat(b.Personal("dir", fmt.Sprint(i)))
			if err != nil || st.Size() != int64(len(want[i])) {
				return fmt.Errorf("%v, %v", st, err)
			}
		}
		return nil
	})
	b.Must("status", "--wait", "--timeout", "20s")
	if n := b.blocksOnDisk(); n > 1<<20 {
		t.Errorf("%d bytes came by themselves", n)
	}
	if c := b.content(b.Personal("dir", "0")); c.Content != "absent" || len(c.HeldBy) != 1 {
		t.Errorf("status: %+v", c)
	}
	b.wantContent(b.Personal("dir", "0"), want[0])
	if c := b.content(b.Personal("dir", "0")); c.Content != "here" || c.HeldBy != nil {
		t.Errorf("status of what was read: %+v", c)
	}
	b.Must("pin", b.Personal("dir", "1"))
	check(t, unix.Setxattr(b.Personal("dir", "2"), "user.anyfs.pin", []byte("1"), 0))
	d.Eventually("what is pinned comes", func() error {
		for _, i := range []string{"1", "2"} {
			if c := b.content(b.Personal("dir", i)); c.Content != "here" || c.Pin != "pinned" {
				return fmt.Errorf("%s: %+v", i, c)
			}
		}
		return nil
	})
	own := noise(50, 3<<20)
	check(t, os.WriteFile(b.Personal("own"), own, 0o644))
	b.Settle()
	d.Eventually("what b wrote is with a", func() error {
		if c := a.content(a.Personal("own")); c.Content != "here" {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	b.wantContent(b.Personal("dir", "3"), want[3])
	before := b.blocksOnDisk()
	if out := b.Must("evict", b.Personal()); !strings.Contains(out, "2 files pinned") {
		t.Errorf("evict: %s", out)
	}
	if n := before - b.blocksOnDisk(); n < 8<<20 { // 0, 3 and own
		t.Errorf("%d bytes were freed", n)
	}
	if c := b.content(b.Personal("own")); c.Content != "absent" || len(c.HeldBy) != 1 {
		t.Errorf("status of what b wrote: %+v", c)
	}
	for _, h := range d.All {
		h.Must("verify")
	}
	b.Kill()
	b.Mount("--no-discovery")
	d.Connect(a, b)

	a.Unmount()
	d.Eventually("b is alone", func() error {
		if s := b.SyncStatus(); len(s.Peers) > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	// Part of it stays in the kernel's cache from the reading before: the mount was made anew.
	began := time.Now()
	_, err := os.ReadFile(b.Personal("own"))
	if took := time.Since(began); !errors.Is(err, syscall.EIO) || took > 5*time.Second {
		t.Errorf("read of what nobody has: %v after %v", err, took)
	}
	b.wantContent(b.Personal("dir", "1"), want[1])
	immediate(t, b, d)

	a.Mount("--no-discovery")
	d.Connect(a, b)
	d.Eventually("it can be read again", func() error {
		got, err := os.ReadFile(b.Personal("own"))
		if err == nil && !bytes.Equal(got, own) {
			t.Fatal("other bytes")
		}
		return err
	})
	for i := range want {
		b.wantContent(b.Personal("dir", fmt.Sprint(i)), want[i])
	}
	b.Must("unpin", b.Personal("dir", "1"))
	b.Must("space", "policy", "Personal", "mirror")
	if r := b.Run("evict", b.Personal("own")); r.Code == 0 || !strings.Contains(r.Stderr, "on-demand") {
		t.Errorf("evict in a mirror: %+v", r)
	}
	d.Same()
	for _, h := range d.All {
		h.Must("verify")
	}
}

// immediate holds that with a reader waiting for content that nobody gives, statfs, listing, attributes and new files wait for nothing, that
// the reader can be killed, and that the mount ends at once.
func immediate(t *testing.T, b *Home, d *Devices) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	readers := make([]*exec.Cmd, 3)
	ended := make([]chan struct{}, 3)
	for i := range readers {
		readers[i] = exec.CommandContext(ctx, "cat", b.Personal("dir", fmt.Sprint(4+i)))
		check(t, readers[i].Start())
		ended[i] = make(chan struct{})
		go func() { defer close(ended[i]); _ = readers[i].Wait() }()
	}
	time.Sleep(100 * time.Millisecond)
	quick := func(what string, fn func() error) {
		t.Helper()
		began := time.Now()
		if err := fn(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%s took %v", what, took)
		}
	}
	quick("statfs", func() error { return syscall.Statfs(b.Mnt, new(syscall.Statfs_t)) })
	quick("ls -l", func() error { return exec.Command("ls", "-lR", b.Mnt).Run() })
	quick("du", func() error { return exec.Command("du", "-s", b.Mnt).Run() })
	quick("a new file", func() error { return os.WriteFile(b.Personal("new"), []byte("new"), 0o644) })
	quick("a rename", func() error { return os.Rename(b.Personal("new"), b.Personal("newer")) })
	quick("status", func() error { b.Must("status", b.Personal("own")); return nil })
	for i := range readers {
		select {
		case <-ended[i]:
			t.Errorf("reader %d waits for nothing", i)
		default:
		}
	}
	quick("kill of the readers", func() error {
		for i := range readers {
			_ = readers[i].Process.Kill()
			<-ended[i]
		}
		return nil
	})
	quick("unmount", func() error { b.Unmount(); return nil })
	b.Mount("--no-discovery")
}

// TestIgnoreFile: what .anyfsignore names can be used like any file, is on no other device, and survives a kill.
func TestIgnoreFile(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	check(t,
		os.WriteFile(a.Personal(".anyfsignore"), []byte("# built here\nbuild/\n*.log\n"), 0o644),
		os.MkdirAll(a.Personal("src", "build", "deep"), 0o755),
		os.WriteFile(a.Personal("src", "main.c"), []byte("int main;\n"), 0o644),
		os.WriteFile(a.Personal("src", "x.log"), []byte("a line\n"), 0o644))
	want := noise(9, 3<<20)
	check(t, os.WriteFile(a.Personal("src", "build", "out"), want, 0o755))
	for i := range 50 {
		check(t, os.WriteFile(a.Personal("src", "build", "deep", fmt.Sprint(i)), fmt.Append(nil, i), 0o644))
	}
	a.Settle()
	a.Must("status", "--wait", "--timeout", "20s")
	d.Eventually("the source has come", func() error { _, err := os.Stat(b.Personal("src", "main.c")); return err })
	names := func(dir string) (out []string) {
		list, err := os.ReadDir(dir)
		check(t, err)
		for _, e := range list {
			out = append(out, e.Name())
		}
		return out
	}
	if got := names(b.Personal("src")); len(got) != 1 {
		t.Errorf("the other device has %q", got)
	}
	if v := a.Xattr(a.Personal("src", "build", "out"), "user.anyfs.sync"); v != "ignored" {
		t.Errorf("sync: %q", v)
	}
	time.Sleep(3 * time.Second) // a checkpoint, and what is ignored goes into blocks
	a.Kill()
	a.Mount("--no-discovery")
	d.Connect(a, b)
	a.wantContent(a.Personal("src", "build", "out"), want)
	if got := names(a.Personal("src", "build", "deep")); len(got) != 50 {
		t.Errorf("%d files after a kill", len(got))
	}
	a.Must("verify")
	if r := a.Run("pin", a.Personal("src", "x.log")); r.Code == 0 {
		t.Errorf("pin of what is always here: %+v", r)
	}
	// The other device makes a file of that name, and then lets all in: its file has the name, what was here stays beside it, and here.
	check(t,
		os.MkdirAll(b.Personal("other"), 0o755),
		os.WriteFile(b.Personal("other", "x"), []byte("of b\n"), 0o644))
	b.Settle()
	check(t, os.Rename(b.Personal("other", "x"), b.Personal("src", "x.log"))) // published, so it stays so
	d.Eventually("the name is the other's", func() error {
		got, err := os.ReadFile(a.Personal("src", "x.log"))
		if err != nil || string(got) != "of b\n" {
			return fmt.Errorf("%q, %v", got, err)
		}
		return nil
	})
	a.wantContent(a.Personal("src", "x.log.anyfs-local"), []byte("a line\n"))
	check(t,
		os.WriteFile(b.Personal(".anyfsignore"), nil, 0o644),
		os.Rename(a.Personal("src", "x.log.anyfs-local"), a.Personal("src", "back")))
	d.Eventually("all is on both", func() error {
		if got, err := os.ReadFile(b.Personal("src", "build", "out")); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%d bytes, %v", len(got), err)
		}
		return nil
	})
	d.Same()
	b.wantContent(b.Personal("src", "back"), []byte("a line\n"))
	for _, h := range d.All {
		h.Must("verify")
	}
}

// TestCacheLimit: what is read goes again when it is more than the limit.
func TestCacheLimit(t *testing.T) {
	d := NewDevices(t, 2)
	a, b := d.All[0], d.All[1]
	b.Must("space", "policy", "Personal", "on-demand", "--cache-limit", "8M")
	if out := b.Must("space", "policy", "Personal"); out != "on-demand, at most 8.0 MiB\n" {
		t.Errorf("policy: %q", out)
	}
	want := noise(1, 24<<20)
	check(t, os.WriteFile(a.Personal("large"), want, 0o644))
	a.Settle()
	d.Eventually("it can be read", func() error {
		got, err := os.ReadFile(b.Personal("large"))
		if err == nil && !bytes.Equal(got, want) {
			t.Fatal("other bytes")
		}
		return err
	})
	d.Eventually("the limit holds", func() error {
		if n := b.blocksOnDisk(); n > 8<<20 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	b.wantContent(b.Personal("large"), want)
	for _, h := range d.All {
		h.Must("verify")
	}
}
