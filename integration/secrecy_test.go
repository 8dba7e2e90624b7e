package integration

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// planted are marks that the work below puts into every place where a person's data can be.
var planted = []string{
	"PLANTEDspacename", "PLANTEDfilename", "PLANTEDrenamed", "PLANTEDdirname", "PLANTEDdeleted", "PLANTEDcontent", "PLANTEDlarge",
	"PLANTEDsynced", "PLANTEDxattrname", "PLANTEDxattrvalue", "PLANTEDtarget", "PLANTEDoverwritten", "PLANTEDunsynced",
}

// TestAtRest plants names, attributes and contents, and looks for them in every byte of the home: while the daemon runs,
// after it was killed, and after an unmount.
func TestAtRest(t *testing.T) {
	h := Mounted(t)
	space := filepath.Join(h.Mnt, "PLANTEDspacename")
	check(t, os.Mkdir(space, 0o755))
	work := func(dir string) {
		t.Helper()
		d := filepath.Join(dir, "PLANTEDdirname")
		check(t, os.MkdirAll(d, 0o755),
			os.WriteFile(d+"/PLANTEDfilename", []byte("PLANTEDcontent"), 0o644),
			os.WriteFile(d+"/PLANTEDdeleted", []byte("PLANTEDcontent"), 0o644), os.Remove(d+"/PLANTEDdeleted"),
			os.WriteFile(d+"/large", bytes.Repeat([]byte("PLANTEDlarge "), 400_000), 0o644),
			os.WriteFile(d+"/twice", []byte("PLANTEDoverwritten"), 0o644), os.WriteFile(d+"/twice", []byte("else"), 0o644),
			unix.Setxattr(d+"/PLANTEDfilename", "user.PLANTEDxattrname", []byte("PLANTEDxattrvalue"), 0),
			os.RemoveAll(d+"/link"), os.Symlink("PLANTEDtarget", d+"/link"),
			os.WriteFile(d+"/moving", []byte("x"), 0o644), os.Rename(d+"/moving", d+"/PLANTEDrenamed"))
		f, err := os.Create(d + "/synced")
		check(t, err, second(f.WriteString("PLANTEDsynced")), f.Sync(), second(f.WriteString("PLANTEDunsynced")), f.Close())
	}
	work(space)
	work(h.Personal())
	scan := func(when string) {
		t.Helper()
		files, total := 0, int64(0)
		check(t, filepath.WalkDir(h.Dir, func(p string, e fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || e.Type()&fs.ModeSocket != 0 {
				return err
			}
			rel, _ := filepath.Rel(h.Dir, p)
			if m := found([]byte(rel)); m != "" {
				t.Errorf("%s: the name %s holds %s", when, rel, m)
			}
			if e.IsDir() {
				return nil
			}
			f, err := os.Open(p)
			if os.IsNotExist(err) {
				return nil // the daemon goes on: a file of the journal may be gone since it was listed
			}
			if err != nil {
				return err
			}
			defer f.Close()
			b, err := io.ReadAll(f)
			if m := found(b); m != "" {
				t.Errorf("%s: the file %s holds %s", when, rel, m)
			}
			files, total = files+1, total+int64(len(b))
			return err
		}))
		if files == 0 || total < 1<<20 {
			t.Errorf("%s: only %d files with %d bytes were looked through", when, files, total)
		}
	}
	scan("while running")
	h.Settle()
	scan("settled")
	work(h.Personal())
	time.Sleep(50 * time.Millisecond)
	h.Kill()
	scan("after a kill")
	h.Mount()
	h.Unmount()
	scan("unmounted")
	h.Mount()
	if b, err := os.ReadFile(h.Personal("PLANTEDdirname", "PLANTEDfilename")); err != nil || string(b) != "PLANTEDcontent" {
		t.Errorf("what was planted is not there: %q, %v", b, err)
	}
}

// found gives the mark that b holds, in UTF-8 or UTF-16, in any case.
func found(b []byte) string {
	lower := bytes.ToLower(b)
	for _, m := range planted {
		m = strings.ToLower(m)
		var wide []byte
		for _, c := range []byte(m) {
			wide = append(wide, c, 0)
		}
		if bytes.Contains(lower, []byte(m)) || bytes.Contains(lower, wide) {
			return m
		}
	}
	return ""
}

func TestFound(t *testing.T) {
	for _, s := range []string{"xx PLANTEDcontent", "plantedcontent", "P\x00L\x00A\x00N\x00T\x00E\x00D\x00c\x00o\x00n\x00t\x00e\x00n\x00t\x00"} {
		if found([]byte(s)) == "" {
			t.Errorf("%q is not found", s)
		}
	}
	if m := found([]byte("PLANTED and content")); m != "" {
		t.Errorf("%q is found where it is not", m)
	}
}

// TestLogNamesNothing damages what a file holds, so that reading it fails and is logged, and looks for names, contents and paths in
// the log and in what status says of it.
func TestLogNamesNothing(t *testing.T) {
	h := Mounted(t)
	dir := h.Personal("PLANTEDdirname")
	check(t, os.Mkdir(dir, 0o755))
	file := filepath.Join(dir, "PLANTEDfilename")
	check(t, os.WriteFile(file, bytes.Repeat([]byte("PLANTEDlarge "), 100_000), 0o644),
		unix.Setxattr(file, "user.PLANTEDxattrname", []byte("PLANTEDxattrvalue"), 0))
	h.Unmount()
	segments, err := filepath.Glob(filepath.Join(h.Dir, "spaces/*/blocks/*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("segments: %q, %v", segments, err)
	}
	for _, s := range segments {
		b, err := os.ReadFile(s)
		check(t, err)
		for i := range b {
			if i > 4096 { // its head stays
				b[i] ^= 0x55
			}
		}
		check(t, os.WriteFile(s, b, 0o600))
	}
	if r := h.Run("mount", h.Mnt); r.Code != 0 {
		t.Fatalf("mount: %+v", r)
	}
	h.mounted = true
	if b, err := os.ReadFile(file); err == nil {
		t.Errorf("%d damaged bytes are served", len(b))
	}
	_ = os.WriteFile(file+"2", nil, 0o644)
	log, err := os.ReadFile(filepath.Join(h.Dir, "anyfs.log"))
	check(t, err)
	if !bytes.Contains(log, []byte(`"level":"ERROR"`)) {
		t.Errorf("the log tells of no error: %s", log)
	}
	status := h.Must("status")
	if !strings.Contains(status, "Last errors:") {
		t.Errorf("status tells of no error: %s", status)
	}
	for what, text := range map[string]string{"the log": string(log), "status": status} {
		if m := found([]byte(text)); m != "" {
			t.Errorf("%s holds %s: %s", what, m, text)
		}
	}
	if r := h.Run("verify"); r.Code != 1 || !strings.Contains(r.Stdout, "block ") {
		t.Errorf("verify: %+v", r)
	}
}
