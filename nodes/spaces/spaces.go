// Package spaces keeps spaces on a node's disk, without their keys.
//
// A space there is its access list, its graph of files and its blocks, in the same stores as on a device, all of it sealed or public. Who has
// no key judges batches as who has them does: by the access list. A space comes by its access list, which proves itself from the space's ID
// on, from an account that the list makes a member. Nothing is evicted: what a node has promised to keep is all that it holds.
package spaces

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/sync/exchange"
)

const (
	folder          = "spaces"
	dbName          = "space.db"
	indexBytes      = 256 << 20 // what is reserved for an index: many are open
	checkpointEvery = 2 * time.Second
	lateTicks       = 5           // of these, after which a space is written that is written to all the time
	fewDirty        = 256 << 10   // bytes that are to go into the index, with which it can wait so long
	manyDirty       = 128 << 20   // bytes of all spaces, with more than which none waits
	ageEvery        = time.Minute // what was not asked for since then, or as long again, goes from memory: thousands are open
	closeAfter      = time.Minute // what Options.CloseAfter is by itself
	flushBlocks     = 128         // that are not in the index: who opens a space reads the header of each, from a cold disk one by one
	closers         = 16          // spaces that are closed at once at the end, and written at once where the memory is wanted
	takes           = 4           // access lists of strangers that are judged at once: each is in memory
)

// Options say where spaces lie. Dir is required.
type Options struct {
	Dir string       // of the node; the spaces are in a folder of it
	Log *slog.Logger // nil: none

	// Has says whether a space is this node's by the network's configuration; nil: all are.
	Has func(space dag.ID) bool
	// Blocks says whether the content of a space is this node's; nil: all is.
	Blocks func(space dag.ID) bool
	// S3 is the bucket in which content is kept; nil: it is in segment files.
	S3 *s3blocks.Client
	// NoFiles: this node takes no changes of files, as it keeps content alone.
	NoFiles bool
	// CloseAfter is for how long nobody has used a space before it is closed; 0: a minute.
	CloseAfter time.Duration
	// Came is called when a space has come; quick. nil: it is not.
	Came func()
	// Admits says whether an account may bring spaces, and blocks; nil: all may.
	Admits func(account dag.PublicKey) bool
	// Quota says how many bytes the spaces of an owner may take together, and this one by itself; 0: no bound. nil: none is bounded.
	Quota func(owner dag.PublicKey, space dag.ID) (all, one int64)
	// Placed is called when an owner has said that a space is, or is not, to be here; quick. nil: it is not.
	Placed func()
}

// Set is the spaces of a node: all are on its disk, and those open that somebody uses, or did a moment ago. It is safe for concurrent use.
type Set struct {
	opt    Options
	disk   disk.FS
	taking chan struct{}
	use    usage

	finding chan struct{}
	found   atomic.Pointer[dag.ID] // where Find found a block last

	manyDirty int // manyDirty, but in tests

	placing sync.Mutex // guards words; no lock is taken under it
	words   map[dag.ID]placed

	opens sync.WaitGroup // spaces that are being opened

	mu      sync.Mutex          // guards what follows, and Space.uses and Space.used; not held across I/O
	known   map[dag.ID]struct{} // all that are here
	open    map[dag.ID]*Space
	opening map[dag.ID]chan struct{} // being opened, closed or removed; closed when that is through
	closed  bool
}

var _ exchange.Server = (*Set)(nil)

// Open opens the spaces of a node. They are read when they are asked for.
func Open(opt Options) (*Set, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.CloseAfter == 0 {
		opt.CloseAfter = closeAfter
	}
	d, err := disk.OS(opt.Dir)
	if err != nil {
		return nil, fmt.Errorf("spaces: open %s: %w", opt.Dir, err)
	}
	if err := d.MkdirAll(folder); err != nil {
		return nil, fmt.Errorf("spaces: open %s: %w", opt.Dir, err)
	}
	s := &Set{opt: opt, disk: d, manyDirty: manyDirty, taking: make(chan struct{}, takes), finding: make(chan struct{}, finders), open: make(map[dag.ID]*Space), opening: make(map[dag.ID]chan struct{})}
	if err := s.use.load(opt.Dir, opt.Log); err != nil {
		return nil, fmt.Errorf("spaces: open %s: %w", opt.Dir, err)
	}
	if err := s.loadPlaced(); err != nil {
		return nil, errors.Join(fmt.Errorf("spaces: open %s: %w", opt.Dir, err), s.use.db.Close())
	}
	ids, err := s.IDs()
	if err != nil {
		return nil, errors.Join(err, s.use.db.Close())
	}
	s.known = make(map[dag.ID]struct{}, len(ids))
	for _, id := range ids {
		s.known[id] = struct{}{}
	}
	return s, nil
}

