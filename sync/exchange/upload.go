package exchange

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// A node cannot see which blocks the files of a space refer to, so it asks for none: devices give them.

// maxUploads is how many blocks go to one node without its answer.
const maxUploads = 16

// maxGiving is how many blocks of one device a node takes at once, whatever the spaces, and how many more of them it hashes and writes.
const maxGiving = 4

// uploadBuffers are what blocks that come are put together in, of up to uploadBuffer bytes each: most blocks of files are of that size at most, and one
// that grows part by part is copied and cleared several times. One is held while a block comes, and until it is kept.
const uploadBuffer = 1<<20 + 64<<10

var uploadBuffers = sync.Pool{New: func() any { b := make([]byte, 0, uploadBuffer); return &b }}

// keptWithin is how long the answer about a block may take after it was written: what was written before it may be on its way over a slow line.
const keptWithin = 5 * time.Minute

// Upload gives a node of a space and network those of the blocks that it lacks and that are here, another what that one does not take, and returns
// those that none holds durably then, in no order. The nodes copy them to each other. ErrOffline when no node that keeps content is connected.
func (e *Engine) Upload(ctx context.Context, id dag.ID, network dag.PublicKey, blocks []block.ID) (missing []block.ID, err error) {
	links := e.nodeLinks(id, network)
	if len(links) == 0 {
		return nil, ErrOffline
	}
	err = ErrOffline
	for _, l := range links {
		rest, lerr := l.upload(ctx, blocks)
		if lerr != nil {
			err = lerr
			continue
		}
		if len(rest) == 0 {
			return nil, nil
		}
		missing, err = rest, nil
	}
	return missing, err
}

// NodeOf reports whether a node of a network that keeps content of the space is connected.
func (e *Engine) NodeOf(id dag.ID, network dag.PublicKey) bool {
	return len(e.nodeLinks(id, network)) > 0
}

func (e *Engine) nodeLinks(id dag.ID, network dag.PublicKey) (links []*link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if sp := e.spaces[id]; sp != nil {
		for _, l := range sp.links {
			if l.r.node != nil && l.r.node.network == network && l.r.node.keeps(id) && l.r.ready() {
				links = append(links, l)
			}
		}
	}
	return links
}

