package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/preview"
)

// A device that is new to a space shows a preview of it, read-only, until it holds the batches behind it: nothing of the preview enters the
// graph, the tree or the index, and the tree that the history gives takes its place.

// maxPages bounds the pages of a preview that are fetched.
const maxPages = 64 << 10

// rootWait is how long the pages of the root are waited for at a time, pageWait those of a directory that someone looks at, and contentWait
// the change that holds a small file that someone reads.
const (
	rootWait    = 10 * time.Second
	pageWait    = 5 * time.Second
	contentWait = 5 * time.Second
)

// previews are those of a space: the one that this device made last, and the one that it shows or is going to.
type previews struct {
	shown atomic.Bool  // the root shows it, and takes no changes; set under space.mu
	found atomic.Int64 // pages that were asked for

	mu    sync.Mutex // the last of all locks
	made  *preview.Record
	frame []byte // of made
	taken *preview.Record
	by    dag.PublicKey // the account of who signed it
	count uint64        // batches that were here at since
	since time.Time
	hold  time.Time // until then what arrives stays out of the tree, as the root is about to be shown; nothing older is shown before
}

func (p *previews) own() *preview.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

func (p *previews) setOwn(r *preview.Record, frame []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made, p.frame = r, frame
}

func (p *previews) get() *preview.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// pending reports whether the history behind a preview is waited for: nothing is published until then.
func (p *previews) pending() bool { return p.get() != nil }

func (p *previews) set(r *preview.Record, account dag.PublicKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken, p.by, p.count, p.since = r, account, 0, time.Now()
	p.found.Store(0)
	p.hold = time.Time{}
	if r != nil {
		p.hold = time.Now().Add(rootWait)
	}
}

// holds reports whether what arrives is to wait until the root is shown.
func (p *previews) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.hold)
}

// release ends that.
func (p *previews) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = time.Time{}
}

// Preview gives the newest preview that this device made of the space, to be told to a device that lacks files; nil for none.
func (r *Replica) Preview() []byte {
	p := &r.s.pre
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.frame
}

// TakePreview takes the preview that a device of account told of. It is believed where that device may write, and this one has nothing
// of the space's files yet. An error says that the bytes are no preview of the space that the device signed.
func (r *Replica) TakePreview(account, device dag.PublicKey, frame []byte) error {
	s := r.s
	rec, err := preview.DecodeRecord(frame)
	if err != nil {
		return err
	}
	if rec.Space != s.id || rec.Device != device {
		return fmt.Errorf("%w: of another space or device", preview.ErrFormat)
	}
	if err := rec.Verify(); err != nil {
		return err
	}
	if s.slot == 0 || s.pre.pending() || s.deleted() || !s.untouched() || !s.mayPreview(account, device) {
		return nil
	}
	for _, id := range rec.ACL { // what is judged by is at least what its maker knew
		if held, err := s.acl.List().Graph().Has(id); err != nil || !held {
			return nil
		}
	}
	if err := s.tellDevice(keyPreview, append(slices.Clone(account[:]), frame...)); err != nil {
		return nil // it is reported; the history comes as without
	}
	s.pre.set(rec, account)
	s.h.wakePreviewer()
	return nil
}

// previewText says whose preview the root shows, and of when; empty where it shows none.
func (s *space) previewText() string {
	r := s.pre.get()
	if r == nil || !s.pre.shown.Load() {
		return ""
	}
	name, ok := s.acl.DeviceName(r.Device)
	if !ok {
		name = acl.PeerID(r.Device)
	}
	n, _, _ := s.graph.Counters()
	return fmt.Sprintf("by %s of %s; %d of %d batches behind it are here", name, time.Unix(0, r.Time).UTC().Format(time.RFC3339), min(n, r.Batches), r.Batches)
}

// loadPreview takes a setting that tells of a preview.
func (s *space) loadPreview(key string, b []byte) error {
	var account dag.PublicKey
	if key == keyPreview {
		if len(b) < len(account) {
			return errors.New("a preview without account")
		}
		account = dag.PublicKey(b[:len(account)])
		b = b[len(account):]
	}
	r, err := preview.DecodeRecord(b)
	if err != nil {
		return err
	}
	if key == keyPreview {
		s.pre.set(r, account)
	} else {
		s.pre.setOwn(r, b)
	}
	return nil
}

