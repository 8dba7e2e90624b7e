package integration

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The work that TestKill kills, and what must be left of it.

// crasher does random operations in a directory of its own and remembers what was acknowledged.
type crasher struct {
	dir      string
	spaces   bool // dir is the root of the mount: what is made there are spaces
	rnd      *rand.Rand
	names    map[string]*crashFile // as acknowledged
	next     map[string]*crashFile // as it is when the operation in flight was done
	inFlight bool
	serial   int
	ops      int
	fault    error // an error that the kill does not explain
}

// crashFile is a directory (neither log nor blocks), an append-only log or a file of stamped blocks.
type crashFile struct {
	kind string // "dir", "log", "blocks", "link", "whole", "space"
	// log: what was written, and how much of it was fsynced when.
	written []byte
	synced  int
	// blocks: the stamps written and those fsynced.
	stamps, durable [blockCount]uint64
	target          string
	// whole: the stamp of what was saved last.
	stamp uint64
	// space: what its one file holds (written), or is to hold while that is written or removed.
	next  []byte
	loose bool
}

func (w *crasher) run() {
	for w.step() {
	}
}

// step does one operation; false when it failed.
func (w *crasher) step() bool {
	w.fault = nil
	w.next = maps.Clone(w.names)
	do := w.choose()
	if w.spaces {
		do = w.chooseSpace()
	}
	w.inFlight = true
	if err := do(); err != nil {
		if !disconnected(err) {
			w.fault = err
		}
		return false
	}
	w.inFlight = false
	w.names = w.next
	w.ops++
	return true
}

// choose picks an operation and writes into next what it will have done.
func (w *crasher) choose() func() error {
	existing := slices.Sorted(maps.Keys(w.names))
	pick := func(kind string) (string, *crashFile) {
		for range 8 {
			if len(existing) == 0 {
				break
			}
			n := existing[w.rnd.IntN(len(existing))]
			if f := w.names[n]; kind == "" || f.kind == kind {
				return n, f
			}
		}
		return "", nil
	}
	w.serial++
	fresh := fmt.Sprintf("n%d", w.serial)
	at := func(n string) string { return filepath.Join(w.dir, n) }
	if len(existing) > 60 {
		n := existing[w.rnd.IntN(len(existing))]
		delete(w.next, n)
		return func() error { return os.Remove(at(n)) }
	}
	switch w.rnd.IntN(11) {
	case 0:
		w.next[fresh] = &crashFile{kind: "dir"}
		return func() error { return os.Mkdir(at(fresh), 0o755) }
	case 1:
		target := fmt.Sprintf("../to/%d", w.serial)
		w.next[fresh] = &crashFile{kind: "link", target: target}
		return func() error { return os.Symlink(target, at(fresh)) }
	case 2:
		if n, f := pick(""); f != nil {
			delete(w.next, n)
			w.next[fresh] = f
			return func() error { return os.Rename(at(n), at(fresh)) }
		}
	case 3:
		if n, f := pick(""); f != nil && len(existing) > 20 {
			delete(w.next, n)
			return func() error { return os.Remove(at(n)) }
		}
	case 4:
		n, f := pick("log")
		m, g := pick("log")
		if f != nil && g != nil && n != m { // a save: one log takes another's name
			delete(w.next, n)
			w.next[m] = f
			return func() error { return os.Rename(at(n), at(m)) }
		}
	case 5, 6:
		if n, f := pick("log"); f != nil {
			return func() error { return w.appendLog(at(n), f) }
		}
	case 7, 8:
		if n, f := pick("blocks"); f != nil {
			return func() error { return w.writeBlocks(at(n), f) }
		}
		w.next[fresh] = &crashFile{kind: "blocks"}
		return func() error { return create(at(fresh)) }
	case 9:
		n, _ := pick("whole")
		if n == "" || w.rnd.IntN(4) == 0 {
			n = fresh
		}
		w.next[n] = &crashFile{kind: "whole", stamp: uint64(w.serial)}
		return func() error { return w.save(at(n)) }
	}
	w.next[fresh] = &crashFile{kind: "log"}
	return func() error { return create(at(fresh)) }
}

func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// appendLog appends some bytes, and fsyncs every other time.
func (w *crasher) appendLog(path string, f *crashFile) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	repeat := 1 + w.rnd.IntN(3000)
	if w.rnd.IntN(10) == 0 {
		repeat = 30_000 + w.rnd.IntN(100_000) // so large that it goes into blocks
	}
	if len(f.written) > 1<<20 {
		repeat = 1
	}
	line := bytes.Repeat(fmt.Appendf(nil, "%d,", w.serial), repeat)
	f.written = append(f.written, line...)
	if _, err := file.Write(line); err != nil {
		return err
	}
	if w.rnd.IntN(2) == 0 {
		n := len(f.written)
		if err := file.Sync(); err != nil {
			return err
		}
		f.synced = n
	}
	return nil
}

// whole is what a file holds that was saved with a stamp.
func whole(stamp uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%d saved\n", stamp), int(1_000+stamp%5*8_000))
}

// save replaces a file by a new one, as editors do.
func (w *crasher) save(path string) error {
	tmp := filepath.Join(filepath.Dir(path), ".saving")
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Write(whole(uint64(w.serial))); err != nil {
		return err
	}
	if w.rnd.IntN(2) == 0 {
		if err := file.Sync(); err != nil {
			return err
		}
	}
	return os.Rename(tmp, path)
}

