package main

import (
	"context"

	"github.com/anyfs/anyfs/fs"
)

var opLog = operation[pathParam, []versionEntry]{"log", func(ctx context.Context, h *home, p pathParam, _ sink) ([]versionEntry, error) {
	path, err := h.resolve(p)
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
	path, err := h.resolve(p)
	if err != nil {
		return nil, err
	}
	list, err := h.fs.Deleted(path)
	if list == nil {
		list = []fs.DeletedEntry{}
	}
	return list, notFound(p.Given, err)
}}

var opVerify = operation[none, verifyResult]{"verify", func(ctx context.Context, h *home, _ none, out sink) (verifyResult, error) {
	r := verifyResult{Problems: []fs.Problem{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	problems, err := h.fs.Verify(ctx, func(done, total int64) {
		r.Checked = done
		if err := out(event{Done: done, Total: total}); err != nil {
			cancel(err)
		}
	})
	r.Problems = append(r.Problems, problems...)
	return r, err
}}
