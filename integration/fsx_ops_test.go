package integration

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	"golang.org/x/sys/unix"
)

// fsxOp is one kind of operation. do says what it does with x.logf before it does it.
type fsxOp struct {
	name   string
	weight int
	named  bool // only for files that have a name
	do     func(x *fsx, f *fsxFile) error
}

var fsxOps = []fsxOp{
	{"read", 12, false, (*fsx).read},
	{"drop", 6, false, (*fsx).drop},
	{"mapread", 5, false, (*fsx).mapRead},
	{"write", 14, false, (*fsx).write},
	{"grow", 3, false, (*fsx).growing},
	{"append", 4, false, (*fsx).append},
	{"mapwrite", 7, false, (*fsx).mapWrite},
	{"truncate", 4, true, (*fsx).truncate},
	{"ftruncate", 4, false, (*fsx).ftruncate},
	{"punch", 5, false, (*fsx).punch},
	{"zero", 5, false, (*fsx).zeroRange},
	{"allocate", 3, false, (*fsx).allocate},
	{"copy", 5, false, (*fsx).copyRange},
	{"seek", 4, false, (*fsx).seek},
	{"stat", 4, false, (*fsx).stat},
	{"fsync", 2, false, func(x *fsx, f *fsxFile) error { return x.fsync(f, unix.Fsync) }},
	{"fdatasync", 2, false, func(x *fsx, f *fsxFile) error { return x.fsync(f, unix.Fdatasync) }},
	{"handle", 4, true, (*fsx).handle},
	{"save", 1, true, (*fsx).save},
	{"backup", 1, true, (*fsx).backup},
	{"unlink", 1, true, (*fsx).unlink},
	{"exchange", 1, true, (*fsx).exchange},
	{"forget", 1, false, (*fsx).forget},
}

var fsxWeights = func() (sum int) {
	for _, op := range fsxOps {
		sum += op.weight
	}
	return sum
}()

// step does one operation.
func (x *fsx) step() error {
	f := x.files[x.rnd.IntN(len(x.files))]
	at := x.rnd.IntN(fsxWeights)
	i := 0
	for ; at >= fsxOps[i].weight; i++ {
		at -= fsxOps[i].weight
	}
	op := &fsxOps[i]
	if op.named && f.path == "" || x.whole && (op.name == "mapwrite" || op.name == "copy") {
		op = &fsxOps[0]
	}
	x.ops++
	x.kinds[op.name]++
	if err := op.do(x, f); err != nil {
		return fmt.Errorf("%s: %w", op.name, err)
	}
	return nil
}

func (x *fsx) logf(f *fsxFile, format string, args ...any) {
	name := f.path
	if name == "" {
		name = "(unlinked)"
	}
	x.log.add("%s (%#x): %s", name, f.size(), fmt.Sprintf(format, args...))
}

// chance is true once in n times.
func (x *fsx) chance(n int) bool { return x.rnd.IntN(n) == 0 }

// span chooses a range that begins below limit and lies below f.max: often short, often at borders of pages.
func (x *fsx) span(f *fsxFile, limit int64) (off, n int64) {
	off = x.rnd.Int64N(min(limit, f.max-1) + 1)
	n = 1 + x.rnd.Int64N(min(fsxBytes, f.max, 1<<(3+x.rnd.IntN(17))))
	if x.chance(3) {
		off &^= fsxPage - 1
	}
	if x.chance(3) {
		n = (n + fsxPage - 1) &^ (fsxPage - 1)
	}
	return off, max(1, min(n, f.max-off, fsxBytes))
}

// data gives n bytes that differ from those before.
func (x *fsx) data(n int64) []byte {
	x.stamp++
	b := x.buf[:n]
	v := x.rnd.Uint64() | 1
	for i := range b {
		b[i] = byte(v >> (8 * (i % 8)))
		if i%8 == 7 {
			v = v*6364136223846793005 + uint64(x.stamp)
		}
	}
	return b
}

