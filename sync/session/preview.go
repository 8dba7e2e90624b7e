package session

import (
	"bytes"

	"github.com/anyfs/anyfs/sync/wire"
)

// maxPreviews bounds those of a peer between two ticks.
const maxPreviews = 16

// tellPreview tells a peer that pulls files of the preview that this device made, before any of them. mu is held.
func (s *Session) tellPreview() {
	if s.cfg.Preview == nil || s.closed || !s.cfg.Reads() {
		return
	}
	if r := s.cfg.Preview(); len(r) > 0 && !bytes.Equal(r, s.preview) {
		s.preview = r
		s.out = append(s.out, &wire.Preview{Record: r})
	}
}

// hearPreview takes the peer's preview. One that is none, or not of the peer, breaks the protocol.
func (s *Session) hearPreview(m *wire.Preview) error {
	s.mu.Lock()
	s.previews++
	many := s.previews > maxPreviews
	s.mu.Unlock()
	if many {
		return fault("more than %d previews", maxPreviews)
	}
	if s.cfg.Hear == nil {
		return nil
	}
	if err := s.cfg.Hear(m.Record); err != nil {
		return fault("%v", err)
	}
	return nil
}
