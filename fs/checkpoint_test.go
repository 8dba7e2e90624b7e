package fs

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag/kv"
)

// slowDB is a database of which a transaction waits to be let go on, and fails where it is told so.
type slowDB struct {
	kv.DB
	entered chan struct{}
	leave   chan error
}

func (d *slowDB) Update(fn func(kv.Tx) error) error {
	d.entered <- struct{}{}
	if err := <-d.leave; err != nil {
		return err
	}
	return d.DB.Update(fn)
}

// While a checkpoint is written others publish, and changes arrive and are taken in; a kill behind it, and one behind a checkpoint that
// failed, loses none of that.
func TestWorkDuringCheckpoint(t *testing.T) {
	for _, failed := range []error{nil, errors.New("the disk is full")} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("failed=%v killed=%v", failed != nil, killed), func(t *testing.T) {
				d := newDevices(t, 2)
				a, b := d.all[0], d.all[1]
				for i := range 20 {
					a.create(a.root, fmt.Sprint("old", i), []byte("old"))
				}
				d.settle()
				for i := range 5 {
					a.create(a.root, fmt.Sprint("arrived", i), []byte("came before"))
					b.must(b.Rename(b.root, fmt.Sprint("old", i), b.root, fmt.Sprint("moved", i), 0))
				}
				s := must2(b.namedSpace(PersonalName))
				b.must(s.publishAll(t.Context()))
				db := s.db
				slow := &slowDB{db, make(chan struct{}), make(chan error)}
				s.db = slow
				saved := make(chan error)
				go func() { saved <- s.checkpoint(context.Background(), true) }()
				<-slow.entered

				late := time.AfterFunc(20*time.Second, func() {
					t.Error("what came meanwhile waits for the checkpoint")
					slow.leave <- failed
				})
				b.create(b.root, "new", []byte("made meanwhile"))
				b.must(b.Unlink(b.root, "moved0"))
				b.must(b.Rename(b.root, "moved1", b.root, "moved-again", 0))
				b.must(s.publishAll(t.Context()))
				b.create(b.root, "later", []byte("not published"))
				a.must(a.Unlink(a.root, "old9"))
				d.send(a, b)
				if late.Stop() {
					slow.leave <- failed
				}
				if err := <-saved; !errors.Is(err, failed) {
					t.Fatalf("checkpoint: %v", err)
				}
				s.db = db
				if killed {
					b.kill()
				} else {
					b.reopen()
				}
				d.settle()
				want := []string{"arrived0", "arrived1", "arrived2", "arrived3", "arrived4", "later", "moved-again", "moved2", "moved3", "moved4", "new"}
				for i := range 20 {
					if i > 4 && i != 9 {
						want = append(want, fmt.Sprint("old", i))
					}
				}
				d.wantShown(a, want...)
				d.wantShown(b, want...)
				d.same()
			})
		}
	}
}
