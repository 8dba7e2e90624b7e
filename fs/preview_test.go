package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/fs/preview"
)

// previewed has one device with a history, and one that is new and got the access list alone.
type previewed struct {
	*devices
	a, b     *testHome
	from, to *space
	big      []byte
}

func newPreviewed(t *testing.T) *previewed {
	d := newDevices(t, 1)
	a := d.all[0]
	p := &previewed{devices: d, a: a, from: must2(a.namedSpace(PersonalName)), big: random(1, 3<<20)}
	a.create(a.dir0(a.root, "gone"), "before", []byte("what was"))
	a.flush()
	a.removeBelow(a.root, "gone")
	dir := a.dir0(a.root, "dir")
	a.create(dir, "small", []byte("small"))
	a.create(a.dir0(dir, "sub"), "big", p.big)
	must2(a.Symlink(a.root, "link", "dir/small", Cred{1000, 1000}))
	a.flush()
	many := a.dir0(a.root, "many")
	for i := range 1500 {
		a.create(many, fmt.Sprintf("file-%04d", i), nil)
	}
	a.flush()
	b := a.another(a.keys.Account)
	must2(b.CreatePersonal())
	b.find()
	d.all = append(d.all, b)
	p.b, p.to = b, must2(b.namedSpace(PersonalName))
	// Each brings its device in, so that both lists have both.
	p.access(p.to, p.from)
	a.Heal()
	p.access(p.from, p.to)
	p.to.blocks.SetFetcher(&holder{from: p.from.blocks})
	return p
}

func (p *previewed) access(from, to *space) {
	p.t.Helper()
	p.a.must(from.acl.List().Export(func(f []byte) error { return to.acl.List().Import(f) }))
	_, err := to.graph.Rejudge(nil)
	p.a.must(err)
}

func replicaOf(h *testHome, s *space) *Replica {
	for _, r := range h.Replicas() {
		if r.ID == s.id {
			return &r
		}
	}
	return nil
}

func (p *previewed) device() dag.PublicKey { return p.a.keys.Author().Device }

func (p *previewed) take(frame []byte) error {
	return replicaOf(p.b, p.to).TakePreview(p.a.keys.Identity, p.device(), frame)
}

// some hands over the first n batches of the history, -1 for all.
func (p *previewed) some(n int) {
	p.t.Helper()
	stop := errors.New("stop")
	err := p.from.graph.FramesSince(nil, func(_ dag.ID, frame []byte) error {
		if n == 0 {
			return stop
		}
		n--
		_, err := p.to.graph.Ingest(frame)
		return err
	})
	if !errors.Is(err, stop) {
		p.a.must(err)
	}
	p.a.must(p.to.arrive(p.t.(*testing.T).Context()))
}

func (p *previewed) errors() string {
	st := must2(p.b.Status())
	var all []string
	for _, e := range st.Errors {
		all = append(all, e.Text)
	}
	return strings.Join(all, "\n")
}

// TestPreview: a device that is new shows what its peer's preview says, read-only, whatever part of the history has come, and the same from the
// history when all of it is there; the pages are gone then.
func TestPreview(t *testing.T) {
	p := newPreviewed(t)
	ctx := t.Context()
	p.a.must(p.from.makePreview(ctx))
	frame := replicaOf(p.a, p.from).Preview()
	var pages []block.ID
	p.from.eachPage(ctx, p.from.pre.own().Root, func(id block.ID) { pages = append(pages, id) })
	if len(pages) != 5 {
		t.Fatalf("%d pages", len(pages))
	}
	p.a.must(p.take(frame))
	p.to.tendPreview(ctx)
	want := []string{"dir", "link", "many"}
	check := func(what string) {
		t.Helper()
		got := p.b.list(p.b.root)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: the root shows %q", what, got)
		}
		if got := p.b.list(p.b.in("many")); len(got) != 1500 {
			t.Errorf("%s: %d names", what, len(got))
		}
		if !bytes.Equal(p.b.read(p.b.in("dir/sub/big")), p.big) {
			t.Errorf("%s: another content", what)
		}
		if got := must2(p.b.Readlink(p.b.in("link"))); got != "dir/small" {
			t.Errorf("%s: a link to %q", what, got)
		}
	}
	check("at first")
	if a := must2(p.b.Getattr(p.b.in("dir/small"))); a.Size != 5 {
		t.Errorf("a size of %d", a.Size)
	}
	if at, err := p.b.Seek(p.b.in("dir/small"), 1, SeekData); at != 1 || err != nil {
		t.Errorf("data from %d, %v", at, err)
	}
	if at, err := p.b.Seek(p.b.in("dir/small"), 1, SeekHole); at != 5 || err != nil {
		t.Errorf("a hole at %d, %v", at, err)
	}
	if _, err := p.b.Mknod(p.b.root, "new", 0100644, 0, Cred{1000, 1000}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("mknod in the root: %v", err)
	}
	if err := p.b.Unlink(p.b.in("dir"), "small"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("unlink: %v", err)
	}
	p.some(2)
	p.to.tendPreview(ctx)
	check("with some of the history")
	p.b.reopen()
	p.to = must2(p.b.namedSpace(PersonalName))
	p.b.must(p.to.arrive(ctx))
	p.to.blocks.SetFetcher(&holder{from: p.from.blocks})
	p.to.tendPreview(ctx)
	check("after a restart")
	p.some(-1)
	p.to.tendPreview(ctx)
	if p.to.pre.pending() || p.to.pre.shown.Load() {
		t.Fatal("the preview stays")
	}
	check("with all of it")
	if got := p.errors(); strings.Contains(got, "preview") {
		t.Error(got)
	}
	for _, id := range pages {
		if p.to.blocks.Has(id) {
			t.Errorf("page %s is here still", id)
		}
	}
	p.b.create(p.b.root, "new", []byte("new"))
	p.settle()
	p.same()
	p.a.must(p.take(frame))
	if p.to.pre.pending() {
		t.Error("a preview is taken where the history is")
	}
	// The next one has the pages of what did not change; the others go.
	p.a.must(p.from.makePreview(ctx))
	here := 0
	for _, id := range pages {
		if p.from.blocks.Has(id) {
			here++
		}
	}
	if here != len(pages)-1 {
		t.Errorf("%d of %d pages are here still", here, len(pages))
	}
}

