package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sort"
	"syscall"

	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// Read fills p from offset off. It reads less only at the end of the file.
func (h *Home) Read(ctx context.Context, ino Ino, p []byte, off int64) (int, error) {
	if isView(ino) {
		return h.views.read(ctx, ino, p, off)
	}
	s, local, err := h.space(ino)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, ErrInvalid
	}
	// The journal's file that an extent lies in may be reused between looking and reading, once what it holds is published:
	// then the same bytes are found elsewhere.
	for try := 0; ; try++ {
		s.mu.Lock()
		n, err := s.inode(local)
		if err == nil && n.IsDir() {
			err = ErrIsDir
		}
		if err != nil {
			s.mu.Unlock()
			return 0, err
		}
		v := s.view(n, p, off)
		s.mu.Unlock()
		got, err := s.fill(ctx, v)
		if err == nil || try == 2 || !errors.Is(err, errMoved) {
			return got, err
		}
	}
}

// errMoved is a read from the journal that failed, perhaps since the file was reused.
var errMoved = errors.New("fs: the journal has moved on")

// piece is a part of a read: the bytes p, from skip in src, or where src is nil from offset skip in the base content.
type piece struct {
	p    []byte
	src  *index.Source
	skip int64
}

// readView is a read that was looked up: what is left to do needs no lock.
type readView struct {
	n      int // bytes that it gives
	base   *tree.Content
	baseAt tree.Ref
	pieces []piece
	one    [4]piece // pieces of most reads
}

// view looks up where the bytes [off, off+len(p)) of a file are, copies what is in memory and zeroes what is a hole. Under mu.
func (s *space) view(n *index.Inode, p []byte, off int64) *readView {
	v := &readView{base: n.Base, baseAt: n.BaseAt}
	v.pieces = v.one[:0]
	if off >= n.Size {
		return v
	}
	p = p[:min(int64(len(p)), n.Size-off)]
	v.n = len(p)
	limit := n.Limit()
	base := func(from, to int64) {
		if from >= to {
			return
		}
		if from < limit {
			cut := min(to, limit)
			v.pieces = append(v.pieces, piece{p: p[from-off : cut-off], skip: from})
			from = cut
		}
		if from < to {
			clear(p[from-off : to-off])
		}
	}
	at := off
	if n.Ext != nil {
		n.Ext.Range(off, int64(len(p)), func(k int64, x index.Extent) bool {
			base(at, k)
			q := p[k-off : k-off+x.Len]
			switch x.Src.Kind {
			case index.SourceZero:
				clear(q)
			case index.SourceMem:
				copy(q, x.Src.Mem[x.Skip:])
			default: // in the journal, a block or a patch
				v.pieces = append(v.pieces, piece{p: q, src: x.Src, skip: x.Skip})
			}
			at = k + x.Len
			return true
		})
	}
	base(at, off+int64(len(p)))
	return v
}

// fill reads what a view left open.
func (s *space) fill(ctx context.Context, v *readView) (int, error) {
	for _, q := range v.pieces {
		switch {
		case q.src == nil:
			if err := s.readContent(ctx, v.base, v.baseAt, q.p, q.skip); err != nil {
				return 0, err
			}
		case q.src.Kind == index.SourceJournal:
			if err := s.h.jr.ReadAt(q.src.Loc, q.p, int(q.skip)); err != nil {
				return 0, errors.Join(errMoved, ErrIO, err)
			}
		case q.src.Kind == index.SourcePatch:
			b, err := s.opBytes(q.src.At)
			if err != nil {
				return 0, err
			}
			if k := int64(len(b)) - q.skip; k < int64(len(q.p)) {
				return 0, s.damaged(fmt.Errorf("the patch in change %s ends %d bytes early", q.src.At.Change, int64(len(q.p))-k))
			}
			copy(q.p, b[q.skip:])
		default:
			if err := s.readBlock(ctx, q.src.Block, q.p, q.skip); err != nil {
				return 0, err
			}
		}
	}
	return v.n, nil
}

// Write writes p at off, or at the end of the file.
func (h *Home) Write(ctx context.Context, ino Ino, p []byte, off int64, f WriteFlags) (int, error) {
	if isView(ino) {
		return 0, ErrReadOnly
	}
	s, local, err := h.change(ino)
	if err != nil {
		return 0, err
	}
	if off < 0 || off > math.MaxInt64-int64(len(p)) {
		return 0, ErrInvalid
	}
	if len(p) == 0 {
		return 0, nil
	}
	if s.overQuota() {
		return 0, ErrQuota
	}
	if err := h.makeRoomFor(ctx, int64(len(p))); err != nil {
		return 0, err
	}
	done := 0
	for freed, tries := false, 0; done < len(p); {
		n, err := s.tryWrite(ctx, local, p[done:min(len(p), done+maxWrite)], off+int64(done), f)
		done += n
		switch {
		case err == nil, errors.Is(err, errAgain):
			continue
		case err == ErrNoSpace && !freed:
			if freed = h.freeHistory(ctx, int64(len(p)-done)); freed {
				continue
			}
		case errors.Is(err, journal.ErrFull):
			if tries++; tries > maxTriesForRoom {
				err = fmt.Errorf("%w: %w", ErrNoSpace, err)
			} else if err = h.makeRoom(); err == nil {
				continue
			}
		}
		if done > 0 {
			break
		}
		return 0, err
	}
	return done, nil
}

