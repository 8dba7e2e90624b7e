package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// sharing is several accounts, each with a mounted home, that know of each other by nothing but invitations.
type sharing struct {
	*Devices
	t testing.TB
}

func newSharing(t testing.TB, n int) *sharing {
	t.Helper()
	NeedFUSE(t)
	s := &sharing{&Devices{t: t}, t}
	for range n {
		h := NewHome(t)
		h.Listen = "/ip4/127.0.0.1/tcp/0"
		h.Mount("--no-discovery")
		s.All = append(s.All, h)
	}
	return s
}

type memberOf struct{ Account, Name, Role, Since string }
type requestOf struct{ Account, Name, Time string }

func fromJSON[T any](h *Home, args ...string) (out T) {
	h.t.Helper()
	text := h.Must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		h.t.Fatalf("%s: %v in %q", strings.Join(args, " "), err, text)
	}
	return out
}

// account is the account of a home.
func account(h *Home) string {
	return fromJSON[struct{ Account string }](h, "account", "show").Account
}

// reads waits until a file has that content on a mount.
func (s *sharing) reads(h *Home, path, want string) {
	s.t.Helper()
	s.Eventually(path+" is "+want, func() error {
		b, err := os.ReadFile(filepath.Join(h.Mnt, path))
		if err == nil && string(b) != want {
			err = fmt.Errorf("it is %q", b)
		}
		return err
	})
}