// Held gives all spaces that are here, in order.
func (s *Set) Held() []dag.ID {
	s.mu.Lock()
	out := make([]dag.ID, 0, len(s.known))
	for id := range s.known {
		out = append(out, id)
	}
	s.mu.Unlock()
	slices.SortFunc(out, dag.ID.Compare)
	return out
}

// Run writes checkpoints, and closes spaces that nobody uses, until ctx ends.
func (s *Set) Run(ctx context.Context) error {
	tick := time.NewTicker(min(checkpointEvery, s.opt.CloseAfter))
	defer tick.Stop()
	aged := time.Now()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		old := time.Since(aged) >= ageEvery
		if old {
			aged = time.Now()
		}
		if old {
			for _, sp := range s.all() {
				sp.files.Age()
				sp.acl.Graph().Age()
				sp.blocks.Age()
			}
		}
		s.tick(ctx, n)
		s.closeIdle(ctx, time.Now().Add(-s.opt.CloseAfter))
		if err := s.use.save(); err != nil {
			s.opt.Log.Error("what spaces take is not written down", "err", err)
		}
	}
}

// tick writes the indexes that are due at the n-th tick.
func (s *Set) tick(ctx context.Context, n int) {
	all := s.all()
	bytes := 0
	for _, sp := range all {
		bytes += sp.dirty()
	}
	full, atOnce := bytes > s.manyDirty, 1
	if full {
		atOnce = closers
	}
	each(all, atOnce, func(sp *Space) {
		if err := sp.tick(ctx, n, full); err != nil && ctx.Err() == nil {
			s.opt.Log.Error("a checkpoint was not written", "space", sp.id.String(), "err", err)
		}
	})
}

// each calls fn for spaces, for so many at once: each waits for the disk.
func each(all []*Space, atOnce int, fn func(*Space)) {
	var wg sync.WaitGroup
	todo := make(chan *Space)
	for range min(atOnce, len(all)) {
		wg.Go(func() {
			for sp := range todo {
				fn(sp)
			}
		})
	}
	for _, sp := range all {
		todo <- sp
	}
	close(todo)
	wg.Wait()
}

// Close makes all durable and gives the spaces up. Nobody uses them any more.
func (s *Set) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.opens.Wait()
	var mu sync.Mutex
	var err error
	each(s.all(), closers, func(sp *Space) {
		if one := errors.Join(sp.checkpoint(context.Background()), sp.close()); one != nil {
			mu.Lock()
			err = errors.Join(err, one)
			mu.Unlock()
		}
	})
	return errors.Join(err, s.use.save(), s.use.db.Close())
}

func (s *Set) all() []*Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Space, 0, len(s.open))
	for _, sp := range s.open {
		out = append(out, sp)
	}
	slices.SortFunc(out, func(a, b *Space) int { return a.id.Compare(b.id) })
	return out
}

// IDs gives all spaces that are on the disk, in order.
func (s *Set) IDs() ([]dag.ID, error) {
	tops, err := s.disk.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("spaces: list: %w", err)
	}
	var out []dag.ID
	for _, top := range tops {
		names, err := s.disk.ReadDir(folder + "/" + top)
		if err != nil {
			return nil, fmt.Errorf("spaces: list: %w", err)
		}
		for _, n := range names {
			var id dag.ID
			if b, err := hex.DecodeString(n); err == nil && len(b) == len(id) {
				copy(id[:], b)
				out = append(out, id)
			}
		}
	}
	slices.SortFunc(out, dag.ID.Compare)
	return out, nil
}

func dirOf(id dag.ID) string {
	name := hex.EncodeToString(id[:])
	return folder + "/" + name[:2] + "/" + name
}

