package journal

import "testing"

// TestZerosAhead: where records are synced one by one, what is behind them in a file that was only reserved is written with zeros, some at
// a time; where much lies between two syncs, it is not; nor in a file that was written as a whole in an earlier use.
func TestZerosAhead(t *testing.T) {
	j := benchJournal(t)
	record := func(n int) {
		seq, _, err := j.Append(make([]byte, n))
		must(t, err)
		must(t, j.Sync(t.Context(), seq))
	}
	ahead := func() int64 { return j.cur.padded - j.cur.pos }
	record(100 << 10)
	if got := ahead(); got > pageBytes {
		t.Errorf("%d bytes of zeros ahead of the first records", got)
	}
	for range 40 {
		record(100)
	}
	if got := ahead(); got < aheadBytes/2 || got > aheadBytes+pageBytes {
		t.Errorf("%d bytes of zeros ahead of small records", got)
	}
	before := j.cur.padded
	for range 20 {
		record(100)
	}
	if j.cur.padded != before {
		t.Error("zeros were written though there were some")
	}
	for range 5 {
		record(200 << 10)
	}
	if got := ahead(); got > pageBytes {
		t.Errorf("%d bytes of zeros ahead of large records", got)
	}
	j.cur.slot.written = true
	for range 40 {
		record(100)
	}
	if got := ahead(); got > pageBytes {
		t.Errorf("%d bytes of zeros ahead in a file that was written before", got)
	}
}
