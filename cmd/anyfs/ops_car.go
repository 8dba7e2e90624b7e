package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/anyfs/anyfs/fs"
	"golang.org/x/sys/unix"
)

// pieceBytes is how much data one event holds. As JSON it is a third more, and has to stay below the mebibyte of an event.
const pieceBytes = 512 << 10

// pieces is a writer that sends what is written as events.
type pieces struct{ out sink }

func (w pieces) Write(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		end := min(len(p), n+pieceBytes)
		if err := w.out(event{Data: p[n:end]}); err != nil {
			return n, err
		}
		n = end
	}
	return n, nil
}

var opExport = operation[nameParams, fs.ExportResult]{"export", func(ctx context.Context, h *home, p nameParams, out sink) (fs.ExportResult, error) {
	w := bufio.NewWriterSize(pieces{out}, pieceBytes)
	r, err := h.fs.Export(ctx, p.Name, w)
	if err == nil {
		err = w.Flush()
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = spaceError(p.Name, err)
	}
	return r, err
}}

var opImport = operation[importParams, spaceStatus]{"import", func(ctx context.Context, h *home, p importParams, out sink) (spaceStatus, error) {
	if !filepath.IsLocal(p.Pipe) {
		return spaceStatus{}, failf(exitUsage, "%q is not in the home", p.Pipe)
	}
	// The caller has the pipe open already, so opening does not wait, and reading ends when the caller does.
	f, err := os.OpenFile(filepath.Join(h.dir, p.Pipe), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return spaceStatus{}, err
	}
	defer f.Close()
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	if err := out(event{Total: p.Size}); err != nil {
		return spaceStatus{}, err
	}
	i, err := h.fs.Import(ctx, &metered{r: f, total: p.Size, out: out}, p.Name, p.Otherwise)
	var taken *fs.TakenError
	switch {
	case errors.As(err, &taken) && taken.Here:
		err = failf(exitFailed, "%w; to have the file's in its place, export and delete that one first", taken)
	case errors.As(err, &taken):
		err = failf(exitFailed, "%w; choose another name with --as", taken)
	case errors.Is(err, fs.ErrNoKey):
		err = failf(exitFailed, "this space belongs to another account: its keys are not on this device")
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = failf(exitFailed, "the file was cut off: %w", err)
	case err != nil:
		err = spaceError(p.Name, err)
	}
	return statusOf(i), err
}}

// metered tells how much was read, a hundred times in all.
type metered struct {
	r                 io.Reader
	done, told, total int64
	out               sink
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.done += int64(n)
	if m.done-m.told >= max(m.total/100, 1<<20) {
		m.told = m.done
		if e := m.out(event{Done: m.done, Total: m.total}); e != nil && err == nil {
			err = e
		}
	}
	return n, err
}