// Space implements exchange.Server.
func (s *Set) Space(_ context.Context, id dag.ID, account dag.PublicKey) *exchange.Replica {
	if !s.has(id) {
		return nil // it is handed over
	}
	sp, err := s.get(id, false)
	if err != nil {
		s.opt.Log.Error("a space cannot be served", "space", id.String(), "err", err)
	}
	if sp == nil {
		return nil
	}
	if !sp.member(account) || sp.retired.Load() {
		s.put(sp)
		return nil
	}
	return s.replica(sp)
}

// Invited implements exchange.Inviter.
func (s *Set) Invited(_ context.Context, id dag.ID, account, device, key dag.PublicKey) *exchange.Replica {
	if !s.has(id) || s.opt.Admits != nil && !s.opt.Admits(account) {
		return nil
	}
	sp, err := s.get(id, false)
	if err != nil {
		s.opt.Log.Error("a space cannot be served", "space", id.String(), "err", err)
	}
	if sp == nil {
		return nil
	}
	if !sp.invited(key, device) || sp.retired.Load() {
		s.put(sp)
		return nil
	}
	return s.replica(sp)
}

// Replica gives a space that is here, whoever is a member; nil where it is not. For other nodes.
func (s *Set) Replica(id dag.ID) *exchange.Replica {
	sp, err := s.get(id, false)
	if err != nil {
		s.opt.Log.Error("a space cannot be served", "space", id.String(), "err", err)
	}
	if sp == nil {
		return nil
	}
	if sp.acl.State() == nil || sp.retired.Load() {
		s.put(sp)
		return nil
	}
	return s.replica(sp)
}

// replica is a space as the exchange has it, which gives back what get took.
func (s *Set) replica(sp *Space) *exchange.Replica {
	r := sp.replica()
	r.Release = sync.OnceFunc(func() { s.put(sp) })
	return r
}

// Retire has a space given to nobody any more, so that Drop can remove it once those who use it have ended.
func (s *Set) Retire(id dag.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sp := s.open[id]; sp != nil {
		sp.retired.Store(true)
	}
}

// Drop removes a space that was retired. Where it fails the space is here still: somebody uses it, as a backup does for a moment, or the disk fails.
func (s *Set) Drop(id dag.ID) error {
	s.mu.Lock()
	sp := s.open[id]
	if s.closed || s.opening[id] != nil || sp != nil && sp.uses > 0 {
		s.mu.Unlock()
		return fmt.Errorf("spaces: drop %s: it is in use", id)
	}
	done := make(chan struct{})
	s.opening[id] = done
	s.opens.Add(1)
	delete(s.open, id)
	delete(s.known, id)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.opening, id)
		close(done)
		s.opens.Done()
		s.mu.Unlock()
	}()
	var err error
	if sp != nil {
		sp.ckpt.Lock()
		sp.gone = true
		err = sp.close()
		sp.ckpt.Unlock()
	}
	var far error
	if s.opt.S3 != nil {
		far = s.opt.S3.Remove(context.Background(), id)
	}
	if far == nil {
		// Of what is here the index goes first: without it there is no space, whatever a crash leaves of the rest.
		dir := dirOf(id)
		far = errors.Join(s.disk.RemoveAll(dir+"/"+dbName), s.disk.SyncDir(dir), s.disk.RemoveAll(dir))
	}
	err = errors.Join(err, far)
	if err != nil {
		s.mu.Lock()
		s.known[id] = struct{}{}
		s.mu.Unlock()
		return fmt.Errorf("spaces: drop %s: %w", id, err)
	}
	s.use.drop(id)
	return nil
}

// Take implements exchange.Server. The list is judged by itself first, whether the space is here or not: what an account that it does not make a
// member can learn, by the answer or by how long it takes, is nothing.
func (s *Set) Take(ctx context.Context, id dag.ID, account dag.PublicKey, frames [][]byte) *exchange.Replica {
	select {
	case s.taking <- struct{}{}:
		defer func() { <-s.taking }()
	case <-ctx.Done():
		return nil
	}
	if !s.has(id) || s.opt.Admits != nil && !s.opt.Admits(account) {
		return nil
	}
	return s.take(ctx, id, frames, true, func(role func(dag.PublicKey) list.Role) bool {
		return role(account) != list.RoleNone && (s.opt.Admits == nil || s.opt.Admits(account))
	})
}

