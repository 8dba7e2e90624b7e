package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// adding is a running `device add`.
type adding struct {
	Code, Ticket string
	cmd          *exec.Cmd
	out          *bufio.Reader
	log          strings.Builder
}

// addDevice begins to show a code.
func (h *Home) addDevice() *adding {
	h.t.Helper()
	a := &adding{cmd: h.Command("device", "add", "--json")}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	a.cmd.Stderr = &a.log
	if err := a.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { a.cmd.Process.Kill(); a.cmd.Wait() })
	a.out = bufio.NewReader(out)
	line, err := a.out.ReadString('\n')
	if err != nil {
		a.cmd.Wait()
		h.t.Fatalf("device add: %v: %s", err, a.log.String())
	}
	if err := json.Unmarshal([]byte(line), a); err != nil {
		h.t.Fatalf("%v in %q", err, line)
	}
	return a
}

// wait waits for its end and gives what it printed beside the code, and the exit code.
func (a *adding) wait() (string, int) {
	rest, _ := io.ReadAll(a.out)
	a.cmd.Wait()
	return string(rest), a.cmd.ProcessState.ExitCode()
}

// wrongCode is another code with the same tag.
func wrongCode(code string) string {
	last := code[len(code)-1]
	return code[:len(code)-1] + string('0'+(last-'0'+1)%10)
}

// address is one of a home's own, on loopback.
func (h *Home) address() string {
	h.t.Helper()
	for _, a := range h.SyncStatus().Listen {
		if strings.HasPrefix(a, "/ip4/127.0.0.1/tcp/") {
			return a
		}
	}
	h.t.Fatal("no address")
	return ""
}

// newSpace makes a space on one home and waits until the other shows what is in it.
func (s *sharing) newSpace(from, to *Home, name string) {
	s.t.Helper()
	from.Must("space", "create", name)
	s.write(from, name+"/a", "by "+name)
	s.reads(to, name+"/a", "by "+name)
	s.write(to, name+"/b", "back")
	s.reads(from, name+"/b", "back")
}

