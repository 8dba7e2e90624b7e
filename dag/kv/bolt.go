package kv

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// mapBytes of address space are reserved by OpenBolt, so that growing never has to wait for readers to end. Ours to tune.
	mapBytes = 64 << 30
	// growBytes is by how much the file grows; what is not used of it is a hole.
	growBytes = 1 << 20
	// lockWait is how long OpenBolt waits for another process that has the file open: a killed one may take a while to give up
	// what it had mapped.
	lockWait = 10 * time.Second
	// readsPerTrim is after how many reads the pages of the map are given back, and touchesPerLook after how many it is looked
	// whether the process has more than maxMapped bytes of files mapped, its binary among them: then they are given back too.
	// The system maps the 64 KiB around each page that is touched.
	readsPerTrim   = 10_000
	touchesPerLook = 512
	maxMapped      = 64 << 20
	// lookEvery is how often that is looked at while a transaction of a large database is committed: bbolt touches each page that
	// another takes the place of.
	lookEvery = 2 * time.Millisecond

	fillAppend = 0.95 // of a page, where keys come at the end of their bucket
	fillInsert = 0.7  // where they come anywhere: a split leaves room on both sides
)

// Bolt is a DB in one file.
type Bolt struct {
	db       *bbolt.DB
	path     string
	reserved int64 // bytes of address space that are reserved
	settled  bool  // the roots that were found are durable; changed by who has bbolt's writing transaction
	reads    atomic.Int64
	broken   atomic.Bool
	readers  readers
}

var _ DB = (*Bolt)(nil)

// OpenBolt opens or makes the file at path (mode 0600). Only one process may have it open: another gets ErrInUse
// after ten seconds. Where the file is new, the caller makes its name durable. A file that is no
// database, or whose both roots are damaged, gives ErrCorrupt.
func OpenBolt(path string) (*Bolt, error) {
	b, err := OpenBoltOf(path, mapBytes)
	if err != nil {
		return nil, err
	}
	if err := b.settle(); err != nil {
		return nil, fmt.Errorf("kv: open %s: %w", path, errors.Join(err, b.Close()))
	}
	return b, nil
}

// OpenBoltOf is OpenBolt for one of many files, which are opened mostly to be read: it reserves so many bytes in the address space (of 64 GiB, as
// OpenBolt takes, a process has 2,000; where the file grows beyond, that waits for readers to end), and takes no time of the disk. What is
// found counts as durable only once an Update has ended: until then a power loss may bring back an earlier state, and nothing may be removed
// that only this one does without.
func OpenBoltOf(path string, reserve int) (*Bolt, error) {
	size := reserve
	if uint64(^uint(0)) < 1<<40 {
		size = min(size, 256<<20)
	}
	var db *bbolt.DB
	var file *os.File
	err := guarded(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:         lockWait,
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: size,
			PageSize:        4096, // one format on every machine
			NoStatistics:    true,
			OpenFile: func(name string, flag int, perm os.FileMode) (f *os.File, err error) {
				file, err = os.OpenFile(name, flag, perm)
				return file, err
			},
		})
		return err
	})
	if err != nil && file != nil {
		giveUp(file)
	}
	if errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.Is(err, berrors.ErrVersionMismatch) {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	}
	if err != nil {
		return nil, fmt.Errorf("kv: open %s: %w", path, err)
	}
	if err := checkTop(path); err != nil {
		return nil, fmt.Errorf("kv: open %s: %w", path, errors.Join(err, db.Close()))
	}
	db.AllocSize = growBytes
	readAround(db.Info().Data, int64(size))
	return &Bolt{db: db, path: path, reserved: int64(size)}, nil
}

// Fresh reports whether nothing was ever written to it.
func (b *Bolt) Fresh() bool { return b.root() <= 1 }

