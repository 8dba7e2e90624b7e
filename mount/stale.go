package mount

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/fs"
)

const (
	marks       = 1 << 12
	crossWindow = 100 * time.Millisecond // an answer reaches the kernel long before
	repeatAfter = 200 * time.Millisecond
	maxRepeats  = 4096
)

// staleness finds answers that crossed an announcement: read from the tree before a change, believed by the kernel
// after the change was announced, and then for ever.
//
// A request notes the number of announcements when it begins. When it ends it leaves a mark with the time, and only
// then looks at the number: if there were any, its answer is given without validity. An announcement counts itself,
// tells the kernel, and only then looks for marks: where an answer about the same thing may still be on its way to
// the kernel it tells it again a little later. Marks are kept by hash, so that they may be found for nothing, never
// missed.
type staleness struct {
	f         *filesystem
	seed      maphash.Seed
	announced atomic.Uint64
	marks     [marks]atomic.Int64 // when the last answer about what hashes to it ended, unix nanoseconds

	mu      sync.Mutex
	repeats []repeat // in order of their time
	wake    chan struct{}
}

// repeat is something to tell the kernel again.
type repeat struct {
	due        time.Time
	id         uint64 // of the directory, or the inode
	name       string // "" for the inode itself
	attributes bool   // of the inode only, not its pages
}

func newStaleness(f *filesystem) *staleness {
	return &staleness{f: f, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1)}
}

// begin is called before the tree is asked.
func (s *staleness) begin() uint64 { return s.announced.Load() }

func (s *staleness) nameMark(dir fs.Ino, name string) *atomic.Int64 {
	return &s.marks[(maphash.String(s.seed, name)+uint64(dir)*0x9e3779b97f4a7c15)%marks]
}

func (s *staleness) inodeMark(handle fs.Ino) *atomic.Int64 {
	return &s.marks[uint64(handle)*0x9e3779b97f4a7c15>>32%marks]
}

// endLookup is called with the answer ready, and reports whether the kernel may keep it.
func (s *staleness) endLookup(seen uint64, dir fs.Ino, name string, handle fs.Ino) bool {
	now := time.Now().UnixNano()
	s.nameMark(dir, name).Store(now)
	if handle != 0 {
		s.inodeMark(handle).Store(now)
	}
	return s.announced.Load() == seen
}

// endList is the same for a listing, of which mark was called for each inode. The kernel keeps a listing in any
// case, so one that crossed is announced again, as is one of a view of history.
func (s *staleness) endList(seen uint64, dir fs.Ino, id uint64) bool {
	s.inodeMark(dir).Store(time.Now().UnixNano())
	ok := s.announced.Load() == seen
	switch {
	case !ok:
		s.again(repeat{due: time.Now().Add(repeatAfter), id: id})
	case isVirtual(dir):
		s.again(repeat{due: time.Now().Add(virtualSeconds * time.Second), id: id})
	}
	return ok
}

// crossed reports whether an answer that left a mark may still be on its way.
func crossed(mark *atomic.Int64) bool {
	return time.Now().UnixNano()-mark.Load() < int64(crossWindow)
}

// again has the kernel told once more. When too many wait, the oldest is dropped from the queue by telling it now,
// which is late enough: they came in one burst.
func (s *staleness) again(r repeat) {
	s.mu.Lock()
	full := len(s.repeats) >= maxRepeats
	var first repeat
	if full {
		first = s.repeats[0]
		s.repeats = append(s.repeats[:0], s.repeats[1:]...)
	}
	at := len(s.repeats)
	for at > 0 && s.repeats[at-1].due.After(r.due) {
		at--
	}
	s.repeats = append(s.repeats, repeat{})
	copy(s.repeats[at+1:], s.repeats[at:])
	s.repeats[at] = r
	s.mu.Unlock()
	if full {
		s.f.tell(first)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run tells the kernel what is due, until stop closes.
func (s *staleness) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		s.mu.Lock()
		wait := time.Hour
		var due []repeat
		now := time.Now()
		for len(s.repeats) > 0 && !s.repeats[0].due.After(now) {
			due = append(due, s.repeats[0])
			s.repeats = s.repeats[1:]
		}
		if len(s.repeats) > 0 {
			wait = s.repeats[0].due.Sub(now)
		} else {
			s.repeats = nil
		}
		s.mu.Unlock()
		for _, r := range due {
			s.f.tell(r)
		}
		if len(due) > 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-stop:
			return
		case <-timer.C:
		case <-s.wake:
		}
	}
}
