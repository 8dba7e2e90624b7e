package dag

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
)

// Builder makes one batch. Until Commit or Abort no other batch can come into the graph; readers go on. It is used by one
// goroutine.
type Builder struct {
	g      *Graph
	key    ed25519.PrivateKey
	batch  Batch
	step   step
	seen   map[ID]struct{}
	raw    []byte // the bodies
	bodies []body
	hash   *hasher
	done   bool
}

// Begin starts a batch: it takes the writer's place in the graph and fixes clock, seq, prev and deps. acl and epoch are the
// caller's: the access records that it goes by (sorted, at most 64) and the read key that payloads are sealed with.
//
// Where the frontier has more than 64 batches, batches without changes come first, which join 64 each.
func (g *Graph) Begin(a Author, acl []ID, epoch ID) (*Builder, error) {
	if len(acl) > MaxACLHeads || !slices.IsSortedFunc(acl, ID.Compare) {
		return nil, errors.New("dag: begin: access heads not sorted or too many")
	}
	g.write.Lock()
	for {
		b, joins, err := g.begin(&a, acl, epoch)
		if err == nil && joins {
			_, err = b.finish()
		}
		if err != nil {
			g.write.Unlock()
			g.events.deliver()
			return nil, fmt.Errorf("dag: begin: %w", err)
		}
		if !joins {
			return b, nil
		}
	}
}

// begin makes a builder on the frontier. joins says that it names only a part of it, and is to be committed as it is.
func (g *Graph) begin(a *Author, acl []ID, epoch ID) (b *Builder, joins bool, err error) {
	b = &Builder{g: g, key: a.Key, seen: make(map[ID]struct{}), raw: g.scratch[:0]}
	b.batch = Batch{Version: Version, Space: g.space, Account: a.Account, Device: a.Device, Seq: 1,
		ACL: slices.Clone(acl), Epoch: epoch}
	if own := g.ownChain(a); own != nil {
		b.batch.Seq, b.batch.Prev = own.tip.seq+1, own.tip.id
	}
	for _, n := range g.frontier {
		if id := g.chains[n].counted.id; id != b.batch.Prev {
			b.batch.Deps = append(b.batch.Deps, id)
		}
	}
	sortIDs(b.batch.Deps)
	if len(b.batch.Deps) > MaxDeps {
		b.batch.Deps, joins = b.batch.Deps[:MaxDeps], true
	}
	for _, id := range b.batch.named() {
		k, ok, err := g.find(id)
		if err != nil {
			return nil, false, err
		}
		if !ok {
			return nil, false, errIndex("the frontier is not held")
		}
		b.batch.Clock = max(b.batch.Clock, k.clock)
		v, err := g.vectorOf(k)
		if err != nil {
			return nil, false, err
		}
		b.step.past = append(make(vector, 0, len(g.chains)+1), b.step.past...).join(v)
		if id == b.batch.Prev {
			b.step.prev = k
		}
	}
	b.batch.Clock++
	b.hash = newHasher(&b.batch)
	return b, joins, nil
}

// Clock returns the clock of the batch and of its changes.
func (b *Builder) Clock() uint64 { return b.batch.Clock }

// Len returns how many changes the batch has, and the bytes of their encodings. It takes 1,000 and 1 MiB.
func (b *Builder) Len() (changes, bytes int) { return len(b.bodies), b.hash.bytes }

// Add appends a change of an object, or with a zero object the root of a new one, whose ID is then the object's. Its
// parents are the object's heads, where there are more than 64 the highest. seal is called with the final header and
// returns the payload; it must not write to the graph. A batch takes one change of an object.
//
// ErrBatchFull leaves the batch as it was. The change counts from Commit on.
func (b *Builder) Add(object ID, seal func(h Header) ([]byte, error)) (ID, error) {
	if b.done {
		return ID{}, ErrClosed
	}
	if len(b.bodies) >= MaxChanges {
		return ID{}, ErrBatchFull
	}
	if _, twice := b.seen[object]; twice {
		return ID{}, fmt.Errorf("dag: add: a second change of object %s in a batch", object)
	}
	o, err := b.object(object)
	if err != nil {
		return ID{}, err
	}
	c := Change{Object: object, Parents: o.parents(), Clock: b.batch.Clock, Device: b.batch.Device}
	c.Payload, err = seal(Header{Space: b.batch.Space, Object: object, Parents: c.Parents, Epoch: b.batch.Epoch,
		Clock: c.Clock, Device: c.Device})
	if err != nil {
		return ID{}, err
	}
	return b.append(&c, o)
}

func (b *Builder) object(id ID) (*object, error) {
	if id.IsZero() {
		return &object{}, nil
	}
	o, err := b.g.objectOf(id)
	if o == nil && err == nil {
		o = &object{id: id}
	}
	return o, err
}

// parents returns what a new change of the object names.
func (o *object) parents() []ID {
	heads := o.heads
	if len(heads) > MaxParents {
		heads = heads[len(heads)-MaxParents:]
	}
	if len(heads) == 0 {
		return nil
	}
	ids := make([]ID, len(heads))
	for i := range heads {
		ids[i] = heads[i].id
	}
	sortIDs(ids)
	return ids
}

