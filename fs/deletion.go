package fs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
)

// What the deletion of a space knew of the space, so that a device which has more keeps it: an edit beats a concurrent removal.

// deletedPrefix begins the names of internal attributes of the root: with the ID of a deleted space and a dot, and 16 hexadecimal
// digits of the device that deleted it. TREE.md 14 gives the value.
const deletedPrefix = ".deleted."

// Bounds of what is kept of deletions. A deletion of which nothing is known any more counts as one that knew everything.
const (
	maxDeletions      = 256
	maxDeletedDevices = 1024
)

// deletion is what one device knew when it deleted a space.
type deletion struct {
	time int64                    // of that device's clock: only to choose among several
	name string                   // that the space had
	seqs map[dag.PublicKey]uint64 // of each device that wrote to it, its last batch
}

func (d *deletion) encode() []byte {
	devices := make([]dag.PublicKey, 0, len(d.seqs))
	for k := range d.seqs {
		devices = append(devices, k)
	}
	slices.SortFunc(devices, func(a, b dag.PublicKey) int { return bytes.Compare(a[:], b[:]) })
	b := binary.BigEndian.AppendUint64([]byte{1}, uint64(d.time))
	b = append(binary.AppendUvarint(b, uint64(len(d.name))), d.name...)
	for _, k := range devices {
		b = binary.AppendUvarint(append(b, k[:]...), d.seqs[k])
	}
	return b
}

func parseDeletion(b []byte) (d deletion, ok bool) {
	if len(b) < 9 || b[0] != 1 {
		return d, false
	}
	d.time, d.seqs = int64(binary.BigEndian.Uint64(b[1:])), map[dag.PublicKey]uint64{}
	size, n := binary.Uvarint(b[9:])
	if b = b[9:]; n <= 0 || size > MaxName || size > uint64(len(b)-n) {
		return d, false
	}
	d.name = string(b[n : n+int(size)])
	for b = b[n+int(size):]; len(b) > 0; {
		if len(b) < 33 || len(d.seqs) >= maxDeletedDevices {
			return d, false
		}
		var k dag.PublicKey
		copy(k[:], b)
		seq, n := binary.Uvarint(b[len(k):])
		if n <= 0 {
			return d, false
		}
		d.seqs[k] = seq
		b = b[len(k)+n:]
	}
	return d, true
}

// tellDeletion writes into the root what this device holds of a space that it is about to delete.
func (h *Home) tellDeletion(s *space, name string) error {
	d := deletion{time: h.now(), name: name, seqs: map[dag.PublicKey]uint64{}}
	if s.sick == nil { // whoever has a whole one keeps it
		for _, t := range s.graph.Tips() {
			d.seqs[t.Device] = max(d.seqs[t.Device], t.Seq)
		}
	}
	if len(d.seqs) > maxDeletedDevices {
		return nil
	}
	own := h.keys.Author().Device
	attr := deletedPrefix + s.id.String() + "." + hex.EncodeToString(own[:8])
	var old []string
	if err := h.home.xattr(true, rootDir, func(n *index.Inode) (*xattrRecord, error) {
		old = oldDeletions(n)
		return &xattrRecord{Name: attr, Value: d.encode()}, nil
	}); err != nil {
		return err
	}
	for _, name := range old {
		if err := h.home.xattr(true, rootDir, func(n *index.Inode) (*xattrRecord, error) {
			if _, has := n.Xattr(name); !has {
				return nil, nil
			}
			return &xattrRecord{Name: name, Remove: true}, nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// oldDeletions names what is to go so that one more has room.
func oldDeletions(root *index.Inode) (names []string) {
	var times []int64
	at := map[string]int64{}
	for _, x := range root.Xattrs {
		if strings.HasPrefix(x.Name, deletedPrefix) {
			d, _ := parseDeletion(x.Value)
			names, at[x.Name] = append(names, x.Name), d.time
			times = append(times, d.time)
		}
	}
	if len(times) < maxDeletions {
		return nil
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(at[a], at[b]), strings.Compare(a, b)) })
	return names[:len(names)-maxDeletions+1]
}

// knownDeletion gives what those knew together who deleted a space, with the name that it had last; nil where nothing is known of a
// deletion.
func (h *Home) knownDeletion(id dag.ID) (*deletion, error) {
	home := h.home
	home.mu.Lock()
	defer home.mu.Unlock()
	root, err := home.inode(rootDir)
	if err != nil {
		return nil, err
	}
	var all *deletion
	for _, x := range root.Xattrs {
		if !strings.HasPrefix(x.Name, deletedPrefix+id.String()+".") {
			continue
		}
		d, ok := parseDeletion(x.Value)
		switch {
		case !ok:
			continue
		case all == nil:
			all = &d
			continue
		case d.time > all.time:
			all.time, all.name = d.time, d.name
		}
		for k, seq := range d.seqs {
			all.seqs[k] = max(all.seqs[k], seq)
		}
	}
	return all, nil
}

// lacks reports whether there are batches that none of those had who deleted the space.
func (d *deletion) lacks(tips []dag.Tip) bool {
	return d != nil && slices.ContainsFunc(tips, func(t dag.Tip) bool { return t.Seq > d.seqs[t.Device] })
}

// settleNames takes all names but one from a space that has several, since two devices gave it its name back at once: the one that
// is left is the same wherever the same entries are seen.
func (h *Home) settleNames() error {
	refs, err := h.rootRefs()
	if err != nil {
		return err
	}
	names := map[dag.ID][]string{}
	for name, r := range refs {
		names[r.id] = append(names[r.id], name)
	}
	for _, of := range names {
		// A copy's name is longer than that of what it is a copy of.
		slices.SortFunc(of, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b)) })
		for _, name := range of[1:] {
			if err := h.dropName(name); err != nil {
				return err
			}
		}
	}
	return nil
}