// TakeCopy takes a space in by the frames of its access list that another node gave.
func (s *Set) TakeCopy(ctx context.Context, id dag.ID, frames [][]byte) *exchange.Replica {
	select {
	case s.taking <- struct{}{}:
		defer func() { <-s.taking }()
	case <-ctx.Done():
		return nil
	}
	if !s.has(id) {
		return nil
	}
	return s.take(ctx, id, frames, false, func(func(dag.PublicKey) list.Role) bool { return true })
}

// take merges an access list that proves itself, where its state lets it in. One that is new and comes from a device is bounded by the quota: other nodes
// have what was within it there.
func (s *Set) take(ctx context.Context, id dag.ID, frames [][]byte, bounded bool, in func(role func(dag.PublicKey) list.Role) bool) *exchange.Replica {
	l, err := list.Open(id, store.NewMem())
	for i := 0; i < len(frames) && err == nil; i++ {
		if err = l.Import(frames[i]); ctx.Err() != nil {
			return nil // who offers it has gone: others wait
		}
	}
	if err != nil || l.State() == nil || !in(l.State().Role) {
		s.opt.Log.Debug("a space is not taken", "err", err)
		return nil
	}
	if bounded && s.opt.Quota != nil && !s.knows(id) {
		owner, size := l.Payer(), int64(0)
		for _, f := range frames {
			size += int64(len(f))
		}
		if all, _ := s.opt.Quota(owner, id); s.use.crowded(owner, size, all) {
			s.opt.Log.Debug("a space more is not taken for a quota", "space", id.String())
			return nil
		}
	}
	sp, err := s.get(id, true)
	if sp != nil {
		defer s.put(sp)
	}
	for i := 0; i < len(frames) && err == nil; i++ {
		err = sp.acl.Import(frames[i])
	}
	if err == nil {
		err = sp.durable()
	}
	if err != nil {
		s.opt.Log.Error("a space is not taken in", "space", id.String(), "err", err)
		return nil
	}
	sp.grown()
	sp.settle()
	s.mu.Lock()
	_, known := s.known[id]
	s.known[id] = struct{}{}
	s.mu.Unlock()
	if !known && s.opt.Came != nil {
		s.opt.Came()
	}
	if st := sp.acl.State(); st == nil || !in(st.Role) || sp.retired.Load() {
		return nil // by what is known here
	}
	s.mu.Lock()
	sp.uses++ // the exchange's
	s.mu.Unlock()
	return s.replica(sp)
}

// knows reports whether a space is here, open or not.
func (s *Set) knows(id dag.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.known[id]
	return known
}

// get opens a space, until put gives it back; nil where it is not here and is not to be made. While one is opened, others are served.
func (s *Set) get(id dag.ID, create bool) (*Space, error) {
	for {
		s.mu.Lock()
		if sp := s.open[id]; sp != nil {
			sp.uses++
			s.mu.Unlock()
			return sp, nil
		}
		if s.closed {
			s.mu.Unlock()
			return nil, errors.New("spaces: closed")
		}
		if other := s.opening[id]; other != nil {
			s.mu.Unlock()
			<-other
			continue
		}
		done := make(chan struct{})
		s.opening[id] = done
		s.opens.Add(1)
		s.mu.Unlock()
		sp, err := s.openNow(id, create)
		s.mu.Lock()
		if sp != nil {
			sp.uses++
			s.open[id] = sp
		}
		delete(s.opening, id)
		close(done)
		s.opens.Done()
		s.mu.Unlock()
		return sp, err
	}
}

// put gives a space back that get gave.
func (s *Set) put(sp *Space) {
	s.mu.Lock()
	sp.uses--
	sp.used = time.Now()
	s.mu.Unlock()
}

