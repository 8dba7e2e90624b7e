package spaces

import (
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/nodes/s3blocks"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKeys(t testing.TB) *acl.Keys {
	t.Helper()
	account, err := acl.NewAccount(rand.Reader)
	check(t, err)
	d, err := disk.OS(t.TempDir())
	check(t, err)
	keys, err := acl.InitKeys(d, account, "a device", nil, nil)
	check(t, err)
	return keys
}

// accessOf gives the frames of a space's access list.
func accessOf(t testing.TB, own *acl.Space) (frames [][]byte) {
	t.Helper()
	check(t, own.Export(func(f []byte) error { frames = append(frames, slices.Clone(f)); return nil }))
	return frames
}

// A space to which little is written all the time is written down now and then; one that is quiet, or has much that is new, at the next tick.
func TestTicks(t *testing.T) {
	keys := newKeys(t)
	own, err := acl.CreateSpace(keys, store.NewMem(), nil)
	check(t, err)
	access := accessOf(t, own)
	files, err := dag.Open(own.ID(), store.NewMem(), own.Files(), dag.Options{})
	check(t, err)

	set, err := Open(Options{Dir: t.TempDir()})
	check(t, err)
	r := set.Take(t.Context(), own.ID(), keys.Identity, access)
	if r == nil {
		t.Fatal("the space is not taken")
	}
	defer func() {
		r.Release()
		check(t, set.Close())
	}()
	sp := set.all()[0]
	bring := func(changes int) {
		t.Helper()
		b, err := files.Begin(keys.Author(), own.Heads(), own.Epoch())
		check(t, err)
		for i := range changes {
			_, err = b.Add(dag.ID{}, func(dag.Header) ([]byte, error) { return []byte(fmt.Sprint("sealed ", i)), nil })
			check(t, err)
		}
		batch, err := b.Commit()
		check(t, err)
		frame, err := files.Frame(batch.ID())
		check(t, err)
		_, err = r.Files.Ingest(frame)
		check(t, err)
	}
	n := 0
	tick := func() (wrote bool) {
		t.Helper()
		before := sp.last
		check(t, sp.tick(t.Context(), n, false))
		if u := set.Usages()[own.ID()]; u.Log != sp.aclLog.Bytes()+sp.log.Bytes() {
			t.Fatalf("%d bytes are counted of %d", u.Log, sp.aclLog.Bytes()+sp.log.Bytes())
		}
		n++
		return sp.last != before
	}
	pass := func() { // its own
		t.Helper()
		bring(1)
		for !tick() {
			bring(1)
		}
	}

	pass()
	wrote := 0
	for range 4 * lateTicks {
		bring(1)
		if tick() {
			wrote++
		}
	}
	if wrote != 4 {
		t.Errorf("written %d times in %d ticks", wrote, 4*lateTicks)
	}

	pass()
	bring(1)
	if tick() || !tick() || tick() {
		t.Error("what is quiet is not written at the next tick, or twice")
	}

	pass()
	for sp.log.Dirty() < fewDirty {
		bring(500)
	}
	if !tick() {
		t.Error("much is not written at once")
	}

	pass()
	content := []byte("sealed content")
	check(t, sp.blocks.PutHashed(block.Sum(content), content))
	if !tick() {
		t.Error("a block is not written at once")
	}

	pass()
	for _, most := range []int{sp.dirty() + 1<<20, 1} {
		bring(1)
		before := sp.last
		set.manyDirty = most
		set.tick(t.Context(), n)
		n++
		if wrote := sp.last != before; wrote != (most == 1) {
			t.Errorf("with %d bytes of at most %d of all spaces in memory it is written: %v", sp.dirty(), most, wrote)
		}
	}
	if n := sp.dirty(); n > 0 {
		t.Errorf("%d bytes are not written in the end", n)
	}
}

// Where the memory is wanted, many spaces are written at once: one that takes long holds up no other.
func TestTicksAtOnce(t *testing.T) {
	set, err := Open(Options{Dir: t.TempDir()})
	check(t, err)
	set.manyDirty = 1
	for range 2 {
		keys := newKeys(t)
		own, err := acl.CreateSpace(keys, store.NewMem(), nil)
		check(t, err)
		r := set.Take(t.Context(), own.ID(), keys.Identity, accessOf(t, own))
		if r == nil {
			t.Fatal("the space is not taken")
		}
		r.Release()
	}
	slow, other := set.all()[0], set.all()[1]
	slow.ckpt.Lock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		set.tick(t.Context(), 0)
	}()
	for end := time.Now().Add(20 * time.Second); other.dirty() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Error("it waits for the other")
			break
		}
	}
	slow.ckpt.Unlock()
	<-done
	if n := slow.dirty(); n > 0 {
		t.Errorf("%d bytes are not written", n)
	}
	check(t, set.Close())
}

// What is on its way to a bucket keeps no index from being written, of its own space and of others; who closes the space waits for it.
func TestTickWhileBucketFails(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			_, _ = io.Copy(io.Discard, r.Body)
			asked <- struct{}{}
			<-answer
			return
		}
		_, _ = io.WriteString(w, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
	}))
	defer far.Close()
	give := sync.OnceFunc(func() { close(answer) })
	defer give()
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"} {
		t.Setenv(k, v)
	}
	client, err := s3blocks.New(s3blocks.Options{URL: far.URL, Bucket: "blocks", Prefix: "node"})
	check(t, err)
	keys := newKeys(t)
	own, err := acl.CreateSpace(keys, store.NewMem(), nil)
	check(t, err)
	access := accessOf(t, own)
	opt := Options{Dir: t.TempDir(), S3: client}
	set, err := Open(opt)
	check(t, err)
	r := set.Take(t.Context(), own.ID(), keys.Identity, access)
	if r == nil {
		t.Fatal("the space is not taken")
	}
	content := []byte("sealed content")
	id := block.Sum(content)
	sp := set.all()[0]
	check(t, sp.blocks.PutHashed(id, content))
	<-asked
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range lateTicks {
			set.tick(t.Context(), n)
		}
	}()
	select {
	case <-done:
		if n := sp.dirty(); n > 0 {
			t.Errorf("%d bytes are not written", n)
		}
	case <-time.After(time.Minute):
		t.Error("the index waits for the bucket")
	}
	give()
	<-done
	r.Release()
	check(t, set.Close())
	set, err = Open(opt)
	check(t, err)
	if r = set.Space(t.Context(), own.ID(), keys.Identity); r == nil || !r.Blocks.Has(id) {
		t.Error("what was on its way is not there")
	}
	r.Release()
	check(t, set.Close())
}
