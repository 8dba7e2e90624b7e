package exchange_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// rogue is a peer that has proved a space, by raw messages, and then does what the test says.
type rogue struct {
	t       testing.TB
	host    host.Host
	to      peer.ID
	hello   network.Stream
	account dag.PublicKey
	author  dag.Author
	asks    chan network.Stream // for blocks, from the device
}

var rogues atomic.Int32

func newRogue(t testing.TB, to *device, space string) *rogue {
	return newRogueOf(t, to, space, wire.Version)
}

// newRogueOf is one that says that it speaks a version.
func newRogueOf(t testing.TB, to *device, space string, version uint64) *rogue {
	seed := byte(100 + rogues.Add(1)*3)
	for list.PeerID(public(key('r', seed))) > to.e.Status().ID {
		seed++ // the lower ID is the one that begins
	}
	h, id, k := raw(t, seed, to)
	r := &rogue{t: t, host: h, to: id, asks: make(chan network.Stream, 1024)}
	h.SetStreamHandler(wire.ProtocolBlocks, func(s network.Stream) { r.asks <- s })
	account := key('A', seed)
	r.account = public(account)
	r.author = dag.Author{Key: k, Account: r.account, Device: public(k)}
	cert := &list.Certificate{Account: r.account, Device: public(k), HPKE: bytes.Repeat([]byte{1}, list.HPKEBytes), Serial: 1}
	cert.Sign(account)

	s := r.open(wire.ProtocolHello)
	r.hello = s
	in := wire.NewReader(s)
	nonce := [32]byte{1}
	r.send(s, &wire.Hello{Version: version, Nonce: nonce})
	m, err := in.Read()
	must(t, err)
	theirKey, err := list.ParsePeerID(id.String())
	must(t, err)
	mine := public(k)
	transcript := slices.Concat([]byte("anyfs/tags/1\x00"), mine[:], theirKey[:], nonce[:], func() []byte { n := m.(*wire.Hello).Nonce; return n[:] }())
	ts := &wire.Tags{Tags: make(wire.List[wire.Tag], wire.MinTags)}
	ts.Tags[3] = tags(space)(transcript)[0]
	digest := dag.Sum(slices.Concat(transcript, cert.Encode()))
	p := &wire.Proof{Certificate: cert.Encode()}
	copy(p.Signature[:], ed25519.Sign(k, append([]byte("anyfs/hello/1\x00"), digest[:]...)))
	r.send(s, ts, p)
	go func() { // ends with the host
		for {
			if _, err := in.Read(); err != nil {
				return
			}
		}
	}()
	eventually(t, func() bool {
		return slices.ContainsFunc(to.e.Status().Peers, func(p exchangePeer) bool { return p.ID == h.ID().String() })
	})
	return r
}

func (r *rogue) open(p string) network.Stream {
	s, err := r.host.NewStream(r.t.Context(), r.to, protocol.ID(p))
	must(r.t, err)
	return s
}

func (r *rogue) send(s io.Writer, ms ...wire.Message) error {
	var p []byte
	for _, m := range ms {
		p = wire.Append(p, m)
	}
	_, err := s.Write(p)
	return err
}

// session opens a stream about a space, and reads all that comes without keeping it.
func (r *rogue) session(space dag.ID) network.Stream {
	s := r.open(wire.ProtocolSpace)
	r.send(s, &wire.Open{Space: space})
	go io.Copy(io.Discard, s)
	return s
}

func (r *rogue) connected() bool { return r.host.Network().Connectedness(r.to) == network.Connected }

// frames are batches of a member that nobody has.
func frames(t testing.TB, a dag.Author, space string, n int) (out [][]byte) {
	g := newReplicaOf(t, a, space)
	for i := range n {
		b, err := g.Begin(a, nil, dag.ID{})
		must(t, err)
		_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return fmt.Append(nil, i), nil })
		must(t, err)
		_, err = b.Commit()
		must(t, err)
	}
	must(t, g.FramesSince(nil, func(_ dag.ID, f []byte) error { out = append(out, bytes.Clone(f)); return nil }))
	return out
}

