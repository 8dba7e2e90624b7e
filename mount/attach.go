package mount

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	maxRequestBytes = 1 << 20
	maxInFlight     = 64 << 20 // bytes of requests being served
	maxBackground   = 64       // requests that nobody waits for: read-ahead, mostly
)

// attach mounts raw at dir, an empty directory with an absolute path, and negotiates with the kernel.
func attach(raw fuse.RawFileSystem, dir string, s settings, o fuse.MountOptions) (*fuse.Server, error) {
	if err := checkDevice(); err != nil {
		return nil, err
	}
	server, err := attachDirectly(raw, dir, s, o)
	if !errors.Is(err, syscall.EPERM) {
		return server, err
	}
	if _, err := fusermount(); err != nil {
		return nil, err
	}
	if s.allowOther && os.Geteuid() != 0 && !othersAllowed() {
		return nil, errors.New("allow_other needs the line user_allow_other in /etc/fuse.conf")
	}
	if s.readOnly {
		o.Options = append(o.Options, "ro")
	}
	if s.noExec {
		o.Options = append(o.Options, "noexec")
	}
	server, err = fuse.NewServer(raw, dir, &o)
	if err != nil {
		return nil, fmt.Errorf("fusermount3: %w", err)
	}
	return server, nil
}

// checkDevice finds out why there could be no FUSE at all.
func checkDevice() error {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		return unix.Close(fd)
	case unix.ENOENT, unix.ENODEV, unix.ENXIO:
		return errors.New("this system has no /dev/fuse; load the kernel module with: modprobe fuse " +
			"(a container must be given the device)")
	case unix.EACCES, unix.EPERM:
		return errors.New("no permission to open /dev/fuse")
	default:
		return fmt.Errorf("/dev/fuse: %w", err)
	}
}

// attachDirectly mounts without a helper, which takes root's rights.
func attachDirectly(raw fuse.RawFileSystem, dir string, s settings, o fuse.MountOptions) (*fuse.Server, error) {
	o.DirectMountStrict = true
	o.DirectMountFlags = syscall.MS_NOSUID | syscall.MS_NODEV
	if s.readOnly {
		o.DirectMountFlags |= syscall.MS_RDONLY
	}
	if s.noExec {
		o.DirectMountFlags |= syscall.MS_NOEXEC
	}
	server, err := fuse.NewServer(raw, dir, &o)
	if err != nil {
		return nil, fmt.Errorf("mount(2): %w", err)
	}
	return server, nil
}

// mountOptions are what every mount asks of the kernel. Locks stay the kernel's own: all kinds work and
// conflict as they should. Not asked for: ATOMIC_O_TRUNC (truncation comes as SETATTR), WRITEBACK_CACHE
// (its pages would die with the daemon), AUTO_INVAL_DATA (every write of ours would drop the pages it wrote),
// POSIX_ACL, PASSTHROUGH, EXPORT_SUPPORT (nodeids do not outlive a mount).
func mountOptions(f *filesystem, s settings) fuse.MountOptions {
	return fuse.MountOptions{
		FsName:                   "anyfs",
		Name:                     "anyfs",
		AllowOther:               s.allowOther,
		Options:                  []string{"default_permissions"},
		MaxWrite:                 maxRequestBytes,
		MaxBackground:            maxBackground,
		MaxInflightRequestBytes:  maxInFlight,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		DisableSplice:            true, // answers are in memory: the attempt costs three calls each
		ExtraCapabilities:        fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_ASYNC_DIO,
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		Logger:                   slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
		PanicHandler:             func(v any) fuse.Status { return f.panicked(v) },
	}
}
