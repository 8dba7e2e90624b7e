package s3blocks

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/minio/minio-go/v7"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
)

const (
	bucketName = "s3"     // ID to length (4, big-endian)
	metaName   = "s3.all" // under "listed": that the index has what was in the bucket
	scanPage   = 4096
)

// Store keeps the blocks of one space. It is safe for concurrent use.
//
// A block is here from the return of the Sync after its PutHashed; before, it is where PutHashed has not failed yet. An object is in the bucket
// before the index says so; the bucket may hold more than the index knows, for a moment or after a crash.
type Store struct {
	c      *Client
	db     kv.DB
	prefix string
	space  dag.ID

	mu      sync.Mutex          // guards what follows; not held across I/O
	pending map[block.ID]*onWay // to the bucket
	fresh   map[block.ID]uint32 // in the bucket, and not in the index yet
	gone    map[block.ID]bool   // in the index, and not in the bucket any more
	blocks  int64
	bytes   int64
	closed  bool

	saving sync.Mutex // one Sync at a time writes
}

// onWay is a block on its way to the bucket.
type onWay struct {
	data []byte
	done chan struct{} // closed when it has come, or failed
}

var errClosed = errors.New("s3blocks: closed")

// Open returns the store of a space, with its index in db. Where the index is new it lists the bucket, so that what is there counts.
func (c *Client) Open(ctx context.Context, space dag.ID, db kv.DB) (*Store, error) {
	s := &Store{
		c: c, db: db, space: space, prefix: c.prefix(space),
		pending: map[block.ID]*onWay{}, fresh: map[block.ID]uint32{}, gone: map[block.ID]bool{},
	}
	listed, err := Used(db)
	if err == nil && !listed {
		err = s.list(ctx)
	}
	if err == nil {
		err = s.count(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("s3blocks: open %s: %w", space, err)
	}
	return s, nil
}

// Used reports whether the blocks of the space that db is of are in a bucket.
func Used(db kv.DB) (yes bool, err error) {
	err = db.View(func(tx kv.Tx) error {
		yes = tx.Get(metaName, []byte("listed")) != nil
		return nil
	})
	return yes, err
}

func (c *Client) prefix(space dag.ID) string {
	return c.opt.Prefix + "/" + hex.EncodeToString(space[:]) + "/"
}

// list makes the index of what is in the bucket.
func (s *Store) list(ctx context.Context) error {
	type entry struct {
		id block.ID
		n  uint32
	}
	var page []entry
	write := func(last bool) error {
		return s.db.Update(func(tx kv.Tx) error {
			for _, e := range page {
				if err := tx.Put(bucketName, e.id[:], binary.BigEndian.AppendUint32(nil, e.n)); err != nil {
					return err
				}
			}
			page = page[:0]
			if last {
				return tx.Put(metaName, []byte("listed"), []byte{})
			}
			return nil
		})
	}
	err := s.c.each(ctx, s.prefix, func(o minio.ObjectInfo) error {
		id, ok := s.idOf(o.Key)
		if !ok || o.Size > block.MaxSize {
			return nil
		}
		if page = append(page, entry{id, uint32(o.Size)}); len(page) < scanPage {
			return nil
		}
		return write(false)
	})
	if err != nil {
		return err
	}
	return write(true)
}

// each calls fn for the objects under a prefix. What fails on the way goes on behind the last one.
func (c *Client) each(ctx context.Context, prefix string, fn func(minio.ObjectInfo) error) error {
	after := ""
	for {
		var told error // by fn
		some := false
		err := c.retry(ctx, func(context.Context) error { // a list has no end to its time, but each request of it
			ctx, cancel := context.WithCancel(ctx)
			defer cancel() // ends who lists
			for o := range c.s3.ListObjects(ctx, c.opt.Bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true, StartAfter: after}) {
				if o.Err != nil {
					if some {
						return nil // tried again from here, and as often
					}
					return o.Err
				}
				if told = fn(o); told != nil {
					return nil
				}
				after, some = o.Key, true
			}
			some = false
			return ctx.Err()
		})
		switch {
		case told != nil:
			return told
		case err != nil:
			c.failed.Add(1)
			return fmt.Errorf("list the bucket: %w", err)
		case !some:
			return nil
		}
	}
}