func (s *sharing) write(h *Home, path, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(h.Mnt, path), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// role waits until a home has a role in a space.
func (s *sharing) role(h *Home, space, want string) {
	s.t.Helper()
	s.Eventually("the role in "+space+" is "+want, func() error {
		if got := h.Xattr(filepath.Join(h.Mnt, space), "user.anyfs.role"); got != want {
			return fmt.Errorf("it is %s", got)
		}
		return nil
	})
}

// join has a guest ask by a link, and waits until the host sees the request.
func (s *sharing) join(host, guest *Home, space, link, name, as string) {
	s.t.Helper()
	guest.Must("join", link, "--as", name, "--name", as)
	s.Eventually("a request of "+as, func() error {
		for _, q := range fromJSON[[]requestOf](host, "requests", space) {
			if q.Name == as && q.Account == account(guest) && q.Time != "" {
				return nil
			}
		}
		return errors.New("none")
	})
}

// TestShare: three accounts, from the invitation to the removal and back.
func TestShare(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/plan.txt", "plan")
	link := strings.TrimSpace(alice.Must("invite", "Team"))
	if !strings.HasPrefix(link, "anyfs:") || strings.Contains(link, " ") {
		t.Fatalf("the link is %q", link)
	}

	// Bob waits for the answer, Carol comes back for it.
	waited := make(chan error, 1)
	wait := bob.Command("join", "-", "--wait", "--name", "Bob")
	wait.Stdin = strings.NewReader(link + "\n")
	go func() { out, err := wait.CombinedOutput(); waited <- errors.Join(err, wrapOutput(err, out)) }()
	s.Eventually("Bob's request", func() error {
		qs := fromJSON[[]requestOf](alice, "requests", "Team")
		if len(qs) != 1 || qs[0].Name != "Bob" || qs[0].Account != account(bob) {
			return fmt.Errorf("%+v", qs)
		}
		return nil
	})
	if _, err := os.Stat(filepath.Join(bob.Mnt, "Team")); err == nil {
		t.Error("the space is there before the request was answered")
	}
	alice.Must("approve", "Team", "Bob")
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	s.reads(bob, "Team/plan.txt", "plan")
	s.write(bob, "Team/bob.txt", "by Bob")
	s.reads(alice, "Team/bob.txt", "by Bob")
	s.write(alice, "Team/plan.txt", "plan 2")
	s.reads(bob, "Team/plan.txt", "plan 2")

	readers := strings.TrimSpace(alice.Must("invite", "Team", "--role", "reader"))
	s.join(alice, carol, "Team", readers, "Shared", "Carol")
	alice.Must("approve", "Team", account(carol))
	s.reads(carol, "Shared/bob.txt", "by Bob")
	s.role(carol, "Shared", "reader")
	s.readOnly(carol, "Shared", "bob.txt")
	for _, h := range s.All {
		name := "Team"
		if h == carol {
			name = "Shared"
		}
		s.Eventually("three members", func() error {
			ms := fromJSON[[]memberOf](h, "members", name)
			if len(ms) != 3 || ms[0].Role != "owner" || ms[0].Account != account(alice) {
				return fmt.Errorf("%+v", ms)
			}
			for _, m := range ms[1:] {
				if m.Name != map[string]string{"writer": "Bob", "reader": "Carol"}[m.Role] || m.Since == "" {
					return fmt.Errorf("%+v", ms)
				}
			}
			return nil
		})
	}
	if got := alice.Xattr(filepath.Join(alice.Mnt, "Team"), "user.anyfs.members"); strings.Count(got, "\n") < 2 || !strings.Contains(got, account(bob)+" writer") {
		t.Errorf("members of Team: %q", got)
	}
	for _, bad := range [][]string{{"remove", "Team", account(alice)}, {"role", "Team", "Carol", "writer"}, {"invite", "Team"}, {"approve", "Team", "Carol"}} {
		if r := bob.Run(bad...); r.Code == 0 || strings.Contains(r.Stderr, "kind") {
			t.Errorf("a writer may %q: %+v", bad, r)
		}
	}
	for _, bad := range []struct {
		code int
		says string
		args []string
	}{
		{1, "anyfs transfer", []string{"leave", "Team"}},
		{1, "anyfs transfer", []string{"remove", "Team", account(alice)}},
		{2, "expires at once", []string{"invite", "Team", "--expires", "0"}},
		{2, "expires at once", []string{"invite", "Team", "--expires", "10ms"}},
		{2, "at most", []string{"invite", "Team", "--uses", "9999999999999"}},
	} {
		if r := alice.Run(bad.args...); r.Code != bad.code || !strings.Contains(r.Stderr, bad.says) || r.Stdout != "" {
			t.Errorf("%q: %+v", bad.args, r)
		}
	}
	if r := bob.Run("remove", "Team", "Bob"); r.Code != 2 || !strings.Contains(r.Stderr, "anyfs leave") {
		t.Errorf("removing oneself: %+v", r)
	}

	// Bob becomes a reader while he has a file open.
	open, err := os.OpenFile(filepath.Join(bob.Mnt, "Team/bob.txt"), os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	defer open.Close()
	alice.Must("role", "Team", "Bob", "reader")
	s.role(bob, "Team", "reader")
	s.readOnly(bob, "Team", "plan.txt")
	if _, err := open.WriteString("x"); !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EACCES) {
		t.Errorf("a write through a file that was open: %v", err)
	}
	s.reads(bob, "Team/bob.txt", "by Bob")
	s.write(alice, "Team/after.txt", "after")
	s.reads(bob, "Team/after.txt", "after")
	s.reads(carol, "Shared/after.txt", "after")
	alice.Must("role", "Team", "Bob", "writer")
	s.role(bob, "Team", "writer")
	s.write(bob, "Team/again.txt", "again")
	s.reads(carol, "Shared/again.txt", "again")

	// Removed: what comes later is not for him.
	alice.Must("remove", "Team", "Bob")
	s.role(bob, "Team", "none")
	s.write(alice, "Team/secret.txt", "secret")
	s.reads(carol, "Shared/secret.txt", "secret")
	if _, err := os.Stat(filepath.Join(bob.Mnt, "Team/secret.txt")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("who was removed sees what came later: %v", err)
	}
	s.reads(alice, "Team/again.txt", "again")
	s.reads(bob, "Team/plan.txt", "plan 2")
	s.readOnly(bob, "Team", "plan.txt")
	for _, x := range bob.SyncStatus().Spaces {
		if left := x.Name == "Team"; left != (x.State == "left") || left && x.FetchChanges+x.FetchBlocks+x.SendBlocks > 0 {
			t.Errorf("to who was removed the status is %+v", x)
		}
	}
	check(t, open.Close())
	for _, h := range s.All {
		h.Unmount()
		h.Mount("--no-discovery")
	}
	s.Connect(alice, bob) // its port is another one
	s.Connect(alice, carol)
	s.role(bob, "Team", "none")

	// Back again, and out by himself.
	link = strings.TrimSpace(alice.Must("invite", "Team"))
	s.join(alice, bob, "Team", link, "Team", "Bob")
	alice.Must("approve", "Team", "Bob")
	s.role(bob, "Team", "writer")
	s.reads(bob, "Team/secret.txt", "secret")
	s.write(bob, "Team/back.txt", "back")
	s.reads(alice, "Team/back.txt", "back")
	s.reads(carol, "Shared/back.txt", "back")
	bob.Must("leave", "Team")
	s.role(bob, "Team", "none")
	s.Eventually("two members", func() error {
		if ms := fromJSON[[]memberOf](alice, "members", "Team"); len(ms) != 2 {
			return fmt.Errorf("%+v", ms)
		}
		return nil
	})
	s.write(alice, "Team/last.txt", "last")
	s.reads(carol, "Shared/last.txt", "last")
	bob.Must("space", "delete", "Team", "--yes")
	for _, h := range []*Home{alice, carol} {
		h.Must("verify")
	}
}

// team has the first make a space, with a file, and let the second, Bob, and the third, Carol, in.
func (s *sharing) team() {
	s.t.Helper()
	alice := s.All[0]
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/a", "a")
	for i, name := range []string{"Bob", "Carol"} {
		h := s.All[i+1]
		s.join(alice, h, "Team", strings.TrimSpace(alice.Must("invite", "Team")), "Team", name)
		alice.Must("approve", "Team", name)
		s.reads(h, "Team/a", "a")
	}
}

// TestTransfer: a space gets another owner, also one that is not there at the time, and the former one leaves it.
func TestTransfer(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	s.team()
	s.Connect(bob, carol)
	if r := alice.Run("transfer", "Team", account(alice)); r.Code != 2 {
		t.Errorf("to oneself: %+v", r)
	}
	if r := bob.Run("transfer", "Team", "Carol"); r.Code == 0 {
		t.Error("a writer gives the space away")
	}
	if r := alice.Run("transfer", "Personal", "Bob"); r.Code == 0 {
		t.Error("Personal was given away")
	}
	bob.Unmount()
	if m := fromJSON[memberOf](alice, "transfer", "Team", "Bob"); m.Role != "owner" || m.Account != account(bob) {
		t.Errorf("%+v", m)
	}
	s.role(alice, "Team", "admin")
	s.role(carol, "Team", "writer")
	if r := alice.Run("transfer", "Team", "Carol"); r.Code == 0 {
		t.Error("who was the owner gives the space away once more")
	}
	bob.Mount("--no-discovery")
	s.Connect(bob, carol)
	s.role(bob, "Team", "owner")
	bob.Must("role", "Team", "Carol", "admin")
	s.role(carol, "Team", "admin")
	s.write(alice, "Team/b", "b")
	s.reads(bob, "Team/b", "b")
	alice.Must("leave", "Team")
	s.role(alice, "Team", "none")
	s.Eventually("two members", func() error {
		if ms := fromJSON[[]memberOf](bob, "members", "Team"); len(ms) != 2 || ms[0].Account != account(bob) {
			return fmt.Errorf("%+v", ms)
		}
		return nil
	})
	s.write(bob, "Team/c", "c")
	s.reads(carol, "Team/c", "c")
	s.absent(alice, "Team/c")
	if r := bob.Run("leave", "Team"); r.Code == 0 {
		t.Error("the owner left")
	}
	for _, h := range s.All {
		h.Must("verify")
	}
}

// readOnly checks that a space refuses what changes it, in the way that programs understand.
func (s *sharing) readOnly(h *Home, space, file string) {
	s.t.Helper()
	dir := filepath.Join(h.Mnt, space)
	s.Eventually("mode bits without w", func() error {
		for _, p := range []string{dir, filepath.Join(dir, file)} {
			st, err := os.Stat(p)
			if err != nil {
				return err
			}
			if st.Mode()&0o222 != 0 {
				return fmt.Errorf("%s: %s", p, st.Mode())
			}
		}
		return nil
	})
	refused := func(what string, err error) {
		s.t.Helper()
		if !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EACCES) {
			s.t.Errorf("%s in a space that is read-only: %v", what, err)
		}
	}
	refused("create", os.WriteFile(filepath.Join(dir, "new"), nil, 0o644))
	refused("mkdir", os.Mkdir(filepath.Join(dir, "new"), 0o755))
	refused("write", os.WriteFile(filepath.Join(dir, file), []byte("x"), 0o644))
	refused("truncate", os.Truncate(filepath.Join(dir, file), 0))
	refused("remove", os.Remove(filepath.Join(dir, file)))
	refused("rename", os.Rename(filepath.Join(dir, file), filepath.Join(dir, "new")))
	refused("chmod", os.Chmod(filepath.Join(dir, file), 0o600))
	refused("symlink", os.Symlink("x", filepath.Join(dir, "new")))
	refused("link", os.Link(filepath.Join(dir, file), filepath.Join(dir, "new")))
	refused("setxattr", syscall.Setxattr(filepath.Join(dir, file), "user.x", []byte("x"), 0))
}