// upload gives a node what it lacks, and says what it lacks then.
func (l *link) upload(ctx context.Context, ids []block.ID) (missing []block.ID, err error) {
	defer func() {
		if err != nil {
			l.sp.r.Blocks.Doubt() // a node that gets other bytes for a block ends the stream
		}
	}()
	lacks, err := l.heldBlocks(ctx, ids)
	if err != nil || len(lacks) == 0 {
		return lacks, err
	}
	waits := make([]*blockWait, 0, maxUploads)
	wait := func() error {
		w := waits[0]
		waits = waits[1:]
		select {
		case <-w.done:
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.err
		case <-l.sp.e.clock.After(keptWithin):
			if k, err := l.conn(true); err == nil {
				_ = k.t.Reset()
			}
			return errStalled
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	var buf []byte
	for _, id := range lacks {
		data, err := l.sp.r.Blocks.GetToGive(id, buf)
		if errors.Is(err, block.ErrAbsent) {
			continue
		}
		if err != nil {
			return nil, err
		}
		buf = data // put has written it when it returns
		for len(waits) >= maxUploads {
			if err := wait(); err != nil {
				return nil, err
			}
		}
		w, err := l.put(id, data)
		if err != nil {
			return nil, err
		}
		waits = append(waits, w)
	}
	for len(waits) > 0 {
		if err := wait(); err != nil {
			return nil, err
		}
	}
	return l.heldBlocks(ctx, ids)
}

// put sends a block over the stream for what is fetched ahead.
func (l *link) put(id block.ID, data []byte) (*blockWait, error) {
	k, err := l.conn(true)
	if err != nil {
		return nil, err
	}
	w := &blockWait{got: make(chan struct{}, 1), done: make(chan struct{})}
	k.mu.Lock()
	if k.err != nil {
		defer k.mu.Unlock()
		return nil, k.err
	}
	k.last++
	n := k.last
	k.waits[n] = w
	k.mu.Unlock()
	for rest := data; ; {
		m := &wire.PutBlock{Request: n, ID: id, Data: rest[:min(len(rest), partBytes)]}
		rest = rest[len(m.Data):]
		m.Left = uint64(len(rest))
		k.write.Lock()
		err := k.t.write(m)
		k.write.Unlock()
		if err != nil {
			_ = k.t.Reset()
			return nil, err
		}
		if len(rest) == 0 {
			return w, nil
		}
	}
}

// upload is what comes of blocks on one stream of a device. While one comes, the one before is hashed and written: so they are kept in their order, and a
// node that has the root of a content has the rest of it.
type upload struct {
	l       *link
	t       *stream
	keeping sync.WaitGroup
	keep    chan given // to the goroutine that keeps; nil until there is a block

	given
	left  uint64 // of it
	begun bool
}

// given is a block that a device gave.
type given struct {
	request uint64
	id      block.ID
	data    []byte
	pooled  *[]byte // has data; nil: it is too long for that
}

// release gives the buffer back.
func (g *given) release() {
	if g.pooled != nil {
		uploadBuffers.Put(g.pooled)
	}
	*g = given{}
}

// end says that no block is coming any more, and waits for the one that is being kept.
func (u *upload) end() {
	u.came()
	u.release()
	if u.keep != nil {
		close(u.keep)
		u.keeping.Wait()
	}
}

// came says that the block that was coming is here, or does not come.
func (u *upload) came() {
	if u.begun {
		u.begun = false
		u.l.giving.Store(false)
		u.l.r.giving.Add(-1)
	}
}

// take takes bytes of a block. After the last the block is kept and answered, by a goroutine that end waits for; fail is called with what that fails of, which
// is to end ctx.
func (u *upload) take(ctx context.Context, m *wire.PutBlock, fail func(error)) error {
	if u.l.sp.r.Upload == nil {
		return unexpected(m)
	}
	switch {
	case !u.begun:
		size := uint64(len(m.Data)) + m.Left
		if size > block.MaxSize {
			return fmt.Errorf("%w: a block of more than %d bytes", session.ErrPeer, block.MaxSize)
		}
		if u.l.r.giving.Add(1) > maxGiving {
			u.l.r.giving.Add(-1)
			return errStreams
		}
		if !u.l.giving.CompareAndSwap(false, true) {
			u.l.r.giving.Add(-1)
			return errStreams
		}
		u.begun, u.given = true, given{request: m.Request, id: m.ID}
		if size <= uploadBuffer {
			u.pooled = uploadBuffers.Get().(*[]byte)
			u.data = (*u.pooled)[:0]
		}
	case m.Request != u.request || m.ID != u.id || uint64(len(m.Data))+m.Left != u.left:
		return fmt.Errorf("%w: another block within one", session.ErrPeer)
	}
	u.data, u.left = append(u.data, m.Data...), m.Left
	if m.Left > 0 {
		return nil
	}
	u.came()
	if u.keep == nil {
		u.keep = make(chan given)
		u.keeping.Go(func() {
			failed := false
			for g := range u.keep {
				if !failed {
					if err := u.kept(&g); err != nil {
						failed = true
						fail(err)
					}
				}
				g.release()
				<-u.l.r.keeping
			}
		})
	}
	select {
	case u.l.r.keeping <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	u.keep <- u.given // after the one before
	u.given = given{}
	return nil
}

// kept keeps a block, and answers for it.
func (u *upload) kept(g *given) error {
	a := &wire.HeldBlocks{Request: g.request, Bits: []byte{0}}
	if block.Sum(g.data) != g.id {
		return fmt.Errorf("%w: it gave other bytes for a block", session.ErrPeer)
	}
	err := ErrRefused
	switch {
	case u.l.r.mesh:
		err = u.l.sp.r.Copy(g.id, g.data)
	case u.l.member():
		if err = u.l.sp.r.Upload(u.l.r.account, g.id, g.data); err == nil {
			u.l.sp.copySoon(g.id)
		} else if errors.Is(err, ErrQuota) {
			u.l.overQuota()
		}
	}
	switch {
	case err == nil:
		a.Bits[0] = 1
		u.l.sp.contentCame(u.l)
	case !errors.Is(err, ErrRefused):
		u.l.sp.e.log.Error("a block that a device gave is not kept", "space", u.l.sp.id.String(), "err", err)
	}
	return u.t.write(a)
}
