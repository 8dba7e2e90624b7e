package session

import (
	"errors"
	"testing"

	"github.com/anyfs/anyfs/sync/wire"
)

// TestPreviewLimit: a peer that tells of previews without end, or of what is none, breaks the protocol.
func TestPreviewLimit(t *testing.T) {
	bad := errors.New("no preview")
	for _, c := range []struct {
		name string
		hear func([]byte) error
		ends int // with which message
	}{
		{"many", func([]byte) error { return nil }, maxPreviews + 1},
		{"none", func([]byte) error { return bad }, 1},
		{"not looked at", nil, maxPreviews + 1},
	} {
		s := &Session{cfg: Peer{Hear: c.hear}, sp: &Space{}}
		for n := 1; ; n++ {
			err := s.Receive(&wire.Preview{Record: []byte{1}})
			if err == nil && n < c.ends {
				continue
			}
			if n != c.ends || !errors.Is(err, ErrPeer) {
				t.Errorf("%s: message %d: %v", c.name, n, err)
			}
			break
		}
	}
}
