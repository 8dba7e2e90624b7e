package fs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/journal"
	"github.com/anyfs/anyfs/fs/tree"
)

// indexCheck holds what the index of a space shows against the fold of its history, while both go on. The publisher is held up
// for a step at a time; before each the fold takes in what was published since. Then what differs without being dirty is wrong.
type indexCheck struct {
	s *space
	v *verifier
	f *folder

	mu  sync.Mutex
	new []dag.ID // batches that came since

	dirs    []uint64    // that are to be checked
	began   journal.Seq // the last record when the names were counted
	entries int         // names of inodes then
	seen    int         // entries of directories
}

// checkStep is for how long the publisher is held up, but for the end of the entry that is being looked at; checkEntries is how
// many entries are looked at under the lock of the space.
const (
	checkStep    = 10 * time.Millisecond
	checkEntries = 256
)

func newIndexCheck(s *space, v *verifier) *indexCheck { return &indexCheck{s: s, v: v} }

func (c *indexCheck) run(ctx context.Context) {
	var err error
	if c.f, err = c.s.newFolder(); err != nil {
		c.v.found("history", err)
		return
	}
	defer c.s.graph.Subscribe(func(b *dag.Batch) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.new = append(c.new, b.ID())
	})()
	if err := c.f.all(ctx); err != nil {
		c.v.found("history", err)
		return
	}
	if err := c.list(); err != nil {
		c.v.index("index", err)
		return
	}
	var again []uint64
	for _, dir := range c.dirs {
		c.v.step()
		if len(c.dir(ctx, dir, &c.seen)) > 0 {
			again = append(again, dir)
		}
		if ctx.Err() != nil {
			return
		}
	}
	// What is wrong is wrong twice: work under way can look like that once.
	for _, dir := range again {
		for _, p := range c.dir(ctx, dir, new(int)) {
			c.v.index(p.Where, errors.New(p.Text))
		}
	}
	s := c.s
	s.mu.Lock()
	quiet := len(s.dirty) == 0 && s.last == c.began
	s.mu.Unlock()
	if quiet && c.seen != c.entries {
		c.v.index("index", fmt.Errorf("%d names in directories, and %d in inodes", c.seen, c.entries))
	}
}

// list lists the directories and counts the names of inodes.
func (c *indexCheck) list() error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	c.began = s.last
	return s.ix.Inodes(func(n *index.Inode) bool {
		if n.IsDir() && (len(n.Links) > 0 || n.Ino == rootDir) {
			c.dirs = append(c.dirs, n.Ino)
		}
		if n.Ino != rootDir {
			c.entries += len(n.Links)
		}
		return true
	})
}

