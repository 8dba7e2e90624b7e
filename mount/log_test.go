package mount

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestLog(t *testing.T) {
	home := t.TempDir()
	l, err := OpenLog(home)
	must(t, err)
	secret := &fs.PathError{Op: "open", Path: "/Personal/diary", Err: syscall.EIO}
	l.Info("started", "pid", 1)
	l.With("part", "journal").Error("failed", "cause", fmt.Errorf("reading %q: %w", "diary", secret))
	for i := range 30 {
		l.Error("again", "n", i)
	}
	got := l.Errors()
	if len(got) != keptErrors || got[len(got)-1].Attrs["n"] != "29" || got[0].Message != "again" {
		t.Errorf("%d errors are kept, last %+v", len(got), got[len(got)-1])
	}
	must(t, l.Close())
	b, err := os.ReadFile(home + "/anyfs.log")
	must(t, err)
	if bytes.Contains(b, []byte("diary")) || !bytes.Contains(b, []byte(`"cause":"open: input/output error"`)) {
		t.Errorf("the log holds %s", b)
	}
	for line := range strings.Lines(string(b)) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %q", line)
		}
	}
	if st, err := os.Stat(home + "/anyfs.log"); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the log is %v, %v", st.Mode(), err)
	}
}

func TestLogRotates(t *testing.T) {
	home := t.TempDir()
	l, err := OpenLog(home)
	must(t, err)
	l.file.limit = 10_000
	for i := range 300 {
		l.Info("a line of the log", "n", i)
	}
	must(t, l.Close())
	for _, name := range []string{"/anyfs.log", "/anyfs.log.1"} {
		st, err := os.Stat(home + name)
		if err != nil || st.Size() > 10_000 || st.Size() == 0 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	l, err = OpenLog(home)
	must(t, err)
	l.Info("appended")
	must(t, l.Close())
	b, err := os.ReadFile(home + "/anyfs.log")
	if err != nil || !bytes.Contains(b, []byte(`"n":299`)) || !bytes.Contains(b, []byte("appended")) {
		t.Errorf("what was there is gone: %v", err)
	}
}

// TestLogRotatesAt10MiB holds the size itself, also of a log that an earlier daemon filled.
func TestLogRotatesAt10MiB(t *testing.T) {
	home := t.TempDir()
	const full = 10 << 20
	must(t, os.WriteFile(home+"/anyfs.log", make([]byte, full-400), 0o600))
	l, err := OpenLog(home)
	must(t, err)
	for range 10 {
		l.Info("one line of about a hundred bytes, with the time and its level before it")
	}
	must(t, l.Close())
	old, err := os.Stat(home + "/anyfs.log.1")
	must(t, err)
	now, err := os.Stat(home + "/anyfs.log")
	must(t, err)
	if old.Size() > full || old.Size() < full-400 || now.Size() == 0 || now.Size() > 2000 {
		t.Errorf("the old log has %d bytes, the new one %d", old.Size(), now.Size())
	}
}

func TestErrno(t *testing.T) {
	f := newFilesystem(newMem(), 1, 0, 0, quiet())
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{syscall.ENOENT, syscall.ENOENT},
		{fmt.Errorf("removing %q: %w", "x", syscall.ENOTEMPTY), syscall.ENOTEMPTY},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOSPC}, syscall.ENOSPC},
		{errors.Join(errors.New("x"), syscall.EDQUOT), syscall.EDQUOT},
		{fs.ErrNotExist, syscall.ENOENT},
		{fs.ErrExist, syscall.EEXIST},
		{fmt.Errorf("waiting: %w", contextCanceled()), syscall.EINTR},
		{errors.New("no number"), syscall.EIO},
		{syscall.ENOSYS, syscall.EOPNOTSUPP}, // or the kernel would never ask again
		{syscall.Errno(0), syscall.EIO},
	} {
		if got := f.status("test", c.err); got != statusOf(c.want) {
			t.Errorf("%v is %v, want %v", c.err, got, c.want)
		}
	}
}

func TestCause(t *testing.T) {
	inner := &fs.PathError{Op: "open", Path: "/home/secret", Err: syscall.EIO}
	for want, err := range map[string]error{
		"open: input/output error":                     fmt.Errorf("reading %q: %w", "secret", inner),
		"input/output error; open: input/output error": errors.Join(syscall.EIO, inner),
		"plain": errors.New("plain"),
	} {
		if got := Cause(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