func (s *Store) key(id block.ID) string { return s.prefix + hex.EncodeToString(id[:]) }

func (s *Store) idOf(key string) (id block.ID, ok bool) {
	name, ok := strings.CutPrefix(key, s.prefix)
	b, err := hex.DecodeString(name)
	if !ok || err != nil || len(b) != len(id) {
		return id, false
	}
	return block.ID(b), true
}

// count reads what the index has.
func (s *Store) count(ctx context.Context) error {
	return s.All(ctx, func(_ block.ID, n int64) error {
		s.blocks++
		s.bytes += n
		return nil
	})
}

// indexed gives the length of a block by the index alone.
func (s *Store) indexed(id block.ID) (n uint32, ok bool) {
	err := s.db.View(func(tx kv.Tx) error {
		if v := tx.Get(bucketName, id[:]); len(v) == 4 {
			n, ok = binary.BigEndian.Uint32(v), true
		}
		return nil
	})
	return n, ok && err == nil
}

// size gives the length of a block that is here.
func (s *Store) size(id block.ID) (n uint32, ok bool) {
	s.mu.Lock()
	n, ok = s.fresh[id]
	gone := s.gone[id]
	s.mu.Unlock()
	if ok || gone {
		return n, ok
	}
	return s.indexed(id)
}

// Has reports whether the block is here, by the index.
func (s *Store) Has(id block.ID) bool {
	_, ok := s.size(id)
	return ok
}

// PutHashed begins to put a block, whose bytes are those of its ID. It waits while many are on their way. Whether the block came, Has says after
// a Sync. data is not kept.
func (s *Store) PutHashed(id block.ID, data []byte) error {
	if len(data) > block.MaxSize {
		return block.ErrTooLarge
	}
	if s.Has(id) {
		return nil
	}
	s.c.puts <- struct{}{}
	s.mu.Lock()
	closed, begun := s.closed, s.pending[id] != nil
	w := &onWay{append(make([]byte, 0, len(data)), data...), make(chan struct{})}
	if !closed && !begun {
		s.pending[id] = w
	}
	s.mu.Unlock()
	if closed || begun {
		<-s.c.puts
		if closed {
			return errClosed
		}
		return nil
	}
	go func() { // Close waits for it
		defer func() { <-s.c.puts }()
		err := s.put(id, w.data)
		s.mu.Lock()
		defer s.mu.Unlock()
		defer close(w.done)
		delete(s.pending, id)
		if err != nil {
			s.c.failed.Add(1)
			s.c.opt.Log.Error("a block was not put into the bucket", "space", s.space.String(), "err", err)
			return
		}
		s.c.put.Add(1)
		s.fresh[id] = uint32(len(w.data))
		s.blocks++
		s.bytes += int64(len(w.data))
	}()
	return nil
}

func (s *Store) put(id block.ID, data []byte) error {
	err := s.c.retry(context.Background(), func(ctx context.Context) error {
		_, err := s.c.s3.PutObject(ctx, s.c.opt.Bucket, s.key(id), bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{
			ContentType: "application/vnd.ipld.raw", DisableMultipart: true,
		})
		return err
	})
	if err == nil {
		s.c.keep(id, data)
	}
	return err
}