func wrapOutput(err error, out []byte) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s", out)
}

// TestInvitations: declined, revoked, used up, and open ones.
func TestInvitations(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/a", "a")
	link := strings.TrimSpace(alice.Must("invite", "Team", "--expires", "1d"))
	waited := make(chan Result, 1)
	wait := bob.Command("join", link, "--wait", "--name", "Bob")
	go func() { r, _ := run(wait); waited <- r }()
	s.Eventually("Bob's request", func() error {
		if qs := fromJSON[[]requestOf](alice, "requests", "Team"); len(qs) != 1 {
			return fmt.Errorf("%+v", qs)
		}
		return nil
	})
	alice.Must("decline", "Team", "Bob")
	if r := <-waited; r.Code != 1 || !strings.Contains(r.Stderr, "declined") {
		t.Errorf("declined: %+v", r)
	}
	if qs := fromJSON[[]requestOf](alice, "requests", "Team"); len(qs) != 0 {
		t.Errorf("%+v", qs)
	}
	type inv struct{ ID, State, Role string }
	is := fromJSON[[]inv](alice, "invites", "Team")
	if len(is) != 1 || is[0].State != "live" || is[0].Role != "writer" {
		t.Fatalf("%+v", is)
	}
	alice.Must("invite", "revoke", "Team", is[0].ID)
	if is := fromJSON[[]inv](alice, "invites", "Team"); is[0].State != "revoked" {
		t.Fatalf("%+v", is)
	}
	if r := carol.Run("join", link, "--wait"); r.Code == 0 || !strings.Contains(r.Stderr, "invitation") {
		t.Errorf("a revoked invitation: %+v", r)
	}
	open := strings.TrimSpace(alice.Must("invite", "Team", "--open", "--uses", "1", "--role", "reader"))
	carol.Must("join", open, "--wait")
	s.reads(carol, "Team/a", "a")
	s.role(carol, "Team", "reader")
	if r := bob.Run("join", open, "--wait"); r.Code == 0 {
		t.Errorf("an invitation was used twice: %+v", r)
	}
	alice.Must("invite", "Team", "--open")
	if r := alice.Run("remove", "Team", account(carol)); r.Code != 0 || !strings.Contains(r.Stderr, "invite revoke Team "+openOf(alice)) {
		t.Errorf("a removal while an open invitation is live: %+v", r)
	}
	alice.Must("invite", "revoke", "Team", openOf(alice))
	for _, bad := range []string{"anyfs:x", link[:len(link)-60], "http://example.org"} {
		if r := bob.Run("join", bad); r.Code != 2 {
			t.Errorf("join %s: %+v", bad, r)
		}
	}
}

