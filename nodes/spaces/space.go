package spaces

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/sync/exchange"
)

// blocks keeps the content of a space: in segment files, or in a bucket.
type blocks interface {
	exchange.Blocks
	GetBuffer(id block.ID, buf []byte) ([]byte, error)
	PutHashed(id block.ID, data []byte) error
	Bytes() (live, disk int64)
	Len() int64
	Age()
	Freeze() (write func(kv.Tx) error, done func(ok bool))
	Close() error
}

var _, _ blocks = (*block.Store)(nil), (*s3blocks.Store)(nil)

// Space is one space that is open.
type Space struct {
	id     dag.ID
	opt    *Options
	db     kv.DB
	acl    *list.List
	aclLog *store.Store
	files  *dag.Graph
	log    *store.Store
	blocks blocks
	use    *usage

	judging sync.Mutex   // one judging at a time; the graph's locks are taken under it
	judged  atomic.Int64 // records of the access list that the files were judged by
	retired atomic.Bool  // it is about to be removed
	refused atomic.Int64 // bytes of what was last refused for a quota; 0: nothing was
	uses    int          // guarded by Set.mu: how often get gave it and put did not take it back
	used    time.Time    // guarded by Set.mu: when put last did

	ckpt sync.Mutex // one checkpoint at a time
	gone bool       // guarded by ckpt: it is closed
	last marks      // guarded by ckpt: what the last one covered
	seen marks      // guarded by ckpt: at the last tick
}

// marks is how far a space's logs go, and the judging of its files.
type marks struct {
	acl, files     store.Mark
	blocks, judged int64
}

func (sp *Space) marks() marks {
	return marks{sp.aclLog.Mark(), sp.log.Mark(), sp.blocks.Len(), sp.judged.Load()}
}

func (sp *Space) close() error {
	var err error
	if sp.blocks != nil {
		err = errors.Join(err, sp.blocks.Close())
	}
	for _, l := range []*store.Store{sp.log, sp.aclLog} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	if sp.db != nil {
		err = errors.Join(err, sp.db.Close())
	}
	return err
}

// replica is the space as the exchange has it.
func (sp *Space) replica() *exchange.Replica {
	return &exchange.Replica{
		ID: sp.id, ACL: sp.acl.Graph(), Files: sp.files, Blocks: sp.blocks, Durable: sp.durable, Grown: sp.grown,
		Member: sp.takesPart, Keeps: keeper{sp}, Upload: sp.upload, Copy: sp.copy, Takes: sp.takes, Took: sp.took, Quota: sp.quota, Room: sp.room, NoFiles: sp.opt.NoFiles, Gone: sp.retired.Load,
		Invited: sp.invited,
	}
}

// invited reports whether who proves the key of an invitation may see the access list and ask to join.
func (sp *Space) invited(key, device dag.PublicKey) bool {
	s := sp.acl.State()
	return s != nil && s.Invited(key, device, uint64(max(0, time.Now().Unix())))
}

func (sp *Space) role(account dag.PublicKey) list.Role {
	s := sp.acl.State()
	if s == nil {
		return list.RoleNone // its list was not durable when a crash came
	}
	return s.Role(account)
}

// member reports whether an account may have what is in the space here.
func (sp *Space) member(account dag.PublicKey) bool {
	return sp.role(account) != list.RoleNone && (sp.opt.Admits == nil || sp.opt.Admits(account))
}

// takesPart reports whether a device of an account may have what is in the space here.
func (sp *Space) takesPart(account, device dag.PublicKey) bool {
	s := sp.acl.State()
	return sp.member(account) && s != nil && !s.Revoked(account, device)
}

// durable makes both graphs durable, the access list first: files name what is in it.
func (sp *Space) durable() error {
	return errors.Join(sp.aclLog.Sync(), sp.log.Sync())
}

// grown judges the files again, after the access list has grown.
func (sp *Space) grown() {
	if err := sp.judge(); err != nil {
		sp.opt.Log.Error("files are not judged again", "space", sp.id.String(), "err", err)
	}
}

// judge reads the batches of whom the list ended a right of, and of whom some did not count: an admin can have records without end, and a space batches.
// What comes while others are judged is judged at once.
func (sp *Space) judge() error {
	sp.judging.Lock()
	defer sp.judging.Unlock()
	by := int64(sp.acl.Records()) // what comes meanwhile may have been asked or not
	if by == sp.judged.Load() {
		return nil
	}
	st := sp.acl.State()
	_, err := sp.files.Rejudge(func(account, _ dag.PublicKey) bool { return st != nil && st.Doubtful(account) })
	if err == nil {
		sp.judged.Store(by)
	}
	return err
}

// Under judgedKey in judgedBucket of a space's database stands how many records of the access list the files that are indexed there were judged by (8, big-endian).
const (
	judgedBucket = "space"
	judgedKey    = "judged"
)

