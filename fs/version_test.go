package fs

import (
	"errors"
	"testing"
	"time"
)

var testZone = time.FixedZone("test", 3600)

func TestParseVersionTime(t *testing.T) {
	for text, want := range map[string]string{
		"2026":                                "2026-12-31T23:59:59.999999999+01:00",
		"2024-02":                             "2024-02-29T23:59:59.999999999+01:00",
		"2026-01-31":                          "2026-01-31T23:59:59.999999999+01:00",
		"2026-01-31T12":                       "2026-01-31T12:59:59.999999999+01:00",
		"2026-01-31T12:05":                    "2026-01-31T12:05:59.999999999+01:00",
		"2026-01-31 12:05:07":                 "2026-01-31T12:05:07.999999999+01:00",
		"2026-01-31T12:05:07.1":               "2026-01-31T12:05:07.199999999+01:00",
		"2026-01-31T12:05:07.123456789":       "2026-01-31T12:05:07.123456789+01:00",
		"2026-01-31T12:05:07.123Z":            "2026-01-31T12:05:07.123999999Z",
		"2026-01-31T12:05Z":                   "2026-01-31T12:05:59.999999999Z",
		"2026-01-31T12-08:00":                 "2026-01-31T12:59:59.999999999-08:00",
		"2026-01-31T12:05:07.123456789+02:30": "2026-01-31T12:05:07.123456789+02:30",
	} {
		w, err := time.Parse(time.RFC3339Nano, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseVersionTime(text, testZone)
		if err != nil || !got.Equal(w) {
			t.Errorf("%s is %s (%v), not %s", text, got.Format(time.RFC3339Nano), err, want)
		}
	}
	for _, text := range []string{
		"", "yesterday", "20", "2026-", "2026-1", "2026-13", "2026-02-30", "2026-01-31T", "2026-01-31T1", "2026-01-31T12:", "2026-01-31T25",
		"2026-01T12:00", "2026-01-31T12:00.5", "2026-01-31T12:00:00.", "2026-01-31T12:00:00.1234567890", "2026-01-31T12:00:00.1x", "2026-01-31Z",
	} {
		if got, err := ParseVersionTime(text, testZone); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is %s (%v)", text, got, err)
		}
	}
}

func TestMoment(t *testing.T) {
	const hour = int64(time.Hour)
	now := 1000 * hour
	for _, c := range []struct {
		times []int64
		at    int64
		want  int // changes that are in
	}{
		{[]int64{1, 2, 3}, 2, 2},
		{[]int64{1, 5, 3, 6}, 4, 1},               // the third was made with a clock set back
		{[]int64{1, 5, 3, 6}, 5, 3},               //
		{[]int64{1, 9000 * hour, 3, 6}, 4, 3},     // one claims to be from years ahead: it hides nothing
		{[]int64{1, now + hour, now - 1}, now, 1}, // an hour ahead it may well be
	} {
		m := moment{c.at, now}
		last, n := int64(-1), 0
		for _, x := range c.times {
			if !m.in(x, &last) {
				break
			}
			n++
		}
		if n != c.want {
			t.Errorf("of %v %d are in %d, not %d", c.times, n, c.at, c.want)
		}
	}
}
