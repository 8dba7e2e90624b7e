package mount

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	logName     = "anyfs.log"
	maxLogBytes = 10 << 20 // then it becomes anyfs.log.1, in place of the one before
	keptErrors  = 20
)

// Log is the log of a home: lines of JSON in a file, the last errors also in memory. It holds no names and no contents:
// an error given as an attribute is written without the paths in it.
type Log struct {
	*slog.Logger
	file *logFile
	last *lastErrors
}

// LogRecord is an error in the log.
type LogRecord struct {
	Time    time.Time         `json:"time"`
	Message string            `json:"message"`
	Attrs   map[string]string `json:"attrs,omitempty"`
}

// OpenLog opens the log of a home to append to it.
func OpenLog(home string) (*Log, error) {
	f := &logFile{path: filepath.Join(home, logName), limit: maxLogBytes}
	if err := f.open(); err != nil {
		return nil, err
	}
	last := &lastErrors{}
	h := slog.NewJSONHandler(f, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: withoutNames})
	return &Log{Logger: slog.New(&keepErrors{Handler: h, last: last}), file: f, last: last}, nil
}

// Errors returns the last errors, oldest first.
func (l *Log) Errors() []LogRecord {
	l.last.mu.Lock()
	defer l.last.mu.Unlock()
	return slices.Clone(l.last.records)
}

// Close closes the file; what is logged then is lost.
func (l *Log) Close() error {
	l.file.mu.Lock()
	defer l.file.mu.Unlock()
	if l.file.f == nil {
		return nil
	}
	err := l.file.f.Close()
	l.file.f = nil
	return err
}

func withoutNames(_ []string, a slog.Attr) slog.Attr {
	if err, ok := a.Value.Any().(error); ok {
		a.Value = slog.StringValue(Cause(err))
	}
	return a
}

// logFile is a file that begins anew when it is full.
type logFile struct {
	path  string
	limit int64

	mu   sync.Mutex
	f    *os.File // nil when closed
	size int64
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.size = f, st.Size()
	return nil
}

// Write implements io.Writer for one whole line.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return 0, os.ErrClosed
	}
	if l.size > 0 && l.size+int64(len(p)) > l.limit {
		if err := os.Rename(l.path, l.path+".1"); err == nil {
			old := l.f
			if err := l.open(); err != nil {
				return 0, err
			}
			old.Close()
		}
	}
	n, err := l.f.Write(p)
	l.size += int64(n)
	return n, err
}

// lastErrors is a short memory.
type lastErrors struct {
	mu      sync.Mutex
	records []LogRecord
}

func (e *lastErrors) add(r LogRecord) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.records) == keptErrors {
		e.records = slices.Delete(e.records, 0, 1)
	}
	e.records = append(e.records, r)
}

// keepErrors is a handler that also remembers errors.
type keepErrors struct {
	slog.Handler
	last  *lastErrors
	attrs []slog.Attr
}

func (h *keepErrors) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelError {
		attrs := make(map[string]string)
		add := func(a slog.Attr) bool {
			attrs[a.Key] = fmt.Sprint(withoutNames(nil, a).Value.Any())
			return true
		}
		for _, a := range h.attrs {
			add(a)
		}
		r.Attrs(add)
		delete(attrs, "stack")
		h.last.add(LogRecord{Time: r.Time, Message: r.Message, Attrs: attrs})
	}
	return h.Handler.Handle(ctx, r)
}

func (h *keepErrors) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &keepErrors{Handler: h.Handler.WithAttrs(attrs), last: h.last, attrs: slices.Concat(h.attrs, attrs)}
}

func (h *keepErrors) WithGroup(name string) slog.Handler {
	return &keepErrors{Handler: h.Handler.WithGroup(name), last: h.last, attrs: h.attrs}
}
