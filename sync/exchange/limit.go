package exchange

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what goes over the streams of all peers together, in bytes per second; 0 is no limit.
type Limits struct {
	Up, Down int64
	LAN      bool // peers of the local network too, which are free otherwise
}

// MinLimit is the lowest limit: below it, a message could take longer than a peer waits for one.
const MinLimit = 10_000

const (
	maxWrite = 64 << 10 // bytes that are written with one deadline, also without a limit
	minPiece = 512
	maxPiece = 16 << 10
)

// SetLimits changes the limits from now on. Anything between 0 and MinLimit counts as MinLimit.
func (e *Engine) SetLimits(l Limits) {
	e.up.set(l.Up)
	e.down.set(l.Down)
	e.limitLAN.Store(l.LAN)
}

// bucket is a limit in one direction, which all streams share. Each takes a fiftieth of a second of it at a time, so that a small
// message waits for one such piece of each stream with a large one, and not for the large ones.
type bucket struct {
	quit <-chan struct{} // ends waiting
	now  atomic.Pointer[limit]
}

type limit struct {
	*rate.Limiter
	piece int
}

func (b *bucket) set(bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		b.now.Store(nil)
		return
	}
	r := max(bytesPerSecond, MinLimit)
	piece := int(min(max(r/50, minPiece), maxPiece))
	b.now.Store(&limit{rate.NewLimiter(rate.Limit(r), max(piece, int(r/10))), piece})
}

// most is how much of n bytes may go at once.
func (b *bucket) most(n int) int {
	if l := b.now.Load(); l != nil {
		return min(n, l.piece)
	}
	return n
}

// take waits until n bytes may go, or until nothing is to go any more.
func (b *bucket) take(n int) {
	l := b.now.Load()
	if l == nil {
		return
	}
	// A limit that was lowered meanwhile has a smaller bucket.
	for n > 0 {
		k := min(n, l.Burst())
		n -= k
		d := l.ReserveN(time.Now(), k).Delay()
		if d == 0 {
			continue
		}
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-b.quit:
			t.Stop()
			return
		}
	}
}
