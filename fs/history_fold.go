package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// moment is a time in the history of a space. A change is in it when its own time, by the clock of its device, is not later.
// One that claims to be older than the one before it in its object counts as being as old as that, and so does one that
// claims to be from more than a day after now: what a clock wrote that was badly wrong hides nothing for years. The changes
// of an object that are in a moment are so always the first ones in its order.
type moment struct {
	time int64 // Unix nanoseconds, the last one that is in it
	now  int64
}

const maxAhead = int64(24 * time.Hour)

// in reports whether a change of time t is in the moment; last is the time that the change before it counts with.
func (m *moment) in(t int64, last *int64) bool {
	if t > *last && t-maxAhead <= m.now {
		*last = t
	}
	return *last <= m.time
}

// errStop ends a walk over changes.
var errStop = errors.New("fs: enough")

// opened is open of a change whose payload may be none: it is nil then, an empty operation.
func (s *space) opened(e *dag.Entry) *tree.Payload {
	p, err := s.open(e)
	if err != nil {
		return nil
	}
	return p
}

// fold gives the state of an object: as it is now by what is published, or with a moment as it was then. Nil when there is no
// such object, or was none.
func (s *space) fold(object dag.ID, m *moment) (*tree.State, error) {
	if m == nil {
		st, _, err := s.stateOf(object)
		if err != nil {
			return nil, s.damaged(err)
		}
		if st.Top == (dag.Pos{}) && object != tree.RootObject(s.id) {
			return nil, nil
		}
		return st, nil
	}
	last := int64(math.MinInt64)
	m = &moment{m.time, s.h.opt.Clock().UnixNano()}
	return s.foldWhile(object, func(e *dag.Entry, p *tree.Payload) bool {
		return p == nil || m.in(p.Time, &last)
	})
}

// foldTo is the state of an object after one of its changes; nil when that is none of them.
func (s *space) foldTo(object, change dag.ID) (*tree.State, error) {
	if heads, err := s.graph.HeadsOf(object); err == nil && len(heads) == 1 && heads[0] == change {
		return s.fold(object, nil) // from a snapshot, where there is one
	}
	met := false
	st, err := s.foldWhile(object, func(e *dag.Entry, _ *tree.Payload) bool {
		if met {
			return false
		}
		met = e.ID == change
		return true
	})
	if !met {
		return nil, err
	}
	return st, err
}

func (s *space) foldWhile(object dag.ID, more func(*dag.Entry, *tree.Payload) bool) (*tree.State, error) {
	return s.foldThose(object, func(e *dag.Entry, p *tree.Payload) (bool, error) {
		if !more(e, p) {
			return false, errStop
		}
		return true, nil
	})
}

