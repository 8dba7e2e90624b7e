package hostile

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	config "github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/sync/wire"
)

type ctx = context.Context

// stranger is nobody's key.
var stranger = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x5a}, ed25519.SeedSize))

func strangerKey() dag.PublicKey { return dag.PublicKey(stranger.Public().(ed25519.PublicKey)) }

// speaks reports a message of a session after which anything may come: all that it asks or tells has been said.
func speaks(s *stream, m wire.Message) bool {
	if s.kind != wire.ProtocolSpace {
		return false
	}
	switch m.(type) {
	case *wire.Frames, *wire.Have, *wire.Heads:
		return true
	}
	return false
}

// flipped is a frame with one other bit.
func flipped(frame []byte, turn int) []byte {
	f := bytes.Clone(frame)
	f[(turn*7919+len(f)/2)%len(f)] ^= 1 << (turn % 8)
	return f
}

// signed is a frame that was changed, under the signature of key.
func signed(frame []byte, key ed25519.PrivateKey, change func(*dag.Batch)) []byte {
	b, bodies, err := dag.DecodeFrame(frame)
	if err != nil {
		panic("hostile: a genuine frame is none: " + err.Error())
	}
	change(b)
	copy(b.Signature[:], ed25519.Sign(key, b.SigningBytes()))
	return dag.EncodeFrame(b, bodies)
}

// asStranger says that a stranger wrote a batch.
func asStranger(frame []byte) []byte {
	return signed(frame, stranger, func(b *dag.Batch) { b.Account, b.Device = strangerKey(), strangerKey() })
}

// inNameOf is a batch with the signature of another.
func inNameOf(frame, other []byte) []byte {
	b, bodies, err := dag.DecodeFrame(frame)
	o, _, err2 := dag.DecodeFrame(other)
	if err != nil || err2 != nil {
		panic("hostile: a genuine frame is none")
	}
	b.Signature = o.Signature
	return dag.EncodeFrame(b, bodies)
}

// newer says that the node speaks a later version of the protocol, and is no attack.
func newer(n *node, s *stream, m wire.Message) []wire.Message {
	if h, ok := m.(*wire.Hello); ok {
		n.did(s, "later version")
		m = &wire.Hello{Version: h.Version + 6, Nonce: h.Nonce}
	}
	return []wire.Message{m}
}

// forge sends batches of the files that nobody signed, or somebody else: three at a time, as many as end a session.
func forge(n *node, s *stream, m wire.Message) []wire.Message {
	return n.forgeIn(s, m, wire.Files)
}

// forgeAccess does so with records of the access list, as if a stranger were let in.
func forgeAccess(n *node, s *stream, m wire.Message) []wire.Message {
	return n.forgeIn(s, m, wire.ACL)
}

func (n *node) forgeIn(s *stream, m wire.Message, g wire.Graph) []wire.Message {
	f := n.of(s.space)[g]
	if !speaks(s, m) || s.turns >= 2 || len(f) < 2 {
		return []wire.Message{m}
	}
	var foreign []byte
	for space, o := range n.frames {
		if space != s.space && len(o[g]) > 0 {
			foreign = o[g][len(o[g])-1]
		}
	}
	if n.turn%2 == 0 && foreign == nil {
		return []wire.Message{m}
	}
	last := f[len(f)-1]
	n.turn++
	s.turns++
	bad := &wire.Frames{Graph: g}
	add := func(what string, frame []byte) {
		bad.Frames = append(bad.Frames, frame)
		n.did(s, what)
	}
	if n.turn%2 == 0 {
		add("flipped", flipped(last, n.turn))
		add("signature of another batch", inNameOf(last, f[len(f)-2]))
	} else {
		add("of another space", foreign)
		add("signature of another batch", inNameOf(f[0], last))
	}
	add("by a stranger", asStranger(last))
	return []wire.Message{bad, m}
}

// disorder leaves out each second message of batches, and says of what was asked for that it is not here. In the place of what it would name it
// sends the newest batches that it has, the last first.
func disorder(n *node, s *stream, m wire.Message) []wire.Message {
	if s.kind != wire.ProtocolSpace {
		return []wire.Message{m}
	}
	switch m := m.(type) {
	case *wire.Frames:
		if s.turns++; s.turns%2 == 0 {
			return []wire.Message{m}
		}
		n.did(s, "left out")
		absent := &wire.Absent{Graph: m.Graph}
		for _, frame := range m.Frames {
			if b, _, err := dag.DecodeFrame(frame); err == nil && len(absent.IDs) < wire.MaxIDs {
				absent.IDs = append(absent.IDs, b.ID())
			}
		}
		return []wire.Message{absent}
	case *wire.Have:
		f := n.of(s.space)[m.Graph]
		if len(f) < 2 {
			break
		}
		if s.haves++; s.haves%2 == 0 {
			n.did(s, "left out")
			return nil
		}
		newest := slices.Clone(f[max(0, len(f)-8):])
		slices.Reverse(newest)
		n.did(s, "turned round")
		return []wire.Message{&wire.Frames{Graph: m.Graph, Frames: newest}}
	}
	return []wire.Message{m}
}

// falseBlock makes of the last bytes of a block, which was asked for, others.
func falseBlock(what string, lie func(n *node, id block.ID, data []byte) []byte) attack {
	return func(n *node, s *stream, m wire.Message) []wire.Message {
		p, ok := m.(*wire.Part)
		if !ok || p.Absent || p.Left > 0 || len(p.Data) < 2 {
			return []wire.Message{m}
		}
		q := *p
		q.Data = lie(n, s.asked[p.Request], p.Data)
		n.did(s, what)
		return []wire.Message{&q}
	}
}

