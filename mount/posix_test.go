package mount

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/posixtest"
)

// backends are what every suite of this package runs on.
var backends = map[string]func(testing.TB) Backend{
	"mem":  func(testing.TB) Backend { return newMem() },
	"home": newRealHome,
}

func TestPOSIX(t *testing.T) {
	for name, open := range backends {
		t.Run(name, func(t *testing.T) { posix(t, open) })
	}
}

// TestPOSIXOneThread finds requests that need a second thread to be answered.
func TestPOSIXOneThread(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for name, open := range backends {
		t.Run(name, func(t *testing.T) { posix(t, open) })
	}
}

func posix(t *testing.T, open func(testing.TB) Backend) {
	b := open(t)
	m := mountOn(t, b)
	top := m.dir
	if _, ok := b.(*fs.Home); ok {
		top += "/Personal"
	}
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if name == locksTest {
				if why, ok := localLocks(t); !ok {
					t.Skip("the local disk fails it too: ", why)
				}
			}
			dir := filepath.Join(top, name)
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
			must(t, os.RemoveAll(dir))
		})
	}
}

// locksTest wants a read lock to conflict with a write lock that another descriptor of the same process holds. POSIX has fcntl
// locks belong to the process, so that no local filesystem does so (go-fuse leaves the test out of its own run on a local
// disk). It is asked of the mount where the local disk, in the same run, passes it.
const locksTest = "FcntlFlockLocksFile"

const localLocksEnv = "ANYFS_TEST_LOCAL_LOCKS"

// localLocks reports whether locksTest passes on the local disk, else what it says there. It runs in a process of its own,
// where its failure fails nothing here.
func localLocks(t *testing.T) (why string, ok bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLocalLocks$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s", localLocksEnv, t.TempDir()))
	out, err := cmd.CombinedOutput()
	if err == nil {
		return "", true
	}
	why = err.Error()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "FcntlFlock returned") {
			why = strings.TrimSpace(line)
		}
	}
	return why, false
}

// TestLocalLocks is the process that localLocks starts.
func TestLocalLocks(t *testing.T) {
	dir := os.Getenv(localLocksEnv)
	if dir == "" {
		t.Skip("run by TestPOSIX")
	}
	posixtest.All[locksTest](t, dir)
}