func (x *fsx) any(f *fsxFile) fsxHandle { return f.h[x.rnd.IntN(len(f.h))] }

// aligned fits a range to what a handle can do. It may become empty.
func (h fsxHandle) aligned(off, n int64) (int64, int64) {
	if h.flags&unix.O_DIRECT != 0 {
		return off &^ (fsxPage - 1), n &^ (fsxPage - 1)
	}
	return off, n
}

func (x *fsx) read(f *fsxFile) error {
	h := x.any(f)
	off, n := h.aligned(x.span(f, f.size()))
	n = max(n, fsxPage)
	x.logf(f, "read %#x+%#x flags %#x", off, n, h.flags)
	got, err := preadAll(h.fd, x.buf[:n], off)
	if err != nil {
		return err
	}
	return f.is(x.buf[:got], off, n)
}

func preadAll(fd int, b []byte, off int64) (int, error) {
	got := 0
	for got < len(b) {
		n, err := unix.Pread(fd, b[got:], off+int64(got))
		if err != nil || n == 0 {
			return got, err
		}
		got += n
	}
	return got, nil
}

// drop empties the cache of pages, so that the next reads are the daemon's.
func (x *fsx) drop(f *fsxFile) error {
	x.logf(f, "drop pages")
	return unix.Fadvise(x.any(f).fd, 0, 0, unix.FADV_DONTNEED)
}

func (x *fsx) write(f *fsxFile) error {
	off, n := x.span(f, f.size()+f.size()/8+fsxPage)
	return x.writeAt(f, x.any(f), off, n)
}

// growing writes a large piece at the end, or some, as who writes a new file does.
func (x *fsx) growing(f *fsxFile) error {
	for range 1 + x.rnd.IntN(6) {
		n := min(64<<10+x.rnd.Int64N(fsxBytes-64<<10), f.max-f.size())
		if n <= 0 {
			return nil
		}
		if err := x.writeAt(f, x.any(f), f.size(), n); err != nil {
			return err
		}
	}
	return nil
}

func (x *fsx) writeAt(f *fsxFile, h fsxHandle, off, n int64) error {
	off, n = h.aligned(off, n)
	if h.flags&unix.O_APPEND != 0 {
		if off = f.size(); off+n > f.max {
			return nil
		}
		if h.flags&unix.O_DIRECT != 0 && off%fsxPage != 0 {
			return nil
		}
	}
	if n == 0 {
		return nil
	}
	b := x.data(n)
	x.logf(f, "write %#x+%#x flags %#x", off, n, h.flags)
	done, err := unix.Pwrite(h.fd, b, off) // of a handle with O_APPEND Linux ignores the offset
	if err != nil {
		return err
	}
	if done != len(b) {
		return fmt.Errorf("%#x of %#x bytes written", done, len(b))
	}
	// A kill may leave a part of it: the kernel sends what goes into a page that it does not have by itself, and the daemon
	// records pieces of it.
	for at, end := off, off+n; at < end; {
		next := min(at&^(fsxPage-1)+fsxPage, end)
		if cut := at + (off-at)&(fsxPage-1); cut > at {
			next = min(next, cut)
		}
		f.put(at, b[at-off:next-off])
		at = next
	}
	return nil
}

func (x *fsx) append(f *fsxFile) error {
	for _, h := range f.h {
		if h.flags&unix.O_APPEND != 0 {
			_, n := x.span(f, f.size())
			return x.writeAt(f, h, 0, n)
		}
	}
	return x.write(f)
}

// mapped calls fn with a shared map of the pages around a range within the file.
func (x *fsx) mapped(f *fsxFile, prot int, off, n int64, fn func(pages []byte, at int64) error) (err error) {
	fd := f.h[0].fd
	start := off &^ (fsxPage - 1)
	pages, err := unix.Mmap(fd, start, int(off+n-start), prot, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("in the map: %v", v)
		}
		err = errors.Join(err, unix.Munmap(pages))
	}()
	return fn(pages, off-start)
}

