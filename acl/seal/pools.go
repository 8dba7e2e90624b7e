package seal

import "sync"

// segmentRun is how many segments are read from a block at once.
const segmentRun = 16

// pools keep the buffers of a space that would be made anew for each call otherwise.
type pools struct {
	ad     sync.Pool // of *[]byte: associated data of changes
	cipher sync.Pool // of *cipherBuf
	one    sync.Pool // of *[]byte: one sealed segment, which most reads take
	run    sync.Pool // of *[]byte: segmentRun of them
}

// cipherBuf holds the small things of a block.
type cipherBuf struct {
	head  [blockHead]byte
	nonce [nonceBytes]byte // the segment's number
	ad    [8]byte          // how many there are
}

func newPools() *pools {
	bytes := func(n int) func() any { return func() any { b := make([]byte, n); return &b } }
	return &pools{
		ad:     sync.Pool{New: bytes(0)},
		cipher: sync.Pool{New: func() any { return new(cipherBuf) }},
		one:    sync.Pool{New: bytes(sealedSegment)},
		run:    sync.Pool{New: bytes(segmentRun * sealedSegment)},
	}
}

// segments is the pool of buffers in which n bytes of a run fit.
func (p *pools) segments(n int) *sync.Pool {
	if n <= sealedSegment {
		return &p.one
	}
	return &p.run
}
