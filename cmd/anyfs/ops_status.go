package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/fs"
)

// whereabouts is what commands ask a daemon before they mount or unmount.
type whereabouts struct {
	place
	Mounted bool `json:"mounted"`
	PID     int  `json:"pid"`
}

var opWhere = operation[none, whereabouts]{"where", func(_ context.Context, h *home, _ none, _ sink) (whereabouts, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return whereabouts{h.place, h.mounted.Load(), os.Getpid()}, nil
}}

var opAccount = operation[none, accountInfo]{"account", func(_ context.Context, h *home, _ none, _ sink) (accountInfo, error) {
	return h.accountInfo(), nil
}}

// statusResult is what status --json prints.
type statusResult struct {
	Account    string           `json:"account"`
	Device     deviceInfo       `json:"device"`
	Mountpoint string           `json:"mountpoint"`
	PID        int              `json:"pid"`
	Listen     []string         `json:"listen"`
	Paused     bool             `json:"paused,omitempty"`
	Peers      []peerStatus     `json:"peers"`
	Spaces     []spaceStatus    `json:"spaces"`
	ReadOnly   string           `json:"read_only,omitempty"`
	Errors     []fs.LoggedError `json:"errors,omitempty"`
}

type spaceStatus struct {
	ID             string `json:"id"`
	Name           string `json:"name"`
	Role           string `json:"role"`
	State          string `json:"state"`
	Objects        int64  `json:"objects"`
	PendingChanges int    `json:"pending_changes"`
	PendingBlocks  int    `json:"pending_blocks"`
	Conflicts      int    `json:"conflicts"`
	FetchChanges   int    `json:"pending_fetch_changes"`
	FetchBlocks    int    `json:"pending_fetch_blocks"`
	ToSend         int    `json:"pending_send_batches"`
	Synced         int    `json:"synced_peers"`
	Policy         string `json:"policy,omitempty"`
	CacheLimit     int64  `json:"cache_limit,omitempty"`
	Problem        string `json:"problem,omitempty"`

	// Missing is the devices that state that they hold changes which no connected peer gives.
	Missing []string `json:"reported_missing,omitempty"`
}

var opStatus = operation[none, statusResult]{"status", func(_ context.Context, h *home, _ none, _ sink) (statusResult, error) {
	s, err := h.fs.Status()
	if err != nil {
		return statusResult{}, err
	}
	r := statusResult{
		Account: s.Account, Device: deviceInfo{s.Device.PeerID, s.Device.Name},
		Spaces: statusesOf(s.Spaces), ReadOnly: s.ReadOnly, Errors: h.lastErrors(),
	}
	r.Listen, r.Peers = []string{}, []peerStatus{}
	if h.network != nil {
		h.network.addTo(&r)
	}
	if h.mounted.Load() {
		h.mu.Lock()
		r.Mountpoint, r.PID = h.place.Dir, os.Getpid()
		h.mu.Unlock()
	}
	return r, nil
}}

// statusesOf gives spaces in the order of their names.
func statusesOf(list []fs.SpaceInfo) []spaceStatus {
	out := make([]spaceStatus, 0, len(list))
	for _, i := range list {
		out = append(out, statusOf(i))
	}
	slices.SortFunc(out, func(a, b spaceStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func statusOf(i fs.SpaceInfo) spaceStatus {
	return spaceStatus{
		ID: i.ID, Name: i.Name, Role: i.Role, State: i.State, Objects: i.Objects, PendingChanges: i.PendingChanges,
		PendingBlocks: i.PendingBlocks, Conflicts: i.Conflicts, FetchBlocks: i.FetchBlocks, Problem: i.Problem,
		Policy: i.Policy, CacheLimit: i.CacheLimit,
	}
}

// opWait publishes what is dirty and makes it durable, and where peers are connected waits until one of them holds all of it, and all
// that is known of is here.
var opWait = operation[none, none]{"wait", func(ctx context.Context, h *home, _ none, _ sink) (none, error) {
	if err := h.fs.Flush(ctx); err != nil || h.network == nil {
		return none{}, err
	}
	return none{}, h.network.wait(ctx)
}}

// pathStatus is what status PATH --json prints: the virtual attributes of a file or folder.
type pathStatus struct {
	Path      string `json:"path"`
	Kind      string `json:"kind"`
	ID        string `json:"id,omitempty"`
	Heads     string `json:"heads,omitempty"`
	Author    string `json:"author,omitempty"`
	Sync      string `json:"sync"`
	Versions  string `json:"versions,omitempty"`
	Conflicts string `json:"conflicts,omitempty"`
	fs.ContentInfo
}

var opPathStatus = operation[pathParam, pathStatus]{"path-status", func(ctx context.Context, h *home, p pathParam, _ sink) (pathStatus, error) {
	path, err := h.resolve(p)
	if err != nil {
		return pathStatus{}, err
	}
	ino, err := h.fs.PathIno(path)
	if err != nil {
		return pathStatus{}, notFound(p.Given, err)
	}
	a, err := h.fs.Getattr(ino)
	if err != nil {
		return pathStatus{}, err
	}
	s := pathStatus{Path: path, Kind: kindOf(a.Mode)}
	for _, x := range []struct {
		name string
		to   *string
	}{{"id", &s.ID}, {"heads", &s.Heads}, {"author", &s.Author}, {"sync", &s.Sync}, {"versions", &s.Versions}, {"conflicts", &s.Conflicts}} {
		v, err := h.fs.Getxattr(ino, "user.anyfs."+x.name)
		switch {
		case err == nil:
			*x.to = string(v)
		case !errors.Is(err, fs.ErrNoAttr):
			return pathStatus{}, err
		}
	}
	if s.ContentInfo, err = h.fs.Content(ctx, ino); err != nil {
		return pathStatus{}, err
	}
	return s, nil
}}

// notFound gives the failure to find what a person named its exit code.
func notFound(what string, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrNotDir) {
		return failf(exitNotFound, "there is no %s", what)
	}
	return err
}

// kindOf names a type as the log does.
func kindOf(mode uint32) string {
	switch mode & 0o170000 {
	case 0o040000:
		return "directory"
	case 0o100000:
		return "file"
	case 0o120000:
		return "symlink"
	case 0o010000:
		return "fifo"
	case 0o140000:
		return "socket"
	case 0o020000:
		return "char"
	}
	return "block"
}