// Whatever a member sends that no honest one does: it is left alone, that is logged once, and the others go on.
func TestHostileMember(t *testing.T) {
	sign := func(a dag.Author, frame []byte, change func(*dag.Batch)) []byte {
		b, bodies, err := dag.DecodeFrame(frame)
		must(t, err)
		change(b)
		copy(b.Signature[:], ed25519.Sign(a.Key, b.SigningBytes()))
		return dag.EncodeFrame(b, bodies)
	}
	each := func(fs [][]byte, fn func([]byte) []byte) *wire.Frames {
		m := &wire.Frames{Graph: wire.Files}
		for _, f := range fs {
			m.Frames = append(m.Frames, fn(f))
		}
		return m
	}
	for name, does := range map[string]func(r *rogue, s network.Stream, space dag.ID, fs [][]byte){
		"no message":           func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) { s.Write([]byte("GET / HTTP/1.1\r\n\r\n")) },
		"a message of 4 GB":    func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) { s.Write([]byte{0xff, 0xff, 0xff, 0xff, 0x82}) },
		"out of place":         func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) { r.send(s, &wire.Part{Request: 1}) },
		"a kind of no version": func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) { s.Write([]byte{0, 0, 0, 3, 0x81, 0x18, 0xf0}) },
		"an item too many":     func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) { s.Write([]byte{0, 0, 0, 4, 0x83, 9, 1, 0}) },
		"false bytes": func(r *rogue, s network.Stream, _ dag.ID, fs [][]byte) {
			r.send(s, each(fs, func(f []byte) []byte { f[len(f)-1] ^= 1; return f }))
		},
		"wrong signatures": func(r *rogue, s network.Stream, _ dag.ID, fs [][]byte) {
			r.send(s, each(fs, func(f []byte) []byte {
				b, bodies, err := dag.DecodeFrame(f)
				must(t, err)
				b.Signature[7] ^= 1
				return dag.EncodeFrame(b, bodies)
			}))
		},
		"absurd clocks": func(r *rogue, s network.Stream, _ dag.ID, fs [][]byte) {
			r.send(s, each(fs[:1], func(f []byte) []byte { return f }))
			r.send(s, each(fs, func(f []byte) []byte { return sign(r.author, f, func(b *dag.Batch) { b.Clock = 1 << 40 }) }))
		},
		"batches of another space": func(r *rogue, s network.Stream, _ dag.ID, fs [][]byte) {
			r.send(s, &wire.Frames{Graph: wire.Files, Frames: frames(t, r.author, "another", 3)})
		},
		"an answer to nothing": func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) { r.send(s, &wire.End{Graph: wire.Files}) },
		"a second proof": func(r *rogue, _ network.Stream, _ dag.ID, _ [][]byte) {
			r.send(r.hello, &wire.Proof{Certificate: []byte{1}})
		},
		"tags without end": func(r *rogue, _ network.Stream, _ dag.ID, _ [][]byte) {
			for range 5 {
				r.send(r.hello, &wire.Tags{Tags: distinct(wire.MaxTags)})
			}
		},
		"hello again": func(r *rogue, _ network.Stream, _ dag.ID, _ [][]byte) {
			r.send(r.hello, &wire.Hello{Version: wire.Version})
		},
		"an answer to a block question": func(r *rogue, _ network.Stream, space dag.ID, _ [][]byte) {
			r.send(r.open(wire.ProtocolBlocks), &wire.Open{Space: space}, &wire.Part{Request: 1, Data: []byte{1}})
		},
		"wants without end": func(r *rogue, s network.Stream, _ dag.ID, _ [][]byte) {
			for range 1000 {
				if r.send(s, &wire.Want{Graph: wire.Files, IDs: make(wire.List[dag.ID], wire.MaxIDs)}) != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newDevice(t, 1, 1)
			b := newDevice(t, 1, 2, a.addr("/tcp/"))
			ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
			a.e.Add(ra.Replica)
			b.e.Add(rb.Replica)
			eventually(t, func() bool { return len(a.e.Status().Peers) == 1 })
			r := newRogue(t, a, "one")
			s := r.session(ra.ID)
			does(r, s, ra.ID, frames(t, r.author, "one", 4))
			eventually(t, func() bool { return !r.connected() })
			if n := a.log.warnings.Load(); n != 1 {
				t.Errorf("%d warnings", n)
			}
			// It is not let in again, and that is not logged again.
			_, err := r.host.NewStream(t.Context(), r.to, wire.ProtocolHello)
			if err == nil {
				eventually(t, func() bool { return !r.connected() })
			}
			for i := range 20 {
				ra.write(t, ra.Files, fmt.Append(nil, i))
			}
			eventually(t, func() bool { return equal(ra, rb) })
			if n := a.log.warnings.Load(); n != 1 {
				t.Errorf("%d warnings in the end", n)
			}
			if n, size := ra.Files.Waiting(); size > 16<<20 {
				t.Errorf("%d batches of %d bytes wait", n, size)
			}
		})
	}
}

