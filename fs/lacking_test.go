package fs

import (
	"testing"
	"time"
)

// TestAbsentIsToldOnce counts the lines that reads of absent content give: one a minute, with the number of the others.
func TestAbsentIsToldOnce(t *testing.T) {
	var l lacking
	at := time.Unix(1e9, 0)
	for i, want := range []struct {
		after  time.Duration
		untold int
		yes    bool
	}{
		{0, 0, true}, {time.Second, 0, false}, {tellEach - 2*time.Second, 0, false}, {time.Second, 2, true}, {2 * tellEach, 0, true},
	} {
		at = at.Add(want.after)
		if n, yes := l.tell(at); n != want.untold || yes != want.yes {
			t.Errorf("read %d: %d, %v and not %d, %v", i, n, yes, want.untold, want.yes)
		}
	}
}