func (x *fsx) mapRead(f *fsxFile) error {
	if f.size() == 0 {
		return nil
	}
	off, n := x.span(f, f.size()-1)
	n = min(n, f.size()-off)
	x.logf(f, "mapread %#x+%#x", off, n)
	return x.mapped(f, unix.PROT_READ, off, n, func(pages []byte, at int64) error {
		if err := f.is(pages[at:at+n], off, n); err != nil {
			return err
		}
		// What a map shows behind the end of the file is zero.
		if tail := pages[at+n : cap(pages)]; off+n == f.size() && !allZero(tail) {
			return fmt.Errorf("the map shows % x behind the end", tail[:min(16, len(tail))])
		}
		return nil
	})
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (x *fsx) mapWrite(f *fsxFile) error {
	if f.size() == 0 {
		return nil
	}
	off, n := x.span(f, f.size()-1)
	n = min(n, f.size()-off)
	how := []int{unix.MS_SYNC, unix.MS_SYNC, unix.MS_ASYNC, 0}[x.rnd.IntN(4)]
	dirt := x.chance(3) // behind the end: it must never be seen when the file grows
	b := x.data(n)
	x.logf(f, "mapwrite %#x+%#x, msync %d, dirt %v", off, n, how, dirt)
	whole := !f.pieces
	f.pieces = true
	err := x.mapped(f, unix.PROT_READ|unix.PROT_WRITE, off, n, func(pages []byte, at int64) error {
		copy(pages[at:], b)
		if tail := pages[at+n : cap(pages)]; off+n == f.size() && dirt {
			for i := range tail {
				tail[i] = 0xee
			}
		}
		if how == 0 {
			return nil
		}
		return unix.Msync(pages, how)
	})
	if err != nil {
		return err
	}
	f.put(off, b)
	if how == unix.MS_SYNC && whole {
		f.safe()
	}
	return nil
}

// length chooses a new size.
func (x *fsx) length(f *fsxFile) int64 {
	switch x.rnd.IntN(6) {
	case 0:
		return f.size() &^ (fsxPage - 1)
	case 1:
		return max(0, f.size()-x.rnd.Int64N(fsxPage))
	case 2:
		return min(f.max, f.size()+x.rnd.Int64N(2*fsxPage))
	case 3:
		return x.rnd.Int64N(f.size() + 1)
	default:
		return x.rnd.Int64N(f.max + 1)
	}
}

func (x *fsx) truncate(f *fsxFile) error {
	size := x.length(f)
	x.logf(f, "truncate to %#x", size)
	if err := unix.Truncate(f.path, size); err != nil {
		return err
	}
	f.resize(size)
	return nil
}

func (x *fsx) ftruncate(f *fsxFile) error {
	size := x.length(f)
	x.logf(f, "ftruncate to %#x", size)
	if err := unix.Ftruncate(x.any(f).fd, size); err != nil {
		return err
	}
	f.resize(size)
	return nil
}

func (x *fsx) fallocate(f *fsxFile, mode uint32, off, n int64) error {
	x.logf(f, "fallocate mode %#x %#x+%#x", mode, off, n)
	if err := unix.Fallocate(x.any(f).fd, mode, off, n); err != nil {
		return err
	}
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 && off+n > f.size() {
		f.resize(off + n)
	}
	if mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0 {
		f.zero(off, n)
	}
	f.touched, f.loose = true, true // also where it changes nothing
	return nil
}

func (x *fsx) punch(f *fsxFile) error {
	off, n := x.span(f, f.size())
	return x.fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (x *fsx) zeroRange(f *fsxFile) error {
	off, n := x.span(f, f.size())
	return x.fallocate(f, unix.FALLOC_FL_ZERO_RANGE|uint32(x.rnd.IntN(2))*unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (x *fsx) allocate(f *fsxFile) error {
	off, n := x.span(f, f.size()+fsxPage)
	return x.fallocate(f, uint32(x.rnd.IntN(2))*unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// copyRange copies within a file or to another one.
func (x *fsx) copyRange(f *fsxFile) error {
	g := f
	if x.chance(2) {
		g = x.files[x.rnd.IntN(len(x.files))]
	}
	h, k := x.any(f), x.any(g)
	if k.flags&unix.O_APPEND != 0 {
		k = g.h[0]
	}
	off, n := x.span(f, f.size())
	to, _ := x.span(g, g.size()+fsxPage)
	n = min(n, g.max-to)
	x.logf(f, "copy %#x+%#x to %s (%#x) %#x", off, n, g.path, g.size(), to)
	from, into := off, to
	done, err := unix.CopyFileRange(h.fd, &from, k.fd, &into, int(n), 0)
	want := max(0, min(n, f.size()-off))
	switch {
	case k.flags&unix.O_APPEND != 0:
		want, err = 0, expect(err, unix.EBADF)
	case f == g && off < to+n && to < off+n && want > 0:
		if to < off+want && off < to+want {
			want, err = 0, expect(err, unix.EINVAL)
		}
	}
	if err != nil {
		return err
	}
	if int64(max(done, 0)) != want {
		return fmt.Errorf("%#x bytes copied, want %#x", done, want)
	}
	if want > 0 {
		g.put(to, slices.Clone(f.b[off:off+want]))
		g.pieces = true
	}
	return nil
}

// expect turns an error that must come into none.
func expect(err error, want unix.Errno) error {
	if errors.Is(err, want) {
		return nil
	}
	return fmt.Errorf("the error is %v, want %v", err, want)
}

// seek looks for data and holes: what is called a hole must read as zeros, and between data no hole is left out.
func (x *fsx) seek(f *fsxFile) error {
	off := x.rnd.Int64N(f.size() + 2)
	fd := x.any(f).fd
	x.logf(f, "seek from %#x", off)
	data, err := unix.Seek(fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		data = f.size()
	case err != nil:
		return err
	case data < off || data >= f.size():
		return fmt.Errorf("SEEK_DATA from %#x gives %#x of %#x", off, data, f.size())
	}
	if off < f.size() && !allZero(f.b[off:data]) {
		return fmt.Errorf("SEEK_DATA from %#x gives %#x, and there is data between", off, data)
	}
	hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
	switch {
	case off >= f.size():
		return expect(err, unix.ENXIO)
	case err != nil:
		return err
	case hole < off || hole > f.size():
		return fmt.Errorf("SEEK_HOLE from %#x gives %#x of %#x", off, hole, f.size())
	case hole < f.size() && f.b[hole] != 0:
		return fmt.Errorf("SEEK_HOLE from %#x gives %#x, and there is data", off, hole)
	}
	return nil
}

func (x *fsx) stat(f *fsxFile) error {
	x.logf(f, "stat")
	var st unix.Stat_t
	if err := unix.Fstat(x.any(f).fd, &st); err != nil {
		return err
	}
	changed, touched, last := f.changed, f.touched, f.mtime
	f.changed, f.touched, f.mtime = false, false, st.Mtim.Nano()
	switch {
	case st.Size != f.size():
		return fmt.Errorf("the size is %#x, want %#x", st.Size, f.size())
	case st.Blocks*512 > f.size()+fsxPage:
		return fmt.Errorf("%d blocks for %#x bytes", st.Blocks, f.size())
	case changed && f.mtime <= last:
		return fmt.Errorf("the file changed, and its mtime is %d after %d", f.mtime, last)
	case !changed && !touched && last != 0 && f.mtime != last:
		return fmt.Errorf("the file did not change, and its mtime is %d after %d", f.mtime, last)
	}
	return nil
}

func (x *fsx) fsync(f *fsxFile, sync func(int) error) error {
	x.logf(f, "fsync")
	if err := sync(f.h[0].fd); err != nil {
		return err
	}
	f.safe()
	return nil
}

// handle opens one more handle, or closes one.
func (x *fsx) handle(f *fsxFile) error {
	if len(f.h) >= fsxHandles || len(f.h) > 1 && x.chance(2) {
		i := 1 + x.rnd.IntN(len(f.h)-1)
		x.logf(f, "close, flags %#x", f.h[i].flags)
		err := unix.Close(f.h[i].fd)
		f.h = slices.Delete(f.h, i, i+1)
		return err
	}
	flags := []int{0, unix.O_APPEND, unix.O_DIRECT, unix.O_DSYNC, unix.O_SYNC, unix.O_DIRECT | unix.O_APPEND, unix.O_TRUNC}[x.rnd.IntN(7)]
	x.logf(f, "open, flags %#x", flags)
	if err := f.open(flags); err != nil {
		return err
	}
	if flags&unix.O_TRUNC != 0 {
		f.resize(0)
	}
	return nil
}

// fresh makes a file at path with random content, in pieces. Its first handle is open.
func (x *fsx) fresh(path string, limit int64) (*fsxFile, error) {
	g := &fsxFile{path: path, max: limit}
	g.safe()
	x.logf(g, "create")
	if err := create(path); err != nil {
		return nil, err
	}
	if err := g.open(0); err != nil {
		return nil, err
	}
	for range x.rnd.IntN(4) {
		_, n := x.span(g, 0)
		if err := x.writeAt(g, g.h[0], g.size(), min(n, g.max-g.size())); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// replace lets g stand for f, whose name it took. Who has f open keeps it.
func (x *fsx) replace(f, g *fsxFile) {
	x.files[slices.Index(x.files, f)] = g
	f.path = ""
	if len(x.files) < len(fsxSizes)+fsxOrphans && x.chance(2) {
		x.files = append(x.files, f)
		return
	}
	f.close()
}

// save replaces a file by a new one under its name, as most editors do.
func (x *fsx) save(f *fsxFile) error {
	path := f.path
	x.serial++
	g, err := x.fresh(fmt.Sprintf("%s.tmp%d", path, x.serial), f.max)
	if err != nil {
		return err
	}
	if x.chance(2) {
		if err := x.fsync(g, unix.Fsync); err != nil {
			return err
		}
	}
	x.logf(g, "rename to %s", path)
	if err := unix.Rename(g.path, path); err != nil {
		return err
	}
	g.path = path
	g.safe() // a name that was replaced never shows half a file
	x.replace(f, g)
	return nil
}

// backup saves the other way: the old file is renamed aside, a new one is written under its name, and the old one removed.
func (x *fsx) backup(f *fsxFile) error {
	path, aside := f.path, f.path+"~"
	x.logf(f, "rename to %s", aside)
	if err := unix.Rename(path, aside); err != nil {
		return err
	}
	g, err := x.fresh(path, f.max)
	if err != nil {
		return err
	}
	x.logf(f, "unlink %s", aside)
	if err := unix.Unlink(aside); err != nil {
		return err
	}
	x.replace(f, g)
	return nil
}

func (x *fsx) unlink(f *fsxFile) error {
	path := f.path
	x.logf(f, "unlink")
	if err := os.Remove(path); err != nil {
		return err
	}
	g, err := x.fresh(path, f.max)
	if err != nil {
		return err
	}
	x.replace(f, g)
	return nil
}

func (x *fsx) exchange(f *fsxFile) error {
	g := x.files[x.rnd.IntN(len(x.files))]
	if g == f || g.path == "" {
		return nil
	}
	x.logf(f, "exchange with %s", g.path)
	if err := unix.Renameat2(unix.AT_FDCWD, f.path, unix.AT_FDCWD, g.path, unix.RENAME_EXCHANGE); err != nil {
		return err
	}
	f.path, g.path = g.path, f.path
	return nil
}

// forget closes a file that has no name.
func (x *fsx) forget(f *fsxFile) error {
	if f.path != "" {
		return nil
	}
	x.logf(f, "close for good")
	f.close()
	x.files = slices.DeleteFunc(x.files, func(g *fsxFile) bool { return g == f })
	return nil
}
