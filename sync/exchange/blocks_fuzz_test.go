package exchange

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// FuzzAnswers feeds a question for a block with whatever decodes as an answer: it never holds more than a block, and says so when it is
// over.
func FuzzAnswers(f *testing.F) {
	f.Add(wire.Append(wire.Append(nil, &wire.Part{Request: 1, Data: []byte("ab"), Left: 2}), &wire.Part{Request: 1, Data: []byte("cd")}))
	f.Add(wire.Append(nil, &wire.Part{Request: 1, Absent: true}))
	f.Add(wire.Append(nil, &wire.HeldBlocks{Request: 1, Bits: []byte{1}}))
	f.Add(wire.Append(nil, &wire.Part{Request: 1, Data: []byte("ab"), Left: block.MaxSize}))
	f.Fuzz(func(t *testing.T, p []byte) {
		w := &blockWait{got: make(chan struct{}, 1), done: make(chan struct{})}
		for over := false; !over && len(p) >= 4; {
			n := min(int(binary.BigEndian.Uint32(p)), len(p)-4)
			m, err := wire.Decode(p[4 : 4+n])
			p = p[4+n:]
			if err != nil {
				continue
			}
			if over, err = w.take(m); err != nil && !errors.Is(err, session.ErrPeer) {
				t.Fatal(err)
			}
		}
		if len(w.data) > block.MaxSize || cap(w.data) > 4*len(w.data)+128<<10 {
			t.Errorf("%d bytes in %d", len(w.data), cap(w.data))
		}
	})
}