// TestWroteUnheard: who writes without having heard that it may not keeps what it wrote, and the others do not get it, until it may
// again.
func TestWroteUnheard(t *testing.T) {
	s := newSharing(t, 2)
	alice, bob := s.All[0], s.All[1]
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/a", "a")
	link := strings.TrimSpace(alice.Must("invite", "Team"))
	s.join(alice, bob, "Team", link, "Team", "Bob")
	alice.Must("approve", "Team", "Bob")
	s.reads(bob, "Team/a", "a")
	s.write(bob, "Team/heard", "heard")
	s.reads(alice, "Team/heard", "heard")

	bob.Must("pause")
	s.write(bob, "Team/a", "a by Bob")
	s.write(bob, "Team/unheard", "unheard")
	large := strings.Repeat("large, ", 1<<18) // in blocks, which nobody fetches
	s.write(bob, "Team/large", large)
	bob.Must("status", "--wait", "--here")
	alice.Must("role", "Team", "Bob", "reader")
	bob.Must("resume")
	s.role(bob, "Team", "reader")
	s.readOnly(bob, "Team", "a")
	s.reads(alice, "Team/heard", "heard")
	s.write(alice, "Team/later", "later")
	s.reads(bob, "Team/later", "later")
	s.reads(bob, "Team/unheard", "unheard")
	s.reads(bob, "Team/a", "a by Bob")
	s.reads(alice, "Team/a", "a")
	if _, err := os.Stat(filepath.Join(alice.Mnt, "Team/unheard")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what a reader wrote shows elsewhere: %v", err)
	}

	// What does not count with others keeps nobody waiting, and is told of.
	type space struct {
		Name, State    string
		UnheardChanges int `json:"unheard_changes"`
		SendBatches    int `json:"pending_send_batches"`
		SendBlocks     int `json:"pending_send_blocks"`
	}
	team := func(h *Home) (x space) {
		for _, x = range fromJSON[struct{ Spaces []space }](h, "status").Spaces {
			if x.Name == "Team" {
				return x
			}
		}
		t.Fatal("no Team in the status")
		return x
	}
	for _, h := range s.All {
		h.Must("status", "--wait", "--timeout", "1m")
	}
	if x := team(bob); x.State != "synced" || x.SendBatches+x.SendBlocks != 0 || x.UnheardChanges < 3 {
		t.Errorf("who may not write: %+v", x)
	}
	if x := team(alice); x.State != "synced" || x.UnheardChanges != 0 {
		t.Errorf("who takes the right: %+v", x)
	}
	if text := bob.Must("status"); !strings.Contains(text, fmt.Sprintf("%d changes of yours do not count with others", team(bob).UnheardChanges)) {
		t.Errorf("status does not tell: %s", text)
	}
	for name, want := range map[string]string{"unheard": "local", "large": "local", "a": "local", "heard": "synced", "later": "synced"} {
		s.Eventually("the state of "+name, func() error {
			if got := fromJSON[struct{ Sync string }](bob, "status", filepath.Join(bob.Mnt, "Team", name)).Sync; got != want {
				return fmt.Errorf("%s, not %s", got, want)
			}
			return nil
		})
	}

	alice.Must("role", "Team", "Bob", "writer")
	s.role(bob, "Team", "writer")
	s.write(bob, "Team/again", "again")
	s.reads(alice, "Team/again", "again")
	s.reads(alice, "Team/large", large)
	bob.Must("status", "--wait", "--timeout", "1m")
	if x := team(bob); x.State != "synced" || x.UnheardChanges != 0 {
		t.Errorf("a writer again: %+v", x)
	}
	s.Eventually("what counts again is held", func() error {
		if got := fromJSON[struct{ Sync string }](bob, "status", filepath.Join(bob.Mnt, "Team/unheard")).Sync; got != "synced" {
			return errors.New(got)
		}
		return nil
	})
	s.reads(alice, "Team/unheard", "unheard")
	s.reads(alice, "Team/a", "a by Bob")
	for _, h := range s.All {
		h.Must("verify")
	}
}

