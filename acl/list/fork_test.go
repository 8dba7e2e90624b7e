package list

import (
	"bytes"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/store"
)

// TestForks: a member that writes one record beside the other, from the list as it was, has whoever takes them in do no more for the
// thousandth than for the tenth; the state that they come to is made once, when it is asked for.
func TestForks(t *testing.T) {
	const forks, each = 1200, 150
	p := newParty(t, "wri:writer")
	base := exported(t, p.lists["owner"])
	var frames [][]byte
	for i := range forks {
		l := open(t, p.space, store.NewMem())
		for _, f := range base {
			if err := l.Import(f); err != nil {
				t.Fatal(err)
			}
		}
		r := rotate(p.space)
		r.RotateKey.Commitment[5], r.RotateKey.Commitment[6] = byte(i), byte(i>>8)
		if _, err := l.Append(p.who["wri"].author(), r); err != nil {
			t.Fatal(err)
		}
		all := exported(t, l)
		frames = append(frames, bytes.Clone(all[len(all)-1]))
	}
	l := p.lists["owner"]
	made := 0
	var first, last time.Duration
	for n := 0; n < forks; n += each {
		before := l.state
		began := time.Now()
		for _, f := range frames[n : n+each] {
			if err := l.Import(f); err != nil {
				t.Fatal(err)
			}
		}
		if last = time.Since(began); n == 0 {
			first = last
		}
		if n > 0 && l.state != before { // the very first one follows what was there
			made++
		}
	}
	t.Logf("%v for the first %d, %v for the last", first, each, last)
	if made > 0 {
		t.Error("a state is made that nobody asked for")
	}
	if es := l.State().Epochs(); len(es) != forks+1 {
		t.Errorf("%d epochs", len(es))
	}
	if got := atOnce(l).show(); got != l.State().show() {
		t.Error("the state is not that of the set")
	}
}