// Who speaks a later version too goes on in this one: it is served, and sees in the Hello which one that is. Who speaks none that is spoken here hears
// so, and is not banned.
func TestVersions(t *testing.T) {
	a := newDevice(t, 1, 1)
	ra := newReplica(t, a, "one")
	ra.write(t, ra.Files, []byte("content"))
	a.e.Add(ra.Replica)
	later := newRogueOf(t, a, "one", wire.Version+9)
	s := later.open(wire.ProtocolSpace)
	later.send(s, &wire.Open{Space: ra.ID})
	in := wire.NewReader(s)
	in.Limit = wire.MaxBody
	for {
		m, err := in.Read()
		must(t, err)
		if h, ok := m.(*wire.Heads); ok && h.Graph == wire.Files && h.Batches == 1 {
			break
		}
	}
	// Which of both ends greets goes by their IDs.
	for seed, greeted := byte(0), map[bool]bool{}; len(greeted) < 2; seed++ {
		h := rawHost(t, key('v', seed))
		greetings := make(chan network.Stream, 1)
		h.SetStreamHandler(wire.ProtocolHello, func(s network.Stream) { greetings <- s })
		info, err := peer.AddrInfoFromString(a.addr("/tcp/"))
		must(t, err)
		waits := h.ID() > info.ID
		if greeted[waits] {
			continue
		}
		greeted[waits] = true
		must(t, h.Connect(t.Context(), *info))
		var old network.Stream
		if waits {
			old = <-greetings
		} else {
			old, err = h.NewStream(t.Context(), info.ID, wire.ProtocolHello)
			must(t, err)
		}
		_, err = old.Write(wire.Append(nil, &wire.Hello{Version: wire.MinVersion - 1, Nonce: [32]byte{1}}))
		must(t, err)
		in = wire.NewReader(old)
		m, err := in.Read()
		must(t, err)
		if hello, ok := m.(*wire.Hello); !ok || hello.Version != wire.Version {
			t.Errorf("it says %+v", m)
		}
		m, err = in.Read()
		must(t, err)
		if bye, ok := m.(*wire.Bye); !ok || bye.Reason != wire.ByeVersion {
			t.Errorf("who speaks none is answered %+v", m)
		}
	}
	if n := a.log.warnings.Load(); n != 0 || !later.connected() {
		t.Errorf("%d warnings, %v", n, later.connected())
	}
}

func distinct(n int) wire.List[wire.Tag] {
	l := make(wire.List[wire.Tag], n)
	for i := range l {
		l[i] = wire.Tag(key('t', byte(i), byte(i>>8), byte(time.Now().UnixNano())).Seed())
	}
	return l
}

