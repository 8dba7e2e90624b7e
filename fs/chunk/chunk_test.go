package chunk

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write testdata anew")

// testTable is the gear table of the vectors: the output of BLAKE3 over a label, as little-endian numbers.
func testTable(label string) (t [256]uint64) {
	h := blake3.New()
	h.WriteString(label)
	d := h.Digest()
	var b [8]byte
	for i := range t {
		d.Read(b[:])
		for j := range b {
			t[i] |= uint64(b[j]) << (8 * j)
		}
	}
	return t
}

// content is n bytes of BLAKE3 output over a label.
func content(label string, n int) []byte {
	h := blake3.New()
	h.WriteString(label)
	p := make([]byte, n)
	h.Digest().Read(p)
	return p
}

// cuts returns the ends of all chunks of p.
func cuts(c *Chunker, p []byte) (ends []int) {
	for at := 0; at < len(p); {
		n := c.Next(p[at:], true)
		at += n
		ends = append(ends, at)
	}
	return ends
}

// slowNext is Next by its definition: each position's hash is computed from its own 64 bytes.
func slowNext(t *[256]uint64, p []byte, final bool) int {
	for end := MinSize; end <= min(len(p), MaxSize); end++ {
		var h uint64
		for _, b := range p[end-window : end] {
			h = h<<1 + t[b]
		}
		if end <= AvgSize && h < strict || end > AvgSize && h < loose || end == MaxSize {
			return end
		}
	}
	if final {
		return len(p)
	}
	return 0
}

func TestNextIsItsDefinition(t *testing.T) {
	table := testTable("definition")
	c := New(table)
	size, firsts := 6<<20, []uint64{1, 0, 1 << 45}
	if testing.Short() {
		size, firsts = 1<<20, firsts[:1]
	}
	p := content("definition", size)
	for at := 0; at < len(p); {
		n := c.Next(p[at:], true)
		if want := slowNext(&table, p[at:], true); n != want {
			t.Fatalf("at %d: Next is %d, by the definition %d", at, n, want)
		}
		at += n
	}
	// Content without a boundary, and one that is all boundary.
	zeros := make([]byte, MaxSize+1)
	for i, first := range firsts {
		table[0] = first
		c = New(table)
		for _, n := range []int{0, 1, MinSize - 1, MinSize, MinSize + 1, AvgSize, AvgSize + 1, MaxSize - 1, MaxSize, MaxSize + 1} {
			for _, final := range []bool{false, true} {
				if got, want := c.Next(zeros[:n], final), slowNext(&table, zeros[:n], final); got != want {
					t.Fatalf("table %d, %d bytes, final %v: Next is %d, by the definition %d", i, n, final, got, want)
				}
			}
		}
	}
}

func TestNextBounds(t *testing.T) {
	c := New(testTable("bounds"))
	buf := content("bounds", MaxSize+64<<10)
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(0, len(buf)).Draw(t, "from")
		n := rapid.IntRange(0, len(buf)-from).Draw(t, "n")
		p, final := buf[from:from+n], rapid.Bool().Draw(t, "final")
		got := c.Next(p, final)
		switch {
		case got < 0 || got > len(p) || got > MaxSize:
			t.Fatalf("Next of %d bytes is %d", n, got)
		case got == 0 && (n >= MaxSize || final && n > 0):
			t.Fatalf("Next of %d bytes (final %v) asks for more", n, final)
		case got > 0 && got < MinSize && !(final && got == n):
			t.Fatalf("Next of %d bytes (final %v) is %d, too short", n, final, got)
		}
		if !final && got > 0 {
			// The answer for a part is the answer for the whole.
			if whole := c.Next(buf[from:], true); whole != got {
				t.Fatalf("Next of %d bytes is %d, of what follows too %d", n, got, whole)
			}
		}
	})
}

// TestResync inserts, deletes and puts in front, and wants the cut points behind the edit back after a few chunks.
func TestResync(t *testing.T) {
	c := New(testTable("resync"))
	base := content("resync", 24<<20)
	ends := cuts(c, base)
	rnd := rand.New(rand.NewPCG(1, 2))
	var moved, trials int
	for range 12 {
		at, gone, n := rnd.IntN(12<<20), rnd.IntN(3)*1000, rnd.IntN(100_000)
		edited := slices.Concat(base[:at], content("inserted", n), base[at+gone:])
		shift := n - gone
		got := cuts(c, edited)
		shared := 0
		for _, e := range ends {
			if e > at+gone {
				if _, ok := slices.BinarySearch(got, e+shift); ok {
					shared++
				} else {
					moved++
				}
			} else if _, ok := slices.BinarySearch(got, e); !ok && e <= at {
				t.Fatalf("edit at %d moved the earlier cut at %d", at, e)
			}
		}
		if shared < 4 {
			t.Fatalf("edit at %d (-%d +%d): only %d later cuts are left", at, gone, n, shared)
		}
		trials++
	}
	if moved > trials*4 {
		t.Fatalf("%d edits moved %d cuts behind them", trials, moved)
	}
}

func TestSizesAndKeys(t *testing.T) {
	p := content("sizes", 192<<20)
	a, b := cuts(New(testTable("space a")), p), cuts(New(testTable("space b")), p)
	if mean := len(p) / len(a); mean < 850<<10 || mean > 1300<<10 {
		t.Errorf("the mean chunk is %d bytes", mean)
	}
	both := 0
	for _, e := range a {
		if _, ok := slices.BinarySearch(b, e); ok {
			both++
		}
	}
	if both > 2 { // the end of the content is one of them
		t.Errorf("two spaces share %d of %d cut points", both, len(a))
	}
}

// vector is a content (BLAKE3 output over a label), the label of its table, and where it is cut.
type vector struct {
	Table, Content string
	Size           int
	Ends           []int
	First          string // the first 16 bytes of the content, in hex
}

func TestVectors(t *testing.T) {
	const file = "testdata/vectors.json"
	vectors := []vector{
		{Table: "anyfs chunk 1", Content: "a", Size: 16 << 20},
		{Table: "anyfs chunk 1", Content: "b", Size: 9<<20 + 12345},
		{Table: "anyfs chunk 2", Content: "a", Size: 16 << 20},
		{Table: "anyfs chunk 2", Content: "c", Size: 100},
	}
	for i := range vectors {
		v := &vectors[i]
		p := content(v.Content, v.Size)
		v.Ends, v.First = cuts(New(testTable(v.Table)), p), hex.EncodeToString(p[:16])
	}
	if *update {
		b, _ := json.MarshalIndent(vectors, "", "\t")
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []vector
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	if len(want) != len(vectors) {
		t.Fatalf("%d vectors, want %d", len(want), len(vectors))
	}
	for i := range want {
		if !slices.Equal(want[i].Ends, vectors[i].Ends) || want[i].First != vectors[i].First {
			t.Errorf("vector %d: cut at %v, want %v", i, vectors[i].Ends, want[i].Ends)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	c := New(testTable("bench"))
	p := content("bench", 64<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		for at := 0; at < len(p); {
			at += c.Next(p[at:], true)
		}
	}
}
