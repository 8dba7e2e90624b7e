package disk

import (
	"errors"
	iofs "io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// Sim is a disk in memory. It follows the crash contract of the package to the letter: Crash and CrashClone give the disk
// as a power loss may leave it, FailAt makes an operation fail. A killed process is simply one that opens the same Sim
// again. It is deterministic when one goroutine at a time uses it.
type Sim struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	root  *simNode
	names []nameOp // that are not durable yet, in the order in which they happened
	fault fault
	watch func()
	total int64 // capacity in bytes
	used  int64 // by the files that have a name
}

var _ FS = (*Sim)(nil)

// simNode is a file or a directory.
type simNode struct {
	isDir bool

	// Of a directory: what is there, and what a power loss leaves if it drops all of Sim.names.
	now, durable map[string]*simNode

	// Of a file: what reads give, what is durable, and what happened between the two.
	cur, dur image
	dirty    []fileOp
}

// nameOp puts, removes or moves a name. Which it is shows in what is set.
type nameOp struct {
	node     *simNode
	from, to *simNode // directories; nil where the operation has no such side
	old, new string
}

// NewSim returns an empty disk of 1 TiB. rnd decides what a failing operation leaves behind; nil is a fixed seed.
func NewSim(rnd *rand.Rand) *Sim {
	if rnd == nil {
		rnd = rand.New(rand.NewPCG(1, 2))
	}
	return &Sim{rnd: rnd, root: newSimDir(), total: 1 << 40}
}

func newSimDir() *simNode {
	return &simNode{isDir: true, now: map[string]*simNode{}, durable: map[string]*simNode{}}
}

// SetCapacity says how many bytes of files the disk holds. Beyond it they fail to grow with ENOSPC.
func (s *Sim) SetCapacity(total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total = total
}

func (s *Sim) Free() (avail, total int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(0, s.total-s.used), s.total, nil
}

func pathErr(op, name string, err error) error {
	return &iofs.PathError{Op: op, Path: name, Err: err}
}

// find returns the node with the name.
func (s *Sim) find(op, name string) (*simNode, error) {
	if err := checkName(op, name); err != nil {
		return nil, err
	}
	n := s.root
	if name == "." {
		return n, nil
	}
	for part := range strings.SplitSeq(name, "/") {
		if !n.isDir {
			return nil, pathErr(op, name, syscall.ENOTDIR)
		}
		if n = n.now[part]; n == nil {
			return nil, pathErr(op, name, iofs.ErrNotExist)
		}
	}
	return n, nil
}

// findDir returns the directory that the name is in, and its last element.
func (s *Sim) findDir(op, name string) (*simNode, string, error) {
	if err := checkName(op, name); err != nil {
		return nil, "", err
	}
	if name == "." {
		return nil, "", pathErr(op, name, iofs.ErrInvalid)
	}
	dir, err := s.find(op, path.Dir(name))
	if err != nil {
		return nil, "", err
	}
	if !dir.isDir {
		return nil, "", pathErr(op, name, syscall.ENOTDIR)
	}
	return dir, path.Base(name), nil
}

func (s *Sim) Open(name string) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opRead); err != nil {
		return nil, pathErr("open", name, err)
	}
	n, err := s.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.isDir {
		return nil, pathErr("open", name, syscall.EISDIR)
	}
	return &simFile{s: s, node: n, name: name}, nil
}

func (s *Sim) Create(name string) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opSpace); err != nil {
		return nil, pathErr("create", name, err)
	}
	dir, base, err := s.findDir("create", name)
	if err != nil {
		return nil, err
	}
	if dir.now[base] != nil {
		return nil, pathErr("create", name, iofs.ErrExist)
	}
	n := &simNode{}
	s.happen(nameOp{node: n, to: dir, new: base})
	return &simFile{s: s, node: n, name: name}, nil
}

// happen applies an operation to what is there, and remembers it until it is durable.
func (s *Sim) happen(op nameOp) {
	op.apply(func(n *simNode) map[string]*simNode { return n.now })
	s.names = append(s.names, op)
}

func (op nameOp) apply(side func(*simNode) map[string]*simNode) {
	if op.from != nil {
		// Where an earlier operation is lost the name may be another's, or nobody's.
		if side(op.from)[op.old] != op.node {
			return
		}
		delete(side(op.from), op.old)
	}
	if op.to != nil {
		side(op.to)[op.new] = op.node
	}
}