// floods are what a member may send, only not without end: memory stays bounded, and the others go on.
func TestFloods(t *testing.T) {
	for name, does := range map[string]func(r *rogue, space dag.ID, fs [][]byte){
		"batches without their past": func(r *rogue, space dag.ID, fs [][]byte) {
			s := r.session(space)
			for i := len(fs) - 1; i > 0 && r.send(s, &wire.Frames{Graph: wire.Files, Frames: fs[i : i+1]}) == nil; i-- {
			}
		},
		"told of what is not": func(r *rogue, space dag.ID, _ [][]byte) {
			s := r.session(space)
			for n := 0; n < 2000; n++ {
				m := &wire.Have{Graph: wire.Files}
				for i := range wire.MaxIDs {
					m.IDs = append(m.IDs, dag.ID{byte(n), byte(n >> 8), byte(i), byte(i >> 8), 1})
				}
				if r.send(s, m) != nil {
					return
				}
			}
		},
		"heads that are not": func(r *rogue, space dag.ID, _ [][]byte) {
			s := r.session(space)
			for n := 0; n < 20_000; n++ {
				if r.send(s, &wire.Heads{Graph: wire.ACL}, &wire.Heads{Graph: wire.Files, Heads: wire.List[dag.ID]{{byte(n), byte(n >> 8), 1}}}) != nil {
					return
				}
			}
		},
		"answers that are not read": func(r *rogue, space dag.ID, _ [][]byte) {
			var wg sync.WaitGroup
			for range 40 {
				s, err := r.host.NewStream(context.Background(), r.to, wire.ProtocolBlocks)
				if err != nil {
					return
				}
				wg.Go(func() {
					r.send(s, &wire.Open{Space: space})
					_ = s.SetWriteDeadline(time.Now().Add(3 * time.Second))
					for range 1000 {
						if r.send(s, &wire.HasBlocks{Request: 1, IDs: make(wire.List[block.ID], wire.MaxIDs)}) != nil {
							return
						}
					}
				})
			}
			wg.Wait()
		},
		"sessions": func(r *rogue, space dag.ID, _ [][]byte) {
			for range 300 {
				s, err := r.host.NewStream(context.Background(), r.to, wire.ProtocolSpace)
				if err != nil || r.send(s, &wire.Open{Space: space}) != nil {
					return
				}
			}
		},
		"access lists that are not read": func(r *rogue, space dag.ID, _ [][]byte) {
			for range 300 {
				s, err := r.host.NewStream(context.Background(), r.to, wire.ProtocolAccess)
				if err != nil || r.send(s, &wire.Ask{Space: space}) != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newDevice(t, 1, 1)
			b := newDevice(t, 1, 2, a.addr("/tcp/"))
			ra, rb := newReplica(t, a, "one"), newReplica(t, b, "one")
			a.e.Add(ra.Replica)
			b.e.Add(rb.Replica)
			eventually(t, func() bool { return len(a.e.Status().Peers) == 1 })
			r := newRogue(t, a, "one")
			fs := frames(t, r.author, "one", 2000)
			before := heap()
			over := make(chan struct{})
			go func() { defer close(over); does(r, ra.ID, fs) }()
			slowest := time.Duration(0)
			for i := 0; ; i++ {
				began := time.Now()
				ra.write(t, ra.Files, fmt.Append(nil, i))
				rb.write(t, rb.Files, fmt.Append(nil, i))
				eventually(t, func() bool { return equal(ra, rb) })
				slowest = max(slowest, time.Since(began))
				select {
				case <-over:
				default:
					if i < 2000 {
						continue
					}
					t.Error("the flood does not end")
				}
				break
			}
			if grown := int64(heap()) - int64(before); grown > 32<<20 {
				t.Errorf("%d MiB more are in use", grown>>20)
			} else {
				t.Logf("%d KiB more are in use; the slowest exchange beside it took %v", grown>>10, slowest)
			}
			if n := a.log.warnings.Load(); n > 1 {
				t.Errorf("%d warnings", n)
			}
		})
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Strangers who open as many streams as they can, and draw out what they say, keep nobody out.
func TestStrangersFlood(t *testing.T) {
	a := newDevice(t, 1, 1)
	ra := newReplica(t, a, "one")
	a.e.Add(ra.Replica)
	before := heap()
	var refused atomic.Int64
	var wg sync.WaitGroup
	seed := byte(0)
	for range 6 {
		for seed++; list.PeerID(public(key('r', seed))) > a.e.Status().ID; seed++ {
			// with the lower ID it is the one to begin, and is let be for some seconds
		}
		h, to, _ := raw(t, seed, a)
		for range 300 {
			wg.Go(func() {
				s, err := h.NewStream(t.Context(), to, wire.ProtocolSpace)
				if err != nil {
					refused.Add(1)
					return
				}
				_, _ = s.Write([]byte{0, 0, 0, 35}) // and no more
				_ = s.SetReadDeadline(time.Now().Add(8 * time.Second))
				if _, err := s.Read(make([]byte, 1)); err != nil && !errors.Is(err, context.DeadlineExceeded) && !isTimeout(err) {
					refused.Add(1)
				}
			})
		}
	}
	b := newDevice(t, 1, 2, a.addr("/tcp/"))
	rb := newReplica(t, b, "one")
	rb.write(t, rb.Files, []byte("x"))
	b.e.Add(rb.Replica)
	eventually(t, func() bool { return equal(ra, rb) })
	wg.Wait()
	if n := refused.Load(); n < 6*(300-64) {
		t.Errorf("%d of %d streams were refused", n, 6*300)
	}
	if grown := int64(heap()) - int64(before); grown > 64<<20 {
		t.Errorf("%d MiB more are in use", grown>>20)
	}
}

func isTimeout(err error) bool {
	var to interface{ Timeout() bool }
	return errors.As(err, &to) && to.Timeout()
}

// A handshake that is drawn out byte by byte ends.
func TestSlowHandshake(t *testing.T) {
	if testing.Short() {
		t.Skip("20 s")
	}
	t.Parallel()
	a := newDevice(t, 1, 1)
	ra := newReplica(t, a, "one")
	a.e.Add(ra.Replica)
	seed := byte(150)
	for list.PeerID(public(key('r', seed))) > a.e.Status().ID {
		seed++
	}
	h, to, _ := raw(t, seed, a)
	s, err := h.NewStream(t.Context(), to, wire.ProtocolHello)
	must(t, err)
	began := time.Now()
	p := wire.Append(nil, &wire.Hello{Version: wire.Version})
	for i := 0; i < len(p) && time.Since(began) < 40*time.Second; i++ {
		if _, err := s.Write(p[i : i+1]); err != nil || h.Network().Connectedness(to) != network.Connected {
			break
		}
		time.Sleep(time.Second)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it lasted %v", took)
	}
}

// Who is in one space, or is in it no more, gets nothing of another, and of the one no files.
func TestNoMember(t *testing.T) {
	a := newDevice(t, 1, 1)
	one, two := newReplica(t, a, "one"), newReplica(t, a, "two")
	one.Member = func(_, _ dag.PublicKey) bool { return false }
	secret := random(8, 1000)
	for _, r := range []*replica{one, two} {
		r.write(t, r.ACL, []byte("record"))
		r.write(t, r.Files, secret)
		_, err := r.Blocks.(*block.Store).Put(secret)
		must(t, err)
		a.e.Add(r.Replica)
	}
	r := newRogue(t, a, "one")
	all := []dag.ID{one.Files.Heads()[0], two.Files.Heads()[0], one.ACL.Heads()[0], two.ACL.Heads()[0]}
	for _, space := range []dag.ID{one.ID, two.ID} {
		for name, ms := range map[string][]wire.Message{
			wire.ProtocolSpace: {
				&wire.Open{Space: space}, &wire.Pull{Graph: wire.Files}, &wire.Want{Graph: wire.Files, Back: 100, IDs: all},
				&wire.Probe{Graph: wire.Files, Sums: make(wire.List[wire.Sum], 64)},
			},
			wire.ProtocolBlocks: {
				&wire.Open{Space: space}, &wire.GetBlock{Request: 1, ID: block.Sum(secret)},
				&wire.HasBlocks{Request: 2, IDs: wire.List[block.ID]{block.Sum(secret)}},
			},
			wire.ProtocolAccess: {&wire.Ask{Space: space}},
		} {
			s := r.open(name)
			must(t, r.send(s, ms...))
			_ = s.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			in := wire.NewReader(s)
			in.Limit = wire.MaxBody
			for {
				m, err := in.Read()
				if err != nil {
					break
				}
				leak := space == two.ID && name != wire.ProtocolAccess
				switch m := m.(type) {
				case *wire.Frames:
					leak = leak || m.Graph == wire.Files || space == two.ID
				case *wire.Part:
					leak = leak || !m.Absent
				case *wire.HeldBlocks:
					leak = leak || m.Bits[0] != 0
				case *wire.Answer:
					leak = leak || len(m.IDs) > 0
				}
				if leak {
					t.Errorf("%s of %v: %T %+v", name, space, m, m)
				}
			}
			_ = s.Reset()
		}
	}
	if n := a.log.warnings.Load(); n > 0 || !r.connected() {
		t.Errorf("%d warnings, connected: %v", n, r.connected())
	}
}