// foldThose is the state of an object by those of its changes for which which holds, up to where that fails.
func (s *space) foldThose(object dag.ID, which func(*dag.Entry, *tree.Payload) (bool, error)) (*tree.State, error) {
	st := tree.NewState(object)
	if object == tree.RootObject(s.id) {
		st = tree.NewRootState(s.id)
	}
	none := st.Kind == tree.KindNone
	err := s.graph.Changes(object, func(e dag.Entry) error {
		p := s.opened(&e)
		if yes, err := which(&e, p); !yes {
			return err
		}
		none = false
		return st.Apply(tree.Stamp{ID: e.ID, Pos: e.Pos, Device: e.Change.Device}, p)
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, s.damaged(err)
	}
	if none {
		return nil, nil
	}
	return st, nil
}

// VersionFile is the content of a file as one version of it had it. It may be read by many at once.
type VersionFile struct {
	s       *space
	base    *tree.Content
	at      tree.Ref        // the operation that holds base
	patches []*tree.Content // over base, the oldest first
	refs    []tree.Ref      // their operations

	Version string // the change's ID
	Mode    uint32 // permission bits
	Mtime   time.Time
	size    int64
}

// Size is the length of the content in bytes.
func (f *VersionFile) Size() int64 { return f.size }

// ReadAt reads as io.ReaderAt says. It waits for content that is not on this device for as long as that takes; where it was
// pruned the error matches ErrPruned.
func (f *VersionFile) ReadAt(p []byte, off int64) (int, error) {
	return f.readAt(context.Background(), p, off)
}

func (f *VersionFile) readAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, ErrInvalid
	}
	if off >= f.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), f.size-off))
	if err := f.fill(ctx, p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fill reads the bytes [off, off+len(p)), all below the size: the base, and each patch over it.
func (f *VersionFile) fill(ctx context.Context, p []byte, off int64) error {
	end := off + int64(len(p))
	limit := min(end, f.base.Size)
	for _, c := range f.patches {
		limit = min(limit, max(c.Size, off)) // what was once cut off reads as zeros later
	}
	if limit > off {
		if err := f.s.readContent(ctx, f.base, f.at, p[:limit-off], off); err != nil {
			return f.s.prunedError(f.base.Root, err)
		}
	}
	clear(p[max(0, limit-off):])
	for _, c := range f.patches {
		if c.Size < end {
			clear(p[max(0, c.Size-off):])
		}
		for i := range c.Patch {
			e := &c.Patch[i]
			if e.Off >= end {
				break
			}
			if e.Off+e.Len <= off {
				continue
			}
			from, to := max(e.Off, off), min(e.Off+e.Len, end)
			q := p[from-off : to-off]
			k := 0
			if skip := from - e.Off; skip < int64(len(e.Bytes)) {
				k = copy(q, e.Bytes[skip:])
			}
			clear(q[k:])
		}
	}
	return nil
}

// Next gives the first stretch of data, [from, to), at or behind off: what lies between off and from is a hole. Where there is no
// more data both are the size.
func (f *VersionFile) Next(off int64) (from, to int64, err error) {
	data, err := f.data()
	if err != nil {
		return 0, 0, f.s.prunedError(f.base.Root, err)
	}
	i := sort.Search(len(data), func(i int) bool { return data[i].Off+data[i].Len > off })
	if i == len(data) {
		return f.size, f.size, nil
	}
	return max(off, data[i].Off), data[i].Off + data[i].Len, nil
}

// data gives where the content has data, ascending and with a hole between any two. What a patch once wrote counts, zeros too.
func (f *VersionFile) data() ([]tree.Chunk, error) {
	layout, err := f.s.layout(context.Background(), f.base)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(layout)
	for _, c := range f.patches {
		for i := range c.Patch {
			all = append(all, tree.Chunk{Off: c.Patch[i].Off, Len: c.Patch[i].Len})
		}
	}
	slices.SortFunc(all, func(a, b tree.Chunk) int { return cmp.Compare(a.Off, b.Off) })
	out := all[:0]
	for _, c := range all {
		c.Len = min(c.Len, f.size-c.Off)
		last := len(out) - 1
		switch {
		case c.Len <= 0:
		case last >= 0 && out[last].Off+out[last].Len >= c.Off:
			out[last].Len = max(out[last].Len, c.Off+c.Len-out[last].Off)
		default:
			out = append(out, c)
		}
	}
	return out, nil
}

// mostPatches is how many patches over one another are followed: more than any writer makes.
const mostPatches = 4096

// contentOf gives the content that the operation at a ref put into a file, with what it patches.
func (s *space) contentOf(at tree.Ref) (*VersionFile, error) {
	f := &VersionFile{s: s}
	var bytes int
	for {
		p, err := s.payload(at.Change)
		if err != nil {
			return nil, s.damaged(fmt.Errorf("content in change %s: %w", at.Change, err))
		}
		if int(at.Place) >= len(p.Ops) || p.Ops[at.Place].Kind != tree.OpContent {
			return nil, s.damaged(fmt.Errorf("change %s has no content at %d", at.Change, at.Place))
		}
		op := &p.Ops[at.Place]
		if !op.Content.IsPatch() {
			f.base, f.at = op.Content, at
			break
		}
		for i := range op.Content.Patch {
			bytes += len(op.Content.Patch[i].Bytes)
		}
		f.refs = append(f.refs, at)
		if f.patches = append(f.patches, op.Content); len(f.patches) > mostPatches || bytes > 64<<20 {
			return nil, s.damaged(fmt.Errorf("content in change %s: too many patches", at.Change))
		}
		at = op.Over[0]
	}
	slices.Reverse(f.patches)
	slices.Reverse(f.refs)
	f.size = f.base.Size
	if n := len(f.patches); n > 0 {
		f.size = f.patches[n-1].Size
	}
	return f, nil
}

// fileOf gives the content that a state shows: of several candidates their merge, or the one that keeps the name.
func (s *space) fileOf(st *tree.State) (f *VersionFile, err error) {
	v := st.View()
	switch {
	case v.Merged:
		f = s.inlineFile(v.Text)
	case v.Main.Ref.Change.IsZero():
		f = s.inlineFile(nil) // never written
	default:
		if f, err = s.contentOf(v.Main.Ref); err != nil {
			return nil, err
		}
	}
	f.Mode, f.Mtime = stateMode(st), time.Unix(0, stateMtime(st))
	return f, nil
}

func (s *space) inlineFile(text []byte) *VersionFile {
	return &VersionFile{s: s, base: &tree.Content{Size: int64(len(text)), Inline: text}, size: int64(len(text))}
}

// stateMode gives the permission bits of an object.
func stateMode(st *tree.State) uint32 {
	switch {
	case st.ModeSet:
		return st.Mode
	case st.Kind == tree.KindDir:
		return 0755
	case st.Kind == tree.KindSymlink:
		return 0777
	}
	return 0644
}

// stateMtime gives the time of last modification of an object.
func stateMtime(st *tree.State) int64 {
	if st.MtimeSet {
		return st.Mtime
	}
	if st.Kind == tree.KindFile {
		if v := st.View(); !v.Main.Ref.Change.IsZero() {
			return v.Mtime
		}
		return st.Born
	}
	if st.Kind == tree.KindDir {
		return st.Time
	}
	return st.Born
}

// changedAt is the time that a change carries: when the last of what it says was done, not when it was published.
func changedAt(n *index.Inode, now int64) int64 {
	if n.Ctime > 0 && n.Ctime < now {
		return n.Ctime
	}
	return now
}
