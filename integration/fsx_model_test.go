package integration

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An fsx does random operations on a few files of a folder, and holds all that can be seen of them against a model in
// memory. What it does follows from its source of random numbers alone. It is for one goroutine.
//
// The idea is that of Apple's fsx (1991); nothing of its code is used.
type fsx struct {
	dir    string
	rnd    *rand.Rand
	files  []*fsxFile
	log    fsxLog
	ops    int
	serial int
	kinds  map[string]int
	stamp  byte // changes with each write, so that old bytes are no new ones
	buf    []byte

	whole bool // for now nothing is done of which a kill may leave parts
}

const (
	fsxPage    = 4096
	fsxBytes   = 512 << 10 // of the largest operation: one request of the kernel
	fsxHandles = 4
	fsxOrphans = 2
	fsxLast    = 300 // operations that a failure shows
)

// fsxSizes bound the files. They are chosen so that contents cross the sizes at which they begin to be kept otherwise: in the
// change itself, in the journal, in one block, in many.
var fsxSizes = []int64{14 << 10, 100 << 10, 400 << 10, 6 << 20}

// newFsx makes a folder with its files.
func newFsx(dir string, rnd *rand.Rand) (*fsx, error) {
	x := &fsx{dir: dir, rnd: rnd, kinds: map[string]int{}, buf: alignedBytes(fsxBytes + fsxPage)}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	for i, size := range fsxSizes {
		f := &fsxFile{path: filepath.Join(dir, fmt.Sprintf("f%d", i)), max: size}
		if err := create(f.path); err != nil {
			return nil, err
		}
		f.safe()
		x.files = append(x.files, f)
	}
	return x, x.open()
}

// alignedBytes gives a buffer as O_DIRECT wants it.
func alignedBytes(n int) []byte {
	b := make([]byte, n+fsxPage)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (fsxPage - 1)
	return b[skip : skip+n : skip+n]
}

// fsxLog keeps the last operations.
type fsxLog struct {
	lines [fsxLast]string
	n     int
}

func (l *fsxLog) add(format string, args ...any) {
	l.lines[l.n%fsxLast] = fmt.Sprintf(format, args...)
	l.n++
}

func (l *fsxLog) String() string {
	var out strings.Builder
	for i := max(0, l.n-fsxLast); i < l.n; i++ {
		fmt.Fprintf(&out, "%d %s\n", i, l.lines[i%fsxLast])
	}
	return out.String()
}

// open gives each file a handle.
func (x *fsx) open() error {
	for _, f := range x.files {
		if err := f.open(0); err != nil {
			return err
		}
	}
	return nil
}

// close closes all handles, so that the mount can go; files without a name end with that.
func (x *fsx) close() {
	x.files = slices.DeleteFunc(x.files, func(f *fsxFile) bool {
		f.close()
		return f.path == ""
	})
}

// run does n operations.
func (x *fsx) run(n int) error {
	for range n {
		if err := x.step(); err != nil {
			return err
		}
	}
	return nil
}

// runWhole does n operations of which a kill leaves all or nothing, or pages of a write from its beginning on.
func (x *fsx) runWhole(n int) error {
	x.whole = true
	defer func() { x.whole = false }()
	return x.run(n)
}

// syncAll makes every file durable: after a kill each is exactly as it is now.
func (x *fsx) syncAll() error {
	for _, f := range x.files {
		if err := x.fsync(f, unix.Fsync); err != nil {
			return err
		}
	}
	return nil
}

// syncPieces does so for files of which a kill may leave parts of operations: pages of maps reach the daemon one by one, and
// copies are made piece by piece.
func (x *fsx) syncPieces() error {
	for _, f := range x.files {
		if !f.pieces {
			continue
		}
		if err := x.fsync(f, unix.Fsync); err != nil {
			return err
		}
	}
	return nil
}

// verify compares all files with the model. After a kill each may be as after any operation since its last fsync, and goes on
// from what it is.
func (x *fsx) verify(killed bool) error {
	var want, found []string
	for _, f := range x.files {
		if f.path == "" {
			continue
		}
		want = append(want, filepath.Base(f.path))
		b, err := os.ReadFile(f.path)
		if err != nil {
			return err
		}
		if killed {
			old := *f
			f.b = b
			f.resum(0, int64(max(len(b), len(old.b))))
			if !f.states[f.key()] {
				return fmt.Errorf("after the kill a file is as it never was since its last fsync (%d states): %w", len(f.states), old.is(b, 0, math.MaxInt64/2))
			}
			if f.loose {
				f.mtime = 0
			}
			f.safe()
			continue
		}
		if err := f.is(b, 0, math.MaxInt64/2); err != nil {
			return err
		}
	}
	list, err := os.ReadDir(x.dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		found = append(found, e.Name())
	}
	slices.Sort(want)
	if slices.Sort(found); !slices.Equal(want, found) {
		return fmt.Errorf("%s holds %q, want %q", x.dir, found, want)
	}
	return nil
}

