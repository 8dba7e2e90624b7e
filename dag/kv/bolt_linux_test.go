package kv

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReadAround looks at what the system was told of the map: not that it is read at random (rr), with which each page of a cold
// database is a read of its own.
func TestReadAround(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := OpenBolt(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours, found := false, 0
	for line := range strings.Lines(string(maps)) {
		switch f := strings.Fields(line); {
		case len(f) >= 5 && strings.Contains(f[0], "-") && !strings.HasSuffix(f[0], ":"):
			ours = strings.HasSuffix(strings.TrimSpace(line), path)
		case ours && f[0] == "VmFlags:":
			if found++; slices.Contains(f, "rr") {
				t.Errorf("the map is read at random: %s", line)
			}
		}
	}
	if found == 0 {
		t.Errorf("no map of %s in /proc/self/smaps", path)
	}
}