// tendPreview shows the preview that was taken, when its root is here, and ends it when its time is over.
func (s *space) tendPreview(ctx context.Context) {
	r := s.pre.get()
	if r == nil || s.endPreview(ctx) || s.pre.shown.Load() {
		return
	}
	defer s.arriveAgain()
	defer s.pre.release()
	ctx, cancel := context.WithTimeout(ctx, rootWait)
	defer cancel()
	names, err := s.previewList(ctx, r.Root)
	if errors.Is(err, preview.ErrFormat) {
		s.dropPreview(ctx, err)
		return
	}
	if err != nil {
		return // nobody gave it yet
	}
	s.mu.Lock()
	mine := slices.ContainsFunc(s.graph.Tips(), func(t dag.Tip) bool { return t.Device == s.h.keys.Author().Device })
	show := !s.gone && len(s.dirty) == 0 && !mine
	s.pre.shown.Store(show)
	s.mu.Unlock()
	if !show {
		s.dropPreview(ctx, nil) // something was made here meanwhile: that is shown
		return
	}
	s.h.opt.Log.Info("a preview is shown until the history is here", "space", s.id.String(), "device", acl.PeerID(r.Device), "time", time.Unix(0, r.Time))
	s.emitRoot(names)
}

// endPreview ends a preview when all batches behind it are here and in the tree; when who signed it may not write any more; and when
// nothing has come for long. It reports whether there is none now.
func (s *space) endPreview(ctx context.Context) bool {
	r := s.pre.get()
	if r == nil {
		return true
	}
	s.pre.mu.Lock()
	by := s.pre.by
	n, _, _ := s.graph.Counters()
	if n != s.pre.count {
		s.pre.count, s.pre.since = n, time.Now()
	}
	silent := time.Since(s.pre.since)
	s.pre.mu.Unlock()
	if !s.mayPreview(by, r.Device) {
		s.dropPreview(ctx, fmt.Errorf("device %s may not write any more", acl.PeerID(r.Device)))
		return true
	}
	whole := true
	for _, id := range r.Heads {
		if held, err := s.graph.Has(id); err != nil || !held {
			whole = false
		}
	}
	if !whole {
		if silent > previewSilence {
			s.dropPreview(ctx, fmt.Errorf("nothing of the history behind the one of device %s has come for %v: what is here is shown", acl.PeerID(r.Device), previewSilence))
			return true
		}
		return false
	}
	s.in.mu.Lock()
	busy := s.in.due || s.in.taking
	s.in.mu.Unlock()
	if busy || s.waits() {
		return false
	}
	var wrong error
	if what := s.compare(ctx, r); what != "" {
		wrong = fmt.Errorf("device %s signed one that differs from what the history says: %s", acl.PeerID(r.Device), what)
	}
	s.dropPreview(ctx, wrong)
	return true
}

// dropPreview ends a preview, and reports why where that is not because its time is over.
func (s *space) dropPreview(ctx context.Context, why error) {
	r := s.pre.get()
	if r == nil {
		return
	}
	if why != nil {
		s.h.report(fmt.Sprintf("space %s: a preview", s.id), why)
	}
	// The kernel knows of the root what the preview said.
	names, _ := s.localList(r.Root)
	shown := s.pre.shown.Swap(false)
	s.pre.set(nil, dag.PublicKey{})
	if shown {
		s.emitRoot(names)
	}
	s.dropPages(context.WithoutCancel(ctx), r.Root, func(block.ID) bool { return true })
	if err := s.tellDevice(keyPreview, nil); err != nil {
		s.h.report(fmt.Sprintf("space %s: a preview", s.id), err)
	}
	s.arriveAgain() // conflicts that were left
}

