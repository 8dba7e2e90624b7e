package integration

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) != "" {
		beProcess()
		return
	}
	os.Exit(testMain(m))
}

// testMain builds the binary once for all tests.
func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "anyfs-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	Binary = filepath.Join(dir, "anyfs")
	if err := buildBinary(Binary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// What runs in parallel here mostly waits: more of it at once than small machines have processors. The command line, which is read later, wins.
	if err := flag.Set("test.parallel", strconv.Itoa(max(4, runtime.GOMAXPROCS(0)))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// buildBinary builds the command.
func buildBinary(to string, flags ...string) error {
	args := append([]string{"build", "-o", to}, flags...)
	if os.Getenv("ANYFS_RACE") != "" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../cmd/anyfs")...).CombinedOutput(); err != nil {
		return fmt.Errorf("building anyfs: %v\n%s", err, out)
	}
	return nil
}