func zeros(_ *node, _ block.ID, data []byte) []byte { return make([]byte, len(data)) }

func half(_ *node, _ block.ID, data []byte) []byte { return data[:len(data)/2] }

func another(n *node, id block.ID, data []byte) []byte {
	for other, b := range n.blocks {
		if other != id && len(b) <= wire.MaxPart {
			return b
		}
	}
	return flipped(data, 1)
}

// drip gives the blocks of a stream so slowly that they never end, and enough of them that the stream does not look dead.
func drip(n *node, s *stream, m wire.Message) []wire.Message {
	p, ok := m.(*wire.Part)
	if !ok || p.Absent {
		return []wire.Message{m}
	}
	if s.busy {
		return nil
	}
	s.busy = true
	n.did(s, "dripping")
	request := p.Request
	go func() { // ends with the stream
		for left := uint64(block.MaxSize / 2); left > 512; left -= 512 {
			if s.say(&wire.Part{Request: request, Left: left, Data: make([]byte, 512)}) != nil {
				return
			}
			time.Sleep(500 * time.Millisecond)
		}
	}()
	return nil
}

// flood goes on answering a question that it has answered, and never comes to the others.
func flood(n *node, s *stream, m wire.Message) []wire.Message {
	p, ok := m.(*wire.Part)
	if !ok || p.Absent {
		return []wire.Message{m}
	}
	if s.busy {
		return nil
	}
	if p.Left > 0 {
		return []wire.Message{m}
	}
	s.busy = true
	n.did(s, "flooding")
	request := p.Request
	go func() { // ends with the stream
		for s.say(&wire.Part{Request: request, Left: 1, Data: make([]byte, 64<<10)}) == nil {
			time.Sleep(10 * time.Millisecond)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.did(s, "flooded")
	}()
	return []wire.Message{p}
}

// shown is what a node that replays has shown of a space.
type shown struct {
	heads  [wire.Graphs]*wire.Heads
	word   *wire.Statement
	begins bool // from here on it shows only that
}

// replay shows what it first did, once it has signed more than that: its heads and its statement of then, and no batch that came later.
func replay(n *node, s *stream, m wire.Message) []wire.Message {
	if s.kind != wire.ProtocolSpace {
		return []wire.Message{m}
	}
	x := n.shown[s.space]
	if x == nil {
		x = new(shown)
		n.shown[s.space] = x
	}
	switch m := m.(type) {
	case *wire.Heads:
		if x.heads[m.Graph] == nil && m.Batches > 1 {
			x.heads[m.Graph] = m
		}
		if m.Graph == wire.Files && x.begins && x.heads[m.Graph] != nil {
			if m.Batches > x.heads[m.Graph].Batches {
				n.did(s, "old heads")
			}
			return []wire.Message{x.heads[m.Graph]}
		}
	case *wire.Statement:
		if x.word == nil && len(m.Files) > 0 {
			x.word = m
		}
		if x.begins {
			n.did(s, "old statement")
			return []wire.Message{x.word}
		}
		if x.word != nil && x.heads[wire.Files] != nil && m.Counter > x.word.Counter && len(n.of(s.space)[wire.Files]) > 1 {
			n.did(s, "signed more")
			x.begins = true
			go func() { // the next session begins with what is old
				time.Sleep(2 * time.Second)
				_ = s.Reset()
			}()
		}
	case *wire.Have:
		if x.begins {
			n.did(s, "kept back")
			return nil
		}
	}
	return []wire.Message{m}
}

// falseConfig tells of networks with epochs that are yet to come, of which the stranger is the operator.
func falseConfig(n *node, s *stream, m wire.Message) []wire.Message {
	c, ok := m.(*wire.Network)
	if !ok || s.kind != wire.ProtocolNode {
		return []wire.Message{m}
	}
	out := []wire.Message{m}
	for i, what := range []string{"configuration of a stranger's network", "configuration that a stranger signed", "configuration with another bit"} {
		x, err := config.Decode(c.Config)
		if err != nil {
			panic("hostile: the node's own configuration: " + err.Error())
		}
		id := x.ID
		x.Epoch += 1000
		x.Nodes[0].Addresses = []string{"/ip4/127.0.0.99/tcp/1"}
		if err := x.Sign(stranger); err != nil {
			panic("hostile: " + err.Error())
		}
		b := x.Encode()
		switch i {
		case 1:
			x.ID = id
			b = x.Encode()
		case 2:
			b = flipped(c.Config, len(c.Config)/2)
		}
		out = append(out, &wire.Network{Config: b})
		n.did(s, what)
	}
	if !s.busy {
		s.busy = true
		last := out[2]
		go func() { // and goes on so, until the stream ends
			for s.say(last) == nil {
				time.Sleep(time.Second)
			}
		}()
	}
	return out
}

// falseWord says in the name of devices what they did not sign.
func falseWord(n *node, s *stream, m wire.Message) []wire.Message {
	w, ok := m.(*wire.Statement)
	if !ok || s.turns > 0 {
		return []wire.Message{m}
	}
	f := n.of(s.space)[wire.Files]
	if len(f) == 0 {
		return []wire.Message{m}
	}
	b, _, err := dag.DecodeFrame(f[len(f)-1])
	if err != nil {
		panic("hostile: a genuine frame is none: " + err.Error())
	}
	s.turns++
	x := &wire.Statement{Device: b.Device, Counter: w.Counter + 1000, Files: wire.List[dag.ID]{dag.Sum(binary.BigEndian.AppendUint64(nil, w.Counter))}}
	copy(x.Signature[:], ed25519.Sign(stranger, x.Signature[:]))
	n.did(s, "a device's statement")
	return []wire.Message{m, x}
}