// maxWrite is the longest piece that a write is taken in.
const maxWrite = 1 << 20

// privileged reports whether a write by someone without privilege takes something from the inode's mode or attributes.
func privileged(n *index.Inode) bool {
	if n.Mode&syscall.S_ISUID != 0 || n.Mode&(syscall.S_ISGID|010) == syscall.S_ISGID|010 {
		return true
	}
	_, has := n.Xattr("security.capability")
	return has
}

func (s *space) tryWrite(ctx context.Context, ino uint64, p []byte, off int64, f WriteFlags) (int, error) {
	s.mu.Lock()
	n, err := s.change(ino)
	if err == nil && !n.IsRegular() {
		err = ErrInvalid
		if n.IsDir() {
			err = ErrIsDir
		}
	}
	if err == nil && s.gone {
		err = ErrStale
	}
	if err != nil {
		s.mu.Unlock()
		return 0, err
	}
	if f.Append {
		off = n.Size
	}
	// What a write does to suid and sgid is in its record; a stream's writes have none.
	kill := f.KillPriv && privileged(n)
	if st := s.streamFor(n, off, len(p), kill); st != nil {
		s.mu.Unlock()
		if kill {
			if err := s.settleStream(ino); err != nil {
				return 0, err
			}
			return 0, errAgain
		}
		settled, err := s.writeStream(ctx, st, p, off)
		if err == nil {
			return len(p), nil
		}
		if errors.Is(err, errAgain) && !settled {
			if err := s.settleStream(ino); err != nil {
				return 0, err
			}
		}
		return 0, err
	}
	defer s.mu.Unlock()
	now := s.h.now()
	done := 0
	for done < len(p) {
		k := min(len(p)-done, dataPiece)
		if err := s.journalData(n, off+int64(done), p[done:done+k], now, kill, false); err != nil {
			if done > 0 {
				return done, nil
			}
			return 0, err
		}
		done += k
	}
	return done, nil
}

// Fsync returns when what was written to the inode, and every operation before, is durable.
func (h *Home) Fsync(ctx context.Context, ino Ino) error {
	if isView(ino) {
		return nil
	}
	s, local, err := h.space(ino)
	if err != nil {
		return err
	}
	if err := s.settleStream(local); err != nil {
		return err
	}
	s.mu.Lock()
	seq := s.last
	s.noteFsync(local)
	s.mu.Unlock()
	h.fsyncs.begin()
	defer h.fsyncs.end()
	return h.sync(ctx, seq)
}

// sync makes the records up to seq durable, and the blocks that they refer to first: those of every space, since a record
// whose block a power loss took ends what is valid of the journal, whosever records come behind it.
func (h *Home) sync(ctx context.Context, seq journal.Seq) error {
	for _, s := range h.each() {
		if err := s.syncBlocks(ctx); err != nil {
			return h.broken(err)
		}
	}
	if err := h.jr.Sync(ctx, seq); err != nil {
		return h.broken(err)
	}
	return nil
}

// syncBlocks makes the blocks of a space durable. A space that was deleted meanwhile has none.
func (s *space) syncBlocks(ctx context.Context) error {
	err := s.blocks.Sync(ctx)
	if err != nil && s.deleted() {
		return nil
	}
	return err
}

func (s *space) deleted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// Fallocate reserves (mode 0, KEEP_SIZE), punches a hole (PUNCH_HOLE with KEEP_SIZE) or zeroes (ZERO_RANGE). Nothing is stored
// for what is reserved: the file grows, unless KEEP_SIZE.
func (h *Home) Fallocate(ctx context.Context, ino Ino, mode uint32, off, n int64) error {
	if isView(ino) {
		return ErrReadOnly
	}
	switch mode {
	case 0, FallocKeepSize, FallocPunchHole | FallocKeepSize, FallocZeroRange, FallocZeroRange | FallocKeepSize:
	default:
		return ErrNotSup
	}
	if off < 0 || n <= 0 || off > math.MaxInt64-n {
		return ErrInvalid
	}
	s, local, err := h.change(ino)
	if err != nil {
		return err
	}
	if mode&^FallocKeepSize == 0 {
		if s.overQuota() {
			return ErrQuota
		}
		if err := h.makeRoomFor(ctx, n); err != nil {
			return err
		}
	}
	if err := s.settleStream(local); err != nil {
		return err
	}
	return s.do(false, func() (*writer, func(*mutation) error, error) {
		x, err := s.inode(local)
		if err != nil {
			return nil, nil, err
		}
		if !x.IsRegular() {
			return nil, nil, ErrInvalid
		}
		r := &fallocateRecord{Ino: local, Mode: mode, Off: off, N: n, Time: h.now()}
		if mode&FallocPunchHole != 0 && r.Off < x.Size {
			r.N = min(r.N, x.Size-r.Off)
		}
		w := s.record(recFallocate)
		r.encode(w)
		return w, func(m *mutation) error { return s.applyFallocate(m.seq, r) }, nil
	})
}

