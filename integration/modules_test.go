package integration

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// TestModulesArePinned: what others wrote and the command is built of is what go.sum names, to the byte; nothing stands in its place, and there is little of it.
func TestModulesArePinned(t *testing.T) {
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("go", args...)
		cmd.Dir = ".."
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := run("mod", "verify"); !strings.Contains(out, "all modules verified") {
		t.Error(out)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
		Replace, Exclude []any
	}
	if err := json.Unmarshal([]byte(run("mod", "edit", "-json")), &mod); err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, r := range mod.Require {
		if !r.Indirect {
			direct++
		}
	}
	if direct == 0 || direct > 40 {
		t.Errorf("%d modules are required directly", direct)
	}
	if len(mod.Replace) > 0 {
		t.Errorf("replaced: %v", mod.Replace)
	}
}
