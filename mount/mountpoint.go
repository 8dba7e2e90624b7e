package mount

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// fsType is what the mount table calls our mounts.
const fsType = "fuse.anyfs"

// ErrMounted says that a daemon already shows something at a mountpoint.
var ErrMounted = errors.New("is already mounted")

// answersWithin is how long a mount may take to say that it is alive.
const answersWithin = 3 * time.Second

// prepare makes dir ready to be mounted on, and returns its absolute path: a directory is made when there is none, one
// that has entries is refused, and what a killed daemon left is unmounted.
func prepare(dir string) (string, error) {
	path, err := resolve(dir)
	if err != nil {
		return "", err
	}
	for range 10 { // mounts can lie on top of each other
		left, err := leftBehind(path)
		if err != nil {
			return "", err
		}
		if !left {
			break
		}
		if err := detach(path, true); err != nil {
			return "", fmt.Errorf("a killed daemon left %s behind, and it cannot be unmounted: %w", dir, err)
		}
	}
	switch err := os.MkdirAll(path, 0o700); {
	case errors.Is(err, syscall.ENOTDIR):
		return "", fmt.Errorf("%s is not a folder", path)
	case err != nil:
		return "", err
	}
	return path, checkEmpty(path)
}

// Check says why Serve would refuse to mount at dir, and makes and unmounts nothing: this machine cannot mount, something that
// lives is mounted there, or dir is no empty folder. Nil says that nothing is in sight that it would refuse.
func Check(dir string) error {
	if err := checkDevice(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		if _, err := fusermount(); err != nil {
			return err
		}
	}
	path, err := resolve(dir)
	if err != nil {
		return err
	}
	if left, err := leftBehind(path); left || err != nil {
		return err
	}
	switch err := checkEmpty(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	default:
		return err
	}
}

// Resolve is the path under which a mount at dir is known: absolute, with symbolic links followed, dir itself too. What is
// mounted there is not asked.
func Resolve(dir string) (string, error) { return resolve(dir) }

// resolve makes dir absolute and follows symbolic links, without touching the last part: a dead mount cannot be looked
// at.
func resolve(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if target, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if errors.Is(err, os.ErrNotExist) {
		return path, nil // it will be made
	}
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

// leftBehind reports whether path is a mount of ours whose daemon is gone. A live one is ErrMounted.
func leftBehind(path string) (bool, error) {
	err := askWithin(path, answersWithin)
	switch {
	case errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ECONNABORTED):
		if m, ok, err := mountAt(path); err == nil && ok && m.fsType != fsType {
			return false, fmt.Errorf("%s is a dead mount of another kind (%s); unmount it first", path, m.fsType)
		}
		return true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, fmt.Errorf("%s %w by a daemon that does not answer", path, ErrMounted)
	case errors.Is(err, syscall.ENOTDIR):
		return false, fmt.Errorf("%s is not a folder", path)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return false, err
	}
	if m, ok, err := mountAt(path); err == nil && ok && m.fsType == fsType {
		return false, fmt.Errorf("%s %w", path, ErrMounted)
	}
	return false, nil
}

// askWithin asks whoever shows path whether it is there, with a limit, since a daemon that was stopped answers nobody.
// (What stat says may be remembered from a daemon that is dead; statfs is always asked.) The goroutine of one that
// hangs ends when that daemon does.
func askWithin(path string, limit time.Duration) error {
	done := make(chan error, 1)
	go func() {
		var s unix.Statfs_t
		if err := unix.Statfs(path, &s); err != nil {
			done <- &os.PathError{Op: "statfs", Path: path, Err: err}
			return
		}
		done <- nil
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return os.ErrDeadlineExceeded
	}
}

func checkEmpty(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	switch _, err := d.Readdirnames(1); {
	case err == nil:
		return fmt.Errorf("%s is not empty; pick another folder", path)
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%s is not a folder", path)
	default:
		return err
	}
}

// mountEntry is a line of the mount table.
type mountEntry struct {
	major, minor uint32
	path, fsType string
}

// mountAt returns the topmost mount whose mountpoint is path.
func mountAt(path string) (mountEntry, bool, error) {
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return mountEntry{}, false, err
	}
	defer table.Close()
	var found mountEntry
	ok := false
	lines := bufio.NewScanner(table)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m, valid := parseMount(lines.Text()); valid && m.path == path {
			found, ok = m, true
		}
	}
	return found, ok, lines.Err()
}

// parseMount takes a line of mountinfo apart: "36 35 98:0 /root /mnt opts [tags] - type source superopts".
func parseMount(line string) (mountEntry, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, tail := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 5 || len(tail) < 1 {
		return mountEntry{}, false
	}
	m := mountEntry{path: unescape(fields[4]), fsType: tail[0]}
	_, err := fmt.Sscanf(fields[2], "%d:%d", &m.major, &m.minor)
	return m, err == nil
}

// unescape undoes the octal escapes of the mount table.
func unescape(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[4:]
				continue
			}
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String()
}

// Unmount takes a mount of ours away. It fails with EBUSY while somebody uses it, and works on one whose daemon is gone.
func Unmount(dir string) error {
	path, err := resolve(dir)
	if err != nil {
		return err
	}
	m, ok, err := mountAt(path)
	switch {
	case err != nil:
		return err
	case !ok || m.fsType != fsType:
		return fmt.Errorf("%s is not mounted", dir)
	}
	switch err := detach(path, false); {
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%s is in use; close its files and leave its folders first: %w", dir, err)
	case err != nil:
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// detach unmounts path, lazily if asked: then it goes from the tree at once and ends with its last user.
func detach(path string, lazily bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazily {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(path, flags)
	if err == unix.EPERM {
		return fusermountUnmount(path, lazily)
	}
	return err
}
