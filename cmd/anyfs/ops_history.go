package main

import (
	"context"
	"errors"
	"io"

	"github.com/anyfs/anyfs/fs"
)

// resolvePast is resolve for what has a history, which the root of the home has not.
func (h *home) resolvePast(p pathParam) (string, error) {
	path, err := h.resolve(p)
	if err == nil && path == "" {
		err = failf(exitUsage, "%s holds the spaces, and has no history of its own; name a space, or what is in it", p.Given)
	}
	return path, err
}

var opLog = operation[pathParam, []versionEntry]{"log", func(ctx context.Context, h *home, p pathParam, _ sink) ([]versionEntry, error) {
	path, err := h.resolvePast(p)
	if err != nil {
		return nil, err
	}
	versions, err := h.fs.Log(path)
	if err != nil {
		return nil, notFound(p.Given, err)
	}
	out := make([]versionEntry, 0, len(versions))
	for _, v := range versions {
		out = append(out, versionEntry{v, v.Summary()})
	}
	return out, nil
}}

var opDeleted = operation[pathParam, []fs.DeletedEntry]{"log-deleted", func(_ context.Context, h *home, p pathParam, _ sink) ([]fs.DeletedEntry, error) {
	path, err := h.resolvePast(p)
	if err != nil {
		return nil, err
	}
	list, err := h.fs.Deleted(path)
	if list == nil {
		list = []fs.DeletedEntry{}
	}
	return list, notFound(p.Given, err)
}}

// opRestore brings a version back into the home, or says that the destination is outside.
var opRestore = operation[restoreParams, restoreResult]{"restore", func(ctx context.Context, h *home, p restoreParams, _ sink) (restoreResult, error) {
	var r restoreResult
	path, err := h.resolvePast(p.Path)
	if err != nil {
		return r, err
	}
	version, err := h.versionBefore(ctx, path, p)
	if err != nil {
		return r, err
	}
	to := ""
	if p.To != nil {
		if to, err = h.resolveNew(*p.To); err != nil || h.outside(*p.To) {
			if h.ledOut(*p.To) {
				return r, failf(exitFailed, "a link in the mount leads %s out of it, to %s; name that place itself if it is what you want", p.To.Given, p.To.Abs)
			}
			r.Outside, r.Version = true, version
			return r, nil
		}
	}
	r.RestoreResult, err = h.fs.Restore(ctx, path, version, to)
	return r, historyError(p, err)
}}

// versionBefore gives the version to restore: the one that was asked for; for what is there, the content before the present
// one; for what was deleted "", the last.
func (h *home) versionBefore(ctx context.Context, path string, p restoreParams) (string, error) {
	if p.Version != "" {
		return p.Version, nil
	}
	ino, err := h.fs.PathIno(path)
	if err != nil {
		return "", nil // deleted, or never there: Restore knows
	}
	a, err := h.fs.Getattr(ino)
	if err != nil {
		return "", err
	}
	if a.IsDir() {
		return "", failf(exitUsage, "%s is there; say with --version as of which time to restore it, as in 2026-01-31T12:00", p.Path.Given)
	}
	version := ""
	err = h.fs.LogEach(ctx, path, func(v fs.Version) bool {
		if v.Content && !v.Current && !v.Pruned {
			version = v.ID
		}
		return version == ""
	})
	if err == nil && version == "" {
		err = failf(exitNotFound, "%s has no version before the present one; 'anyfs log' lists them", p.Path.Given)
	}
	return version, err
}

// historyError puts the failure to find a version into words.
func historyError(p restoreParams, err error) error {
	switch {
	case errors.Is(err, fs.ErrPruned):
		return failf(exitNotFound, "the content of this version was pruned from this device")
	case errors.Is(err, fs.ErrExist):
		return failf(exitFailed, "%w; name another place with --to", err)
	case errors.Is(err, fs.ErrNotExist) && p.Said != "":
		return failf(exitNotFound, "there was no %s at %s", p.Path.Given, p.Said)
	case errors.Is(err, fs.ErrInvalid) && p.Version != "":
		return failf(exitNotFound, "%s has no version %q; 'anyfs log' lists them", p.Path.Given, p.Said)
	}
	return notFound(p.Path.Given, err)
}

// contentResult is what opContent says of what it sent: the mode that the file had, and the version's ID.
type contentResult struct {
	Mode    uint32 `json:"mode"`
	Version string `json:"version"`
}

// opContent sends the content of a version, holes as such.
var opContent = operation[restoreParams, contentResult]{"content", func(ctx context.Context, h *home, p restoreParams, out sink) (r contentResult, err error) {
	path, err := h.resolve(p.Path)
	if err != nil {
		return r, err
	}
	f, err := h.fs.OpenVersion(ctx, path, p.Version)
	if errors.Is(err, fs.ErrIsDir) {
		return r, failf(exitFailed, "%s is a folder, which comes back in the mount only; or copy it from .anyfs/trash or .anyfs/at", p.Path.Given)
	}
	if err != nil {
		return r, historyError(p, err)
	}
	for off, buf := int64(0), make([]byte, pieceBytes); off < f.Size(); {
		from, to, err := f.Next(off)
		if err == nil && from > off {
			err = out(event{Hole: from - off})
		}
		if err == nil {
			_, err = io.CopyBuffer(pieces{out}, io.NewSectionReader(f, from, to-from), buf)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return r, historyError(p, err)
		}
		off = to
	}
	return contentResult{f.Mode, f.Version}, nil
}}

var opPrune = operation[pruneParams, pruneResult]{"prune", func(ctx context.Context, h *home, p pruneParams, _ sink) (pruneResult, error) {
	keep := fs.KeepPolicy{Within: p.KeepWithin, Last: p.KeepLast}
	r, err := h.fs.Prune(ctx, p.Space, keep, p.DryRun)
	if errors.Is(err, fs.ErrNotExist) {
		err = spaceError(p.Space, err)
	}
	return pruneResult{r, p.DryRun}, err
}}

var opVerify = operation[none, verifyResult]{"verify", func(ctx context.Context, h *home, _ none, out sink) (verifyResult, error) {
	r := verifyResult{Problems: []fs.Problem{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v, err := h.fs.Verify(ctx, func(done, total int64) {
		r.Checked = done
		if err := out(event{Done: done, Total: total}); err != nil {
			cancel(err)
		}
	})
	r.Problems, r.Absent, r.Void = append(r.Problems, v.Problems...), v.Absent, v.Void
	if _, bad := h.openPlace(); bad != nil {
		r.Problems = append(r.Problems, fs.Problem{Where: placeName, Text: bad.Error()})
	}
	return r, err
}}
