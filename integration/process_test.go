package integration

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// processEnv has the test binary be another process, which does what it reads line by line.
const processEnv = "ANYFS_INTEGRATION_PROCESS"

// process is a process that does system calls when it is told to: for locks and other things that belong to processes.
type process struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// newProcess starts one; it ends with the test.
func newProcess(t testing.TB) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	p := &process{t, cmd, in, bufio.NewScanner(out)}
	t.Cleanup(p.kill)
	return p
}

// kill ends it, with all locks that it has.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// start tells it to do something, and end waits for what came of that.
func (p *process) start(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatalf("the other process: %v", err)
	}
}

func (p *process) end() string {
	p.t.Helper()
	answer := make(chan string, 1)
	go func() {
		if p.out.Scan() {
			answer <- p.out.Text()
			return
		}
		answer <- "it is gone"
	}()
	select {
	case s := <-answer:
		return s
	case <-time.After(patience):
		p.t.Fatal("the other process does not answer")
		return ""
	}
}

func (p *process) do(format string, args ...any) string {
	p.t.Helper()
	p.start(format, args...)
	return p.end()
}

// beProcess does what its stdin says, and answers each line with one.
func beProcess() {
	fds := map[int]int{}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		result, err := obey(fds, in.Text())
		var errno syscall.Errno
		if errors.As(err, &errno) {
			result = unix.ErrnoName(errno)
		} else if err != nil {
			result = err.Error()
		}
		fmt.Println("=" + result)
	}
}

// obey does one line.
func obey(fds map[int]int, line string) (string, error) {
	var slot int
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "open": // slot path flags
		var path string
		var flags int
		if _, err := fmt.Sscan(rest, &slot, &path, &flags); err != nil {
			return "", err
		}
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o666)
		fds[slot] = fd
		return "", err
	case "close":
		if _, err := fmt.Sscan(rest, &slot); err != nil {
			return "", err
		}
		return "", unix.Close(fds[slot])
	case "lock": // command slot type start length
		var command, kind string
		k := unix.Flock_t{Whence: unix.SEEK_SET}
		if _, err := fmt.Sscan(rest, &command, &slot, &kind, &k.Start, &k.Len); err != nil {
			return "", err
		}
		k.Type = map[string]int16{"r": unix.F_RDLCK, "w": unix.F_WRLCK, "u": unix.F_UNLCK}[kind]
		commands := map[string]int{"set": unix.F_SETLK, "wait": unix.F_SETLKW, "get": unix.F_GETLK, "ofdset": unix.F_OFD_SETLK, "ofdget": unix.F_OFD_GETLK}
		err := unix.FcntlFlock(uintptr(fds[slot]), commands[command], &k)
		if err != nil || !strings.HasSuffix(command, "get") {
			return "", err
		}
		if k.Type == unix.F_UNLCK {
			return "free", nil
		}
		return fmt.Sprintf("%d %d+%d by another process: %v", k.Type, k.Start, k.Len, k.Pid > 0 && int(k.Pid) != os.Getpid()), nil
	case "flock": // slot operation
		var how int
		if _, err := fmt.Sscan(rest, &slot, &how); err != nil {
			return "", err
		}
		return "", unix.Flock(fds[slot], how)
	case "lease":
		var kind int
		if _, err := fmt.Sscan(rest, &slot, &kind); err != nil {
			return "", err
		}
		_, err := unix.FcntlInt(uintptr(fds[slot]), unix.F_SETLEASE, kind)
		return "", err
	case "append": // path name count
		var path, name string
		var count int
		if _, err := fmt.Sscan(rest, &path, &name, &count); err != nil {
			return "", err
		}
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		for i := range count {
			line := fmt.Sprintf("%s%d%s\n", name, i, strings.Repeat(".", i%700))
			if n, err := unix.Write(fd, []byte(line)); err != nil || n != len(line) {
				return fmt.Sprint(n), err
			}
		}
		return "", nil
	case "limit": // bytes of a file
		var n uint64
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return "", err
		}
		return "", unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n})
	case "write": // slot offset length
		var off int64
		var n int
		if _, err := fmt.Sscan(rest, &slot, &off, &n); err != nil {
			return "", err
		}
		done, err := unix.Pwrite(fds[slot], make([]byte, n), off)
		return fmt.Sprint(done), err
	case "truncate": // slot size
		var size int64
		if _, err := fmt.Sscan(rest, &slot, &size); err != nil {
			return "", err
		}
		return "", unix.Ftruncate(fds[slot], size)
	}
	return obeyPath(verb, rest)
}

// obeyPath does what only names a path.
func obeyPath(verb, path string) (result string, err error) {
	switch verb {
	case "stat":
		var st unix.Stat_t
		return "", unix.Lstat(path, &st)
	case "statfs":
		var st unix.Statfs_t
		return "", unix.Statfs(path, &st)
	case "list":
		return listing(path)
	case "read":
		b, err := os.ReadFile(path)
		return fmt.Sprint(len(b)), err
	case "fault": // of a page of a map
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		defer func() {
			if recover() != nil {
				err = errors.New("the map cannot be read")
			}
		}()
		m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return "", err
		}
		defer unix.Munmap(m)
		return fmt.Sprint(m[0]), nil
	case "store": // write and fsync, again and again
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		b := make([]byte, 100_000)
		for off := int64(0); ; off += int64(len(b)) {
			if _, err := unix.Pwrite(fd, b, off%(10<<20)); err != nil {
				return "", err
			}
			if err := unix.Fsync(fd); err != nil {
				return "", err
			}
		}
	}
	return "", fmt.Errorf("what is %q?", verb)
}
