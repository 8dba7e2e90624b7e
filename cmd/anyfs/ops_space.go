package main

import (
	"context"
	"errors"

	"github.com/anyfs/anyfs/fs"
)

type nameParams struct {
	Name string `json:"name"`
}

type renameParams struct {
	Old string `json:"old"`
	New string `json:"new"`
}

// spaceError puts the failure of an operation on a space into words.
func spaceError(name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotEmpty):
		return failf(exitFailed, "there is a space %q already", name)
	case errors.Is(err, fs.ErrNotExist):
		return failf(exitNotFound, "there is no space %q; 'anyfs space list' shows them", name)
	case errors.Is(err, fs.ErrInvalid):
		return failf(exitUsage, "%q cannot be the name of a space", name)
	case errors.Is(err, fs.ErrNameTooLong):
		return failf(exitUsage, "the name has more than %d bytes", fs.MaxName)
	}
	return err
}

// checkSpaceName refuses early what can be the name of no space.
func checkSpaceName(name string) error { return spaceError(name, fs.CheckSpaceName(name)) }

type createParams struct {
	Name    string `json:"name"`
	Network string `json:"network,omitempty"` // "": the default
}

var opSpaceCreate = operation[createParams, spaceStatus]{"space-create", func(_ context.Context, h *home, p createParams, _ sink) (spaceStatus, error) {
	if err := checkSpaceName(p.Name); err != nil {
		return spaceStatus{}, err
	}
	if p.Network != "" {
		return h.createOn(p.Name, p.Network)
	}
	i, err := h.fs.CreateSpace(p.Name)
	return statusOf(i), spaceError(p.Name, err)
}}

var opSpaceList = operation[none, []spaceStatus]{"space-list", func(_ context.Context, h *home, _ none, _ sink) ([]spaceStatus, error) {
	list, err := h.fs.Spaces()
	return statusesOf(list), err
}}

// opSpaceRename gives the space as it is called then.
var opSpaceRename = operation[renameParams, spaceStatus]{"space-rename", func(_ context.Context, h *home, p renameParams, _ sink) (spaceStatus, error) {
	if err := checkSpaceName(p.New); err != nil {
		return spaceStatus{}, err
	}
	if err := h.fs.RenameSpace(p.Old, p.New); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return spaceStatus{}, spaceError(p.Old, err)
		}
		return spaceStatus{}, spaceError(p.New, err)
	}
	h.spaceRenamed(p.Old, p.New)
	i, err := h.fs.Space(p.New)
	return statusOf(i), err
}}

// opSpaceDelete gives the space as it was. The one that is shown as the mount itself stays: who is in there would stand on
// nothing.
var opSpaceDelete = operation[nameParams, spaceStatus]{"space-delete", func(_ context.Context, h *home, p nameParams, _ sink) (spaceStatus, error) {
	i, err := h.fs.Space(p.Name)
	if err != nil {
		return spaceStatus{}, spaceError(p.Name, err)
	}
	h.mu.Lock()
	at := h.place
	h.mu.Unlock()
	if h.mounted.Load() && at.Space == p.Name {
		return spaceStatus{}, failf(exitBusy, "%s is shown at %s; unmount it first", p.Name, at.Dir)
	}
	return statusOf(i), spaceError(p.Name, h.fs.DeleteSpace(p.Name))
}}

// spaceDetails is what space info --json prints.
type spaceDetails struct {
	spaceStatus
	ContentBytes int64 `json:"content_bytes"` // blocks of what is current
	HistoryBytes int64 `json:"history_bytes"` // blocks that only old versions refer to: what prune can free
	DiskBytes    int64 `json:"disk_bytes"`    // on this device's disk
}

var opSpaceInfo = operation[nameParams, spaceDetails]{"space-info", func(ctx context.Context, h *home, p nameParams, _ sink) (spaceDetails, error) {
	i, err := h.fs.Space(p.Name)
	if err != nil {
		return spaceDetails{}, spaceError(p.Name, err)
	}
	d := spaceDetails{spaceStatus: statusOf(i), DiskBytes: i.DiskBytes}
	if i.Problem != "" {
		return d, nil
	}
	d.HistoryBytes, err = h.fs.HistoryBytes(ctx, p.Name)
	d.ContentBytes = max(0, i.BlockBytes-d.HistoryBytes)
	return d, err
}}

// spaceNames lists the names of the spaces for completion; on any trouble there are none.
func spaceNames(ctx context.Context, e *env) []string {
	quiet := *e
	quiet.readSecret = nil // completion asks nothing
	list, err := opSpaceList.call(ctx, &quiet, none{})
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}
