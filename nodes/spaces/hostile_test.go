package spaces_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/exchange"
	"github.com/anyfs/anyfs/sync/wire"
)

// Of the account of 32 zeros, which is no account's but a point of order four, anybody can sign: a node, which has no account, must not take who
// says that he is of it for a device of its own.
func TestAccountOfZeros(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	k := newKeys(t)
	s := strangerAs(t, n, k, forged(t, k.Device.PublicKey()))
	if m, err := s.visit.Read(); err == nil {
		t.Errorf("it is answered %T", m)
	}
}

// forged is a certificate of the account of 32 zeros.
func forged(t testing.TB, device dag.PublicKey) *list.Certificate {
	c := &list.Certificate{Device: device, HPKE: bytes.Repeat([]byte{1}, list.HPKEBytes)}
	for c.Serial = 1; c.Serial < 1000; c.Serial++ {
		// R is the neutral element and s is 0: right where the hash is 0 modulo four.
		c.Signature = [64]byte{1}
		if c.Verify() == nil {
			return c
		}
	}
	t.Fatal("none verifies")
	return nil
}

// Whoever has a node's address can offer it access lists: they are in memory until they are judged, so that there may be one from a device, and
// not many long ones from all of them.
func TestOffersAreBounded(t *testing.T) {
	n := newNode(t, t.TempDir(), spaces.Options{})
	frame := &wire.Frames{Graph: wire.ACL, Frames: [][]byte{make([]byte, 1<<20)}}
	ended := make(chan error, 64)
	offer := func(s *stranger) {
		in, out := s.open(wire.ProtocolAccess)
		s.send(out, &wire.Open{Space: dag.Sum([]byte("any"))})
		go func() { // ends with the host
			_, err := in.Read()
			ended <- err
		}()
		var p []byte
		for range 60 {
			if _, err := out.Write(wire.Append(p[:0], frame)); err != nil {
				return
			}
		}
	}
	first := newStranger(t, n, newKeys(t))
	offer(first)
	_, out := first.open(wire.ProtocolAccess)
	first.send(out, &wire.Open{Space: dag.Sum([]byte("another"))})
	_ = out.(interface{ SetWriteDeadline(time.Time) error }).SetWriteDeadline(time.Now().Add(2 * time.Second))
	if _, err := out.Write(bytes.Repeat(wire.Append(nil, frame), 40)); err == nil {
		t.Error("a second list of one device is read")
	}
	for range 4 {
		offer(newStranger(t, n, newKeys(t)))
	}
	if err := <-ended; err == nil {
		t.Error("it is answered")
	}
	// A short one comes through all the same.
	d := newDevice(t, n)
	d.equal(t)
}

// silent is a node that takes blocks and never says so.
type silent struct {
	*spaces.Set
	end chan struct{}
}

func (s silent) Space(ctx context.Context, id dag.ID, account dag.PublicKey) *exchange.Replica {
	return s.of(s.Set.Space(ctx, id, account))
}

func (s silent) Take(ctx context.Context, id dag.ID, account dag.PublicKey, frames [][]byte) *exchange.Replica {
	return s.of(s.Set.Take(ctx, id, account, frames))
}

func (s silent) of(r *exchange.Replica) *exchange.Replica {
	if r != nil {
		r.Upload = func(dag.PublicKey, block.ID, []byte) error { <-s.end; return exchange.ErrRefused }
	}
	return r
}

// hasty is a clock on which minutes pass at once.
type hasty struct{}

func (hasty) Now() time.Time { return time.Now() }

func (hasty) After(d time.Duration) <-chan time.Time {
	if d > 2*time.Minute {
		d = 50 * time.Millisecond
	}
	return time.After(d)
}

// A node that takes blocks and does not answer holds up what other spaces and other nodes are given for a while, and not for good.
func TestUploadToSilentNode(t *testing.T) {
	set, err := spaces.Open(spaces.Options{Dir: t.TempDir()})
	must(t, err)
	t.Cleanup(func() { _ = set.Close() })
	n := &node{key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize)), set: set}
	end := make(chan struct{})
	n.e, err = exchange.New(exchange.Options{Key: n.key, Serve: silent{set, end}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Log: logTo(t, "node")})
	must(t, err)
	run(t, n.e)
	t.Cleanup(func() { close(end) })
	d := newDeviceAt(t, n, hasty{})
	d.equal(t)
	id, err := d.blocks.Put([]byte("content"))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := d.e.Upload(ctx, d.space.ID(), dag.PublicKey{}, []block.ID{id}); err == nil || ctx.Err() != nil {
		t.Errorf("it ends with %v", err)
	}
}

// A space that takes long to open keeps nobody from the others.
func TestOpeningKeepsNobodyWaiting(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, dir, spaces.Options{})
	a, b := newDevice(t, n), newDevice(t, n)
	a.equal(t)
	b.equal(t)
	a.stop()
	b.stop()
	n.stop()
	name := a.space.ID()
	x := hex.EncodeToString(name[:])
	index, err := os.OpenFile(filepath.Join(dir, "spaces", x[:2], x, "space.db"), os.O_RDWR, 0)
	must(t, err)
	defer index.Close()
	must(t, unix.Flock(int(index.Fd()), unix.LOCK_EX)) // it is waited for
	set, err := spaces.Open(spaces.Options{Dir: dir})
	must(t, err)
	slow := make(chan *exchange.Replica)
	go func() { slow <- set.Space(t.Context(), a.space.ID(), a.keys.Identity) }()
	time.Sleep(100 * time.Millisecond)
	if set.Space(t.Context(), b.space.ID(), b.keys.Identity) == nil {
		t.Error("the other is not served")
	}
	select {
	case <-slow:
		t.Error("it came only after the slow one, or the test shows nothing")
	default:
	}
	must(t, unix.Flock(int(index.Fd()), unix.LOCK_UN))
	if <-slow == nil {
		t.Error("the slow one is not served in the end")
	}
	must(t, set.Close())
}