func durableSide(n *simNode) map[string]*simNode { return n.durable }

func (s *Sim) MkdirAll(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opSpace); err != nil {
		return pathErr("mkdir", name, err)
	}
	if err := checkName("mkdir", name); err != nil || name == "." {
		return err
	}
	dir := s.root
	for part := range strings.SplitSeq(name, "/") {
		next := dir.now[part]
		if next == nil {
			next = newSimDir()
			dir.now[part], dir.durable[part] = next, next
		}
		if !next.isDir {
			return pathErr("mkdir", name, syscall.ENOTDIR)
		}
		dir = next
	}
	return nil
}

func (s *Sim) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opName); err != nil {
		return pathErr("remove", name, err)
	}
	dir, base, err := s.findDir("remove", name)
	if err != nil {
		return err
	}
	n := dir.now[base]
	if n == nil {
		return pathErr("remove", name, iofs.ErrNotExist)
	}
	if n.isDir && len(n.now) > 0 {
		return pathErr("remove", name, syscall.ENOTEMPTY)
	}
	s.remove(dir, base)
	return nil
}

func (s *Sim) remove(dir *simNode, base string) {
	n := dir.now[base]
	for _, child := range slices.Sorted(maps.Keys(n.now)) {
		s.remove(n, child)
	}
	s.used -= n.cur.size
	s.happen(nameOp{node: n, from: dir, old: base})
}

func (s *Sim) RemoveAll(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opName); err != nil {
		return pathErr("removeall", name, err)
	}
	dir, base, err := s.findDir("removeall", name)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if dir.now[base] != nil {
		s.remove(dir, base)
	}
	return nil
}

func (s *Sim) Rename(old, new string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opSpace); err != nil {
		return pathErr("rename", old, err)
	}
	from, oldBase, err := s.findDir("rename", old)
	if err != nil {
		return err
	}
	to, newBase, err := s.findDir("rename", new)
	if err != nil {
		return err
	}
	n, over := from.now[oldBase], to.now[newBase]
	switch {
	case n == nil:
		return pathErr("rename", old, iofs.ErrNotExist)
	case n == over:
		return nil
	case n.isDir && (new == old || strings.HasPrefix(new, old+"/")):
		return pathErr("rename", new, syscall.EINVAL)
	case over == nil:
	case over.isDir:
		return pathErr("rename", new, iofs.ErrExist)
	case n.isDir:
		return pathErr("rename", new, syscall.ENOTDIR)
	default:
		s.used -= over.cur.size
	}
	s.happen(nameOp{node: n, from: from, old: oldBase, to: to, new: newBase})
	return nil
}

func (s *Sim) ReadDir(name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opRead); err != nil {
		return nil, pathErr("readdir", name, err)
	}
	n, err := s.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.isDir {
		return nil, pathErr("readdir", name, syscall.ENOTDIR)
	}
	return slices.Sorted(maps.Keys(n.now)), nil
}

func (s *Sim) SyncDir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opName); err != nil {
		return pathErr("syncdir", name, err)
	}
	n, err := s.find("syncdir", name)
	if err != nil {
		return err
	}
	if !n.isDir {
		return pathErr("syncdir", name, syscall.ENOTDIR)
	}
	// A rename between two directories carries what happened before in the other along, or a file would have two names.
	synced := map[*simNode]bool{n: true}
	flush := make([]bool, len(s.names))
	for i := len(s.names) - 1; i >= 0; i-- {
		if op := s.names[i]; synced[op.from] || synced[op.to] {
			flush[i] = true
			for _, dir := range []*simNode{op.from, op.to} {
				if dir != nil {
					synced[dir] = true
				}
			}
		}
	}
	kept := s.names[:0]
	for i, op := range s.names {
		if flush[i] {
			op.apply(durableSide)
		} else {
			kept = append(kept, op)
		}
	}
	clear(s.names[len(kept):])
	s.names = kept
	return nil
}

func (s *Sim) ReadFile(name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.step(opRead); err != nil {
		return nil, pathErr("read", name, err)
	}
	n, err := s.find("read", name)
	if err != nil {
		return nil, err
	}
	if n.isDir {
		return nil, pathErr("read", name, syscall.EISDIR)
	}
	return n.cur.bytes(), nil
}

func (s *Sim) WriteFileAtomic(name string, data []byte) error {
	if err := checkName("write", name); err != nil {
		return err
	}
	return writeFileAtomic(s, name, data)
}
