package journal

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// found is a use that is on the disk.
type found struct {
	*file
	rotten bool // one copy of the header is damaged
}

// list opens the files and returns those that are in use, by gen and attempt. The others are free.
func (j *Journal) list() (uses []found, err error) {
	d := j.o.Disk
	if err := d.MkdirAll(j.o.Dir); err != nil {
		return nil, err
	}
	names, err := d.ReadDir(j.o.Dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := j.o.Dir + "/" + name
		if strings.HasSuffix(name, ".new") {
			if err := d.Remove(path); err != nil {
				return uses, err
			}
			continue
		}
		number, err := strconv.ParseUint(name, 10, 32)
		if err != nil || name != fmt.Sprintf("%08d", number) {
			continue
		}
		u := found{file: &file{slot: slot{number: uint32(number)}}}
		j.slots.last = max(j.slots.last, u.slot.number)
		if u.slot.file, err = d.Open(path); err != nil {
			return uses, err
		}
		if u.size, err = u.slot.file.Size(); err != nil {
			u.closeFile()
			return uses, err
		}
		used, err := j.readHeader(&u)
		if err != nil {
			u.closeFile()
			return uses, err
		}
		if used {
			uses = append(uses, u)
			continue
		}
		if u.size == j.o.FileBytes && len(j.slots.free) < spares {
			j.slots.free = append(j.slots.free, u.slot)
			continue
		}
		u.closeFile()
		if err := d.Remove(path); err != nil {
			return uses, err
		}
	}
	slices.SortFunc(uses, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.gen, b.gen), cmp.Compare(a.attempt, b.attempt))
	})
	return uses, nil
}

// readHeader reports whether the file is in use.
func (j *Journal) readHeader(u *found) (bool, error) {
	var b [headerBytes]byte
	if u.size < headerBytes || u.size > 1<<30 {
		return false, nil
	}
	if _, err := u.slot.file.ReadAt(b[:], 0); err != nil {
		return false, err
	}
	used, bad := false, false
	for i := range 2 {
		h, aead, ok := openHeader(b[i*headerCopy:(i+1)*headerCopy], &j.secret)
		bad = bad || !ok
		if ok && h.gen > u.gen {
			u.header, u.aead, used = h, aead, true
		}
	}
	if used && bad {
		u.rotten = rotten(b[:headerCopy], b[headerCopy:])
	}
	return used, nil
}

// rotten reports whether two copies of a header, of which one does not open, differ as rot would have it. A crash may leave
// one of the two, where the other was not yet written or already erased; rot changes little of it. An erasure that failed in
// its first bytes changed little too: it left zeros there, where a header has none, and the rest.
func rotten(one, two []byte) bool {
	erased := len(one) - len(bytes.TrimLeft(one, "\x00"))
	if erased > 0 && bytes.Equal(one[erased:], two[erased:]) {
		return false
	}
	differ := 0
	for i := range one {
		if one[i] != two[i] {
			differ++
		}
	}
	return differ <= 8
}

// dropDoubles keeps, of files that hold the same use, the one in which more of it can be read.
func (j *Journal) dropDoubles(uses []found, buf []byte) ([]found, error) {
	var kept []found
	for _, u := range uses {
		n := len(kept)
		if n == 0 || kept[n-1].gen != u.gen {
			kept = append(kept, u)
			continue
		}
		old := kept[n-1]
		for _, f := range []*file{old.file, u.file} {
			if _, err := f.scanFile(buf, nil); err != nil {
				return uses, err
			}
		}
		if u.done >= old.done {
			kept[n-1], u = u, old
		}
		kept[n-1].unsure = true // the copy was perhaps cut short by a crash, and the other one failed
		j.slots.retired = append(j.slots.retired, u.slot)
	}
	return kept, nil
}
