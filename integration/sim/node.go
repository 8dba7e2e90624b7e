package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/session"
)

// A device: its home on a simulated disk, its sessions, and what ends it.

// node is a device.
type node struct {
	w      *World
	i      int
	disk   *disk.Sim
	keys   *acl.Keys
	rnd    *lockedRand
	skew   time.Duration
	home   *fs.Home
	root   fs.Ino
	spaces []*space
	synced int // values before this one are durable, as far as they are its own
	open   []openFile
}

// openFile is a file that a program has open.
type openFile struct {
	ino  fs.Ino
	name string
}

// space is a replica with its sessions.
type space struct {
	fs.Replica
	ex    *session.Space
	woken bool
}

// lockedRand is a source of random bytes from a seed.
type lockedRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newRand(seed uint64, i int) *lockedRand {
	var s [32]byte
	copy(s[:], fmt.Sprintf("%d %d", seed, i))
	return &lockedRand{r: rand.NewChaCha8(s)}
}

func (r *lockedRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(p)
}

// start opens the home.
func (n *node) start() {
	n.home = must2(fs.Open(ctx, fs.Options{
		Disk: n.disk, Keys: n.keys, Rand: n.rnd, UID: 1000, GID: 1000, Stepped: true,
		Clock:  func() time.Time { return n.w.now.Add(n.skew) },
		OpenDB: func(name string) (kv.DB, error) { return kv.NewSimDB(n.disk, name) },
	}))
}

// attach exchanges what spaces there are.
func (n *node) attach() {
	n.root = must2(n.home.SpaceRoot(fs.PersonalName))
	n.spaces = nil
	replicas := n.home.Replicas()
	slices.SortFunc(replicas, func(a, b fs.Replica) int { return dag.ID.Compare(a.ID, b.ID) })
	for _, r := range replicas {
		s := &space{Replica: r}
		s.ex = session.NewSpace(session.Config{
			ID: r.ID, ACL: r.ACL, Files: r.Files, Device: dag.PublicKey(n.keys.Author().Device), Durable: s.Durable, Grown: s.Grown,
			Wake: func() { s.woken = true },
		})
		r.Blocks.SetFetcher(fetcher{n, r.ID})
		n.spaces = append(n.spaces, s)
	}
}

func (n *node) close() {
	for _, l := range n.w.links {
		if l.a == n || l.b == n {
			l.down()
		}
	}
	for _, s := range n.spaces {
		s.ex.Close()
	}
	n.spaces, n.open = nil, nil
	n.home = nil // it has nothing that goes on by itself
}

func (n *node) space(id dag.ID) *space {
	for _, s := range n.spaces {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// fetcher gets blocks from who is connected.
type fetcher struct {
	n  *node
	id dag.ID
}

func (f fetcher) Fetch(ctx context.Context, id block.ID) ([]byte, error) {
	for _, l := range f.n.w.links {
		o := l.other(f.n)
		if o == nil || !l.up || o.space(f.id) == nil {
			continue
		}
		if s := o.space(f.id); s.Blocks.Has(id) {
			return s.Blocks.Get(ctx, id)
		}
	}
	f.n.w.result.Faults.Absent++
	return nil, block.ErrAbsent
}

// pump hands what is new to a node's sessions.
func (n *node) pump() {
	for _, s := range n.spaces {
		if s.woken {
			s.woken = false
			must2(s.ex.Step())
		}
	}
}

func (n *node) settle() {
	for _, s := range n.spaces {
		must(s.ex.Settle())
	}
}

// power ends a node as a power loss does: what was not synced may be gone.
func (n *node) power() {
	w := n.w
	n.close()
	n.disk = n.disk.CrashClone(w.rnd)
	for i := n.synced; i < len(w.values); i++ {
		if w.values[i].node == n.i {
			w.values[i].maybe = true
		}
	}
	w.result.Faults.Losses++
	n.start()
	n.attach()
}

// kill ends a node as SIGKILL does: what the kernel had stays.
func (n *node) kill() {
	w := n.w
	n.close()
	n.disk = n.disk.Crash(func() disk.Keep { return disk.Whole })
	for i := n.synced; i < len(w.values); i++ {
		if w.values[i].node == n.i {
			w.values[i].maybe = true // the last second of data is in the daemon's memory alone
		}
	}
	w.result.Faults.Kills++
	n.start()
	n.attach()
}

// tree is what a node shows in Personal.
func (n *node) tree() string {
	var out []string
	var walk func(dir fs.Ino, at string)
	walk = func(dir fs.Ino, at string) {
		var names []string
		must(n.home.ReadDir(dir, 0, func(e fs.Dirent) bool {
			names = append(names, e.Name)
			return true
		}))
		slices.Sort(names)
		for _, name := range names {
			a := must2(n.home.Lookup(dir, name))
			ino := handle(&a)
			line := fmt.Sprintf("%s%s %o %d", at, name, a.Mode, a.Nlink)
			switch a.Mode & 0o170000 {
			case 0o100000:
				line += fmt.Sprintf(" %q", n.read(ino))
			case 0o120000:
				line += " -> " + must2(n.home.Readlink(ino))
			}
			xattrs := must2(n.home.Listxattr(ino))
			slices.Sort(xattrs)
			for _, x := range xattrs {
				line += fmt.Sprintf(" %s=%q", x, must2(n.home.Getxattr(ino, x)))
			}
			out = append(out, line)
			if a.Mode&0o170000 == 0o040000 {
				if len(at) > 500 {
					failf("a directory below itself: %s", at)
				}
				walk(ino, at+name+"/")
			}
		}
	}
	walk(n.root, "")
	var b bytes.Buffer
	for _, l := range out {
		b.WriteString(l + "\n")
	}
	return b.String()
}

func handle(a *fs.Attr) fs.Ino {
	if a.Handle != 0 {
		return a.Handle
	}
	return a.Ino
}

// read gives a file's content: where it is long, the lines that were written and a sum.
func (n *node) read(ino fs.Ino) []byte {
	a := must2(n.home.Getattr(ino))
	b := make([]byte, a.Size)
	for off := 0; off < len(b); {
		k, err := n.home.Read(ctx, ino, b[off:], int64(off))
		if k == 0 && (err == nil || errors.Is(err, io.EOF)) {
			failf("a read ends at %d of %d", off, len(b))
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return []byte("cannot be read: " + err.Error())
		}
		off += k
	}
	if len(b) > 4096 {
		sum := sha256.Sum256(b)
		return append(bytes.Join(line.FindAll(b, -1), []byte(" ")), fmt.Sprintf(" in %d bytes %x", len(b), sum[:8])...)
	}
	return b
}
