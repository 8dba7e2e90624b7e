package disk_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/disk/disktest"
)

func TestOS(t *testing.T) {
	disktest.Run(t, func(tb testing.TB) disk.FS {
		d, err := disk.OS(tb.TempDir())
		if err != nil {
			tb.Fatal(err)
		}
		return d
	})
}

func TestSim(t *testing.T) {
	disktest.Run(t, func(tb testing.TB) disk.FS { return disk.NewSim(nil) })
}
