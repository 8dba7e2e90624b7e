// Package hostile makes a node of anyfs one that lies: it stands between the node's engine and its host, and changes what the node says.
//
// No build of the product links it. TestHostileNodes builds the command with one line of sync/exchange replaced (go build -overlay), so that the
// engine's host is Wrap of what it was. Such a node holds what it was given as any other does, proves itself by its own key, and takes part in
// everything; each message that goes out to a device passes an attack, which knows the messages that came in.
//
// ANYFS_HOSTILE names the attack and ANYFS_HOSTILE_LOG the file to which each thing that was really done is added, as a line: what, and to which
// peer.
package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/wire"
)

// attack changes a message that goes out over a stream, and gives what goes in its place. It is called with node.mu held.
type attack func(n *node, s *stream, m wire.Message) []wire.Message

var attacks = map[string]attack{
	"forge":  forge,
	"access": forgeAccess,
	"newer":  newer,
	"order":  disorder,
	"zeros":  falseBlock("zeros", zeros),
	"half":   falseBlock("half of a block", half),
	"other":  falseBlock("another block", another),
	"drip":   drip,
	"flood":  flood,
	"replay": replay,
	"config": falseConfig,
	"word":   falseWord,
}

// node is what the attacks of a process share.
type node struct {
	host.Host
	attack attack

	mu     sync.Mutex
	log    *os.File
	frames map[dag.ID]*[wire.Graphs][][]byte // genuine ones of each space, the newest last
	blocks map[block.ID][]byte               // genuine ones
	shown  map[dag.ID]*shown
	turn   int // of attacks that take turns
}

// keptFrames and keptBlocks bound what is remembered.
const keptFrames, keptBlocks = 256, 64

// Wrap gives the host of a node that lies as ANYFS_HOSTILE says; the host itself where that is not set.
func Wrap(h host.Host, err error) (host.Host, error) {
	name := os.Getenv("ANYFS_HOSTILE")
	if err != nil || name == "" {
		return h, err
	}
	a := attacks[name]
	if a == nil {
		return nil, fmt.Errorf("hostile: no attack %q", name)
	}
	log, err := os.OpenFile(os.Getenv("ANYFS_HOSTILE_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("hostile: %w", err)
	}
	return &node{Host: h, attack: a, log: log, frames: map[dag.ID]*[wire.Graphs][][]byte{}, blocks: map[block.ID][]byte{}, shown: map[dag.ID]*shown{}}, nil
}

// did notes that something was done to who is on the other side.
func (n *node) did(s *stream, what string) {
	fmt.Fprintf(n.log, "%s %s\n", what, s.Conn().RemotePeer())
}

// SetStreamHandler has what goes over the streams pass the attack.
func (n *node) SetStreamHandler(p protocol.ID, fn network.StreamHandler) {
	n.Host.SetStreamHandler(p, func(s network.Stream) { fn(n.wrap(s, p)) })
}

// NewStream opens a stream that passes the attack.
func (n *node) NewStream(ctx ctx, id peer.ID, ps ...protocol.ID) (network.Stream, error) {
	s, err := n.Host.NewStream(ctx, id, ps...)
	if err != nil {
		return nil, err
	}
	return n.wrap(s, ps[0]), nil
}

// wrap leaves what is libp2p's own alone.
func (n *node) wrap(s network.Stream, p protocol.ID) network.Stream {
	if !strings.HasPrefix(string(p), "/anyfs/") {
		return s
	}
	x := &stream{Stream: s, n: n, kind: string(p), asked: map[uint64]block.ID{}}
	x.in.take = func(m wire.Message) { n.hears(x, m) }
	x.out.take = func(m wire.Message) {
		n.mu.Lock()
		defer n.mu.Unlock()
		x.learn(m)
		for _, m := range n.attack(n, x, m) {
			x.ready = wire.Append(x.ready, m)
		}
	}
	return x
}

// stream is one that the attack sees. One goroutine reads, one at a time writes.
type stream struct {
	network.Stream
	n       *node
	kind    string // its protocol
	in, out parser
	ready   []byte

	mu    sync.Mutex // of writes: attacks go on by themselves
	space dag.ID     // node.mu guards it and what follows
	asked map[uint64]block.ID
	turns int
	haves int
	busy  bool
}

// Read is what came, seen.
func (s *stream) Read(p []byte) (int, error) {
	k, err := s.Stream.Read(p)
	s.in.add(p[:k])
	return k, err
}

// Write sends what the attack makes of the messages in p.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.add(p)
	out := s.ready
	s.ready = nil
	if len(out) > 0 {
		if _, err := s.Stream.Write(out); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// say sends messages beside what the node sends.
func (s *stream) say(ms ...wire.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p []byte
	for _, m := range ms {
		p = wire.Append(p, m)
	}
	_, err := s.Stream.Write(p)
	return err
}

// hears remembers what came.
func (n *node) hears(s *stream, m wire.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s.learn(m)
}

// learn takes from a message, in either direction, what attacks are made of.
func (s *stream) learn(m wire.Message) {
	n := s.n
	switch m := m.(type) {
	case *wire.Open:
		s.space = m.Space
	case *wire.GetBlock:
		s.asked[m.Request] = m.ID
	case *wire.Frames:
		f := n.of(s.space)
		for _, frame := range m.Frames {
			if _, _, err := dag.DecodeFrame(frame); err != nil {
				continue // a root that all compute
			}
			f[m.Graph] = append(f[m.Graph], bytes.Clone(frame))
		}
		f[m.Graph] = f[m.Graph][max(0, len(f[m.Graph])-keptFrames):]
	case *wire.Part:
		if id, ok := s.asked[m.Request]; ok && m.Left == 0 && block.Sum(m.Data) == id && len(n.blocks) < keptBlocks {
			n.blocks[id] = bytes.Clone(m.Data)
		}
	}
}

func (n *node) of(space dag.ID) *[wire.Graphs][][]byte {
	if n.frames[space] == nil {
		n.frames[space] = new([wire.Graphs][][]byte)
	}
	return n.frames[space]
}

// parser cuts what goes over a stream into messages.
type parser struct {
	buf  []byte
	take func(wire.Message)
}

func (p *parser) add(b []byte) {
	p.buf = append(p.buf, b...)
	for len(p.buf) >= 4 {
		k := 4 + int(binary.BigEndian.Uint32(p.buf))
		if len(p.buf) < k {
			return
		}
		m, err := wire.Decode(p.buf[4:k])
		if err != nil {
			panic(fmt.Sprintf("hostile: the node or its peer sends no message: %v", err))
		}
		p.take(m)
		p.buf = p.buf[:copy(p.buf, p.buf[k:])]
	}
}
