package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: one file a command or a matter. Each has a home of its own, $ANYFS_HOME.
//
// Besides testscript's own commands there are: killdaemon (the daemon, with SIGKILL), phrase FILE (stdout of the last command is
// a recovery phrase on one line; keep it in FILE), json PATH [VALUE] (stdout is JSON and has this at a dotted path),
// mounted DIR, and xattr NAME PATH [VALUE]. The condition [missing:PROGRAM] holds where the machine lacks it, but not where CI is set.
func TestScripts(t *testing.T) {
	NeedFUSE(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			mnt := filepath.Join(env.WorkDir, "mnt")
			env.Setenv("PATH", filepath.Dir(Binary)+":"+os.Getenv("PATH"))
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("ANYFS_HOME", home)
			env.Setenv("MNT", mnt)
			env.Setenv("LC_ALL", "C.UTF-8")
			env.Defer(func() {
				entries, _ := os.ReadDir(env.WorkDir)
				for _, e := range entries { // homes and mountpoints lie directly in the script's folder
					for _, pid := range daemonsOf(filepath.Join(env.WorkDir, e.Name())) {
						_ = kill(pid)
					}
				}
				for _, e := range entries {
					detach(filepath.Join(env.WorkDir, e.Name()))
				}
			})
			return nil
		},
		Condition: func(cond string) (bool, error) {
			program, ok := strings.CutPrefix(cond, "missing:")
			if !ok {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := exec.LookPath(program)
			return err != nil && os.Getenv("CI") == "", nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"killdaemon": scriptKill,
			"phrase":     scriptPhrase,
			"json":       scriptJSON,
			"mounted":    scriptMounted,
			"xattr":      scriptXattr,
		},
	})
}

func scriptKill(ts *testscript.TestScript, neg bool, args []string) {
	home := ts.Getenv("ANYFS_HOME")
	if len(args) > 0 {
		home = ts.MkAbs(args[0])
	}
	pids := daemonsOf(home)
	if len(pids) == 0 {
		ts.Fatalf("no daemon of %s runs", home)
	}
	for _, pid := range pids {
		ts.Check(kill(pid))
	}
}

func scriptPhrase(ts *testscript.TestScript, neg bool, args []string) {
	out := ts.ReadFile("stdout")
	if len(strings.Fields(out)) != 12 || strings.Count(out, "\n") != 1 || !strings.HasSuffix(out, "\n") {
		ts.Fatalf("no recovery phrase on one line: %q", out)
	}
	if len(args) == 1 {
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(out), 0o600))
	}
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for key := range strings.SplitSeq(args[0], ".") {
		switch w := v.(type) {
		case map[string]any:
			x, ok := w[key]
			if !ok {
				if neg {
					return
				}
				ts.Fatalf("%s: there is no %q in %v", args[0], key, w)
			}
			v = x
		case []any:
			if key == "len" {
				v = float64(len(w))
				break
			}
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(w) {
				if neg {
					return
				}
				ts.Fatalf("%s: there is no %q in %v", args[0], key, w)
			}
			v = w[i]
		default:
			ts.Fatalf("%s: %v has no %q", args[0], v, key)
		}
	}
	if len(args) > 1 && (fmt.Sprint(v) == args[1]) == neg {
		ts.Fatalf("%s is %v", args[0], v)
	}
	if len(args) == 1 && neg {
		ts.Fatalf("%s is %v, want nothing there", args[0], v)
	}
}

func scriptMounted(ts *testscript.TestScript, neg bool, args []string) {
	if isMountpoint(ts.MkAbs(args[0])) == neg {
		ts.Fatalf("mounted %s: %v", args[0], neg)
	}
}

// scriptXattr compares an attribute: xattr NAME PATH [VALUE]; negated: there is none.
func scriptXattr(ts *testscript.TestScript, neg bool, args []string) {
	v, err := getxattr(ts.MkAbs(args[1]), args[0])
	switch {
	case neg && err != nil:
	case err != nil:
		ts.Fatalf("%s of %s: %v", args[0], args[1], err)
	case neg != (len(args) > 2 && v != args[2]) || neg && len(args) == 2:
		ts.Fatalf("%s of %s is %q", args[0], args[1], v)
	}
}
