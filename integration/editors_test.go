package integration

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// saves are the ways in which programs save a document: each makes the file hold "saved" and a line end.
var saves = []struct {
	name string
	need []string
	do   func(t *testing.T, dir, file string)
}{
	{"sed -i", []string{"sed"}, func(t *testing.T, dir, file string) {
		Sh(t, dir, `sed -i 's/.*/saved/' "$F"`, "F="+file)
	}},
	{"shell", []string{"bash"}, func(t *testing.T, dir, file string) {
		Sh(t, dir, `echo saved > "$F"`, "F="+file)
	}},
	{"temporary renamed over", nil, func(t *testing.T, dir, file string) {
		tmp := dir + "/.goutputstream-X1Y2Z3"
		f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		check(t, second(f.WriteString("saved\n")), f.Sync(), f.Close(), os.Chmod(tmp, 0o644), os.Rename(tmp, dir+"/"+file))
	}},
	{"old renamed aside and removed", nil, func(t *testing.T, dir, file string) {
		check(t, os.Rename(dir+"/"+file, dir+"/"+file+"~"), os.WriteFile(dir+"/"+file, []byte("saved\n"), 0o644), os.Remove(dir+"/"+file+"~"))
	}},
	{"vim", []string{"vim"}, func(t *testing.T, dir, file string) { vim(t, dir, file, "") }},
	{"vim with backupcopy=no", []string{"vim"}, func(t *testing.T, dir, file string) { vim(t, dir, file, "set backupcopy=no") }},
	{"vim with backup", []string{"vim"}, func(t *testing.T, dir, file string) { vim(t, dir, file, "set backup backupcopy=no") }},
	{"vim with backupcopy=yes", []string{"vim"}, func(t *testing.T, dir, file string) { vim(t, dir, file, "set backupcopy=yes") }},
	{"emacs", []string{"emacs"}, func(t *testing.T, dir, file string) {
		emacs(t, dir, file, "(setq make-backup-files t backup-enable-predicate (lambda (name) t))")
	}},
	{"emacs without backups", []string{"emacs"}, func(t *testing.T, dir, file string) { emacs(t, dir, file, "(setq make-backup-files nil)") }},
	{"emacs with precious files", []string{"emacs"}, func(t *testing.T, dir, file string) { emacs(t, dir, file, "(setq file-precious-flag t)") }},
	{"nano", []string{"nano"}, func(t *testing.T, dir, file string) { nano(t, dir, file) }},
	{"nano -B", []string{"nano"}, func(t *testing.T, dir, file string) { nano(t, dir, file, "-B") }},
}

func vim(t *testing.T, dir, file, setting string) {
	// A terminal makes vim do all that it does for a person: the swap file and the probe 4913 too.
	cmd := exec.Command("vim", "-N", "-u", "NONE", "-i", "NONE", "--cmd", setting, file)
	cmd.Dir, cmd.Env = dir, cleanEnv()
	m := StartTerminal(t, cmd)
	m.Await("the document", func(seen string) bool { return strings.Contains(seen, "first") })
	m.Type(":%d\risaved\x1b:wq\r")
	if code := m.Wait(); code != 0 {
		t.Fatalf("vim ends with %d: %q", code, m.Seen())
	}
}

func emacs(t *testing.T, dir, file, setting string) {
	Sh(t, dir, `emacs -Q --batch --eval "$S" --eval '(progn (find-file (getenv "F")) (erase-buffer) (insert "saved\n") (save-buffer))' 2>&1`, "F="+file, "S="+setting)
}

func nano(t *testing.T, dir, file string, flags ...string) {
	cmd := exec.Command("nano", append(append([]string{"-I"}, flags...), file)...)
	cmd.Dir, cmd.Env = dir, cleanEnv()
	m := StartTerminal(t, cmd)
	m.Await("the document", func(seen string) bool { return strings.Contains(seen, "first") })
	m.Type("\x0b") // ^K cuts the line
	m.Type("saved\r")
	m.Type("\x0f\r") // ^O writes it, Enter takes the name
	m.Await("the save", func(seen string) bool { return strings.Contains(seen, "Wrote") })
	m.Type("\x18") // ^X
	if code := m.Wait(); code != 0 {
		t.Fatalf("nano ends with %d: %q", code, m.Seen())
	}
}

// TestSavingKeepsIdentity saves a document in every way and looks whether it is still the same object, with both versions in
// its history.
func TestSavingKeepsIdentity(t *testing.T) {
	h := Mounted(t)
	for i, s := range saves {
		t.Run(s.name, func(t *testing.T) {
			Need(t, s.need...)
			h := h.In(t)
			dir := h.Personal(fmt.Sprintf("save %d", i))
			file := "document.txt"
			path := dir + "/" + file
			check(t, os.Mkdir(dir, 0o755), os.WriteFile(path, []byte("first\n"), 0o644))
			time.Sleep(300 * time.Millisecond) // the document was there before: it is published
			id := h.ID(path)
			s.do(t, dir, file)
			if b, err := os.ReadFile(path); err != nil || strings.TrimRight(string(b), "\n") != "saved" {
				t.Fatalf("the document holds %q, %v", b, err)
			}
			if now := h.ID(path); now != id {
				t.Fatalf("the save made another object: %s, was %s", now, id)
			}
			h.Settle()
			if n := strings.Count(h.Must("log", path), "\n"); n < 2 {
				t.Errorf("the log shows %d versions, want 2 at least:\n%s", n, h.Must("log", path))
			}
			if now := h.ID(path); now != id {
				t.Fatalf("publishing made another object: %s, was %s", now, id)
			}
			want := Sh(t, dir, `grep -rl saved . | grep -v '~$' | sort`)
			if want != "./document.txt\n" {
				t.Errorf("saved text lies in %q", want)
			}
		})
	}
	h.Remount()
	for i := range saves {
		path := h.Personal(fmt.Sprintf("save %d", i), "document.txt")
		if b, err := os.ReadFile(path); err == nil && strings.TrimRight(string(b), "\n") != "saved" {
			t.Errorf("after the remount %s holds %q", path, b)
		}
	}
}

// check fails at the first error.
func check(t testing.TB, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}

// second drops the count of what was written.
func second(_ int, err error) error { return err }
