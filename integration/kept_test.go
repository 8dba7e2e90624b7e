package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestRightLostWhileOpen: a program has a file open and writes to it when the right to write is lost. What it wrote before is there, readable, exported by a
// copy, said to be on this device alone and no error; after a restart too. Once the account may write again it goes on to the others. Of a removed
// member likewise.
func TestRightLostWhileOpen(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob := s.All[0], s.All[1]
	s.team()
	type space struct {
		Name, State string
		Pending     int `json:"pending_changes"`
		Kept        int `json:"kept_changes"`
	}
	team := func() space {
		for _, x := range fromJSON[struct{ Spaces []space }](bob, "status").Spaces {
			if x.Name == "Team" {
				return x
			}
		}
		t.Fatal("no space Team")
		return space{}
	}
	seen := false
	for _, x := range []struct{ file, role string }{{"open", "reader"}, {"open2", "none"}} {
		path := filepath.Join(bob.Mnt, "Team", x.file)
		s.write(bob, "Team/"+x.file, "")
		bob.Must("status", "--wait", "--here")
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		check(t, err)
		written := 0
		write := func() error {
			_, err := fmt.Fprintf(f, "line %d\n", written)
			if err == nil {
				written++
			}
			return err
		}
		check(t, write())
		if x.role == "none" {
			alice.Must("remove", "Team", "Bob")
		} else {
			alice.Must("role", "Team", "Bob", x.role)
		}
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if err := write(); errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatal("nothing is refused")
			}
		}
		_ = f.Close()
		want := ""
		for i := range written {
			want += fmt.Sprintf("line %d\n", i)
		}
		s.readOnly(bob, "Team", x.file)
		for _, after := range []string{"at once", "after a restart"} {
			if got, err := os.ReadFile(path); err != nil || string(got) != want {
				t.Errorf("%s, %s: %d bytes of %d, %v", x.role, after, len(got), len(want), err)
			}
			text := bob.Must("status")
			got, kept := team(), 0
			if bob.Xattr(path, "user.anyfs.sync") == "pending" { // unless it was published between two writes
				kept, seen = 1, true
			}
			said := strings.Contains(text, "1 change of yours stays on this device alone")
			if got.Kept != kept || got.Pending != 0 || got.State == "error" || said != (kept == 1) || strings.Contains(text, "Last errors") {
				t.Errorf("%s, %s: %+v\n%s", x.role, after, got, text)
			}
			bob.Must("verify")
			bob.Remount()
		}
		check(t, func() error {
			b, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(bob.Personal(x.file), b, 0o644))
		}())
		car := filepath.Join(t.TempDir(), "team.car")
		if r := bob.Run("export", "Team", car); r.Code != 0 || strings.Contains(r.Stdout+r.Stderr, "copy it from the mount") != (team().Kept > 0) {
			t.Errorf("export: %+v", r)
		}
		s.Connect(alice, bob)
		if x.role == "reader" {
			alice.Must("role", "Team", "Bob", "writer")
			s.role(bob, "Team", "writer")
			s.reads(alice, "Team/"+x.file, want)
			if got := team(); got.Kept != 0 {
				t.Errorf("%+v", got)
			}
		}
	}
	if !seen {
		t.Error("nothing was kept: all was published between two writes")
	}
}