// TestAdopt: an admin takes in what somebody wrote who had been removed and had not heard of it; what another wrote of that stays out.
func TestAdopt(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, carol := s.All[0], s.All[1], s.All[2]
	s.team()
	alice.Must("role", "Team", "Carol", "admin")
	s.role(carol, "Team", "admin")
	s.write(bob, "Team/heard", "heard")
	s.reads(carol, "Team/heard", "heard")
	bob.Must("pause")
	check(t, os.Mkdir(filepath.Join(bob.Mnt, "Team/dir"), 0o755))
	s.write(bob, "Team/dir/one", "one")
	bob.Must("status", "--wait", "--here")
	s.write(bob, "Team/a", "a by Bob")
	bob.Must("status", "--wait", "--here")
	s.write(bob, "Team/two", "two")
	bob.Must("status", "--wait", "--here")
	alice.Must("remove", "Team", "Bob")
	bob.Must("resume")
	s.role(bob, "Team", "none")

	type held struct {
		ID, By, Account, Time string
		Paths                 []string
	}
	var all []held
	s.Eventually("what Bob wrote is in quarantine", func() error {
		all = fromJSON[[]held](alice, "quarantine", "Team")
		var paths []string
		for _, q := range all {
			if q.Account != account(bob) || q.Time == "" {
				return fmt.Errorf("%+v", q)
			}
			paths = append(paths, q.Paths...)
		}
		if got := strings.Join(paths, " "); got != "dir dir/one a two" {
			return fmt.Errorf("%q in %+v", got, all)
		}
		return nil
	})
	if text := alice.Must("status"); !strings.Contains(text, "anyfs quarantine") {
		t.Errorf("status does not tell: %s", text)
	}
	s.absent(alice, "Team/dir")
	for _, bad := range [][]string{{"adopt", "Team", all[0].ID[:4]}, {"adopt", "Team"}, {"adopt", "Team", all[0].ID, "--all"}, {"adopt", "Nowhere", "--all"}} {
		if r := alice.Run(bad...); r.Code == 0 {
			t.Errorf("%q: %+v", bad, r)
		}
	}
	if r := bob.Run("adopt", "Team", "--all"); r.Code == 0 && strings.Contains(r.Stdout+r.Stderr, "1 batch") {
		t.Errorf("who was removed adopts: %+v", r)
	}
	// All but the last: with a batch comes what lies before it.
	if got := fromJSON[struct{ Adopted int }](alice, "adopt", "Team", all[len(all)-2].ID); got.Adopted != len(all)-1 {
		t.Errorf("%d of %d", got.Adopted, len(all))
	}
	for _, h := range []*Home{alice, carol} {
		s.reads(h, "Team/dir/one", "one")
		s.reads(h, "Team/a", "a by Bob")
		s.absent(h, "Team/two")
	}
	if left := fromJSON[[]held](alice, "quarantine", "Team"); len(left) != 1 || left[0].Paths[0] != "two" {
		t.Errorf("%+v", left)
	}
	s.write(alice, "Team/a", "a by Alice")
	s.reads(carol, "Team/a", "a by Alice")
	for _, h := range s.All {
		h.Must("verify")
		h.Unmount()
		h.Mount("--no-discovery")
	}
	s.reads(alice, "Team/dir/one", "one")
	s.absent(alice, "Team/two")
	alice.Must("adopt", "Team", "--all")
	s.reads(alice, "Team/two", "two")
	alice.Must("verify")
}