// settle makes the roots that were found durable, once.
func (b *Bolt) settle() error {
	if b.settled {
		return nil
	}
	if err := settleRoots(b.path); err != nil {
		return fmt.Errorf("kv: make the roots of %s durable: %w", b.path, err)
	}
	b.settled = true
	return nil
}

// checkTop checks what bbolt can't be let read where it is damaged.
func checkTop(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return checkFile(f, st.Size(), true)
}

// settleRoots writes the two roots again as they were read, durably. The process before may have ended because the sync of a
// root failed: then the system shows it, and holds it for written, though the disk does not have it, and after a power loss
// what was done since would be gone. All that a root refers to was durable before it was written.
func settleRoots(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 2*pageSize)
	if _, err := f.ReadAt(b, 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

func (b *Bolt) View(fn func(Tx) error) error {
	before := b.reads.Load()
	err := b.view(fn)
	now := b.reads.Load()
	if now >= readsPerTrim || now/touchesPerLook != before/touchesPerLook && mapped() > maxMapped {
		b.Trim()
	}
	return closed(err)
}

func (b *Bolt) Update(fn func(Tx) error) error {
	if b.broken.Load() {
		return ErrBroken
	}
	err := b.update(fn)
	b.Trim()
	return closed(err)
}

func (b *Bolt) update(fn func(Tx) error) error {
	committing := 0 // the number of the new root
	err := b.commit(fn, &committing)
	// A commit that fails while it writes its root may be durable or not, and the next one would overwrite the last root
	// that is known to be good.
	if err != nil && committing != 0 && b.root() >= committing {
		b.broken.Store(true)
		err = fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return err
}

func (b *Bolt) commit(fn func(Tx) error, committing *int) (err error) {
	defer b.readers.hold()()
	defer b.keepTrimmed()()
	t := boltTx{faults: debug.SetPanicOnFault(true), inBolt: true}
	defer t.guard(&err)
	return b.db.Update(func(tx *bbolt.Tx) error {
		if b.broken.Load() {
			return ErrBroken
		}
		if err := b.settle(); err != nil {
			return err
		}
		if err := t.run(tx, fn); err != nil {
			return err
		}
		t.finish()
		*committing = tx.ID()
		return nil
	})
}

// keepTrimmed has the pages of the map given back while it takes too much, until stop is called, which waits for the goroutine. Where
// the map could move meanwhile it does nothing.
func (b *Bolt) keepTrimmed() (stop func()) {
	size := b.Size()
	if size < maxMapped/2 || size > b.reserved/2 || uint64(^uint(0)) < 1<<40 {
		return func() {}
	}
	data := b.db.Info().Data
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if mapped() > maxMapped {
				unmap(data, size)
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// root returns the number of the newest root that reads see; the highest number where none can be read.
func (b *Bolt) root() (id int) {
	err := guarded(func() error {
		return b.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil })
	})
	if err != nil {
		return math.MaxInt
	}
	return id
}

func (b *Bolt) Size() int64 {
	var n int64
	b.db.View(func(tx *bbolt.Tx) error { n = tx.Size(); return nil })
	return n
}

func (b *Bolt) Buckets() (names []string, err error) {
	err = guarded(func() error {
		return b.db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
				names = append(names, string(name))
				return nil
			})
		})
	})
	return names, closed(err)
}

// Check reads all pages and holds updates up meanwhile, about a second for each GB.
func (b *Bolt) Check() error {
	undo := errors.New("nothing to do")
	defer b.readers.hold()()
	err := guarded(func() error {
		return b.db.Update(func(tx *bbolt.Tx) error {
			f, err := os.Open(b.db.Path())
			if err != nil {
				return err
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				return err
			}
			if err := checkFile(f, st.Size(), false); err != nil {
				return err
			}
			return undo
		})
	})
	if err == undo {
		return nil
	}
	return closed(err)
}

func (b *Bolt) Close() error {
	b.readers.hold()
	return b.db.Close()
}

func closed(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return ErrClosed
	}
	return err
}