func (b *Builder) append(c *Change, o *object) (ID, error) {
	from, bytes := len(b.raw), b.hash.bytes
	if len(c.Payload) > MaxBytes {
		return ID{}, errTooLong("payload")
	}
	b.grow(len(b.raw) + len(c.Payload))
	b.raw = c.appendBody(b.raw)
	r := reader{b: b.raw, off: from}
	body := r.body()
	if r.err != nil {
		panic("dag: a body does not read back: " + r.err.Error())
	}
	id := Sum(b.hash.encode(&body, b.raw))
	fresh := o.id.IsZero()
	if fresh {
		if known, err := b.g.objectOf(id); known != nil || err != nil {
			b.raw, b.hash.bytes = b.raw[:from], bytes
			return ID{}, errors.Join(err, fmt.Errorf("dag: add: object %s exists", id))
		}
		o.id = id
	}
	_, twice := b.seen[o.id]
	if twice || b.hash.bytes > MaxBytes {
		b.raw, b.hash.bytes = b.raw[:from], bytes
		switch {
		case twice:
			return ID{}, fmt.Errorf("dag: add: a second change of object %s in a batch", o.id)
		case len(b.bodies) == 0:
			return ID{}, errTooLong("change")
		}
		return ID{}, ErrBatchFull
	}
	b.seen[o.id] = struct{}{}
	b.bodies = append(b.bodies, body)
	b.batch.Changes = append(b.batch.Changes, id)
	b.step.objects = append(b.step.objects, o)
	return id, nil
}

// Commit signs the batch, appends it to the store and applies it. It is durable after the store's Sync. A batch without
// changes is not made: Abort. What fails leaves the graph as it was, and ends the builder too.
func (b *Builder) Commit() (*Batch, error) {
	if !b.done && len(b.bodies) == 0 {
		b.Abort()
		return nil, errors.New("dag: commit: a batch without changes")
	}
	return b.commit()
}

// Join is Commit of a batch without changes. All that counts here lies in its past, and so counts wherever the batch does.
func (b *Builder) Join() (*Batch, error) {
	if !b.done && len(b.bodies) > 0 {
		b.Abort()
		return nil, errors.New("dag: join: a batch with changes")
	}
	return b.commit()
}

func (b *Builder) commit() (*Batch, error) {
	if b.done {
		return nil, ErrClosed
	}
	b.done = true
	batch, err := b.finish()
	b.g.write.Unlock()
	b.g.events.deliver()
	if err != nil {
		return nil, fmt.Errorf("dag: commit: %w", err)
	}
	return batch, nil
}

// finish signs and applies.
func (b *Builder) finish() (*Batch, error) {
	batch := &b.batch
	copy(batch.Signature[:], ed25519.Sign(b.key, batch.SigningBytes()))
	f := &parsed{batch: batch, bodies: b.bodies}
	f.raw = appendFrameHead(make([]byte, 0, batch.headRoom()+len(b.raw)), batch, len(b.bodies))
	shift := uint32(len(f.raw))
	f.head = len(f.raw) - len(appendHead(nil, majorArray, uint64(len(b.bodies))))
	f.raw = append(f.raw, b.raw...)
	if cap(b.raw) <= keepScratch {
		b.g.scratch = b.raw
	}
	for i := range f.bodies {
		f.bodies[i].off += shift
		f.bodies[i].payload += shift
	}
	batch.id = batch.digest(whole)
	f.id = batch.id
	b.step.f = f
	if err := b.g.auth.Accept(batch, f.changes()); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDenied, err)
	}
	if b.g.auth.Counts(batch) != Counts {
		return nil, fmt.Errorf("%w: it would not count", ErrDenied)
	}
	if err := b.g.apply(&b.step, Counts, Record{}); err != nil {
		return nil, err
	}
	return batch, b.g.followers(f.id)
}

// followers takes in what waited for a batch that was made here. There is some when the device lost its newest batches, or
// is in two places at once, and what it made then has come back before.
func (g *Graph) followers(id ID) error {
	if w := g.pending.byID[id]; w != nil {
		g.pending.remove(w)
	}
	return g.release(g.pending.arrived(id), &Result{})
}

// keepScratch is the largest buffer that a graph keeps from one builder to the next. A batch of less than startScratch grows as it comes; roomBeyond is for the
// change that a full one does not take any more.
const (
	keepScratch  = 256 << 10
	startScratch = 32 << 10
	roomBeyond   = 64 << 10
)

// grow makes room for n bytes in all, in two steps: to what the graph keeps, which it leaves to the next builder, and to what a full batch takes.
func (b *Builder) grow(n int) {
	room := keepScratch
	switch {
	case n <= max(cap(b.raw), startScratch), n > MaxBytes+roomBeyond:
		return // append does it
	case n > keepScratch:
		room = MaxBytes + roomBeyond
		if cap(b.raw) <= keepScratch {
			b.g.scratch = b.raw
		}
	}
	b.raw = append(make([]byte, 0, room), b.raw...)
}

// Abort gives the batch up. After Commit it does nothing.
func (b *Builder) Abort() {
	if b.done {
		return
	}
	b.done = true
	b.g.write.Unlock()
	b.g.events.deliver()
}

func sortIDs(ids []ID) { slices.SortFunc(ids, ID.Compare) }