// GetBuffer reads a block, into buf where its capacity is enough. Errors match block.ErrAbsent and block.ErrCorrupt, or are the store's. A block
// that the bucket has lost, or gives other bytes for, is not here from then on.
func (s *Store) GetBuffer(id block.ID, buf []byte) ([]byte, error) {
	s.mu.Lock()
	w := s.pending[id]
	s.mu.Unlock()
	if w != nil {
		return append(buf[:0], w.data...), nil
	}
	if data := s.c.recent(id); data != nil && s.Has(id) {
		return append(buf[:0], data...), nil
	}
	n, ok := s.size(id)
	if !ok {
		return nil, block.ErrAbsent
	}
	var data []byte
	var err error
	for range 2 { // a line may fail where the object does not
		if data, err = s.get(id, int(n), buf); err == nil {
			return data, nil
		}
		if !errors.Is(err, block.ErrCorrupt) {
			break
		}
	}
	if errors.Is(err, block.ErrCorrupt) || errors.Is(err, block.ErrAbsent) {
		s.lose(id, int64(n))
	}
	return nil, fmt.Errorf("s3blocks: read %s: %w", id, err)
}

func (s *Store) get(id block.ID, n int, buf []byte) ([]byte, error) {
	s.c.gets.Add(1)
	if cap(buf) < n+1 {
		buf = make([]byte, n+1) // one more shows that it is longer
	}
	length := 0
	err := s.c.retry(context.Background(), func(ctx context.Context) error {
		o, err := s.c.s3.GetObject(ctx, s.c.opt.Bucket, s.key(id), minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		defer o.Close()
		length, err = io.ReadFull(o, buf[:n+1])
		if err == io.ErrUnexpectedEOF || err == io.EOF {
			err = nil
		}
		return err
	})
	if err != nil {
		s.c.failed.Add(1)
		if lost(err) {
			return nil, block.ErrAbsent
		}
		return nil, err
	}
	if data := buf[:length]; block.Sum(data) == id {
		return data, nil
	}
	s.c.failed.Add(1)
	return nil, fmt.Errorf("%w: the bucket gives other bytes", block.ErrCorrupt)
}

// lost reports whether the bucket says that it has no such object.
func lost(err error) bool {
	e := minio.ToErrorResponse(err)
	return e.StatusCode == http.StatusNotFound && e.Code != "NoSuchBucket"
}

// Check reports whether the bucket has a block, without reading it. ok with an error means that nobody knows now.
func (s *Store) Check(id block.ID) (ok bool, err error) {
	n, ok := s.size(id)
	if !ok || s.c.recent(id) != nil {
		return ok, nil
	}
	var o minio.ObjectInfo
	err = s.c.retry(context.Background(), func(ctx context.Context) (err error) {
		o, err = s.c.s3.StatObject(ctx, s.c.opt.Bucket, s.key(id), minio.StatObjectOptions{})
		return err
	})
	if err == nil && o.Size == int64(n) {
		return true, nil
	}
	if err != nil && !lost(err) {
		s.c.failed.Add(1)
		return false, fmt.Errorf("s3blocks: look for %s: %w", id, err)
	}
	s.lose(id, int64(n))
	return false, nil
}

// lose forgets a block that the bucket does not have.
func (s *Store) lose(id block.ID, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, fresh := s.fresh[id]; fresh {
		delete(s.fresh, id)
	} else if s.gone[id] {
		return
	}
	s.gone[id] = true // it may be in the index as well
	s.blocks--
	s.bytes -= n
	s.c.opt.Log.Error("the bucket has lost a block, or changed it", "space", s.space.String(), "block", id.String())
}

// Sync waits for what is on its way to the bucket, and makes the index durable.
func (s *Store) Sync(ctx context.Context) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Save()
}

