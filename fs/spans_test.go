package fs

import (
	"bytes"
	"context"
	mrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/fs/index"
)

// drawSpans draws a file of which some is to be stored.
func drawSpans(t *rapid.T, unit int64) *spans {
	p := &spans{n: &index.Inode{}}
	off := int64(0)
	for range rapid.IntRange(1, 30).Draw(t, "spans") {
		off += int64(rapid.IntRange(0, 2).Draw(t, "gap")) * rapid.Int64Range(0, unit).Draw(t, "gap bytes")
		q := span{off: off, n: rapid.Int64Range(1, 2*unit).Draw(t, "n"), leaf: anew}
		if rapid.Bool().Draw(t, "kept") {
			l := leaf{size: uint32(q.n + rapid.Int64Range(0, unit).Draw(t, "rest"))}
			q.leaf, q.skip = int32(len(p.leaves)), rapid.Int64Range(0, int64(l.size)-q.n).Draw(t, "skip")
			p.leaves = append(p.leaves, l)
		}
		p.list = append(p.list, q)
		off = q.end()
	}
	p.n.Size = off
	return p
}

// bytesOf says of each byte of a file where it is: 0 a hole, 1 to be stored, else the byte of a leaf.
func (p *spans) bytesOf(t *rapid.T) []int64 {
	out := make([]int64, p.n.Size)
	end := int64(0)
	for _, q := range p.list {
		if q.off < end || q.n <= 0 || q.end() > p.n.Size {
			t.Fatalf("span %+v behind %d of %d", q, end, p.n.Size)
		}
		end = q.end()
		for i := range q.n {
			if out[q.off+i] = 1; q.leaf != anew {
				out[q.off+i] = int64(q.leaf+1)<<40 + q.skip + i
			}
		}
	}
	return out
}

// TestSpansKeepTheirBytes: whatever is rounded, joined or mended, what stays in a block is what was there, no data become a hole, and what
// was to be stored is.
func TestSpansKeepTheirBytes(t *testing.T) {
	for name, do := range map[string]func(*spans){
		"round": (*spans).round,
		"join":  (*spans).join,
		"mend":  func(p *spans) { p.mend(5) },
		"all":   func(p *spans) { p.round(); p.join(); p.mend(5) },
	} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				p := drawSpans(t, rapid.SampledFrom([]int64{20, 3000, 9000}).Draw(t, "unit"))
				was, before := p.bytesOf(t), slices.Clone(p.list)
				do(p)
				for i, now := range p.bytesOf(t) {
					if now != was[i] && (now != 1 || name == "round" && was[i] == 0) {
						t.Fatalf("byte %d was %x and is %x: %+v became %+v", i, was[i], now, before, p.list)
					}
				}
			})
		})
	}
}

// TestMend: windows with many parts are stored anew, the others stay.
func TestMend(t *testing.T) {
	p := &spans{n: &index.Inode{Size: 8 << 20}}
	for w := range int64(8) {
		n := int64(4) // parts of this window
		if w%2 == 0 {
			n = 64
		}
		for i := range n {
			p.list = append(p.list, span{off: w<<20 + i<<10, n: 512, leaf: int32(len(p.leaves))})
			p.leaves = append(p.leaves, leaf{size: 512})
		}
	}
	p.mend(4*4 + 64 + 3)
	kept, stored := 0, 0
	for _, q := range p.list {
		if q.leaf == anew {
			stored++
		} else {
			kept++
		}
	}
	if kept != 4*4+64 || stored != 3 {
		t.Fatalf("%d parts were kept and %d runs are stored anew", kept, stored)
	}
}

// randomWrites writes pages of a file here and there and publishes them, and returns what that cost beside what was written.
func (th *testHome) randomWrites(ino Ino, data []byte, r *mrand.Rand, publications, pages int) (written, sealed int64) {
	s := th.spaceOf(ino)
	before, _ := s.blocks.Bytes()
	log := int64(s.log.Mark())
	for range publications {
		for range pages {
			p := random(r.Uint64(), pageBytes)
			off := r.IntN(len(data)/pageBytes) * pageBytes
			th.write(ino, p, int64(off))
			copy(data[off:], p)
			written += pageBytes
		}
		th.flush()
		th.tick(time.Minute)
	}
	after, _ := s.blocks.Bytes()
	return written, after - before + int64(s.log.Mark()) - log
}

