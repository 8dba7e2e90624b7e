// Package chunk finds the points at which a file's content is cut into chunks.
//
// The points follow the content (FastCDC with normalised chunking; Xia et al., USENIX ATC 2016): a byte inserted at the
// front of a large file moves the chunk it falls in, and the cut points behind it stay where the content has them. The
// gear table is keyed per space, so that the lengths of the chunks, which anyone can see, say nothing to who lacks the
// key: equal files in two spaces do not cut alike.
//
// A chunk ends behind the first byte, at least MinSize from its start, whose rolling hash over the last 64 bytes is
// below a limit: the strict one up to AvgSize, the loose one behind it; and at MaxSize if there is none. CHUNK.md gives
// it exactly. The package does no I/O and keeps nothing between calls.
package chunk

// Sizes of chunks in bytes. They are fixed by the format: other sizes cut equal content unequally, and what was shared
// between versions no longer is.
const (
	MinSize = 256 << 10
	AvgSize = 1 << 20
	MaxSize = 4 << 20
)

// A boundary has its highest 22 bits zero before AvgSize and its highest 18 behind it: two bits above and two below the
// 20 that give 1 MiB on average (normalisation level 2), which gathers the sizes around AvgSize.
const (
	strict = 1 << (64 - 22)
	loose  = 1 << (64 - 18)
	window = 64 // a byte is shifted out of the 64-bit hash after as many
)

// Chunker cuts content with the gear table of one space. It is safe for concurrent use.
type Chunker struct {
	table [256]uint64
}

// New returns a chunker over a space's gear table: 256 numbers that look random to who lacks the space's key.
func New(table [256]uint64) *Chunker { return &Chunker{table: table} }

// Next returns the length of the first chunk in p, where p begins at a chunk's start and is long enough when it holds
// MaxSize bytes; what it holds beyond is not looked at. If no end is found in a shorter p the answer is 0, more is
// needed, unless final says that the content ends with p: then all of p is the last chunk. An empty p gives 0.
//
// An answer other than 0 is at least MinSize and at most MaxSize, except that the last chunk may be shorter; and it does
// not change when more content follows.
func (c *Chunker) Next(p []byte, final bool) int {
	whole := final
	if len(p) >= MaxSize {
		p, whole = p[:MaxSize], true
	}
	if len(p) >= MinSize {
		if n := c.boundary(p); n > 0 {
			return n
		}
	}
	if whole {
		return len(p)
	}
	return 0
}

// boundary returns the end of the chunk that begins p, or 0 if none of the positions from MinSize to len(p) ends it.
func (c *Chunker) boundary(p []byte) int {
	var h uint64
	// The hash of a position covers the 64 bytes before it whatever the chunk's start is, so that two contents that are
	// equal from somewhere on find the same boundaries from there on.
	for _, b := range p[MinSize-window : MinSize-1] {
		h = h<<1 + c.table[b]
	}
	at := min(len(p), AvgSize)
	n, h := scan(&c.table, p[MinSize-1:at], h, strict)
	if n > 0 {
		return MinSize - 1 + n
	}
	if at == len(p) {
		return 0
	}
	if n, _ = scan(&c.table, p[at:], h, loose); n > 0 {
		return at + n
	}
	return 0
}

// scan rolls the hash h over p and returns how many bytes it took until the hash fell below limit, or 0 if it never did,
// and the hash then.
func scan(table *[256]uint64, p []byte, h, limit uint64) (int, uint64) {
	n := 0
	for ; len(p)-n >= 8; n += 8 {
		q := (*[8]byte)(p[n:])
		if h = h<<1 + table[q[0]]; h < limit {
			return n + 1, h
		}
		if h = h<<1 + table[q[1]]; h < limit {
			return n + 2, h
		}
		if h = h<<1 + table[q[2]]; h < limit {
			return n + 3, h
		}
		if h = h<<1 + table[q[3]]; h < limit {
			return n + 4, h
		}
		if h = h<<1 + table[q[4]]; h < limit {
			return n + 5, h
		}
		if h = h<<1 + table[q[5]]; h < limit {
			return n + 6, h
		}
		if h = h<<1 + table[q[6]]; h < limit {
			return n + 7, h
		}
		if h = h<<1 + table[q[7]]; h < limit {
			return n + 8, h
		}
	}
	for ; n < len(p); n++ {
		if h = h<<1 + table[p[n]]; h < limit {
			return n + 1, h
		}
	}
	return 0, h
}
