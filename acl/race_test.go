package acl

import (
	"sync"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// Everything at once: records are appended and brought in while others judge, seal and read.
func TestConcurrentUse(t *testing.T) {
	a := testAccount(t)
	k1, k2 := newKeys(t, a, "one"), newKeys(t, a, "two")
	s1 := derive(t, k1, LabelHome, store.NewMem())
	s2 := derive(t, k2, LabelHome, store.NewMem())
	var wg sync.WaitGroup
	const rounds = 10
	for _, s := range []*Space{s1, s2} {
		other := s1
		if s == s1 {
			other = s2
		}
		wg.Go(func() {
			for i := range uint64(rounds) {
				if err := s.SetOption("a", i); err != nil {
					t.Error(err)
				}
				if _, err := s.Rotate(nil); err != nil {
					t.Error(err)
				}
				if got, _ := s.Option("a"); s.Role() != RoleOwner || got > rounds {
					t.Error("what was appended does not show")
				}
			}
		})
		wg.Go(func() {
			for range rounds {
				s.Export(func(f []byte) error {
					_, err := other.List().Graph().Ingest(append([]byte(nil), f...))
					if err != nil {
						t.Error(err)
					}
					return nil
				})
			}
		})
		wg.Go(func() {
			files := s.Files()
			for range rounds * 10 {
				b := &dag.Batch{Account: s.k.Identity, Device: s.k.Device.PublicKey(), ACL: s.Heads(), Epoch: s.ID()}
				if err := files.Accept(b, nil); err != nil {
					t.Error(err)
				}
				s.Members()
				s.DeviceName(k1.Device.PublicKey())
				if _, err := s.Keys().SealChunk(nil, []byte("text")); err != nil {
					t.Error(err)
				}
				if s.Epoch().IsZero() {
					t.Error("no epoch")
				}
			}
		})
	}
	wg.Wait()
	for range 2 {
		bring(t, s1, s2)
		bring(t, s2, s1)
	}
	same(t, s1, s2)
	for _, s := range []*Space{s1, s2} {
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
	}
}
