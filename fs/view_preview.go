package fs

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/preview"
	"github.com/anyfs/anyfs/fs/tree"
)

// keyPreviewed begins the keys of the inodes of a preview.
const keyPreviewed = 'P'

// previewView is a directory of a preview. That of the root stands for what the root directory of the space shows meanwhile.
type previewView struct {
	v        *views
	s        *space
	n        *viewNode
	pages    []block.ID
	unlisted bool
}

// previewRoot gives the directory that the root of a space shows; nil where it shows no preview.
func (v *views) previewRoot(s *space) *viewNode {
	r := s.pre.get()
	if r == nil || !s.pre.shown.Load() {
		return nil
	}
	d := &previewView{v: v, s: s, pages: r.Root}
	d.n = &viewNode{ino: v.number(&viewKey{what: keyPreviewed, slot: s.slot, time: r.Time}), up: RootIno, s: s, dir: d, attr: v.h.dirAttr(r.Time)}
	return v.keep(d.n)
}

// inPreview finds a name in the root directory of a space that shows a preview. ok is false where it shows none.
func (v *views) inPreview(s *space, name string) (a Attr, ok bool, err error) {
	root := v.previewRoot(s)
	if root == nil {
		return a, false, nil
	}
	n, err := root.dir.find(context.Background(), name)
	if err != nil {
		return a, true, err
	}
	if n == nil {
		return a, true, ErrNotExist
	}
	n.up = s.ino(rootDir)
	return v.keep(n).attr, true, nil
}

func (d *previewView) key(name string) *viewKey {
	return &viewKey{what: keyPreviewed, slot: d.s.slot, ino: uint64(d.n.ino), name: name}
}

func (d *previewView) list(ctx context.Context) ([]viewEntry, error) {
	if d.unlisted {
		return nil, fmt.Errorf("%w: the directory is not in the preview; it shows when its history is here", ErrIO)
	}
	ctx, cancel := context.WithTimeout(ctx, pageWait)
	defer cancel()
	entries, err := d.s.previewList(ctx, d.pages)
	if err != nil {
		if !errors.Is(err, block.ErrAbsent) && ctx.Err() == nil {
			d.s.h.report(fmt.Sprintf("space %s: a page of a preview", d.s.id), err)
		}
		return nil, fmt.Errorf("%w: a page of the preview: %w", ErrIO, err)
	}
	out := make([]viewEntry, len(entries))
	for i := range entries {
		e := &entries[i]
		out[i] = viewEntry{name: e.Name, typ: e.Mode & syscall.S_IFMT, ino: d.v.number(d.key(e.Name)), what: *e}
	}
	return out, nil
}

func (d *previewView) find(ctx context.Context, name string) (*viewNode, error) {
	x, err := d.v.entry(ctx, d.n, name)
	if err != nil || x == nil {
		return nil, err
	}
	e := x.what.(preview.Entry)
	h := d.v.h
	n := &viewNode{ino: x.ino, s: d.s, target: e.Target, at: e.At, attr: Attr{
		Ino: x.ino, Mode: e.Mode &^ 0222, Nlink: 1, UID: h.opt.UID, GID: h.opt.GID, Size: e.Size, Blocks: (e.Size + 511) / 512,
		Atime: e.Mtime, Mtime: e.Mtime, Ctime: e.Mtime, Btime: e.Mtime,
	}}
	switch e.Mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		up := d.n.attr.Mtime
		n.attr = h.dirAttr(up)
		n.attr.Ino, n.attr.Mode = x.ino, e.Mode&^0222
		n.dir = &previewView{v: d.v, s: d.s, n: n, pages: e.Pages, unlisted: e.Unlisted}
	case syscall.S_IFLNK:
		n.attr.Mode, n.attr.Size = e.Mode, int64(len(e.Target))
	case syscall.S_IFREG:
		if c := e.Content; c != nil {
			n.file = &VersionFile{s: d.s, base: c, size: e.Size}
		} else if e.At != (tree.Ref{}) {
			n.waits = true
		} else if e.Size > 0 {
			n.absent = true
		}
	}
	return n, nil
}

func (d *previewView) stamp() uint64 { return 0 }

// awaitChange returns when a change of the history is here, which a preview named and which may still come: after contentWait it fails.
func (s *space) awaitChange(ctx context.Context, id dag.ID) error {
	come := make(chan struct{}, 1)
	defer s.graph.Subscribe(func(*dag.Batch) {
		select {
		case come <- struct{}{}:
		default:
		}
	})()
	late := time.NewTimer(contentWait)
	defer late.Stop()
	for {
		_, err := s.graph.Change(id)
		if !errors.Is(err, dag.ErrNotFound) {
			return err
		}
		select {
		case <-come:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("%w: the history of the file is not here yet; try again when more of it has come, which `anyfs status` tells", ErrIO)
		}
	}
}