// judgeOpened judges the files again where the list has grown since they were judged last, by what the database has of it: a crash, or the end of the process, came
// between. No batch is read where nothing in the list ends a right, and nothing is in quarantine.
func (sp *Space) judgeOpened() error {
	before := int64(-1) // an earlier version wrote it
	err := sp.db.View(func(tx kv.Tx) error {
		if v := tx.Get(judgedBucket, []byte(judgedKey)); len(v) == 8 {
			before = int64(binary.BigEndian.Uint64(v))
		}
		return nil
	})
	if err != nil {
		return err
	}
	now, st := int64(sp.acl.Records()), sp.acl.State()
	doubt := before != now && (st != nil && st.Ended() || sp.files.QuarantineLen() > 0)
	if !doubt {
		before = now
	}
	sp.judged.Store(before)
	sp.last.judged = before
	if doubt {
		sp.grown() // what can't be read keeps nobody from the rest: it is tried again when the list grows, or the space is opened
	}
	return nil
}

// upload keeps a block of who may write in the space.
func (sp *Space) upload(account dag.PublicKey, id block.ID, data []byte) error {
	if sp.role(account) < list.RoleWriter || !sp.member(account) || sp.opt.Blocks != nil && !sp.opt.Blocks(sp.id) {
		sp.use.refused.Add(1)
		return exchange.ErrRefused
	}
	return sp.keep(id, data, true)
}

// copy keeps a block that another node gave. It was within the quota there: what one holds all are to hold.
func (sp *Space) copy(id block.ID, data []byte) error {
	if sp.acl.State() == nil || sp.opt.Blocks != nil && !sp.opt.Blocks(sp.id) {
		return exchange.ErrRefused
	}
	return sp.keep(id, data, false)
}

func (sp *Space) keep(id block.ID, data []byte, bounded bool) error {
	if sp.blocks.Has(id) {
		return nil
	}
	owner, all, one := sp.bounds()
	if !bounded {
		all, one = 0, 0
	}
	if !sp.use.charge(sp.id, owner, int64(len(data)), 0, all, one) {
		sp.use.refused.Add(1)
		sp.refused.Store(int64(len(data)))
		return exchange.ErrQuota
	}
	err := sp.blocks.PutHashed(id, data)
	sp.use.landed(sp.id, int64(len(data)), 0, sp.measure)
	if err != nil {
		return err
	}
	if bounded {
		sp.use.uploads.Add(1)
		sp.use.uploaded.Add(uint64(len(data)))
	} else {
		sp.use.copies.Add(1)
		sp.use.copied.Add(uint64(len(data)))
	}
	return nil
}

// bounds gives whose quota counts, and how many bytes its spaces may take together, and this one by itself; 0: no bound.
func (sp *Space) bounds() (owner dag.PublicKey, all, one int64) {
	st := sp.acl.State()
	if st == nil {
		return owner, 0, 0
	}
	owner = sp.acl.Payer()
	if sp.opt.Quota != nil {
		all, one = sp.opt.Quota(owner, sp.id)
	}
	return owner, all, one
}

// takes counts n bytes of changes that a device gives, unless that is beyond a quota, until took says what they came to.
// For 0 it says whether there is room for what was refused last.
func (sp *Space) takes(n int) bool {
	owner, all, one := sp.bounds()
	if n == 0 {
		_, _, full := sp.quota()
		return !full
	}
	if !sp.use.charge(sp.id, owner, 0, int64(n), all, one) {
		sp.refused.Store(int64(n))
		return false
	}
	return true
}

// took counts what the space takes after n bytes of changes that takes counted: a member that gives the same over and over, or what nobody accepts, uses
// up nobody's quota.
func (sp *Space) took(n int) { sp.use.landed(sp.id, 0, int64(n), sp.measure) }

// fits reports whether there is room for n bytes of changes that were counted and let go of when they came, before what they name: else a member that gives them in
// that order has kept what it likes.
func (sp *Space) fits(n int) bool {
	owner, all, one := sp.bounds()
	if all == 0 && one == 0 || sp.use.fits(sp.id, owner, int64(n), all, one, sp.measure) {
		return true
	}
	sp.refused.Store(int64(n))
	return false
}

// room says how much is used of the quota of which least is left, to who may give blocks.
func (sp *Space) room(account dag.PublicKey) (used, limit int64) {
	if sp.role(account) < list.RoleWriter || !sp.member(account) {
		return 0, 0
	}
	owner, all, one := sp.bounds()
	return sp.use.left(sp.id, owner, all, one)
}

// quota says how much is used of the quota for which something was refused, if it would be still.
func (sp *Space) quota() (used, limit int64, full bool) {
	n := sp.refused.Load()
	if n == 0 {
		return 0, 0, false
	}
	owner, all, one := sp.bounds()
	used, limit, full = sp.use.room(sp.id, owner, n, all, one)
	if !full {
		sp.refused.CompareAndSwap(n, 0)
	}
	return used, limit, full
}

