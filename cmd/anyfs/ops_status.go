package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"time"

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
	Paused     bool             `json:"paused"`
	Limits     limits           `json:"limits"`
	Peers      []peerStatus     `json:"peers"`
	Networks   []networkStatus  `json:"networks"`
	Spaces     []spaceStatus    `json:"spaces"`
	ReadOnly   string           `json:"read_only,omitempty"`
	Revoked    bool             `json:"revoked,omitempty"` // this device, by its account
	Errors     []fs.LoggedError `json:"errors,omitempty"`
}

type spaceStatus struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	Role           string   `json:"role"`
	State          string   `json:"state"`
	Objects        int64    `json:"objects"`
	PendingChanges int      `json:"pending_changes"`
	PendingBlocks  int      `json:"pending_blocks"`
	Conflicts      int      `json:"conflicts"`
	KeptChanges    int      `json:"kept_changes,omitempty"`    // of this device, which may not publish them any more
	UnheardChanges int      `json:"unheard_changes,omitempty"` // of this account, published when it had lost the right to write: they count on its devices alone
	Quarantined    int      `json:"quarantined,omitempty"`     // batches by who might not write them any more
	FetchChanges   int      `json:"pending_fetch_changes"`
	Preview        string   `json:"preview,omitempty"` // shown read-only until the history is here: whose, and of when
	FetchBlocks    int      `json:"pending_fetch_blocks"`
	ToSend         int      `json:"pending_send_batches"`
	SendBlocks     int      `json:"pending_send_blocks"`
	Synced         int      `json:"synced_peers"`
	Peers          []string `json:"peers"` // connected devices that have it
	Policy         string   `json:"policy,omitempty"`
	CacheLimit     int64    `json:"cache_limit,omitempty"`
	Problem        string   `json:"problem,omitempty"`
	With           string   `json:"with,omitempty"` // the other account of a one-to-one space

	Networks []spaceNetwork `json:"networks"` // that it is on

	// Missing is the devices that state that they hold changes which no connected peer gives.
	Missing []string `json:"reported_missing,omitempty"`
	// Doubts is the nodes that did not keep their word.
	Doubts []doubt `json:"doubted_nodes,omitempty"`
}

var opStatus = operation[none, statusResult]{"status", func(_ context.Context, h *home, _ none, _ sink) (statusResult, error) {
	s, err := h.fs.Status()
	if err != nil {
		return statusResult{}, err
	}
	r := statusResult{
		Account: s.Account, Device: deviceInfo{s.Device.PeerID, s.Device.Name},
		Spaces: statusesOf(s.Spaces), ReadOnly: s.ReadOnly, Errors: h.lastErrors(), Revoked: h.fs.Revoked(),
	}
	r.Listen, r.Peers = []string{}, []peerStatus{}
	set, err := h.readSettings()
	if err != nil {
		return statusResult{}, err
	}
	r.Paused, r.Limits = set.Paused, set.Limits
	if h.network != nil {
		h.network.addTo(&r)
	}
	if err := h.addNetworks(&r); err != nil {
		return statusResult{}, err
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
		PendingBlocks: i.PendingBlocks, Conflicts: i.Conflicts, KeptChanges: i.KeptChanges, UnheardChanges: i.UnheardChanges, Quarantined: i.Quarantined, Preview: i.Preview, FetchBlocks: i.FetchBlocks, SendBlocks: i.SendBlocks, Problem: i.Problem, Peers: []string{}, Networks: []spaceNetwork{},
		Policy: i.Policy, CacheLimit: i.CacheLimit, With: i.With,
	}
}

type waitParams struct {
	Here bool `json:"here"` // what is durable and published is enough
}

// opWait publishes what is dirty and makes it durable, and where other devices are known waits until one of them holds all of it, and all
// that is known of is here.
var opWait = operation[waitParams, none]{"wait", func(ctx context.Context, h *home, p waitParams, out sink) (none, error) {
	if err := h.fs.Flush(ctx); err != nil || h.network == nil || p.Here {
		return none{}, err
	}
	return none{}, h.network.wait(ctx, out)
}}

// pathStatus is what status PATH --json prints: the virtual attributes of a file or folder.
type pathStatus struct {
	Path      string `json:"path"`
	Kind      string `json:"kind"`
	ID        string `json:"id,omitempty"`
	Heads     string `json:"heads,omitempty"`
	Author    string `json:"author,omitempty"`
	Sync      string `json:"sync"`
	Device    string `json:"device,omitempty"` // that made the last change
	Time      string `json:"time,omitempty"`   // of that
	Absent    int    `json:"absent_blocks"`    // of its content, which are not on this device
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
	if f, err := h.fs.FileState(ctx, ino); err == nil { // of what is no view of history
		s.Device, s.Absent = f.Device, f.Absent
		if f.Time != 0 {
			s.Time = time.Unix(0, f.Time).UTC().Format(time.RFC3339)
		}
	}
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
