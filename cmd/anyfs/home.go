package main

import (
	"context"
	"crypto/rand"
	"errors"
	iofs "io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/mount"
	netconf "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/exchange"
)

// The files of a home that are this package's own.
const (
	setupName = "setup" // there until the first space is made
	placeName = "place" // where the home was mounted last, sealed
)

// home is a home that this process has open: its keys, its spaces, and where they are mounted.
type home struct {
	dir     string
	disk    disk.FS
	keys    *acl.Keys
	fs      *fs.Home
	log     *slog.Logger
	errors  func() []mount.LogRecord // of a daemon: its last errors
	mounted atomic.Bool
	network *network // of a daemon that has one

	ending chan struct{} // closed when a daemon begins to end
	end    func()        // closes it

	still sync.Mutex // held by who unmounts: see mount.Options

	nets  sync.Mutex               // held by who changes what is said of networks, and carries it out. Before mu
	tells map[netconf.ID]time.Time // when a newer configuration is to be written into the home space; guarded by nets

	mu    sync.Mutex // guards place
	place place      // of the mount, or of the last one
}

// errNoHome says that nothing tells where the home folder is.
var errNoHome = failf(exitUsage, "HOME is not set; say where the home folder is with --home DIR")

// homeDisk gives the home's folder, which has to be there.
func homeDisk(dir string) (disk.FS, error) {
	if dir == "" {
		return nil, errNoHome
	}
	if st, err := os.Stat(dir); errors.Is(err, iofs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil, keysError(dir, acl.ErrNotInitialised)
	} else if err != nil {
		return nil, err
	}
	return disk.OS(dir)
}

// readyHome is homeDisk of a home that has an account: nothing is made in another folder.
func readyHome(dir string) (disk.FS, error) {
	d, err := homeDisk(dir)
	if err != nil {
		return nil, err
	}
	has, err := hasKeys(d)
	if err == nil && !has {
		err = keysError(dir, acl.ErrNotInitialised)
	}
	return d, err
}

// keysError gives a failure to open the keys its exit code and the next step.
func keysError(dir string, err error) error {
	switch {
	case errors.Is(err, acl.ErrNotInitialised):
		return failf(exitNotFound, "there is no account in %s; make one with 'anyfs init', or name another home with --home", dir)
	case errors.Is(err, acl.ErrPassphrase):
		return failf(exitPassphrase, "the passphrase is wrong")
	}
	return err
}

// openWith opens the home of keys that are open already. The caller has the home's lock.
func openWith(ctx context.Context, dir string, keys *acl.Keys, log *slog.Logger) (*home, error) {
	d, err := disk.OS(dir)
	if err != nil {
		return nil, err
	}
	opened, err := fs.Open(ctx, fs.Options{
		Disk: d, Dir: dir, Keys: keys, Rand: rand.Reader,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Log: log,
		Prefetch: exchange.Prefetch,
		Idle:     debug.FreeOSMemory, // what a burst of work took is of use to others
	})
	if err != nil {
		return nil, err
	}
	h := &home{dir: dir, disk: d, keys: keys, fs: opened, log: log, tells: map[netconf.ID]time.Time{}}
	h.ending = make(chan struct{})
	h.end = sync.OnceFunc(func() { close(h.ending) })
	h.place = h.readPlace()
	if err := h.setUp(); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return h, nil
}

// setUp makes the space Personal of a home that is new, also where a crash came between.
func (h *home) setUp() error {
	switch _, err := h.disk.ReadFile(setupName); {
	case errors.Is(err, iofs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if _, err := h.fs.CreatePersonal(); err != nil {
		return err
	}
	return h.disk.Remove(setupName)
}

// close makes everything durable and closes the home.
func (h *home) close() error {
	h.end()
	return h.fs.Close()
}

func (h *home) accountInfo() accountInfo {
	account, device := fs.Identity(h.keys)
	return accountInfo{Account: account, Fingerprint: acl.Fingerprint(h.keys.Identity), Device: deviceInfo{PeerID: device.PeerID, Name: device.Name}}
}

// openHome opens the home in this process, for a command that found no daemon and has the lock.
func openHome(ctx context.Context, e *env) (*home, error) {
	keys, _, err := openKeys(e, "")
	if err != nil {
		return nil, err
	}
	return openWith(ctx, e.home, keys, slog.New(slog.DiscardHandler))
}
