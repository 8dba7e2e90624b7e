package seal

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// TestDiscoveryTagsAreBounded: of many epochs some are proved, and with them always the first one of the space and the one that is sealed in: so two that hold different sets of the
// others meet by the first. As long as there are few, all are.
func TestDiscoveryTagsAreBounded(t *testing.T) {
	id := dag.Sum([]byte("space"))
	of := func(from, to int, keys ...EpochKey) *Space {
		s := NewSpace(id)
		for i := from; i < to; i++ {
			var k EpochKey
			k.ID[0], k.Key[0] = 1, 1 // the ID of an epoch that somebody made to come first
			binary.BigEndian.PutUint32(k.ID[4:], uint32(i))
			binary.BigEndian.PutUint32(k.Key[4:], uint32(i))
			keys = append(keys, k)
		}
		s.AddAll(keys)
		return s
	}
	root := EpochKey{id, ReadKey{7}}
	now := EpochKey{dag.ID{0xff}, ReadKey{8}}
	text := []byte("transcript")
	alone := func(k EpochKey) [32]byte {
		s := NewSpace(id)
		s.Add(k.ID, k.Key)
		return s.DiscoveryTags(text)[0]
	}
	for _, s := range []*Space{of(0, 10, root, now), of(0, 5000, root, now), of(7000, 9000, now, root)} {
		if err := s.SetCurrent(now.ID); err != nil {
			t.Fatal(err)
		}
		tags := s.DiscoveryTags(text)
		if len(tags) != min(len(s.keys().epochs), MaxTags) {
			t.Errorf("%d tags of %d epochs", len(tags), len(s.keys().epochs))
		}
		if tags[0] != alone(root) || tags[1] != alone(now) {
			t.Error("the first epoch, or the one that is sealed in, is not proved first")
		}
		slices.SortFunc(tags, func(a, b [32]byte) int { return slices.Compare(a[:], b[:]) })
		if n := len(slices.Compact(tags)); n != min(len(s.keys().epochs), MaxTags) {
			t.Error("a tag comes twice")
		}
	}
	one, other := NewSpace(id), of(0, 5000, root, now)
	for i := 4999; i >= 0; i-- { // one by one, in another order
		var k EpochKey
		k.ID[0], k.Key[0] = 1, 1
		binary.BigEndian.PutUint32(k.ID[4:], uint32(i))
		binary.BigEndian.PutUint32(k.Key[4:], uint32(i))
		if i%50 == 0 || i < 100 {
			one.Add(k.ID, k.Key)
		}
	}
	one.Add(now.ID, now.Key)
	one.Add(root.ID, root.Key)
	for _, s := range []*Space{one, other} {
		if err := s.SetCurrent(now.ID); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(one.DiscoveryTags(text), other.DiscoveryTags(text)) {
		t.Error("who has the same lowest epochs proves others")
	}
}