// TestRandomWritesCostLittle: what is written here and there in a large file is sealed once, and not the chunks around it; the blocks
// of the file stay below twice its size, and what is kept of old ones costs no more than what was written.
func TestRandomWritesCostLittle(t *testing.T) {
	th := newTestHome(t)
	r := mrand.New(mrand.NewPCG(5, 6))
	data := random(1, 24<<20)
	ino := th.create(th.root, "f", data)
	th.flush()
	th.tick(time.Minute)
	written, sealed := th.randomWrites(ino, data, r, 4, 500)
	if sealed > written*11/10 {
		t.Errorf("the first %d bytes written cost %d", written, sealed)
	}
	th.wantContent(th.root, "f", data)
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		written, sealed = th.randomWrites(ino, data, r, 2, 1500)
		t.Logf("%.2f sealed for each byte written", float64(sealed)/float64(written))
		if sealed > written*22/10 {
			t.Errorf("%d bytes written cost %d", written, sealed)
		}
		th.prune(KeepPolicy{}, false)
		live, _ := th.spaceOf(ino).blocks.Bytes()
		if live > 2*int64(len(data))+2<<20 {
			t.Errorf("a file of %d bytes takes %d", len(data), live)
		}
	}
	th.wantContent(th.root, "f", data)
	th.verify()
	th.reopen()
	th.wantContent(th.root, "f", data)
}

// TestSmallBlocksBecomeFewer: many publications of a little each leave a file in few blocks.
func TestSmallBlocksBecomeFewer(t *testing.T) {
	th := newTestHome(t)
	r := mrand.New(mrand.NewPCG(9, 1))
	data := random(1, 16<<20)
	ino := th.create(th.root, "f", data)
	th.flush()
	m := &contentModel{th: th}
	leaves := func() int {
		x, err := th.spaceOf(ino).manifest(context.Background(), m.inode("f").Base)
		th.must(err)
		return len(x.leaves)
	}
	before := leaves()
	written, sealed := th.randomWrites(ino, data, r, 200, 4)
	if n := leaves(); n > before+maxSmall+5 {
		t.Errorf("%d blocks after 200 publications, %d before", n, before)
	}
	if sealed > 3*written {
		t.Errorf("%d bytes written cost %d", written, sealed)
	}
	t.Logf("%d blocks, %d before; %.2f sealed for each byte written", leaves(), before, float64(sealed)/float64(written))
	th.wantContent(th.root, "f", data)
}

// TestPartsAreRead reads a file in many parts at all sorts of offsets and lengths.
func TestPartsAreRead(t *testing.T) {
	th := newTestHome(t)
	r := mrand.New(mrand.NewPCG(7, 8))
	data := random(1, 3<<20)
	ino := th.create(th.root, "f", data)
	th.flush()
	th.randomWrites(ino, data, r, 3, 60)
	th.trunc(ino, 3<<20-5000)
	th.must(th.Fallocate(context.Background(), ino, FallocPunchHole|FallocKeepSize, 1<<20, 100_000))
	data = data[:3<<20-5000]
	clear(data[1<<20 : 1<<20+100_000])
	th.flush()
	m := &contentModel{th: th}
	if b := m.inode("f").Base; b.LayoutBlock.IsZero() {
		t.Fatal("the file is not in parts")
	}
	for range 500 {
		off := r.IntN(len(data))
		n := 1 + r.IntN([]int{10, 5000, 200_000, 2 << 20}[r.IntN(4)])
		p := bytes.Repeat([]byte{0xee}, n)
		k, err := th.Read(context.Background(), ino, p, int64(off))
		if want := data[off:min(len(data), off+n)]; err != nil || !bytes.Equal(p[:k], want) {
			t.Fatalf("read of %d at %d: %d bytes, %v (first difference at %d)", n, off, k, err, firstDiff(p[:k], want))
		}
	}
}

// TestMendLeavesWholeChunks: a file that is so large that its chunks alone are many is not stored anew for that.
func TestMendLeavesWholeChunks(t *testing.T) {
	p := &spans{n: &index.Inode{}}
	r := mrand.New(mrand.NewPCG(1, 2))
	for range maxParts + maxParts/4 {
		n := r.Int64N(2<<20-256<<10) + 256<<10
		p.list = append(p.list, span{off: p.n.Size, n: n, leaf: int32(len(p.leaves))})
		p.leaves = append(p.leaves, leaf{size: uint32(n)})
		p.n.Size += n
	}
	// And a window of small parts in it.
	last := &p.list[len(p.list)-1]
	at := (last.end() + windowBytes - 1) / windowBytes * windowBytes
	for i := range int64(200) {
		p.list = append(p.list, span{off: at + i*2000, n: 1000, leaf: int32(len(p.leaves))})
		p.leaves = append(p.leaves, leaf{size: 5000})
	}
	p.n.Size = at + 200*2000
	p.mend(maxParts / 4 * 3)
	stored := int64(0)
	for _, q := range p.list {
		if q.leaf == anew {
			stored += q.n
		}
	}
	if stored == 0 || stored > windowBytes {
		t.Fatalf("%d of %d bytes are stored anew", stored, p.n.Size)
	}
}
