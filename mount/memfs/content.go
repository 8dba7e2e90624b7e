package memfs

// chunkBytes is the grain of holes.
const chunkBytes = 64 << 10

// content is the bytes of a file. One chunk from offset 0 lies in head; where there is more, all lies in chunks, by
// number, and what is absent there is a hole. The size is the inode's.
type content struct {
	head   []byte
	chunks map[int64]*[chunkBytes]byte
}

// allocated returns the bytes held.
func (c *content) allocated() int64 { return int64(len(c.head)) + int64(len(c.chunks))*chunkBytes }

// free drops everything and returns how many bytes were held.
func (c *content) free() int64 {
	n := c.allocated()
	*c = content{}
	return n
}

// read fills p from off; holes and what lies beyond the content are zero.
func (c *content) read(p []byte, off int64) {
	if c.chunks == nil {
		n := 0
		if off < int64(len(c.head)) {
			n = copy(p, c.head[off:])
		}
		clear(p[n:])
		return
	}
	for len(p) > 0 {
		i, at := off/chunkBytes, off%chunkBytes
		n := min(len(p), int(chunkBytes-at))
		if ch := c.chunks[i]; ch != nil {
			copy(p[:n], ch[at:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// write stores p at off. It keeps nothing of p.
func (c *content) write(p []byte, off int64) {
	if c.chunks == nil && off <= int64(len(c.head)) && off+int64(len(p)) <= chunkBytes {
		if end := int(off) + len(p); end > len(c.head) {
			if end > cap(c.head) {
				c.head = append(make([]byte, 0, roomFor(end)), c.head...)
			}
			c.head = c.head[:end]
		}
		copy(c.head[off:], p)
		return
	}
	c.split()
	for len(p) > 0 {
		i, at := off/chunkBytes, off%chunkBytes
		ch := c.chunks[i]
		if ch == nil {
			ch = new([chunkBytes]byte)
			c.chunks[i] = ch
		}
		n := copy(ch[at:], p)
		p, off = p[n:], off+int64(n)
	}
}

// roomFor returns the capacity for a head of n bytes: small files are mostly written at once and never grow.
func roomFor(n int) int {
	if n <= 4096 {
		return n
	}
	room := 4096
	for room < n {
		room *= 2
	}
	return room
}

// split moves the head into the chunks.
func (c *content) split() {
	if c.chunks != nil {
		return
	}
	c.chunks = make(map[int64]*[chunkBytes]byte)
	if len(c.head) > 0 {
		ch := new([chunkBytes]byte)
		copy(ch[:], c.head)
		c.chunks[0] = ch
	}
	c.head = nil
}

// zero makes [off, end) read as zero, and holes of the whole chunks in it.
func (c *content) zero(off, end int64) {
	if c.chunks == nil {
		if off < int64(len(c.head)) {
			if end >= int64(len(c.head)) {
				tail := c.head[off:]
				clear(tail)
				c.head = c.head[:off]
			} else {
				clear(c.head[off:end])
			}
		}
		return
	}
	for i, ch := range c.chunks {
		from, to := max(off-i*chunkBytes, 0), min(end-i*chunkBytes, chunkBytes)
		switch {
		case from >= to:
		case to-from == chunkBytes:
			delete(c.chunks, i)
		default:
			clear(ch[from:to])
		}
	}
}

// data returns the first offset from off on that holds data, and whether there is one below size.
func (c *content) data(off, size int64) (int64, bool) {
	if c.chunks == nil {
		return off, off < int64(len(c.head))
	}
	if c.chunks[off/chunkBytes] != nil {
		return off, off < size
	}
	best := int64(-1)
	for i := range c.chunks {
		if i > off/chunkBytes && (best < 0 || i < best) {
			best = i
		}
	}
	return best * chunkBytes, best >= 0 && best*chunkBytes < size
}

// hole returns the first offset from off on that holds none; the end of the file counts as one.
func (c *content) hole(off, size int64) int64 {
	if c.chunks == nil {
		return min(max(off, int64(len(c.head))), size)
	}
	for off < size && c.chunks[off/chunkBytes] != nil {
		off = (off/chunkBytes + 1) * chunkBytes
	}
	return min(off, size)
}
