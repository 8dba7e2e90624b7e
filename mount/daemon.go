package mount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readyEnv       = "ANYFS_READY_FD" // tells a daemon which descriptor its starter listens at
	maxSaidBytes   = 16 << 10         // of what a daemon that fails to start writes to stderr
	stopsWithin    = 5 * time.Second
	firstExtraFile = 3
)

// StartError is why a daemon did not start.
type StartError struct {
	Text string `json:"error"`
	Exit int    `json:"exit"` // the code for the command to exit with, at least 1
}

func (e *StartError) Error() string { return e.Text }

// ExitCode is the code for the command to exit with.
func (e *StartError) ExitCode() int { return e.Exit }

// started is the one message from a daemon to its starter.
type started struct {
	Ready bool `json:"ready"`
	StartError
}

// StartDaemon runs this executable again as the daemon of a home and returns when that says that it is ready, or why it
// is not (*StartError).
//
// The daemon gets the arguments --home HOME and then args, input as its stdin (a passphrase; nil for none), a
// session of its own, and no descriptor of the caller's; its folder is the root. When ctx ends first, it is
// stopped. It says what there is to say with FromStarter.
func StartDaemon(ctx context.Context, home string, input []byte, args ...string) (pid int, err error) {
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	ready, readyEnd, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer ready.Close()
	said, saidEnd, err := os.Pipe()
	if err != nil {
		readyEnd.Close()
		return 0, err
	}
	defer said.Close()
	cmd := exec.Command(exe, append([]string{"--home", home}, args...)...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), readyEnv+"="+strconv.Itoa(firstExtraFile))
	cmd.Stderr = saidEnd
	cmd.ExtraFiles = []*os.File{readyEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if input != nil {
		cmd.Stdin = strings.NewReader(string(input))
	}
	keepDescriptors()
	err = cmd.Start()
	readyEnd.Close()
	saidEnd.Close()
	if err != nil {
		return 0, err
	}
	return awaitDaemon(ctx, cmd, ready, said)
}

// keepDescriptors has every descriptor above stderr closed in children, also those that we inherited ourselves.
func keepDescriptors() {
	if unix.CloseRange(firstExtraFile, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= firstExtraFile {
			unix.CloseOnExec(fd)
		}
	}
}

// awaitDaemon waits for the daemon's message and for the end of the pipe that it came through: by then the daemon holds
// nothing of ours any more.
func awaitDaemon(ctx context.Context, cmd *exec.Cmd, ready, said *os.File) (int, error) {
	text := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(said, maxSaidBytes))
		_, _ = io.Copy(io.Discard, said)
		text <- strings.TrimSpace(string(b))
	}()
	message := make(chan started, 1)
	go func() {
		var m started
		b, _ := io.ReadAll(io.LimitReader(ready, maxSaidBytes))
		_ = json.Unmarshal(b, &m)
		message <- m
	}()
	select {
	case m := <-message:
		if m.Ready {
			pid := cmd.Process.Pid
			return pid, cmd.Process.Release()
		}
		state := waitOrKill(cmd)
		if m.Text == "" {
			m.StartError = StartError{Text: "the daemon ended before it was ready: " + state}
			late := time.AfterFunc(time.Second, func() { said.Close() }) // a child of its own may hold the other end
			if t := <-text; t != "" {
				m.Text += ": " + t
			}
			late.Stop()
		}
		m.Exit = max(m.Exit, 1)
		return 0, &m.StartError
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		waitOrKill(cmd)
		return 0, ctx.Err()
	}
}

// waitOrKill waits until the process has ended, and says how.
func waitOrKill(cmd *exec.Cmd) string {
	kill := time.AfterFunc(stopsWithin, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err.Error()
	}
	return cmd.ProcessState.String()
}

// Starter is who started this process as a daemon, and waits to hear that it is ready. A nil *Starter is nobody: then
// the process runs in the foreground, and its methods do nothing.
type Starter struct {
	file *os.File
}

// FromStarter returns who waits, nil when this process was not started by StartDaemon. It is called once, early.
func FromStarter() (*Starter, error) {
	v, ok := os.LookupEnv(readyEnv)
	if !ok {
		return nil, nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil || fd < firstExtraFile {
		return nil, fmt.Errorf("%s=%q is no descriptor", readyEnv, v)
	}
	if err := os.Unsetenv(readyEnv); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	// What a daemon has in memory is not for a core file.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	return &Starter{file: os.NewFile(uintptr(fd), "starter")}, nil
}

// Ready says that the daemon can be used. From then on stdin, stdout and stderr are /dev/null.
func (s *Starter) Ready() error {
	if s == nil {
		return nil
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range firstExtraFile {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	return s.say(started{Ready: true})
}

// Failed says why the daemon does not start, and what the command exits with.
func (s *Starter) Failed(cause error, exit int) {
	if s == nil {
		return
	}
	_ = s.say(started{StartError: StartError{Text: cause.Error(), Exit: exit}})
}

// say sends the one message and closes the pipe; after that it does nothing.
func (s *Starter) say(m started) error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	err := json.NewEncoder(f).Encode(m)
	return errors.Join(err, f.Close())
}
