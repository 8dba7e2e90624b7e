package server_test

import (
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/nodes/server"
)

// NODES.md names each metric, and no other; none has a label.
func TestMetricsAreDocumented(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	run(t, server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}, HTTP: addr})
	r, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../NODES.md")
	if err != nil {
		t.Fatal(err)
	}
	names := func(pattern string, in []byte) []string {
		set := map[string]bool{}
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(in, -1) {
			set[string(m[1])] = true
		}
		return slices.Sorted(maps.Keys(set))
	}
	has, documented := names(`(?m)^# TYPE (anyfs_\w+) `, b), names("`(anyfs_\\w+)`", page)
	if len(has) < 10 || !slices.Equal(has, documented) {
		t.Errorf("it has %v\nNODES.md names %v", has, documented)
	}
	if labels := names(`(?m)^(anyfs_\w+\{(?:[^l]|l[^e]).*)`, b); len(labels) > 0 { // le is that of a histogram's buckets
		t.Errorf("labels: %v", labels)
	}
}
