package spaces_test

import (
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/spaces"
	"github.com/anyfs/anyfs/sync/wire"
)

// What an owner said of a space goes with a backup, also of one that is gone.
func TestWordsAreRestored(t *testing.T) {
	set := func(dir string) *spaces.Set {
		t.Helper()
		s, err := spaces.Open(spaces.Options{Dir: dir})
		must(t, err)
		return s
	}
	from, to := set(t.TempDir()), t.TempDir()
	space, keys := dag.Sum([]byte("a space")), newKeys(t)
	from.Place(t.Context(), &wire.Place{Space: space, Counter: 3, Certificate: []byte("certificate")}, keys.Identity, dag.PublicKey(keys.Author().Device), true)
	restored := set(to)
	n := 0
	must(t, from.Words(func(id dag.ID, word []byte) error {
		n++
		return restored.RestoreWord(id, word)
	}))
	must(t, from.Close())
	if restored.RestoreWord(space, []byte("short")) == nil {
		t.Error("what is no word is taken")
	}
	must(t, restored.Close())
	restored = set(to)
	defer restored.Close()
	if w := restored.Placed(space); n != 1 || w == nil || w.On || w.Counter != 3 || !restored.Off(space) {
		t.Errorf("of %d words: %+v", n, w)
	}
}
