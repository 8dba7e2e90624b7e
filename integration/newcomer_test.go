package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestNewcomer does what the README says first: from a clean clone, with an empty HOME, its first command as it is written.
func TestNewcomer(t *testing.T) {
	Need(t, "git")
	NeedFUSE(t)
	top, err := filepath.Abs("..")
	check(t, err)
	if _, err := os.Stat(filepath.Join(top, ".git")); err != nil {
		without(t, "the repository that this code came from")
	}
	base := t.TempDir()
	home := filepath.Join(base, "home")
	check(t, os.Mkdir(home, 0o755))
	goEnv := strings.Fields(Sh(t, top, "go env GOMODCACHE GOCACHE GOFLAGS GOPROXY", "HOME="+os.Getenv("HOME")))
	env := []string{"HOME=" + home, "GOMODCACHE=" + goEnv[0], "GOCACHE=" + goEnv[1]}
	Sh(t, base, `git -c safe.directory='*' clone -q "$TOP" anyfs`, "TOP="+top)
	clone := filepath.Join(base, "anyfs")

	readme, err := os.ReadFile(filepath.Join(clone, "README.md"))
	check(t, err)
	screen := strings.Join(strings.SplitN(string(readme), "\n", 31)[:30], "\n")
	commands := regexp.MustCompile(`(?m)^\s*(go (?:run|test)[^#\n]*?)\s*(?:#.*)?$`).FindAllStringSubmatch(screen, -1)
	if len(commands) < 2 || commands[0][1] != "go run ./cmd/anyfs mount ~/Any" || commands[1][1] != "go test -timeout 30m ./..." {
		t.Fatalf("the README's first 30 lines show the commands %q", commands)
	}
	h := &Home{t: t, Dir: filepath.Join(home, ".local", "share", "anyfs"), Mnt: filepath.Join(home, "Any")}
	t.Cleanup(h.cleanup)
	out := Sh(t, clone, commands[0][1], env...)
	h.mounted = true
	if words := strings.Fields(out); len(words) != 12 || strings.Count(out, "\n") != 1 {
		t.Errorf("the first mount prints %q, want the 12 words on one line", out)
	}
	Sh(t, home, `
echo hello > Any/Personal/hello.txt
test "$(cat Any/Personal/hello.txt)" = hello
cp -r "$CLONE/cmd" Any/Personal/cmd && diff -r "$CLONE/cmd" Any/Personal/cmd
mkdir Any/Work && echo x > Any/Work/x && test "$(ls Any)" = "$(printf 'Personal\nWork')"
rm -rf Any/Personal/cmd`, "CLONE="+clone)
	if out := Sh(t, clone, "go run ./cmd/anyfs mount ~/Any", env...); strings.Contains(out, " ") {
		t.Errorf("a second mount prints %q; the phrase is shown once", out)
	}
	Sh(t, clone, "go run ./cmd/anyfs unmount ~/Any", env...)
	h.mounted = false
	if _, err := exec.LookPath("fusermount3"); err != nil {
		t.Log("there is no fusermount3 here, so it was mounted directly")
	}
}
