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
	repeatEvery = 50 * time.Millisecond // how often it is looked what is due
	maxRepeats  = 1 << 16               // then announcements wait
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
	repeats map[repeat]dues
	wake    chan struct{}
}

// repeat is something to tell the kernel again.
type repeat struct {
	id         uint64 // of the directory, or the inode
	name       string // "" for the inode itself
	attributes bool   // of the inode only, not its pages
}

// dues are when to tell it: at the first time, and at the last if that is another.
type dues struct{ first, last time.Time }

func newStaleness(f *filesystem) *staleness {
	return &staleness{f: f, seed: maphash.MakeSeed(), repeats: make(map[repeat]dues), wake: make(chan struct{}, 1)}
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

// endAttr is the same for attributes that the kernel takes for good whatever it was told meanwhile: those of a setattr or a link. Those of a getattr or
// a lookup of what it knows it lets go itself.
func (s *staleness) endAttr(seen uint64, handle fs.Ino) bool {
	s.inodeMark(handle).Store(time.Now().UnixNano())
	return s.announced.Load() == seen
}

// endList is the same for a listing, of which mark was called for each inode. The kernel keeps a listing in any
// case, so one that crossed is announced again, as is one of a view of history.
func (s *staleness) endList(seen uint64, dir fs.Ino, id uint64) bool {
	s.inodeMark(dir).Store(time.Now().UnixNano())
	ok := s.announced.Load() == seen
	switch {
	case !ok:
		s.again(repeat{id: id}, repeatAfter)
	case isVirtual(dir):
		s.again(repeat{id: id}, virtualSeconds*time.Second)
	}
	return ok
}

// crossed reports whether an answer that left a mark may still be on its way.
func crossed(mark *atomic.Int64) bool {
	return time.Now().UnixNano()-mark.Load() < int64(crossWindow)
}

// again has the kernel told once more after a while. It tells nothing itself, since requests call it.
func (s *staleness) again(r repeat, after time.Duration) {
	due := time.Now().Add(after)
	s.mu.Lock()
	d, ok := s.repeats[r]
	if !ok {
		d.first = due
	}
	d.last = due
	s.repeats[r] = d
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// throttle waits while there is too much to repeat. An announcement may wait, a request may not.
func (s *staleness) throttle(stop <-chan struct{}) {
	for {
		s.mu.Lock()
		n := len(s.repeats)
		s.mu.Unlock()
		if n < maxRepeats {
			return
		}
		select {
		case <-stop:
			return
		case <-time.After(repeatEvery):
		}
	}
}

// run tells the kernel what is due, until stop closes.
func (s *staleness) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-s.wake:
		}
		for left := true; left; {
			select {
			case <-stop:
				return
			case <-time.After(repeatEvery):
			}
			var due []repeat
			due, left = s.due(time.Now())
			for _, r := range due {
				s.f.tell(r)
			}
		}
	}
}

// due takes out what is due, and reports whether anything is left.
func (s *staleness) due(now time.Time) (due []repeat, left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r, d := range s.repeats {
		if d.first.After(now) {
			continue
		}
		due = append(due, r)
		if d.last.After(now) {
			s.repeats[r] = dues{d.last, d.last}
		} else {
			delete(s.repeats, r)
		}
	}
	return due, len(s.repeats) > 0
}
