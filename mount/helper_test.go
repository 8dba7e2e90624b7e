package mount

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/anyfs/anyfs/mount/control"
)

// helperEnv has the test binary do something else: be a process that a test needs beside its own.
const helperEnv = "ANYFS_MOUNT_TEST_HELPER"

func TestMain(m *testing.M) {
	what := os.Getenv(helperEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv(helperEnv)
	helpers := map[string]func() error{"serve": helperServe, "read": helperRead, "daemon": helperDaemon, "lock": helperLock}
	if err := helpers[what](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// helper starts the test binary as a helper. Its stdin is a pipe that tells it to end.
func helper(t testing.TB, what string, args ...string) (cmd *exec.Cmd, stdout io.Reader, stdin io.WriteCloser) {
	t.Helper()
	cmd = exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	in, err := cmd.StdinPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, out, in
}

// awaitLine waits for the helper to say something.
func awaitLine(t testing.TB, r io.Reader) string {
	t.Helper()
	line := make(chan string, 1)
	go func() {
		b := make([]byte, 4096)
		n, _ := r.Read(b)
		line <- string(b[:n])
	}()
	select {
	case s := <-line:
		return s
	case <-time.After(time.Minute):
		t.Fatal("the helper says nothing")
		return ""
	}
}

// helperServe mounts a filesystem in memory at its argument.
func helperServe() error {
	return Serve(context.Background(), newMem(), Options{Dir: os.Args[1], Ready: func() { fmt.Println("ready") }})
}

// helperRead reads a file whose content is absent, while it handles SIGUSR1.
func helperRead() error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGUSR1)
	f, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	fmt.Println("open")
	b := make([]byte, 5)
	_, err = syscall.Read(int(f.Fd()), b)
	if err != nil {
		return err
	}
	fmt.Println(string(b))
	return nil
}

// helperDaemon is a daemon that does as its third argument says.
func helperDaemon() error {
	s, err := FromStarter()
	if err != nil {
		return err
	}
	home := os.Args[2]
	secret, _ := io.ReadAll(os.Stdin)
	switch os.Args[3] {
	case "fail":
		s.Failed(fmt.Errorf("the passphrase %q is wrong", secret), 5)
		return nil
	case "die":
		fmt.Fprintln(os.Stderr, "a last word")
		os.Exit(7)
	case "hang":
		time.Sleep(time.Hour)
	}
	lock, err := LockHome(home)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	l, err := control.Listen(home)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	d := &Daemon{
		Lock:     lock,
		Backend:  newMem(),
		Mount:    Options{Dir: filepath.Join(home, "mnt"), Ready: func() { _ = s.Ready() }},
		Control:  control.New(nil),
		Listener: l,
		Work: func(ctx context.Context) error {
			<-ctx.Done()
			return os.WriteFile(filepath.Join(home, "durable"), []byte(strconv.Itoa(os.Getpid())), 0o600)
		},
	}
	return d.Run(ctx)
}

// helperLock holds the lock of a home until its stdin ends.
func helperLock() error {
	if _, err := LockHome(os.Args[1]); err != nil {
		return err
	}
	fmt.Println("locked")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