// fsxFile is one file and what it must hold.
type fsxFile struct {
	path string // "" once it has no name
	max  int64
	b    []byte
	h    []fsxHandle

	changed bool  // since the last stat: its mtime is newer
	touched bool  // it may be
	loose   bool  // something was done since the last fsync: a kill may take it back, with the mtime that it set
	mtime   int64 // at the last stat

	// What a kill may leave: the states since the last fsync, each named by its sums of pages and its size.
	sums   []uint64
	sum    uint64
	states map[uint64]bool
	pieces bool // or parts of operations
}

type fsxHandle struct {
	fd    int
	flags int
}

func (f *fsxFile) open(flags int) error {
	fd, err := unix.Open(f.path, unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	f.h = append(f.h, fsxHandle{fd, flags})
	return nil
}

func (f *fsxFile) close() {
	for _, h := range f.h {
		unix.Close(h.fd)
	}
	f.h = nil
}

func (f *fsxFile) size() int64 { return int64(len(f.b)) }

// put lays data over the model.
func (f *fsxFile) put(off int64, data []byte) {
	old := f.size()
	if end := off + int64(len(data)); end > old {
		f.grow(end)
	}
	copy(f.b[off:], data)
	f.note(min(off, old), off+int64(len(data)))
}

// zero lays zeros over the model, up to its end.
func (f *fsxFile) zero(off, n int64) {
	if off >= f.size() {
		return
	}
	end := min(off+n, f.size())
	clear(f.b[off:end])
	f.note(off, end)
}

func (f *fsxFile) grow(size int64) {
	old := f.size()
	f.b = slices.Grow(f.b, int(size-old))[:size]
	clear(f.b[old:])
}

func (f *fsxFile) resize(size int64) {
	old := f.size()
	if size > old {
		f.grow(size)
	} else {
		f.b = f.b[:size]
	}
	f.note(min(old, size), max(old, size))
}

// note says that the bytes [from, to) of the model, or its size, have changed.
func (f *fsxFile) note(from, to int64) {
	f.resum(from, to)
	f.states[f.key()] = true
	f.changed, f.loose = true, true
}

func (f *fsxFile) key() uint64 { return f.sum ^ uint64(f.size())*0x9e3779b97f4a7c15 }

var (
	fsxSeed  = maphash.MakeSeed()
	fsxZeros [fsxPage]byte
)

func (f *fsxFile) resum(from, to int64) {
	for p := from / fsxPage; p*fsxPage < to; p++ {
		for int64(len(f.sums)) <= p {
			f.sums = append(f.sums, 0)
		}
		f.sum ^= f.sums[p]
		f.sums[p] = 0
		start := p * fsxPage
		if start >= f.size() {
			continue
		}
		page := f.b[start:min(start+fsxPage, f.size())]
		if bytes.Equal(page, fsxZeros[:len(page)]) {
			continue // so that a hole that only grows needs no sums
		}
		var h maphash.Hash
		h.SetSeed(fsxSeed)
		h.Write(fmt.Append(nil, p))
		h.Write(page)
		h.Write(fsxZeros[len(page):]) // what is behind the end reads as zeros when the file grows
		f.sums[p] = h.Sum64()
		f.sum ^= f.sums[p]
	}
}

// safe says that no kill takes the present state away.
func (f *fsxFile) safe() {
	f.pieces, f.loose = false, false
	f.states = map[uint64]bool{f.key(): true}
}

// is compares bytes that were read at off with those of the model; there must be as many as were asked for before the end.
func (f *fsxFile) is(got []byte, off, asked int64) error {
	want := f.b[min(off, f.size()):min(off+asked, f.size())]
	if bytes.Equal(want, got) {
		return nil
	}
	if len(got) != len(want) {
		return fmt.Errorf("%s: %#x bytes at %#x, want %#x (size %#x)", f.path, len(got), off, len(want), f.size())
	}
	first, last, n := -1, 0, 0
	for i := range got {
		if got[i] == want[i] {
			continue
		}
		if first < 0 {
			first = i
		}
		last = i
		n++
	}
	end := min(first+16, last+1)
	return fmt.Errorf("%s: of %#x bytes at %#x (size %#x) %d differ, from %#x to %#x: have % x, want % x",
		f.path, len(got), off, f.size(), n, off+int64(first), off+int64(last), got[first:end], want[first:end])
}
