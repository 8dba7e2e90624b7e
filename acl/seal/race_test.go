package seal

import (
	"bytes"
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

func TestConcurrentUse(t *testing.T) {
	s := NewSpaceRand(dag.ID{1}, new(counter))
	s.Add(dag.ID{1}, ReadKey{1})
	l := NewLocal([32]byte{1})
	var wg sync.WaitGroup
	for g := range byte(4) {
		wg.Go(func() {
			for i := range byte(50) {
				s.Add(dag.ID{g, i}, ReadKey{g, i})
				if err := s.SetCurrent(dag.ID{g, i}); err != nil {
					t.Error(err)
				}
				plain := bytes.Repeat([]byte{i}, 1000*int(i))
				block, err := s.SealChunk(nil, plain)
				if err != nil {
					t.Error(err)
				}
				if got, err := s.OpenChunk(nil, block); err != nil || !bytes.Equal(got, plain) {
					t.Error(err)
				}
				p := make([]byte, 10)
				s.ReadChunk(bytes.NewReader(block), int64(len(block)), nil, p, 3)
				h := dag.Header{Space: dag.ID{1}, Object: dag.ID{i % 3}, Epoch: dag.ID{g, i}}
				payload, err := s.SealChange(h, plain)
				if err != nil {
					t.Error(err)
				}
				if got, err := s.OpenChange(h, payload); err != nil || !bytes.Equal(got, plain) {
					t.Error(err)
				}
				if got, err := l.OpenLocal(nil, l.SealLocal(nil, plain, nil), nil); err != nil || !bytes.Equal(got, plain) {
					t.Error(err)
				}
				s.NameHash(nil, "x")
			}
		})
	}
	wg.Wait()
}
