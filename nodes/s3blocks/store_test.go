package s3blocks_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/nodes/s3blocks/s3test"
)

// far is a server behind a proxy that can do what a bad one does.
type far struct {
	*s3test.Server
	url    string
	fail   atomic.Int32 // requests to be answered with 500
	failed atomic.Int32
	slow   atomic.Int64 // before each answer
	lie    atomic.Bool  // other bytes are read
}

func start(t *testing.T) *far {
	t.Helper()
	f := &far{Server: s3test.Start(t)}
	for k, v := range f.Env() {
		t.Setenv(k, v)
	}
	to, err := url.Parse(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			if f.lie.Load() && r.Request.Method == http.MethodGet && strings.Count(r.Request.URL.Path, "/") > 2 {
				b, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				b[len(b)/2] ^= 1
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			return nil
		},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(f.slow.Load()))
		if f.fail.Add(-1) >= 0 {
			f.failed.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func (f *far) client(t *testing.T) *s3blocks.Client {
	t.Helper()
	c, err := s3blocks.New(s3blocks.Options{URL: f.url, Bucket: s3test.Bucket, Prefix: "node", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var space = dag.Sum([]byte("a space"))

func open(t *testing.T, c *s3blocks.Client, db kv.DB) *s3blocks.Store {
	t.Helper()
	s, err := c.Open(t.Context(), space, db)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func content(i int) []byte { return bytes.Repeat([]byte(fmt.Sprint(i, ",")), 1+i*5000) }

// put puts n blocks from the first on, and makes them durable.
func put(t *testing.T, s *s3blocks.Store, first, n int) (ids []block.ID) {
	t.Helper()
	for i := range n {
		b := content(first + i)
		ids = append(ids, block.Sum(b))
		if err := s.PutHashed(block.Sum(b), b); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return ids
}

func all(t *testing.T, s *s3blocks.Store) map[block.ID]int64 {
	t.Helper()
	out, sum := map[block.ID]int64{}, int64(0)
	err := s.All(t.Context(), func(id block.ID, n int64) error {
		if _, twice := out[id]; twice {
			t.Errorf("%s comes twice", id)
		}
		out[id] = n
		sum += n
		return nil
	})
	if live, _ := s.Bytes(); err != nil || live != sum || s.Len() != int64(len(out)) {
		t.Errorf("%d blocks with %d bytes, it counts %d with %d; %v", len(out), sum, s.Len(), live, err)
	}
	return out
}

func TestStore(t *testing.T) {
	f := start(t)
	db := kv.NewMem()
	s := open(t, f.client(t), db)
	ids := put(t, s, 0, 40)
	put(t, s, 10, 10) // once more
	if got := all(t, s); len(got) != 40 {
		t.Errorf("%d blocks", len(got))
	}
	// Another process, with the index, without it, and with a part of it.
	for name, other := range map[string]kv.DB{"the index": db, "no index": kv.NewMem()} {
		s := open(t, f.client(t), other)
		if got := all(t, s); len(got) != 40 {
			t.Errorf("%s: %d blocks", name, len(got))
		}
		var buf []byte
		for i, id := range ids {
			b, err := s.GetBuffer(id, buf)
			if err != nil || !bytes.Equal(b, content(i)) {
				t.Fatalf("%s: block %d: %d bytes, %v", name, i, len(b), err)
			}
			buf = b
			if ok, err := s.Check(id); !ok || err != nil {
				t.Errorf("%s: block %d: %v, %v", name, i, ok, err)
			}
		}
		none := block.Sum([]byte("none"))
		if _, err := s.GetBuffer(none, nil); !errors.Is(err, block.ErrAbsent) || s.Has(none) {
			t.Errorf("%s: a block that was never put: %v", name, err)
		}
	}
	if err := f.client(t).Remove(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	if got := all(t, open(t, f.client(t), kv.NewMem())); len(got) != 0 {
		t.Errorf("%d blocks are left", len(got))
	}
	left := 0
	_ = filepath.WalkDir(f.Dir, func(p string, d os.DirEntry, _ error) error {
		if d != nil && d.Type().IsRegular() {
			left++
		}
		return nil
	})
	if left > 0 {
		t.Errorf("%d objects are left", left)
	}
}

// What is away is told as such, and what was held before is there when it is back.
func TestRestart(t *testing.T) {
	f := start(t)
	db := kv.NewMem()
	before := put(t, open(t, f.client(t), db), 0, 10)
	s := open(t, f.client(t), db)
	f.Stop()
	if _, err := s.GetBuffer(before[0], nil); err == nil || errors.Is(err, block.ErrAbsent) || errors.Is(err, block.ErrCorrupt) {
		t.Errorf("reading from a store that is away: %v", err)
	}
	if ok, err := s.Check(before[1]); ok || err == nil {
		t.Errorf("asking a store that is away: %v, %v", ok, err)
	}
	lost := put(t, s, 100, 1)
	if s.Has(lost[0]) {
		t.Error("a block that did not come is held")
	}
	for _, id := range before {
		if !s.Has(id) {
			t.Error("what was held is not, for the store is away")
		}
	}
	if _, err := f.client(t).Open(t.Context(), space, kv.NewMem()); err == nil {
		t.Error("a bucket that cannot be listed counts as empty")
	}
	f.Start()
	again := put(t, s, 100, 1)
	if !s.Has(again[0]) {
		t.Error("a block is not held after the store is back")
	}
	if _, err := s.GetBuffer(before[0], nil); err != nil {
		t.Error(err)
	}
	if got := all(t, open(t, f.client(t), db)); len(got) != 11 {
		t.Errorf("%d blocks", len(got))
	}
}

// Errors are tried again, and slowness is waited for.
func TestSlowAndFailing(t *testing.T) {
	f := start(t)
	s := open(t, f.client(t), kv.NewMem())
	f.slow.Store(int64(100 * time.Millisecond))
	f.fail.Store(2)
	ids := put(t, s, 0, 8)
	for i, id := range ids {
		if !s.Has(id) {
			t.Errorf("block %d did not come", i)
		}
	}
	if f.failed.Load() == 0 {
		t.Error("no request failed")
	}
	f.fail.Store(2)
	if _, err := open(t, f.client(t), kv.NewMem()).GetBuffer(ids[3], nil); err != nil {
		t.Error(err)
	}
}

// A bucket that gives other bytes, or has lost a block, does not have it; it can be put again.
func TestWrongBytes(t *testing.T) {
	f := start(t)
	db := kv.NewMem()
	ids := put(t, open(t, f.client(t), db), 1, 6)
	s := open(t, f.client(t), db)
	f.lie.Store(true)
	if b, err := s.GetBuffer(ids[2], nil); !errors.Is(err, block.ErrCorrupt) {
		t.Errorf("%d other bytes: %v", len(b), err)
	}
	f.lie.Store(false)
	if s.Has(ids[2]) {
		t.Error("it is held still")
	}
	f.lie.Store(false)
	if got := slices.Sorted(maps.Values(all(t, s))); len(got) != 5 {
		t.Errorf("%d blocks are left", len(got))
	}
	if put(t, s, 3, 1); !s.Has(ids[2]) {
		t.Error("it does not come again")
	}
	if b, err := s.GetBuffer(ids[2], nil); err != nil || !bytes.Equal(b, content(3)) {
		t.Error(err)
	}
	// Lost behind its back.
	if err := f.client(t).Remove(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Check(ids[0]); ok || err != nil || s.Has(ids[0]) {
		t.Errorf("a block that was lost: %v, %v", ok, err)
	}
	if _, err := s.GetBuffer(ids[1], nil); !errors.Is(err, block.ErrAbsent) || s.Has(ids[1]) {
		t.Errorf("a block that was lost: %v", err)
	}
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := all(t, open(t, f.client(t), db)); len(got) != 4 {
		t.Errorf("%d blocks after a restart", len(got))
	}
}

func TestRefused(t *testing.T) {
	f := start(t)
	if err := f.client(t).Check(t.Context()); err != nil {
		t.Error(err)
	}
	c, err := s3blocks.New(s3blocks.Options{URL: f.URL, Bucket: "another", Prefix: "node"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context()); !errors.Is(err, s3blocks.ErrRefused) {
		t.Errorf("another bucket: %v", err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	if err := f.client(t).Check(t.Context()); !errors.Is(err, s3blocks.ErrRefused) {
		t.Errorf("another key: %v", err)
	}
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = "+s3test.Key+"\naws_secret_access_key = "+s3test.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = s3blocks.New(s3blocks.Options{URL: f.URL, Bucket: s3test.Bucket, Prefix: "node", Credentials: file})
	if err == nil {
		err = c.Check(t.Context())
	}
	if err != nil {
		t.Errorf("a file of credentials: %v", err)
	}
	for _, bad := range []string{"", "s3.example.org", "ftp://x", "https://x/path"} {
		if _, err := s3blocks.New(s3blocks.Options{URL: bad, Bucket: "b", Prefix: "p"}); err == nil {
			t.Errorf("%q is a URL", bad)
		}
	}
}
