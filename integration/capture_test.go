package integration

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl"
)

// capture looks for what must not go over a network in the clear.
type capture struct {
	mu    sync.Mutex
	more  map[string]string // beside what is planted
	seen  map[string]int    // bytes, by kind of frame
	last  map[string][]byte // of each flow, the end of what came before: a mark may stand in two frames
	found []string
}

func (c *capture) also(what, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more == nil {
		c.more = map[string]string{}
	}
	c.more[what] = text
}

// see takes a frame.
func (c *capture) see(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := FrameKind(frame)
	c.seen[kind] += len(frame)
	flow, payload := framePayload(frame)
	text := append(c.last[flow], payload...)
	for _, b := range [][]byte{frame, text} {
		what := found(b)
		for name, mark := range c.more {
			if bytes.Contains(b, []byte(mark)) {
				what = name
			}
		}
		if what != "" {
			c.found = append(c.found, fmt.Sprintf("a frame of %s holds %s", kind, what))
			text = nil
			break
		}
	}
	c.last[flow] = bytes.Clone(text[max(0, len(text)-100):])
}

func (c *capture) result() (found []string, seen map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.found), maps.Clone(c.seen)
}

func has(part string) func(string) bool {
	return func(s string) bool { return strings.Contains(s, part) }
}

// framePayload gives what a frame of IPv4 carries of a stream or as a datagram, and which stream that is.
func framePayload(frame []byte) (flow string, payload []byte) {
	if len(frame) < 34 || frame[12] != 8 || frame[13] != 0 {
		return "", nil
	}
	at := 14 + int(frame[14]&15)*4
	if len(frame) < at+20 {
		return "", nil
	}
	flow = string(frame[26:34]) + string(frame[at:at+4])
	if frame[23] == unix.IPPROTO_TCP {
		at += int(frame[at+12]>>4) * 4
	} else {
		at += 8
	}
	return flow, frame[min(at, len(frame)):]
}

// TestOnTheWire plants names, attributes and contents, lets two devices exchange them, over TCP and over QUIC, found by mDNS, and looks
// for them in every byte that goes over the network; for the account too.
func TestOnTheWire(t *testing.T) {
	for _, x := range []struct {
		transport, listen string
		seen              []string // kinds of frames that have to be among those that are seen
	}{
		{"TCP", "/ip4/%s/tcp/7327", []string{"TCP", "mDNS"}},
		{"QUIC", "/ip4/%s/udp/7327/quic-v1", []string{"UDP", "mDNS"}},
	} {
		t.Run(x.transport, func(t *testing.T) {
			l := NewLAN(t, 2)
			c := &capture{seen: map[string]int{}, last: map[string][]byte{}}
			l.Capture(c.see)
			d := NewLANDevices(t, l, func(h *Host) string { return fmt.Sprintf(x.listen, h.Addr) })
			a, b := d.All[0], d.All[1]
			c.also("the account", a.Status().Account)
			c.also("a device's name", "device 1")
			key, err := acl.ParseIdentity(a.Status().Account)
			check(t, err)
			c.also("the account's key", string(key[:]))
			c.also("the phrase", a.Phrase)
			d.Connected()
			space := filepath.Join(a.Mnt, "PLANTEDspacename")
			check(t, os.Mkdir(space, 0o755))
			large := bytes.Repeat([]byte("PLANTEDlarge "), 150_000)
			for _, dir := range []string{space, a.Personal()} {
				in := filepath.Join(dir, "PLANTEDdirname")
				check(t, os.Mkdir(in, 0o755),
					os.WriteFile(in+"/PLANTEDfilename", []byte("PLANTEDcontent"), 0o644),
					os.WriteFile(in+"/large", large, 0o644),
					unix.Setxattr(in+"/PLANTEDfilename", "user.PLANTEDxattrname", []byte("PLANTEDxattrvalue"), 0),
					os.Symlink("PLANTEDtarget", in+"/link"))
			}
			d.WaitEqual()
			check(t,
				os.WriteFile(b.Personal("PLANTEDdirname", "PLANTEDfilename"), []byte("PLANTEDoverwritten"), 0o644),
				os.Rename(b.Personal("PLANTEDdirname", "large"), b.Personal("PLANTEDrenamed")))
			d.WaitEqual()
			if got, err := os.ReadFile(a.Personal("PLANTEDrenamed")); err != nil || !bytes.Equal(got, large) {
				t.Fatalf("what was planted did not come: %d bytes, %v", len(got), err)
			}
			for _, p := range a.SyncStatus().Peers {
				if quic := strings.Contains(p.Addr, "quic"); quic != (x.transport == "QUIC") {
					t.Errorf("they exchange over %s", p.Addr)
				}
			}
			found, seen := c.result()
			t.Logf("bytes by kind of frame: %v", seen)
			for _, kind := range x.seen {
				if seen[kind] < 200 || kind != "mDNS" && seen[kind] < 10_000 {
					t.Errorf("of %s only %d bytes were seen", kind, seen[kind])
				}
			}
			for _, f := range found {
				t.Error(f)
			}
			// And what is sent in the clear is found.
			l.Hosts[0].SendUDP(t, l.Hosts[1], "in the clear: PLANTEDcontent")
			l.Hosts[0].SendUDP(t, l.Hosts[1], "in the clear: "+a.Status().Account)
			d.Eventually("what is sent in the clear is found", func() error {
				if found, _ := c.result(); !slices.ContainsFunc(found, has("plantedcontent")) || !slices.ContainsFunc(found, has("the account")) {
					return fmt.Errorf("found: %q", found)
				}
				return nil
			})
		})
	}
}