// TestPreviewSmall: a read of a small file, whose content is in a change, waits for that, for 5 s at most and not when it is interrupted.
func TestPreviewSmall(t *testing.T) {
	p := newPreviewed(t)
	p.a.must(p.from.makePreview(t.Context()))
	p.a.must(p.take(replicaOf(p.a, p.from).Preview()))
	p.to.tendPreview(t.Context())
	ino := p.b.in("dir/small")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.b.Read(ctx, ino, make([]byte, 5), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupted read: %v", err)
	}
	began := time.Now()
	if _, err := p.b.Read(t.Context(), ino, make([]byte, 5), 0); !errors.Is(err, ErrIO) || time.Since(began) < contentWait {
		t.Errorf("a small file whose history does not come: %v after %v", err, time.Since(began))
	}
	type result struct {
		text string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		b := make([]byte, 10)
		n, err := p.b.Read(t.Context(), ino, b, 0)
		done <- result{string(b[:n]), err}
	}()
	p.some(2) // the second has its change; what is behind the preview is more, so that it stays
	if got := <-done; got.err != nil || got.text != "small" {
		t.Errorf("a small file whose history comes: %q, %v", got.text, got.err)
	}
	if !p.to.pre.shown.Load() {
		t.Error("the preview is not shown any more")
	}
}

// TestPreviewSilent: where nothing of the history comes for 10 minutes, what is here is shown, and can be written to; that is reported.
func TestPreviewSilent(t *testing.T) {
	p := newPreviewed(t)
	p.a.must(p.from.makePreview(t.Context()))
	p.a.must(p.take(replicaOf(p.a, p.from).Preview()))
	p.to.tendPreview(t.Context())
	ago := func(d time.Duration) {
		p.to.pre.mu.Lock()
		p.to.pre.since = time.Now().Add(-d)
		p.to.pre.mu.Unlock()
		p.to.tendPreview(t.Context())
	}
	ago(previewSilence - time.Minute)
	if !p.to.pre.shown.Load() {
		t.Fatal("it ends too early")
	}
	p.some(1) // something came: the time begins again
	ago(previewSilence + time.Minute)
	if !p.to.pre.shown.Load() {
		t.Fatal("it ends though something came")
	}
	ago(previewSilence + time.Minute)
	if p.to.pre.pending() || p.to.pre.shown.Load() {
		t.Fatal("it stays")
	}
	if got := p.b.list(p.b.root); !slices.Equal(got, []string{"gone"}) {
		t.Errorf("the root shows %q", got)
	}
	if got := p.errors(); !strings.Contains(got, "nothing of the history") || !strings.Contains(got, acl.PeerID(p.device())) {
		t.Errorf("reported: %q", got)
	}
	p.b.create(p.b.root, "mine", []byte("mine"))
	p.some(-1)
	p.settle()
	p.same()
}

// TestPreviewNames: a directory with more names than a preview may have is named alone, and takes nothing from those that come after it; a
// root with more has no preview.
func TestPreviewNames(t *testing.T) {
	p := newPreviewed(t)
	b := previewBuilder{s: p.from, most: 100, pages: map[uint64][]block.ID{}}
	p.a.must(b.build(t.Context()))
	for path, want := range map[string]bool{"dir": true, "dir/sub": true, "many": false} {
		if _, listed := b.pages[uint64(p.a.in(path))&localMask]; listed != want {
			t.Errorf("%s is listed: %v", path, listed)
		}
	}
	b = previewBuilder{s: p.from, most: 2, pages: map[uint64][]block.ID{}}
	if err := b.build(t.Context()); !errors.Is(err, errPreviewLarge) {
		t.Errorf("a root of 3 names of 2: %v", err)
	}
}