// wait waits for what is on its way now.
func (s *Store) wait(ctx context.Context) error {
	s.mu.Lock()
	var ways []*onWay
	for _, w := range s.pending {
		ways = append(ways, w)
	}
	s.mu.Unlock()
	for _, w := range ways {
		select {
		case <-w.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Save makes durable what the index has not of what is in the bucket, and waits for nothing that is on its way.
func (s *Store) Save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	fresh, gone := make(map[block.ID]uint32, len(s.fresh)), make([]block.ID, 0, len(s.gone))
	for id, n := range s.fresh {
		fresh[id] = n
	}
	for id := range s.gone {
		gone = append(gone, id)
	}
	s.mu.Unlock()
	if len(fresh)+len(gone) == 0 {
		return nil
	}
	err := s.db.Update(func(tx kv.Tx) error {
		for _, id := range gone {
			if err := tx.Delete(bucketName, id[:]); err != nil {
				return err
			}
		}
		for id, n := range fresh {
			if err := tx.Put(bucketName, id[:], binary.BigEndian.AppendUint32(nil, n)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("s3blocks: write the index: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range fresh {
		delete(s.fresh, id)
	}
	for _, id := range gone {
		delete(s.gone, id)
	}
	return nil
}

// All calls fn for every block that is here and its length, in no order, until fn returns an error, which it returns.
func (s *Store) All(ctx context.Context, fn func(id block.ID, size int64) error) error {
	type entry struct {
		id block.ID
		n  uint32
	}
	var page []entry
	s.mu.Lock()
	seen := make(map[block.ID]bool, len(s.fresh))
	for id, n := range s.fresh {
		page = append(page, entry{id, n})
		seen[id] = true
	}
	s.mu.Unlock()
	for from, more := []byte(nil), true; ; {
		for _, e := range page {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := fn(e.id, int64(e.n)); err != nil {
				return err
			}
		}
		if !more {
			return nil
		}
		page, more = page[:0], false
		err := s.db.View(func(tx kv.Tx) error {
			return tx.Scan(bucketName, from, func(k, v []byte) bool {
				if len(page) == scanPage {
					from, more = bytes.Clone(k), true
					return false
				}
				if len(k) == len(block.ID{}) && len(v) == 4 && !seen[block.ID(k)] {
					page = append(page, entry{block.ID(k), binary.BigEndian.Uint32(v)})
				}
				return true
			})
		})
		if err != nil {
			return fmt.Errorf("s3blocks: read the index: %w", err)
		}
		s.mu.Lock()
		left := page[:0]
		for _, e := range page {
			if !s.gone[e.id] {
				left = append(left, e)
			}
		}
		page = left
		s.mu.Unlock()
	}
}

// Bytes returns how many bytes the blocks have that are here, twice: the bucket takes no more of this disk.
func (s *Store) Bytes() (live, disk int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes, s.bytes
}

// Len returns the number of blocks that are here.
func (s *Store) Len() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks
}

// Freeze has nothing to write: Sync writes the index.
func (s *Store) Freeze() (write func(kv.Tx) error, done func(ok bool)) {
	return func(kv.Tx) error { return nil }, func(bool) {}
}

// GetToGive is GetBuffer: what was put or read a short while ago is in memory.
func (s *Store) GetToGive(id block.ID, buf []byte) ([]byte, error) { return s.GetBuffer(id, buf) }

// Doubt does nothing: what the bucket gives is hashed each time.
func (s *Store) Doubt() {}

// Age does nothing: all spaces share what is kept in memory.
func (s *Store) Age() {}

// SetFetcher does nothing: a node asks nobody for blocks.
func (s *Store) SetFetcher(block.Fetcher) {}

// Close waits for what is on its way, and makes the index durable.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	return errors.Join(s.wait(context.Background()), s.Save())
}

// Remove removes all objects of a space, whatever an index says. What it could not remove is there still.
func (c *Client) Remove(ctx context.Context, space dag.ID) error {
	err := c.each(ctx, c.prefix(space), func(o minio.ObjectInfo) error {
		return c.retry(ctx, func(ctx context.Context) error {
			return c.s3.RemoveObject(ctx, c.opt.Bucket, o.Key, minio.RemoveObjectOptions{})
		})
	})
	if err != nil {
		c.failed.Add(1)
		return fmt.Errorf("s3blocks: remove %s: %w", space, err)
	}
	return nil
}
