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
	maxBackground   = 64 // requests that nobody waits for: read-ahead, mostly
)

// attach mounts at dir, an empty directory with an absolute path.
func attach(dir string, s settings) (*device, error) {
	if err := checkDevice(); err != nil {
		return nil, err
	}
	dev, err := mountDirectly(dir, s)
	if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.EACCES) {
		return dev, err
	}
	bin, err := fusermount()
	if err != nil {
		return nil, err
	}
	if s.allowOther && os.Geteuid() != 0 && !othersAllowed() {
		return nil, errors.New("allow_other needs the line user_allow_other in /etc/fuse.conf")
	}
	return mountByHelper(bin, dir, s)
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
		return nil // the helper may
	default:
		return fmt.Errorf("/dev/fuse: %w", err)
	}
}

// negotiated is what every mount asks of the kernel. Locks stay the kernel's own: all kinds work and
// conflict as they should. Not asked for: ATOMIC_O_TRUNC (truncation comes as SETATTR), WRITEBACK_CACHE
// (its pages would die with the daemon), AUTO_INVAL_DATA (every write of ours would drop the pages it wrote),
// POSIX_ACL, PASSTHROUGH, EXPORT_SUPPORT (nodeids do not outlive a mount).
func negotiated(f *filesystem) fuse.MountOptions {
	return fuse.MountOptions{
		Name:                     "anyfs",
		MaxWrite:                 maxRequestBytes,
		MaxBackground:            maxBackground,
		EnableSymlinkCaching:     true,
		ExplicitDataCacheControl: true,
		ExtraCapabilities:        fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_NO_OPENDIR_SUPPORT | fuse.CAP_ASYNC_DIO,
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH,
		Logger:                   slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
		PanicHandler:             func(v any) fuse.Status { return f.panicked(v) },
	}
}
