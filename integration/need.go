package integration

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Need skips the test when a program is missing, and fails it where CI is set: there everything is to be installed.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	var missing []string
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = append(missing, p)
		}
	}
	if len(missing) > 0 {
		without(t, "programs "+strings.Join(missing, ", "))
	}
}

// NeedFUSE is Need for /dev/fuse.
func NeedFUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		without(t, err.Error())
		return
	}
	f.Close()
}

// NeedLong skips what takes minutes, unless ANYFS_LONG is set.
func NeedLong(t testing.TB) {
	t.Helper()
	if !Long() {
		t.Skip("takes minutes: set ANYFS_LONG=1")
	}
}

// Long reports whether runs without bounds are asked for.
func Long() bool { return os.Getenv("ANYFS_LONG") != "" }

func without(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal("this machine lacks " + what)
	}
	t.Skip("this machine lacks " + what)
}