// TestPreviewOfConflicts: what a device says in a preview is what another finds by the same history, whatever two did at once.
func TestPreviewOfConflicts(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(uint64(seed), 0))
	for range 40 {
		x, y := concurrentOps[rnd.IntN(len(concurrentOps))], concurrentOps[rnd.IntN(len(concurrentOps))]
		d := newDevices(t, 2)
		a, b := d.all[0], d.all[1]
		a.plantPair()
		d.settle()
		x.do(a, "a")
		y.do(b, "b")
		d.settle()
		from, to := must2(a.namedSpace(PersonalName)), must2(b.namedSpace(PersonalName))
		a.must(from.makePreview(t.Context()))
		r := from.pre.own()
		from.eachPage(t.Context(), r.Root, func(id block.ID) { must2(to.blocks.Put(must2(from.blocks.GetLocal(id)))) })
		if what := to.compare(t.Context(), r); what != "" {
			t.Errorf("%s beside %s: %s differs", x.name, y.name, what)
		}
		// It is compared at all: one with a name too few differs.
		if r.Root = r.Root[:0]; to.compare(t.Context(), r) == "" && len(a.list(a.root)) > 0 {
			t.Errorf("%s beside %s: an empty root is no difference", x.name, y.name)
		}
	}
}

// TestPreviewRefused: what a device did not sign is refused, and what one signed that may not write is passed over.
func TestPreviewRefused(t *testing.T) {
	p := newPreviewed(t)
	p.a.must(p.from.makePreview(t.Context()))
	frame := replicaOf(p.a, p.from).Preview()
	r := replicaOf(p.b, p.to)
	if err := r.TakePreview(p.a.keys.Identity, p.b.keys.Author().Device, frame); err == nil {
		t.Error("that of another device is taken")
	}
	bad := bytes.Clone(frame)
	bad[len(bad)-1] ^= 1
	if err := p.take(bad); !errors.Is(err, preview.ErrSignature) {
		t.Error(err)
	}
	if err := r.TakePreview(dag.PublicKey{1}, p.device(), frame); err != nil || p.to.pre.pending() {
		t.Error("a stranger's is taken", err)
	}
	unknown := *p.from.pre.own()
	unknown.ACL = []dag.ID{{1}}
	p.a.must(unknown.Sign(p.a.keys.Device.PrivateKey()))
	if err := p.take(must2(unknown.Encode())); err != nil || p.to.pre.pending() {
		t.Error("one by a list that is not known is taken", err)
	}
	p.b.create(p.b.root, "mine", nil)
	p.a.must(p.take(frame))
	if p.to.pre.pending() {
		t.Error("one is taken where something was made")
	}
}

// TestPreviewLies: one that the history does not bear out is reported with its signer.
func TestPreviewLies(t *testing.T) {
	p := newPreviewed(t)
	ctx := t.Context()
	p.a.must(p.from.makePreview(ctx))
	var w preview.Writer
	if _, err := w.Add(&preview.Entry{Name: "invented", Mode: 0100644}); err != nil {
		t.Fatal(err)
	}
	lie := *p.from.pre.own()
	lie.Root = []block.ID{must2(p.from.blocks.Put(must2(p.from.keys.SealPreview(nil, must2(w.Page())))))}
	p.a.must(lie.Sign(p.a.keys.Device.PrivateKey()))
	p.a.must(p.take(must2(lie.Encode())))
	p.to.tendPreview(ctx)
	if got := p.b.list(p.b.root); !slices.Equal(got, []string{"invented"}) {
		t.Fatalf("it shows %q", got)
	}
	p.some(-1)
	p.to.tendPreview(ctx)
	if got := p.errors(); !strings.Contains(got, acl.PeerID(p.device())) || !strings.Contains(got, "differs") {
		t.Errorf("reported: %q", got)
	}
	if got := p.b.list(p.b.root); len(got) != 3 {
		t.Errorf("it shows %q", got)
	}
}

// TestPreviewFirst: what arrives before the root's pages do is not shown, unless they do not come.
func TestPreviewFirst(t *testing.T) {
	p := newPreviewed(t)
	p.a.must(p.from.makePreview(t.Context()))
	frame := replicaOf(p.a, p.from).Preview()
	p.to.blocks.SetFetcher(nil)
	p.a.must(p.take(frame))
	p.some(1)
	if got := p.b.list(p.b.root); len(got) > 0 {
		t.Errorf("the root shows %q", got)
	}
	p.to.tendPreview(t.Context())
	p.a.must(p.to.arrive(t.Context()))
	if got := p.b.list(p.b.root); len(got) == 0 {
		t.Error("what is here stays hidden where nobody has the pages")
	}
	p.to.blocks.SetFetcher(&holder{from: p.from.blocks})
	p.to.tendPreview(t.Context())
	if got := p.b.list(p.b.root); len(got) != 3 {
		t.Errorf("the root shows %q", got)
	}
}