// catchUp adds what was published since to the fold. Under pubMu.
func (c *indexCheck) catchUp() error {
	c.mu.Lock()
	ids := c.new
	c.new = nil
	c.mu.Unlock()
	for _, id := range ids {
		b, bodies, err := c.s.graph.Batch(id)
		if err == nil {
			_, err = c.f.add(b, bodies)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dirCheck is the check of one directory.
type dirCheck struct {
	*indexCheck
	dir      uint64
	object   dag.ID // its object
	after    uint64 // entries up to this place were looked at
	count    int
	mtime    int64 // of the directory when it began: it grows with each change of its entries
	scanned  bool
	nodes    []tree.Node // that the history puts into it, and that were not looked for yet
	listed   bool
	done     bool
	problems []Problem
}

func (c *dirCheck) found(where string, err error) {
	c.problems = append(c.problems, Problem{Where: where, Text: err.Error()})
}

func (c *dirCheck) where() string { return fmt.Sprintf("directory %d", c.dir) }

// dir checks one directory and counts its entries.
func (c *indexCheck) dir(ctx context.Context, dir uint64, seen *int) []Problem {
	d := &dirCheck{indexCheck: c, dir: dir}
	for !d.done && ctx.Err() == nil {
		c.s.pubMu.Lock()
		err := c.catchUp()
		for until := time.Now().Add(checkStep); err == nil && !d.done && d.scanned == d.listed && time.Now().Before(until); {
			err = d.step()
		}
		c.s.pubMu.Unlock()
		if err == nil && d.scanned && !d.listed {
			// The fold is ours alone: a long list holds nobody up.
			d.listed = true
			if !d.object.IsZero() {
				d.nodes, err = c.f.t.List(d.object)
			}
		}
		if err != nil {
			d.found(d.where(), err)
			break
		}
	}
	*seen += d.count
	return d.problems
}

// step looks at some entries, and behind the last for some of what the history puts here. Under pubMu.
func (c *dirCheck) step() error {
	s := c.s
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.ix.Inode(c.dir)
	if err != nil {
		return err
	}
	if d == nil || len(d.Links) == 0 && c.dir != rootDir {
		c.done = true
		if s.last == c.began {
			return ErrStale
		}
		return nil // it was removed meanwhile
	}
	if c.scanned {
		n := min(len(c.nodes), checkEntries)
		for i := range c.nodes[:n] {
			if err := c.missing(&c.nodes[i]); err != nil {
				return err
			}
		}
		c.nodes = c.nodes[n:]
		c.done = len(c.nodes) == 0
		return nil
	}
	if c.after == 0 {
		c.mtime, c.object = d.Mtime, d.Object
	}
	n := 0
	err = s.ix.Scan(c.dir, c.after, func(at uint64, e *index.Entry) bool {
		c.after = at
		c.entry(d, e)
		n++
		return n < checkEntries
	})
	c.count += n
	if err != nil || n == checkEntries {
		return err
	}
	c.scanned = true
	if d.Mtime == c.mtime && uint32(c.count) != d.Entries {
		c.found(c.where(), fmt.Errorf("it has %d entries and says %d", c.count, d.Entries))
	}
	return nil
}

// entry checks one entry of the directory. Under mu.
func (c *dirCheck) entry(d *index.Inode, e *index.Entry) {
	s := c.s
	n, err := s.ix.Inode(e.Ino)
	if err != nil || n == nil {
		c.found(c.where(), fmt.Errorf("an entry names inode %d, which is not there: %w", e.Ino, errors.Join(ErrStale, err)))
		return
	}
	if k := linkIndex(n, c.dir, e.Name); len(n.Links) == 0 || n.Links[k].Parent != c.dir || n.Links[k].Name != e.Name {
		c.found(c.where(), fmt.Errorf("an entry names inode %d, which does not know of it", e.Ino))
		return
	}
	if n.Dirty() {
		return
	}
	where := fmt.Sprintf("inode %d", e.Ino)
	var node tree.Node
	ok := false
	if !d.Object.IsZero() {
		if node, ok, err = c.f.t.Lookup(d.Object, e.Name); err != nil {
			c.found(where, err)
			return
		}
	}
	if !ok && n.IsDir() {
		// One that another device removed waits here while something is in it that only this device has.
		if stays, err := s.holdsIgnored(n.Ino); err != nil || stays {
			return
		}
	}
	if !ok {
		c.found(where, errors.New("it has a name that its history does not give it"))
		return
	}
	if err := s.verifyInode(n, &node, c.f.st); err != nil {
		c.found(where, err)
	}
}

// missing looks for what the history puts into the directory. Under mu.
func (c *dirCheck) missing(node *tree.Node) error {
	s := c.s
	e, _, err := s.lookup(c.dir, node.Name)
	if err != nil || e != nil {
		return err
	}
	if now, ok, err := c.f.t.Lookup(c.object, node.Name); err != nil || !ok || now.Object != node.Object {
		return err // its removal was published since it was listed
	}
	// A name that was taken away and whose removal is not published yet is still in the history.
	ino, err := s.ix.Object(node.Object)
	if err != nil {
		return err
	}
	if ino != 0 {
		if n, err := s.ix.Inode(ino); err == nil && n != nil && n.Dirty() {
			return nil
		}
	}
	for ino := range s.dirty {
		n, err := s.ix.Inode(ino)
		if err != nil || n == nil {
			continue
		}
		for i := range n.Gone {
			if n.Gone[i].Object == node.Object {
				return nil
			}
		}
	}
	c.found(c.where(), fmt.Errorf("object %s, which its history puts here, is missing", node.Object))
	return nil
}
