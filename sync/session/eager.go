package session

// eager says whether a peer is sent what came from others, or is told of it and may ask. Who asks time and again has nobody who is faster, and is spared the way there and
// back from then on; who was sent what it had is told of it again, and has to ask for twice as many until it is sent any. (Leitão, Pereira, Rodrigues: Epidemic Broadcast Trees, 2007:
// what is here a count is one message there.)
//
// Who is sent them from the start may have several who do that: until it has asked for some, it is told of those that are long, and asks one of these for each.
type eager struct {
	on    bool
	early bool // it has not asked
	asked int  // batches, since the last that was sent in vain
	waste int  // how often that was, up to maxWaste
}

// After eagerAfter batches that a peer asked for it is sent them; twice as many each time that one was in vain, maxWaste times.
const (
	eagerAfter = 2
	maxWaste   = 10
	earlyBytes = 32 << 10 // of a frame
)

// sends says whether the peer is sent a frame of so many bytes.
func (e *eager) sends(bytes int) bool { return e.on && (!e.early || bytes <= earlyBytes) }

// wanted notes that the peer asked for some.
func (e *eager) wanted(n int) {
	if e.asked += n; e.asked >= eagerAfter<<e.waste {
		e.on, e.early = true, false
	}
}

// wasted notes that the peer had one that it was sent.
func (e *eager) wasted() {
	if e.on {
		e.waste = min(e.waste+1, maxWaste)
	}
	e.on, e.asked = false, 0
}
