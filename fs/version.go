package fs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/anyfs/anyfs/dag"
)

// ParseVersionTime reads a time as people type it: any beginning of 2026-01-31T12:00:05.123 in the given zone, or with a zone
// of its own behind it (Z, +01:00). It means the end of the period that it names, so that a time which was cut short somewhere
// still includes what happened at it: 2026-01-31 is the last nanosecond of that day.
func ParseVersionTime(text string, loc *time.Location) (time.Time, error) {
	bad := fmt.Errorf("%w: %q is no time such as 2026-01-31T12:00", ErrInvalid, text)
	s := strings.Replace(text, " ", "T", 1)
	date, clock, timed := strings.Cut(s, "T")
	layout := "2006-01-02"
	if n := len(date); n != 4 && n != 7 && n != len(layout) {
		return time.Time{}, bad
	}
	if layout = layout[:len(date)]; !timed {
		t, err := time.ParseInLocation(layout, date, loc)
		if err != nil {
			return time.Time{}, bad
		}
		switch len(date) {
		case 4:
			return t.AddDate(1, 0, 0).Add(-1), nil
		case 7:
			return t.AddDate(0, 1, 0).Add(-1), nil
		}
		return t.AddDate(0, 0, 1).Add(-1), nil
	}
	zone := ""
	if i := strings.IndexAny(clock, "Z+-"); i >= 0 {
		clock, zone = clock[:i], clock[i:]
	}
	whole, fraction, fractional := strings.Cut(clock, ".")
	of := "15:04:05"
	if n := len(whole); len(date) != 10 || n != 2 && n != 5 && n != len(of) || fractional && (len(whole) != len(of) || fraction == "" || len(fraction) > 9) {
		return time.Time{}, bad
	}
	layout += "T" + of[:len(whole)]
	value := date + "T" + whole
	if zone != "" {
		layout += "Z07:00"
		value += zone
	}
	t, err := time.ParseInLocation(layout, value, loc)
	if err != nil {
		return time.Time{}, bad
	}
	period := time.Second
	switch {
	case len(whole) == 2:
		period = time.Hour
	case len(whole) == 5:
		period = time.Minute
	case fractional:
		n := int64(0)
		for _, c := range fraction {
			if c < '0' || c > '9' {
				return time.Time{}, bad
			}
			n = 10*n + int64(c-'0')
			period /= 10
		}
		t = t.Add(time.Duration(n) * period)
	}
	return t.Add(period - 1), nil
}

// chosen is a version of an object.
type chosen struct {
	object, change dag.ID
	m              moment // of the change, or the one that was asked for
}

// minSuffix is the shortest end of a change's ID that names it.
const minSuffix = 4

// choose finds the version of a path that a text names: the ID of a change, its end, or a time. A change may be one of the
// object that has the path, or of one that had it before. Empty: the newest.
func (w *where) choose(ctx context.Context, version string) (chosen, error) {
	now := w.s.h.opt.Clock().UnixNano()
	if version == "" {
		return w.lastIn(ctx, w.object, moment{math.MaxInt64, now})
	}
	id, parseErr := dag.ParseID(version)
	objects := []dag.ID{w.object}
	var failed error
	err := w.s.scanTrash(w.parent().ino, func(t trashed) bool {
		if t.kind == trashRemoved && t.name == w.name && t.object != w.object && w.name != "" {
			objects = append(objects, t.object)
		}
		return len(objects) < 64
	})
	if err != nil {
		return chosen{}, err
	}
	for _, object := range objects {
		if parseErr == nil {
			e, err := w.s.graph.Change(id)
			if err != nil && !errors.Is(err, dag.ErrNotFound) {
				return chosen{}, w.s.damaged(err)
			}
			if err != nil || e.Change.Object != object && e.ID != object {
				continue
			}
			return w.chosen(object, id)
		}
		if len(version) < minSuffix {
			break
		}
		id, n, err := w.s.bySuffix(ctx, object, version)
		switch {
		case err != nil:
			return chosen{}, err
		case n == 1:
			return w.chosen(object, id)
		case n > 1:
			failed = fmt.Errorf("%w: several versions end in %q", ErrInvalid, version)
		}
	}
	if failed != nil {
		return chosen{}, failed
	}
	if t, err := ParseVersionTime(version, w.s.h.opt.Clock().Location()); err == nil {
		return w.lastIn(ctx, w.object, moment{t.UnixNano(), now})
	}
	return chosen{}, fmt.Errorf("%w: %s has no version %q", ErrInvalid, w.path, version)
}