// emitRoot tells the kernel that the root shows other inodes: under the names of a preview, and those of the index.
func (s *space) emitRoot(entries []preview.Entry) {
	root := s.ino(rootDir)
	names := map[string]bool{}
	for i := range entries {
		names[entries[i].Name] = true
	}
	_ = s.scanLive(rootDir, func(e *index.Entry, _ *index.Inode) bool {
		names[e.Name] = true
		return true
	})
	events := make([]Event, 0, len(names)+1)
	for name := range names {
		events = append(events, Event{Parent: root, Name: name})
	}
	s.h.emit(append(events, Event{Inode: root, Whole: true})...)
}

// page gives the entries of a page, fetching it where it is not here.
func (s *space) page(ctx context.Context, id block.ID) ([]preview.Entry, error) {
	if !s.blocks.Has(id) {
		if s.pre.found.Add(1) > maxPages {
			return nil, fmt.Errorf("%w: more than %d pages", preview.ErrFormat, maxPages)
		}
	}
	b, err := s.blocks.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.openPage(b)
}

// localPage is page of one that is here; block.ErrAbsent where it is not.
func (s *space) localPage(id block.ID) ([]preview.Entry, error) {
	b, err := s.blocks.GetLocal(id)
	if err != nil {
		return nil, err
	}
	return s.openPage(b)
}

func (s *space) openPage(b []byte) ([]preview.Entry, error) {
	plain, err := s.keys.OpenChunk(nil, b)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", preview.ErrFormat, err)
	}
	return preview.DecodePage(plain)
}

// previewList gives the entries of a directory. Errors match preview.ErrFormat, or are those of fetching.
func (s *space) previewList(ctx context.Context, pages []block.ID) ([]preview.Entry, error) {
	return joinPages(pages, func(id block.ID) ([]preview.Entry, error) { return s.page(ctx, id) })
}

func (s *space) localList(pages []block.ID) ([]preview.Entry, error) {
	return joinPages(pages, s.localPage)
}

func joinPages(pages []block.ID, get func(block.ID) ([]preview.Entry, error)) (out []preview.Entry, err error) {
	for _, id := range pages {
		entries, err := get(id)
		if err != nil {
			return nil, err
		}
		if len(out) > 0 && entries[0].Name <= out[len(out)-1].Name {
			return nil, fmt.Errorf("%w: pages out of order", preview.ErrFormat)
		}
		out = append(out, entries...)
	}
	return out, nil
}

// compare holds what a preview showed against the index, where that is at its frontier exactly, and says where they differ first. What
// came since would differ rightly: then nothing is compared.
func (s *space) compare(ctx context.Context, r *preview.Record) string {
	if !slices.Equal(s.graph.Heads(), r.Heads) {
		return ""
	}
	type dir struct {
		ino   uint64
		pages []block.ID
		path  string
	}
	what := ""
	for todo := []dir{{rootDir, r.Root, ""}}; len(todo) > 0 && what == "" && ctx.Err() == nil; {
		d := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		entries, err := s.localList(d.pages)
		if errors.Is(err, block.ErrAbsent) {
			continue // it was not shown
		}
		if err != nil {
			return fmt.Sprintf("%s/: %v", d.path, err)
		}
		left := make(map[string]*preview.Entry, len(entries))
		for i := range entries {
			left[entries[i].Name] = &entries[i]
		}
		if err := s.scanLive(d.ino, func(e *index.Entry, n *index.Inode) bool {
			was := left[e.Name]
			delete(left, e.Name)
			now := previewEntry(e.Name, n)
			if was == nil {
				what = fmt.Sprintf("%s/%s is missing", d.path, e.Name)
			} else if was.Mode != now.Mode || was.Mtime != now.Mtime || was.Size != now.Size || was.Target != now.Target ||
				was.Content != nil && now.Content != nil && was.Content.Root != now.Content.Root {
				what = fmt.Sprintf("%s/%s", d.path, e.Name)
			} else if n.IsDir() && !was.Unlisted {
				todo = append(todo, dir{n.Ino, was.Pages, d.path + "/" + e.Name})
			}
			return what == ""
		}); err != nil {
			return ""
		}
		for name := range left {
			if what == "" {
				what = fmt.Sprintf("%s/%s is not there", d.path, name)
			}
		}
	}
	if ctx.Err() != nil || !slices.Equal(s.graph.Heads(), r.Heads) {
		return ""
	}
	return what
}
