package fs

import (
	"bytes"
	mrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag/block"
)

// A file that was written with pauses, in which what was there had to be stored, has the chunks of one that was not. (How many chunks a
// byte more at its start moves is the chunker's matter, and tested there.)
func TestChunksAfterPauses(t *testing.T) {
	th := newTestHome(t)
	data := make([]byte, 48<<20)
	mrand.NewChaCha8([32]byte{7}).Read(data)
	write := func(name string, data []byte, pauses ...int) []block.ID {
		ino := th.create(th.root, name, nil)
		for off := 0; off < len(data); {
			n := min(256<<10, len(data)-off)
			th.write(ino, data[off:off+n], int64(off))
			off += n
			if len(pauses) > 0 && off >= pauses[0] {
				th.must(th.SyncAll(t.Context()))
				pauses = pauses[1:]
			}
		}
		th.flush()
		th.wantContent(th.root, name, data)
		return th.leaves("Personal/" + name)
	}
	other := func(a, b []block.ID) (n int) {
		for _, id := range a {
			if !slices.Contains(b, id) {
				n++
			}
		}
		return n
	}
	plain := write("plain", data)
	var pauses []int
	for at := 5 << 20; at < len(data); at += 11 << 20 {
		pauses = append(pauses, at+at/37)
	}
	if n := other(write("paused", data, pauses...), plain); n > 0 {
		t.Errorf("with %d pauses %d of %d chunks are others", len(pauses), n, len(plain))
	}
	longer := append([]byte{1}, data...)
	if n := other(write("longer paused", longer, 9<<20, 30<<20), write("longer", longer)); n > 0 {
		t.Errorf("with a byte more at the start and pauses %d chunks are others", n)
	}
	if !bytes.Equal(th.read(th.look(th.root, "plain")), data) {
		t.Error("other bytes")
	}
}