// chosen completes a choice by the moment of the change.
func (w *where) chosen(object, change dag.ID) (chosen, error) {
	c := chosen{object, change, moment{math.MinInt64, w.s.h.opt.Clock().UnixNano()}}
	err := w.s.graph.Changes(object, func(e dag.Entry) error {
		if p := w.s.opened(&e); p != nil {
			c.m.in(p.Time, &c.m.time)
		}
		if e.ID == change {
			return errStop
		}
		return nil
	})
	if err != nil && !errors.Is(err, errStop) {
		return c, w.s.damaged(err)
	}
	return c, nil
}

// lastIn gives the last change of an object in a moment.
func (w *where) lastIn(ctx context.Context, object dag.ID, m moment) (chosen, error) {
	c := chosen{object: object, m: m}
	if m.time == math.MaxInt64 {
		err := w.s.graph.ChangesBack(object, func(e dag.Entry) error {
			c.change = e.ID
			return errStop
		})
		if err != nil && !errors.Is(err, errStop) {
			return c, w.s.damaged(err)
		}
	} else {
		last := int64(math.MinInt64)
		err := w.s.graph.Changes(object, func(e dag.Entry) error {
			if p := w.s.opened(&e); p != nil && !m.in(p.Time, &last) {
				return errStop
			}
			c.change = e.ID
			return ctx.Err()
		})
		if err != nil && !errors.Is(err, errStop) {
			return c, w.s.damaged(err)
		}
	}
	if c.change.IsZero() && w.typ != typeDir {
		return c, fmt.Errorf("%s: %w: it was not there then", w.path, ErrNotExist)
	}
	return c, nil
}

// bySuffix finds the change of an object whose ID ends in a text, and how many do (two at most are counted).
func (s *space) bySuffix(ctx context.Context, object dag.ID, end string) (id dag.ID, n int, err error) {
	err = s.graph.ChangesBack(object, func(e dag.Entry) error {
		if strings.HasSuffix(e.ID.String(), end) {
			id, n = e.ID, n+1
		}
		if n == 2 {
			return errStop
		}
		return ctx.Err()
	})
	if err != nil && !errors.Is(err, errStop) {
		return id, n, s.damaged(err)
	}
	return id, n, nil
}

// OpenVersion gives the content that the file at a path had in a version: the ID of a change, its end, or a time; empty for
// the newest. The path may be deleted.
func (h *Home) OpenVersion(ctx context.Context, path, version string) (*VersionFile, error) {
	w, err := h.where(path)
	if err != nil {
		return nil, err
	}
	if err := w.s.published(ctx, &w.step); err != nil {
		return nil, err
	}
	if w.typ == typeDir {
		return nil, fmt.Errorf("%s: %w", path, ErrIsDir)
	}
	if w.typ != typeFile {
		return nil, fmt.Errorf("%s: %w: not a file", path, ErrInvalid)
	}
	c, err := w.choose(ctx, version)
	if err != nil {
		return nil, err
	}
	st, err := w.s.foldTo(c.object, c.change)
	if err != nil {
		return nil, err
	}
	if st == nil {
		return nil, fmt.Errorf("%s: %w", path, ErrNotExist)
	}
	f, err := w.s.fileOf(st)
	if err != nil {
		return nil, err
	}
	f.Version = c.change.String()
	if err := w.s.readable(ctx, f); err != nil {
		return nil, err
	}
	return f, nil
}

// readable fails with ErrPruned where the content of a version was pruned.
func (s *space) readable(ctx context.Context, f *VersionFile) error {
	if !f.base.Root.Defined() {
		return nil
	}
	if pruned, err := s.isPruned(f.base.Root); err != nil || !pruned {
		return err
	}
	if s.isWhole(ctx, f.base.Root) {
		return nil // it came back
	}
	return ErrPruned
}