// TestPairByCode: a device that is let in by a code has and does all that one with the phrase does, but for what takes the phrase.
func TestPairByCode(t *testing.T) {
	s := newSharing(t, 2)
	laptop, friend := s.All[0], s.All[1]
	laptop.Must("space", "create", "Work")
	s.write(laptop, "Work/plan", "plan")
	s.write(laptop, "Personal/note", "note")

	phone := NewHome(t)
	phone.Listen = "/ip4/127.0.0.1/tcp/0"
	a := laptop.addDevice()
	if r := phone.Run("login", "--pair", "--peer", laptop.address(), wrongCode(a.Code)); r.Code != 5 || !strings.Contains(r.Stderr, "2 times") {
		t.Fatalf("a wrong code: %d, %s", r.Code, r.Stderr)
	}
	if _, err := os.Stat(filepath.Join(phone.Dir, "keys.age")); err == nil {
		t.Error("a wrong code leaves keys")
	}
	login := phone.Command("login", "--pair", "--peer", laptop.address(), "--device-name", "phone", "-")
	login.Stdin = strings.NewReader(a.Code + "\n")
	if out, err := login.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s; the other says %s", err, out, a.log.String())
	}
	if text, code := a.wait(); code != 0 || !strings.Contains(text, `"phone"`) {
		t.Fatalf("device add ends with %d: %s %s", code, text, a.log.String())
	}
	if r := phone.Run("login", "--pair", "--peer", laptop.address(), a.Code); r.Code != 1 {
		t.Errorf("a second login: %d, %s", r.Code, r.Stderr)
	}
	if account(phone) != account(laptop) {
		t.Error("it is another account")
	}
	for _, args := range [][]string{{"account", "phrase"}, {"device", "add"}} {
		if r := phone.Run(args...); r.Code == 0 || !strings.Contains(r.Stderr, "paired by a code") {
			t.Errorf("%v: %d, %s", args, r.Code, r.Stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(phone.Dir, "account.age")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of the account's secret: %v", err)
	}
	phone.Mount("--no-discovery")
	s.reads(phone, "Work/plan", "plan")
	s.reads(phone, "Personal/note", "note")
	s.newSpace(phone, laptop, "By phone")
	s.newSpace(laptop, phone, "By laptop")

	// It shares, and joins; the other device of the account has what it joined.
	link := strings.TrimSpace(phone.Must("invite", "By phone"))
	s.join(phone, friend, "By phone", link, "Ours", "Friend")
	phone.Must("approve", "By phone", "Friend")
	s.reads(friend, "Ours/a", "by By phone")
	friend.Must("space", "create", "Theirs")
	s.write(friend, "Theirs/x", "x")
	link = strings.TrimSpace(friend.Must("invite", "Theirs"))
	s.join(friend, phone, "Theirs", link, "Joined", "Phone")
	friend.Must("approve", "Theirs", "Phone")
	s.reads(phone, "Joined/x", "x")
	s.reads(laptop, "Joined/x", "x")

	// A second paired device, by which the first is not known to have been paired.
	tablet := NewHome(t)
	tablet.Listen = "/ip4/127.0.0.1/tcp/0"
	a = laptop.addDevice()
	tablet.Must("login", "--pair", a.Ticket)
	a.wait()
	tablet.Mount("--no-discovery")
	s.reads(tablet, "By phone/b", "back")
	s.reads(tablet, "Joined/x", "x")
	for _, h := range []*Home{laptop, phone, tablet} {
		h.Must("verify")
	}
	phone.Remount()
	s.reads(phone, "Work/plan", "plan")
}

// TestPairGuesses: after three wrong codes the right one is of no use, and a new one is.
func TestPairGuesses(t *testing.T) {
	s := newSharing(t, 1)
	laptop := s.All[0]
	phone := NewHome(t)
	a := laptop.addDevice()
	for range 3 {
		if r := phone.Run("login", "--pair", "--peer", laptop.address(), wrongCode(a.Code)); r.Code != 5 {
			t.Fatalf("a wrong code: %d, %s", r.Code, r.Stderr)
		}
	}
	if text, code := a.wait(); code != 4 || text != "" {
		t.Errorf("device add ends with %d: %s", code, text)
	}
	if r := phone.Run("login", "--pair", "--peer", laptop.address(), a.Code); r.Code != 3 {
		t.Errorf("the right code, too late: %d, %s", r.Code, r.Stderr)
	}
	a = laptop.addDevice()
	phone.Must("login", "--pair", "--peer", laptop.address(), a.Code)
	if _, code := a.wait(); code != 0 {
		t.Error(code)
	}
}

// TestPairCancelled: a code that is taken back, one whose daemon is killed, and one that another shows already.
func TestPairCancelled(t *testing.T) {
	s := newSharing(t, 1)
	laptop := s.All[0]
	phone := NewHome(t)
	a := laptop.addDevice()
	if r := laptop.Run("device", "add"); r.Code != 6 {
		t.Errorf("a second code: %d, %s", r.Code, r.Stderr)
	}
	addr := laptop.address()
	a.cmd.Process.Signal(os.Interrupt)
	if _, code := a.wait(); code == 0 {
		t.Error("it ends well")
	}
	s.Eventually("the code is taken back", func() error {
		if r := phone.Run("login", "--pair", "--peer", addr, a.Code); r.Code != 3 {
			return fmt.Errorf("%d, %s", r.Code, r.Stderr)
		}
		return nil
	})
	a = laptop.addDevice()
	laptop.Kill()
	if _, code := a.wait(); code == 0 {
		t.Error("it ends well without a daemon")
	}
	if r := phone.Run("login", "--pair", "--peer", addr, a.Code); r.Code != 3 {
		t.Errorf("nobody is there: %d, %s", r.Code, r.Stderr)
	}
	laptop.Mount("--no-discovery")
	a = laptop.addDevice()
	phone.Must("login", "--pair", "--peer", laptop.address(), a.Code)
}

// TestPairOnLAN: the two find each other by mDNS from one network namespace to the other, and the wire has neither the code's secret part nor the
// account.
func TestPairOnLAN(t *testing.T) {
	NeedFUSE(t)
	l := NewLAN(t, 2)
	laptop, phone := NewHome(t), NewHome(t)
	laptop.Host, phone.Host = l.Hosts[0], l.Hosts[1]
	laptop.Listen = "/ip4/0.0.0.0/tcp/7327"
	phone.Listen = laptop.Listen
	laptop.Mount()
	if err := os.WriteFile(laptop.Personal("x"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	identity := account(laptop)
	frames, seen := make(chan []byte, 1<<16), 0
	l.Capture(func(f []byte) {
		select {
		case frames <- append([]byte(nil), f...):
		default:
		}
	})
	a := laptop.addDevice()
	began := time.Now()
	phone.Must("login", "--pair", a.Code)
	t.Logf("found and paired within %v", time.Since(began))
	if _, code := a.wait(); code != 0 {
		t.Fatal(a.log.String())
	}
	l.Capture(nil)
	secret := a.Code[4:]
	for len(frames) > 0 {
		f := string(<-frames)
		seen++
		for _, s := range []string{secret, strings.ReplaceAll(secret, "-", ""), identity} {
			if strings.Contains(f, s) {
				t.Errorf("the wire has %q", s)
			}
		}
	}
	if seen < 10 {
		t.Errorf("%d frames were seen", seen)
	}
	phone.Mount()
	(&Devices{t: t}).Eventually("the phone has the file", func() error {
		_, err := os.Stat(phone.Personal("x"))
		return err
	})
}
