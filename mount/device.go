package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is /dev/fuse, opened for one mount: reading gives a request of the kernel, writing gives an answer or tells the
// kernel something. Reads do not block: who wants a request waits for it with the runtime's poller.
type device struct {
	file *os.File
	conn syscall.RawConn
	fd   int // valid until close, which comes after the last use
}

// openDevice makes a device of an open /dev/fuse, and owns it then.
func openDevice(fd int) (*device, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "/dev/fuse")
	conn, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &device{file: file, conn: conn, fd: fd}, nil
}

func (d *device) close() { d.file.Close() }

// drop ends the connection from our side: who waits for the kernel's requests, and who waits for our answers, gets an
// error. The descriptor stays, as one of /dev/null, for answers that are on their way.
func (d *device) drop() error {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, d.fd, unix.O_CLOEXEC); err != nil {
		return err
	}
	return d.file.SetReadDeadline(time.Unix(1, 0))
}

// read takes a request, EAGAIN when there is none. It is no call that the scheduler should know of: it does not block.
func (d *device) read(p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		switch errno {
		case unix.EINTR, unix.ENOENT: // ENOENT: its caller was interrupted meanwhile
			continue
		case 0:
			return int(n), 0
		}
		return 0, errno
	}
}

// answer gives the answer to a request. It does not block either.
func (d *device) answer(p []byte) syscall.Errno {
	for {
		_, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// The kernel's numbers of notifications, and the form of their header: no request is numbered 0.
const (
	notifyInode = 2
	notifyEntry = 3
)

// tell sends a notification, which may wait for a lock that the kernel holds during a request.
func (d *device) tell(code int32, body ...[]byte) fuse.Status {
	h := fuse.OutHeader{Status: code}
	h.Length = uint32(unsafe.Sizeof(h))
	for _, b := range body {
		h.Length += uint32(len(b))
	}
	var err error
	if e := d.conn.Control(func(fd uintptr) {
		_, err = unix.Writev(int(fd), append([][]byte{bytesOf(&h)}, body...))
	}); e != nil {
		err = unix.ENODEV // closed
	}
	return fuse.ToStatus(err)
}

// bytesOf is a structure of the protocol as it lies in memory.
func bytesOf[T any](v *T) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v)) }

// InodeNotify makes the kernel forget an inode's attributes, and its pages from off on (none when off is negative).
func (d *device) InodeNotify(node uint64, off, length int64) fuse.Status {
	return d.tell(notifyInode, bytesOf(&fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: length}))
}

// EntryNotify makes the kernel forget what a name is, or that there is none.
func (d *device) EntryNotify(parent uint64, name string) fuse.Status {
	out := fuse.NotifyInvalEntryOut{Parent: parent, NameLen: uint32(len(name))}
	return d.tell(notifyEntry, bytesOf(&out), append([]byte(name), 0))
}

// mountDirectly mounts by mount(2), which takes root's rights: EPERM without them.
func mountDirectly(dir string, s settings) (*device, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if s.readOnly {
		flags |= unix.MS_RDONLY
	}
	if s.noExec {
		flags |= unix.MS_NOEXEC
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,max_read=%d,default_permissions",
		fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), maxRequestBytes)
	if s.allowOther {
		options += ",allow_other"
	}
	if err := unix.Mount("anyfs", dir, fsType, flags, options); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount(2): %w", err)
	}
	return openDevice(fd)
}

// mountByHelper has fusermount3 open the device, mount it, and hand it over through a socket.
func mountByHelper(bin, dir string, s settings) (*device, error) {
	options := []string{"fsname=anyfs", "subtype=anyfs", "default_permissions", "nosuid", "nodev", fmt.Sprint("max_read=", maxRequestBytes)}
	for option, on := range map[string]bool{"ro": s.readOnly, "noexec": s.noExec, "allow_other": s.allowOther} {
		if on {
			options = append(options, option)
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := pair[0], os.NewFile(uintptr(pair[1]), "socketpair")
	defer unix.Close(ours)
	var said bytes.Buffer
	cmd := exec.Command(bin, "-o", strings.Join(options, ","), "--", dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &said
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			if strings.Contains(text, "/dev/fuse: Permission denied") {
				text += "; root gives it to everybody with: chmod 666 /dev/fuse"
			}
			return nil, errors.New(text)
		}
		return nil, fmt.Errorf("%s: %w", bin, err)
	}
	fd, err := receive(ours)
	if err != nil {
		return nil, fmt.Errorf("%s hands nothing over: %w", bin, err)
	}
	return openDevice(fd)
}

// receive takes a descriptor from a socket.
func receive(socket int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 4), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return 0, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return 0, err
	}
	for _, m := range messages {
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return 0, errors.New("no descriptor in the message")
}
