package mount

import (
	"os"
	"path/filepath"
	"runtime"
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
			if name == "FcntlFlockLocksFile" {
				t.Skip("wants two fcntl locks of one process to conflict, which POSIX forbids")
			}
			dir := filepath.Join(top, name)
			must(t, os.Mkdir(dir, 0o755))
			test(t, dir)
			must(t, os.RemoveAll(dir))
		})
	}
}