// opened notes what the last checkpoint covers, where that is all that is there: most spaces are opened to be read, and a checkpoint takes the disk's time.
func (sp *Space) opened() {
	if b, ok := sp.blocks.(*block.Store); !ok || !b.Synced() || sp.dirty() > 0 {
		return
	}
	judged := sp.last.judged
	sp.last = sp.marks()
	sp.last.judged = judged
	sp.settle()
}

// settle counts what the space takes.
func (sp *Space) settle() { sp.use.landed(sp.id, 0, 0, sp.measure) }

// measure gives what the space takes; nil: it has no access list yet, and is nobody's.
func (sp *Space) measure() *Usage {
	if sp.acl.State() == nil {
		return nil
	}
	blocks, _ := sp.blocks.Bytes()
	return &Usage{sp.acl.Payer(), blocks, sp.aclLog.Bytes() + sp.log.Bytes()}
}

// tick writes the indexes where that is due: when there are new blocks or much else that is new, when nothing came since the last tick, and at each lateTicks-th, of
// which each space has its own. With a change now and then to each of thousands of spaces a transaction each time would cost as much as taking it in. full: the memory
// is wanted, and nothing waits.
func (sp *Space) tick(ctx context.Context, n int, full bool) error {
	sp.ckpt.Lock()
	defer sp.ckpt.Unlock()
	now := sp.marks()
	if sp.gone || now == sp.last {
		return nil
	}
	quiet, turn := now == sp.seen, (n+int(sp.id[0]))%lateTicks == 0
	sp.seen = now
	if !full && !quiet && !turn && now.blocks == sp.last.blocks && sp.dirty() < fewDirty {
		sp.settle() // what other nodes give is counted by nobody else
		return nil
	}
	return sp.write(ctx, false)
}

// dirty is about how many bytes of memory a checkpoint frees.
func (sp *Space) dirty() int { return sp.aclLog.Dirty() + sp.log.Dirty() }

// checkpoint writes the indexes, where there is something new.
func (sp *Space) checkpoint(ctx context.Context) error {
	sp.ckpt.Lock()
	defer sp.ckpt.Unlock()
	if sp.gone {
		return nil
	}
	return sp.write(ctx, true)
}

// write is checkpoint. ckpt is held. Without wait nothing is waited for that is on its way to a bucket: that takes minutes where a bucket fails, and other spaces wait.
func (sp *Space) write(ctx context.Context, wait bool) error {
	now := sp.marks()
	if now == sp.last {
		return nil
	}
	var err error
	if far, ok := sp.blocks.(*s3blocks.Store); ok && !wait {
		err = far.Save()
	} else {
		err = sp.blocks.Sync(ctx)
	}
	if err != nil {
		return err
	}
	if err := sp.durable(); err != nil {
		return err
	}
	// The files first: what is frozen after them holds what they name.
	writeFiles, doneFiles := sp.log.Freeze()
	writeACL, doneACL := sp.aclLog.Freeze()
	writeBlocks, doneBlocks := sp.blocks.Freeze()
	err = sp.db.Update(func(tx kv.Tx) error {
		for _, write := range []func(kv.Tx) error{writeACL, writeFiles, writeBlocks} {
			if err := write(tx); err != nil {
				return err
			}
		}
		return tx.Put(judgedBucket, []byte(judgedKey), binary.BigEndian.AppendUint64(nil, uint64(now.judged)))
	})
	doneFiles(err == nil)
	doneACL(err == nil)
	doneBlocks(err == nil)
	if err == nil {
		sp.last = now
		sp.settle()
	}
	return err
}

// keeper promises to keep what is here: nothing goes.
type keeper struct{ sp *Space }

var _ exchange.Keeper = keeper{}

// Promise implements exchange.Keeper. Blocks are read before: a disk may have lost them.
func (k keeper) Promise(ctx context.Context, device, account dag.PublicKey, ids []block.ID) []bool {
	yes := make([]bool, len(ids))
	if !k.sp.takesPart(account, device) || k.sp.blocks.Sync(ctx) != nil {
		return yes
	}
	var buf []byte
	var err error
	for i, id := range ids {
		if ctx.Err() != nil {
			break
		}
		if far, ok := k.sp.blocks.(*s3blocks.Store); ok {
			if yes[i], err = far.Check(id); err != nil {
				k.sp.opt.Log.Error("a block is not promised", "space", k.sp.id.String(), "err", err)
				break // each would wait as long
			}
			continue
		}
		b, err := k.sp.blocks.GetBuffer(id, buf)
		if yes[i] = err == nil; b != nil {
			buf = b
		}
	}
	return yes
}

// Withdraw implements exchange.Keeper: a node relies on nobody.
func (k keeper) Withdraw(_ context.Context, _ dag.PublicKey, ids []block.ID) []bool {
	yes := make([]bool, len(ids))
	for i := range yes {
		yes[i] = true
	}
	return yes
}

// Released implements exchange.Keeper. The block stays: others may refer to it.
func (k keeper) Released(context.Context, dag.PublicKey, []block.ID) error { return nil }