// closeIdle closes the spaces that nobody has used since a time. What can't be made durable stays open, and is tried again.
func (s *Set) closeIdle(ctx context.Context, since time.Time) {
	for _, sp := range s.all() {
		s.mu.Lock()
		idle := s.open[sp.id] == sp && sp.uses == 0 && sp.used.Before(since) && !s.closed
		var done chan struct{}
		if idle {
			done = make(chan struct{})
			s.opening[sp.id] = done
			s.opens.Add(1)
			delete(s.open, sp.id)
		}
		s.mu.Unlock()
		if !idle {
			continue
		}
		err := sp.checkpoint(ctx)
		kept := err != nil
		if !kept {
			sp.ckpt.Lock()
			sp.gone = true
			err = sp.close()
			sp.ckpt.Unlock()
		}
		if err != nil && ctx.Err() == nil {
			s.opt.Log.Error("a space that nobody uses is not closed", "space", sp.id.String(), "err", err)
		}
		s.mu.Lock()
		if kept {
			s.open[sp.id] = sp
		}
		delete(s.opening, sp.id)
		close(done)
		s.opens.Done()
		s.mu.Unlock()
	}
}

func (s *Set) openNow(id dag.ID, create bool) (*Space, error) {
	if !create {
		names, err := s.disk.ReadDir(dirOf(id))
		if errors.Is(err, iofs.ErrNotExist) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, dbName) {
			return nil, nil // a crash came before anything was in it
		}
	}
	sp, err := s.openSpace(id)
	if err != nil {
		return nil, fmt.Errorf("spaces: open %s: %w", id, err)
	}
	return sp, nil
}

func (s *Set) openSpace(id dag.ID) (sp *Space, err error) {
	sp = &Space{id: id, opt: &s.opt, use: &s.use}
	defer func() {
		if err != nil {
			err = errors.Join(err, sp.close())
		}
	}()
	dir := dirOf(id)
	if err := s.disk.MkdirAll(dir); err != nil {
		return sp, err
	}
	path := filepath.Join(s.opt.Dir, filepath.FromSlash(dir), dbName)
	db, err := kv.OpenBoltOf(path, indexBytes)
	if errors.Is(err, kv.ErrCorrupt) {
		// Nothing is in it that does not follow from the segment files.
		s.opt.Log.Error("the index of a space is put aside and made again", "space", id.String(), "file", path+".damaged", "err", err)
		if err = os.Rename(path, path+".damaged"); err == nil {
			db, err = kv.OpenBoltOf(path, indexBytes)
		}
	}
	if err != nil {
		return sp, err
	}
	sp.db = db
	if db.Fresh() { // else a process has made its name durable before it wrote to it
		if err := s.disk.SyncDir(dir); err != nil {
			return sp, err
		}
	}
	if sp.aclLog, err = store.Open(store.Options{Disk: s.disk, Dir: dir + "/acl", DB: db, Name: "acl", Seal: store.Plain{}}); err != nil {
		return sp, err
	}
	if sp.acl, err = list.Open(id, sp.aclLog); err != nil {
		return sp, err
	}
	if sp.log, err = store.Open(store.Options{Disk: s.disk, Dir: dir + "/batches", DB: db, Name: "files", Seal: store.Plain{}}); err != nil {
		return sp, err
	}
	if sp.files, err = dag.Open(id, sp.log, sp.acl.Files(), dag.Options{Fits: sp.fits}); err != nil {
		return sp, err
	}
	b, err := s.openBlocks(id, dir+"/blocks", db)
	if err != nil {
		return sp, err
	}
	sp.blocks = b
	if err := sp.judgeOpened(); err != nil {
		return sp, err
	}
	sp.opened()
	db.Trim()
	return sp, nil
}

var errMoved = errors.New("to move a node's content from its disk to a bucket or back, have a new node join, and drain this one")

// openBlocks opens what the content of a space is kept in. It stays where it is.
func (s *Set) openBlocks(id dag.ID, dir string, db kv.DB) (blocks, error) {
	if s.opt.S3 == nil {
		far, err := s3blocks.Used(db)
		if err == nil && far {
			err = fmt.Errorf("its content is in a bucket; say which with --s3 (%w)", errMoved)
		}
		if err != nil {
			return nil, err
		}
		return block.Open(block.Options{Disk: s.disk, Dir: dir, DB: db, Seal: store.Plain{}, CacheEntries: 1024, OpenFiles: 4, FlushEntries: flushBlocks})
	}
	if names, err := s.disk.ReadDir(dir); err == nil && len(names) > 0 {
		return nil, fmt.Errorf("its content is in files in %s (%w)", dir, errMoved)
	}
	return s.opt.S3.Open(context.Background(), id, db)
}
