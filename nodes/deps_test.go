// Package nodes holds the servers of a network; this folder has only the test of what they link.
package nodes

import (
	"os/exec"
	"strings"
	"testing"
)

// Nodes cannot open what they keep: the code that could is not in them.
func TestNodesLinkNothingThatOpens(t *testing.T) {
	const module = "github.com/anyfs/anyfs/"
	out, err := exec.Command("go", "list", "-deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	linked := strings.Fields(string(out))
	if len(linked) < 50 {
		t.Fatalf("go list names %d packages", len(linked))
	}
	for _, p := range linked {
		for _, not := range []string{"fs", "mount", "acl/seal", "cmd"} {
			if p == module+not || strings.HasPrefix(p, module+not+"/") {
				t.Errorf("nodes link %s", p)
			}
		}
		if p == module+"acl" {
			t.Error("nodes link acl, which holds keys; acl/list is what they need")
		}
	}
}