// TestNameTaken: who asks by a name that another account had is let in only where the account is meant, and is warned of on all devices until then.
func TestNameTaken(t *testing.T) {
	s := newSharing(t, 3)
	alice, bob, mallory := s.All[0], s.All[1], s.All[2]
	type person struct{ Account, Fingerprint, Name, Other string }
	find := func(list []person, account string) person {
		t.Helper()
		for _, p := range list {
			if p.Account == account {
				return p
			}
		}
		t.Fatalf("%s is not in %+v", account, list)
		return person{}
	}
	print := fromJSON[person](mallory, "account", "show").Fingerprint
	if len(strings.Split(print, "-")) != 6 || !strings.Contains(mallory.Must("account", "show"), print) {
		t.Fatalf("the fingerprint is %q", print)
	}
	alice.Must("space", "create", "Team")
	link := strings.TrimSpace(alice.Must("invite", "Team"))
	s.join(alice, bob, "Team", link, "Team", "Bob")
	alice.Must("approve", "Team", "Bob")
	s.join(alice, mallory, "Team", link, "Team", "BOB")
	r := alice.Run("requests", "Team")
	if !strings.Contains(r.Stderr, "WARNING") || !strings.Contains(r.Stdout, print) || !strings.Contains(r.Stderr, account(bob)) {
		t.Errorf("the request is shown as %s%s", r.Stdout, r.Stderr)
	}
	if p := find(fromJSON[[]person](alice, "requests", "Team"), account(mallory)); p.Other != account(bob) || p.Fingerprint != print {
		t.Errorf("%+v", p)
	}
	name := find(fromJSON[[]person](alice, "requests", "Team"), account(mallory)).Name
	if r := alice.Run("approve", "Team", name); r.Code != 1 || !strings.Contains(r.Stderr, print) {
		t.Errorf("approve by that name: %d, %s", r.Code, r.Stderr)
	}
	if r := alice.Run("approve", "Team", print); r.Code != 0 || !strings.Contains(r.Stderr, print) {
		t.Fatalf("approve by the fingerprint: %d, %s", r.Code, r.Stderr)
	}
	if r := alice.Run("members", "Team"); strings.Contains(r.Stderr, "WARNING") || !strings.Contains(r.Stdout, print) {
		t.Errorf("who was let in by the account is shown as %s%s", r.Stdout, r.Stderr)
	}
	s.Eventually("Bob is warned", func() error {
		if r := bob.Run("members", "Team"); !strings.Contains(r.Stderr, "WARNING") || !strings.Contains(r.Stdout, "NOT WHO HAD THIS NAME") {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		return nil
	})
	bob.Remount()
	if p := find(fromJSON[[]person](bob, "members", "Team"), account(mallory)); p.Other != account(bob) {
		t.Errorf("after a restart: %+v", p)
	}
	if r := bob.Run("members", "Team", "--accept", account(mallory)); r.Code != 0 || strings.Contains(r.Stderr, "WARNING") {
		t.Errorf("accepted: %d, %s", r.Code, r.Stderr)
	}
}

// TestReplaceAccount: the secrets of two accounts may be known, a member's and the owner's. Each makes a new one, which takes the place of
// the old one, and who has only the old one gets nothing more.
func TestReplaceAccount(t *testing.T) {
	s := newSharing(t, 4)
	alice, bob, alice2, bob2 := s.All[0], s.All[1], s.All[2], s.All[3]
	alice.Must("space", "create", "Team")
	s.write(alice, "Team/a", "a")
	invite := func() string { return strings.TrimSpace(alice.Must("invite", "Team")) }
	s.join(alice, bob, "Team", invite(), "Team", "Bob")
	alice.Must("approve", "Team", "Bob")
	s.reads(bob, "Team/a", "a")
	s.write(bob, "Team/bob", "bob")
	s.reads(alice, "Team/bob", "bob")

	s.join(alice, bob2, "Team", invite(), "Team", "Bob again")
	if r := bob.Run("approve", "Team", "Bob again", "--replaces", "Bob"); r.Code == 0 {
		t.Error("a member replaces its own account")
	}
	if r := alice.Run("approve", "Team", "Bob again", "--replaces", "Bob", "--role", "reader"); r.Code != 2 {
		t.Errorf("%+v", r)
	}
	if m := fromJSON[memberOf](alice, "approve", "Team", "Bob again", "--replaces", "Bob"); m.Role != "writer" || m.Account != account(bob2) {
		t.Errorf("%+v", m)
	}
	s.role(bob, "Team", "none")
	s.reads(bob2, "Team/bob", "bob")
	s.write(bob2, "Team/bob", "bob again")
	s.reads(alice, "Team/bob", "bob again")

	s.join(alice, alice2, "Team", invite(), "Team", "Alice again")
	if m := fromJSON[memberOf](alice, "approve", "Team", "Alice again", "--replaces", account(alice)); m.Role != "owner" {
		t.Errorf("%+v", m)
	}
	s.reads(alice2, "Team/bob", "bob again") // from the old account's device, which is no member any more
	s.Connect(alice2, bob2)
	s.role(alice2, "Team", "owner")
	s.role(alice, "Team", "none")
	s.Eventually("two members", func() error {
		if ms := fromJSON[[]memberOf](bob2, "members", "Team"); len(ms) != 2 || ms[0].Account != account(alice2) {
			return fmt.Errorf("%+v", ms)
		}
		return nil
	})
	s.write(alice2, "Team/secret", "secret")
	s.reads(bob2, "Team/secret", "secret")
	s.write(bob2, "Team/a", "a 2")
	s.reads(alice2, "Team/a", "a 2")
	for _, h := range []*Home{alice, bob} {
		s.absent(h, "Team/secret")
		s.reads(h, "Team/a", "a")
	}
	for _, h := range s.All {
		h.Must("verify")
	}
}