// Whence values of Seek, with the kernel's numbers.
const (
	SeekData = 3
	SeekHole = 4
)

// Seek finds the next data or hole at or behind off; ENXIO when there is none before the end.
func (h *Home) Seek(ino Ino, off int64, whence int) (int64, error) {
	if isView(ino) {
		return h.views.seek(ino, off, whence)
	}
	s, local, err := h.space(ino)
	if err != nil {
		return 0, err
	}
	if whence != SeekData && whence != SeekHole {
		return 0, ErrInvalid
	}
	s.mu.Lock()
	n, err := s.inode(local)
	if err == nil {
		n = n.Clone()
	}
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= n.Size {
		return 0, errNoData
	}
	layout, known := s.knownLayout(n.Base)
	if !known && !s.blocks.Has(n.Base.LayoutBlock) {
		// Where its holes are is not known here, and nobody waits for that: all of it counts as data.
		layout, known = []tree.Chunk{{Off: 0, Len: n.Size}}, true
	}
	if !known {
		if layout, err = s.layout(context.Background(), n.Base); err != nil {
			return 0, err
		}
	}
	at := off
	for at < n.Size {
		data, end := dataAt(n, layout, at)
		if data == (whence == SeekData) {
			return at, nil
		}
		at = end
	}
	if whence == SeekHole {
		return n.Size, nil
	}
	return 0, errNoData
}

// dataAt says whether a file has data at an offset, and up to where it goes on alike. layout is that of its base.
func dataAt(n *index.Inode, layout []tree.Chunk, at int64) (data bool, end int64) {
	end = n.Size
	if n.Ext != nil {
		found := false
		n.Ext.Range(at, n.Size-at, func(k int64, x index.Extent) bool {
			if k > at {
				end = k
				return false
			}
			found, data, end = true, x.Src.Kind != index.SourceZero, k+x.Len
			return false
		})
		if found {
			return data, end
		}
	}
	limit := n.Limit()
	if at >= limit {
		return false, end
	}
	end = min(end, limit)
	i := sort.Search(len(layout), func(i int) bool { return layout[i].Off+layout[i].Len > at })
	if i == len(layout) {
		return false, end
	}
	if at < layout[i].Off {
		return false, min(end, layout[i].Off)
	}
	return true, min(end, layout[i].Off+layout[i].Len)
}

// CopyRange copies n bytes between files of the same space, by reference where whole blocks allow, and returns how many it
// copied: less than n at the end of the source.
func (h *Home) CopyRange(ctx context.Context, src Ino, srcOff int64, dst Ino, dstOff, n int64) (int64, error) {
	if isView(dst) {
		return 0, ErrReadOnly
	}
	if srcOff < 0 || dstOff < 0 || n < 0 || srcOff > math.MaxInt64-n || dstOff > math.MaxInt64-n {
		return 0, ErrInvalid
	}
	if isView(src) {
		return 0, ErrCrossSpace
	}
	s, from, err := h.space(src)
	if err != nil {
		return 0, err
	}
	s2, to, err := h.change(dst)
	if err != nil {
		return 0, err
	}
	if s != s2 {
		return 0, ErrCrossSpace
	}
	if from == to && srcOff < dstOff+n && dstOff < srcOff+n {
		return 0, ErrInvalid
	}
	for _, i := range []uint64{from, to} {
		if err := s.settleStream(i); err != nil {
			return 0, err
		}
	}
	var done int64
	for try := 0; ; try++ {
		k, err := s.copyRange(ctx, from, srcOff+done, to, dstOff+done, n-done)
		if done += k; k > 0 {
			try = 0
		}
		if !errors.Is(err, errMoved) || try == 2 { // as in Read
			return done, err
		}
	}
}

var _ io.ReaderAt = (*fileReader)(nil)

// fileReader reads one state of a file: a clone of its inode.
type fileReader struct {
	ctx context.Context
	s   *space
	n   *index.Inode
}

// ReadAt reads from the clone; io.EOF at its end.
func (r *fileReader) ReadAt(p []byte, off int64) (int, error) {
	r.s.mu.Lock()
	v := r.s.view(r.n, p, off)
	r.s.mu.Unlock()
	got, err := r.s.fill(r.ctx, v)
	if err == nil && got < len(p) {
		err = io.EOF
	}
	return got, err
}