// chooseSpace is choose for the root of the mount.
func (w *crasher) chooseSpace() func() error {
	w.serial++
	w.next = maps.Clone(w.names)
	existing := slices.Sorted(maps.Keys(w.names))
	at := func(n string) string { return filepath.Join(w.dir, n) }
	time.Sleep(time.Duration(w.rnd.IntN(50)) * time.Millisecond) // nobody makes spaces as fast as this could
	switch fresh := fmt.Sprintf("space %d", w.serial); {
	case len(existing) < 2 || len(existing) < 6 && w.rnd.IntN(3) == 0:
		w.next[fresh] = &crashFile{kind: "space"}
		return func() error { return os.Mkdir(at(fresh), 0o755) }
	case w.rnd.IntN(3) == 0:
		n := existing[w.rnd.IntN(len(existing))]
		w.next[fresh] = w.names[n]
		delete(w.next, n)
		return func() error { return os.Rename(at(n), at(fresh)) }
	case w.rnd.IntN(2) == 0:
		n := existing[w.rnd.IntN(len(existing))]
		f := w.names[n]
		return func() error {
			f.loose, f.next = true, []byte(n)
			if err := writeSynced(filepath.Join(at(n), "file"), n); err != nil {
				return err
			}
			f.loose, f.written = false, f.next
			return nil
		}
	default:
		n := existing[w.rnd.IntN(len(existing))]
		delete(w.next, n)
		f := w.names[n]
		return func() error {
			f.loose, f.next = true, nil
			if err := os.Remove(filepath.Join(at(n), "file")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return os.Remove(at(n))
		}
	}
}

// writeBlocks overwrites a block with its next stamp, and fsyncs every other time.
func (w *crasher) writeBlocks(path string, f *crashFile) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	i := w.rnd.IntN(blockCount)
	f.stamps[i]++
	if _, err := file.WriteAt(stampBlock(f.stamps[i]), int64(i)*blockBytes); err != nil {
		return err
	}
	if w.rnd.IntN(2) == 0 {
		if err := file.Sync(); err != nil {
			return err
		}
		f.durable = f.stamps
	}
	return nil
}

func stampBlock(stamp uint64) []byte {
	b := make([]byte, blockBytes)
	for i := 0; i < blockBytes; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], stamp)
	}
	return b
}

func (w *crasher) verifyFile(path string, f *crashFile) error {
	switch f.kind {
	case "dir":
		st, err := os.Lstat(path)
		if err == nil && !st.IsDir() {
			err = errors.New("is no directory any more")
		}
		return err
	case "link":
		target, err := os.Readlink(path)
		if err == nil && target != f.target {
			err = fmt.Errorf("points to %q, not %q", target, f.target)
		}
		return err
	}
	if f.kind == "space" {
		return f.verifySpace(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if f.kind == "whole" {
		if want := whole(f.stamp); !bytes.Equal(b, want) {
			return fmt.Errorf("holds %d bytes from %.20q on, not the %d that were saved with %d", len(b), b, len(want), f.stamp)
		}
		return nil
	}
	if f.kind == "log" {
		if len(b) < f.synced {
			return fmt.Errorf("holds %d bytes, %d were fsynced", len(b), f.synced)
		}
		if !bytes.HasPrefix(f.written, b) {
			return fmt.Errorf("holds %d bytes that are no beginning of the %d written", len(b), len(f.written))
		}
		f.written, f.synced = bytes.Clone(b), len(b)
		return nil
	}
	for i := range blockCount {
		got := make([]byte, blockBytes)
		if off := i * blockBytes; off < len(b) {
			copy(got, b[off:])
		}
		stamp := binary.LittleEndian.Uint64(got)
		if !bytes.Equal(got, stampBlock(stamp)) {
			return fmt.Errorf("block %d is torn: %x … %x", i, got[:8], got[blockBytes-8:])
		}
		if stamp < f.durable[i] || stamp > f.stamps[i] {
			return fmt.Errorf("block %d has stamp %d; fsynced was %d, written %d", i, stamp, f.durable[i], f.stamps[i])
		}
		f.stamps[i], f.durable[i] = stamp, stamp
	}
	return nil
}

// verifySpace looks at the one file that a space may have.
func (f *crashFile) verifySpace(path string) error {
	b, err := os.ReadFile(filepath.Join(path, "file"))
	if errors.Is(err, os.ErrNotExist) {
		b, err = nil, nil
		if _, err := os.Lstat(path); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	// While it is written it is empty for a moment.
	if !bytes.Equal(b, f.written) && !(f.loose && (len(b) == 0 || bytes.Equal(b, f.next))) {
		return fmt.Errorf("its file holds %q, not %q (or %q: %v)", b, f.written, f.next, f.loose)
	}
	f.written, f.next, f.loose = b, nil, false
	return nil
}

// verify compares the directory with what was acknowledged, and takes what it finds as the start of the next round.
func (w *crasher) verify() error {
	list, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	var found []string
	for _, e := range list {
		if e.Name() != ".saving" && !(w.spaces && e.Name() == "Personal") {
			found = append(found, e.Name())
		}
	}
	slices.Sort(found)
	before, after := slices.Sorted(maps.Keys(w.names)), slices.Sorted(maps.Keys(w.next))
	switch {
	case slices.Equal(found, before):
	case w.inFlight && slices.Equal(found, after):
		w.names = w.next
	default:
		return fmt.Errorf("the directory holds %q,\nacknowledged was %q,\nwith what was in flight %q", found, before, after)
	}
	for n, f := range w.names {
		err := w.verifyFile(filepath.Join(w.dir, n), f)
		if g := w.next[n]; err != nil && w.inFlight && g != nil && g != f { // it was about to be replaced
			if w.verifyFile(filepath.Join(w.dir, n), g) == nil {
				w.names[n], err = g, nil
			}
		}
		if err != nil {
			return fmt.Errorf("%s (%s): %w", n, f.kind, err)
		}
	}
	w.next, w.inFlight = w.names, false
	return nil
}
