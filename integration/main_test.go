package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	args := []string{"build", "-o", Binary}
	if os.Getenv("ANYFS_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../cmd/anyfs")...)
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building anyfs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
