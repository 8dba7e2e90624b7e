package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// goSource packs the source tree of the Go that runs the tests, or without ANYFS_LONG a part of it, as a tar.
func goSource(t *testing.T) string {
	t.Helper()
	root := strings.TrimSpace(Sh(t, t.TempDir(), "go env GOROOT", "HOME="+t.TempDir()))
	part := "src/net src/crypto src/encoding src/runtime src/os"
	if Long() {
		part = "src"
	}
	tar := filepath.Join(t.TempDir(), "go.tar")
	Sh(t, root, fmt.Sprintf("tar -chf %s %s", tar, part))
	return tar
}

func TestGoSourceTree(t *testing.T) {
	Need(t, "tar", "diff")
	tar := goSource(t)
	h, dir := SameAsLocal(t, TreeOptions{DirTimes: true}, func(t *testing.T, dir string) {
		Sh(t, dir, "tar -xf "+tar+" && touch -d @1000000000 src") // src itself is not in the archive
	})
	local := t.TempDir()
	Sh(t, local, "tar -xf "+tar)
	Sh(t, dir, fmt.Sprintf("diff -r %s/src src", local))
	Sh(t, dir, "cp -a src copy && diff -r src copy && mv copy moved && diff -r src moved && rm -rf src && test ! -e src && mkdir src")
	h.Remount()
	Sh(t, dir, fmt.Sprintf("diff -r %s/src moved && rm -rf moved && rmdir src && test -z \"$(ls -A)\"", local))
}

// TestGoBuild builds and tests a module with all of Go's caches on the mount. The binary has to be the same as from the
// local disk, where the cache of who runs the test is used: what is in it needs not be built again.
func TestGoBuild(t *testing.T) {
	cache := strings.TrimSpace(Sh(t, t.TempDir(), "go env GOCACHE", "HOME="+os.Getenv("HOME"), "GOCACHE="+os.Getenv("GOCACHE")))
	work := func(t *testing.T, dir string) {
		for name, text := range map[string]string{
			"go.mod":     "module example.org/m\n\ngo 1.26\n",
			"main.go":    "package main\n\nimport (\n\t\"fmt\"\n\n\t\"example.org/m/sum\"\n)\n\nfunc main() { fmt.Println(sum.Of(1, 2, 3)) }\n",
			"sum/sum.go": "// Package sum adds.\npackage sum\n\n// Of adds.\nfunc Of(n ...int) (s int) {\n\tfor _, v := range n {\n\t\ts += v\n\t}\n\treturn s\n}\n",
			"sum/sum_test.go": "package sum\n\nimport \"testing\"\n\nfunc TestOf(t *testing.T) {\n\tif Of(1, 2) != 3 {\n\t\tt.Fatal()\n\t}\n}\n" +
				"\nfunc TestFile(t *testing.T) {\n\tif err := os.WriteFile(t.TempDir()+\"/x\", nil, 0o600); err != nil {\n\t\tt.Fatal(err)\n\t}\n}\n",
		} {
			if name == "sum/sum_test.go" {
				text = strings.Replace(text, "import \"testing\"", "import (\n\t\"os\"\n\t\"testing\"\n)", 1)
			}
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		Sh(t, dir, `
mkdir -p tmp
test "$(go build -trimpath -buildvcs=false -o m . && ./m)" = 6
go vet ./... && go test ./... >/dev/null
echo '// more' >> sum/sum.go && test "$(go build -trimpath -buildvcs=false -o m . && ./m)" = 6
go test ./... | grep -q '^ok'`,
			"CGO_ENABLED=0", "GOCACHE="+cache, "GOTMPDIR="+dir+"/tmp", "TMPDIR="+dir+"/tmp", "GOFLAGS=-mod=mod", "GOPROXY=off", "GOTOOLCHAIN=local")
	}
	skip := func(p string) bool { return p == "cache" || p == "tmp" }
	_, dir := SameAsLocal(t, TreeOptions{NoTimes: true, Skip: skip}, func(t *testing.T, dir string) {
		if strings.HasSuffix(dir, "/Personal/work") { // the mount
			cache = filepath.Join(dir, "cache")
		}
		work(t, dir)
	})
	Sh(t, dir, `go build -trimpath -buildvcs=false -o m2 . && cmp m m2`, "CGO_ENABLED=0", "GOCACHE="+dir+"/cache", "GOPROXY=off", "GOTOOLCHAIN=local")
}
