// Package kvtest holds what every kv.DB must do.
package kvtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/anyfs/anyfs/dag/kv"
)

// Store is one database's place, which can be opened more than once, though not twice at a time.
type Store struct {
	Open    func(tb testing.TB) kv.DB
	Durable bool // what was there before Close is there after the next Open
}

// Run runs the suite; new gives an empty place.
func Run(t *testing.T, new func(tb testing.TB) Store) {
	t.Run("Values", func(t *testing.T) { values(t, new(t).Open(t)) })
	t.Run("Undo", func(t *testing.T) { undo(t, new(t).Open(t)) })
	t.Run("Isolation", func(t *testing.T) { isolation(t, new(t).Open(t)) })
	t.Run("Parallel", func(t *testing.T) { parallel(t, new(t).Open(t)) })
	t.Run("Closed", func(t *testing.T) { closed(t, new(t).Open(t)) })
	t.Run("Emptied", func(t *testing.T) { emptied(t, new(t).Open(t)) })
	t.Run("Panic", func(t *testing.T) { panics(t, new(t).Open(t)) })
	t.Run("Model", func(t *testing.T) {
		rapid.Check(t, func(rt *rapid.T) { model(t, rt, new(t)) })
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func values(t *testing.T, db kv.DB) {
	defer db.Close()
	defer func() {
		if names, err := db.Buckets(); err != nil || !slices.Equal(names, []string{"b", "c/d"}) {
			t.Errorf("buckets %q, %v", names, err)
		}
	}()
	key, value := []byte("k"), []byte("value")
	must(t, db.Update(func(tx kv.Tx) error {
		must(t, tx.Put("b", key, value))
		copy(value, "XXXXX") // given slices may be used again
		key[0] = 'X'
		must(t, tx.Put("b", []byte("empty"), nil))
		must(t, tx.Put("c/d", bytes.Repeat([]byte("k"), kv.MaxKey), bytes.Repeat([]byte("v"), 300_000)))
		if err := tx.Put("b", nil, value); !errors.Is(err, kv.ErrKey) {
			t.Errorf("empty key: %v", err)
		}
		if err := tx.Put("b", make([]byte, kv.MaxKey+1), value); !errors.Is(err, kv.ErrKey) {
			t.Errorf("long key: %v", err)
		}
		if v := tx.Get("b", []byte("k")); string(v) != "value" {
			t.Errorf("own write reads %q", v)
		}
		must(t, tx.Delete("absent", []byte("x")))
		must(t, tx.Clear("absent"))
		must(t, tx.Put("cleared", []byte("x"), value))
		must(t, tx.Clear("cleared"))
		if v := tx.Get("cleared", []byte("x")); v != nil {
			t.Errorf("a cleared key reads %q", v)
		}
		must(t, tx.Delete("b", []byte("absent")))
		return nil
	}))
	must(t, db.View(func(tx kv.Tx) error {
		if v := tx.Get("b", []byte("k")); string(v) != "value" {
			t.Errorf("reads %q", v)
		}
		if v := tx.Get("b", []byte("empty")); v == nil || len(v) != 0 {
			t.Errorf("empty value reads %v", v)
		}
		if v := tx.Get("b", []byte("absent")); v != nil {
			t.Errorf("absent key reads %q", v)
		}
		if v := tx.Get("absent", []byte("k")); v != nil {
			t.Errorf("absent bucket reads %q", v)
		}
		if v := tx.Get("c/d", bytes.Repeat([]byte("k"), kv.MaxKey)); len(v) != 300_000 {
			t.Errorf("large value reads %d bytes", len(v))
		}
		if err := tx.Put("b", []byte("k"), nil); !errors.Is(err, kv.ErrReadOnly) {
			t.Errorf("Put in View: %v", err)
		}
		if err := tx.Delete("b", []byte("k")); !errors.Is(err, kv.ErrReadOnly) {
			t.Errorf("Delete in View: %v", err)
		}
		if err := tx.Clear("b"); !errors.Is(err, kv.ErrReadOnly) {
			t.Errorf("Clear in View: %v", err)
		}
		if err := tx.Scan("absent", nil, func(k, v []byte) bool { t.Error("entry"); return true }); err != nil {
			t.Error(err)
		}
		return nil
	}))
	db.Trim()
	must(t, db.Check())
	if db.Size() < 300_000 {
		t.Errorf("size %d", db.Size())
	}
}

func undo(t *testing.T, db kv.DB) {
	defer db.Close()
	oops := errors.New("oops")
	must(t, db.Update(func(tx kv.Tx) error { return tx.Put("b", []byte("k"), []byte("1")) }))
	err := db.Update(func(tx kv.Tx) error {
		must(t, tx.Put("b", []byte("k"), []byte("2")))
		must(t, tx.Put("new", []byte("k"), []byte("2")))
		return oops
	})
	if !errors.Is(err, oops) {
		t.Fatalf("got %v", err)
	}
	must(t, db.View(func(tx kv.Tx) error {
		if v := tx.Get("b", []byte("k")); string(v) != "1" {
			t.Errorf("reads %q", v)
		}
		if v := tx.Get("new", []byte("k")); v != nil {
			t.Errorf("reads %q", v)
		}
		return nil
	}))
	if err := db.View(func(tx kv.Tx) error { return oops }); !errors.Is(err, oops) {
		t.Fatalf("got %v", err)
	}
}

func isolation(t *testing.T, db kv.DB) {
	defer db.Close()
	put := func(v string) {
		must(t, db.Update(func(tx kv.Tx) error { return tx.Put("b", []byte("k"), []byte(v)) }))
	}
	put("1")
	started, updated := make(chan bool), make(chan bool)
	var wg sync.WaitGroup
	wg.Go(func() {
		db.View(func(tx kv.Tx) error {
			close(started)
			<-updated
			if v := tx.Get("b", []byte("k")); string(v) != "1" {
				t.Errorf("snapshot reads %q", v)
			}
			return nil
		})
	})
	<-started
	put("2")
	db.Trim()
	close(updated)
	wg.Wait()
}

func parallel(t *testing.T, db kv.DB) {
	defer db.Close()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 10 {
				err := db.Update(func(tx kv.Tx) error {
					n := byte(0)
					if v := tx.Get("n", []byte("n")); v != nil {
						n = v[0]
					}
					return errors.Join(tx.Put("n", []byte("n"), []byte{n + 1}),
						tx.Put("all", fmt.Appendf(nil, "%d-%d", g, i), nil))
				})
				if err != nil {
					t.Error(err)
				}
				db.View(func(tx kv.Tx) error {
					n, count := tx.Get("n", []byte("n"))[0], byte(0)
					tx.Scan("all", nil, func(k, v []byte) bool { count++; return true })
					if n != count {
						t.Errorf("%d updates, %d keys", n, count)
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
}

func closed(t *testing.T, db kv.DB) {
	must(t, db.Close())
	fn := func(tx kv.Tx) error { return nil }
	if err := db.View(fn); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("View: %v", err)
	}
	if err := db.Update(fn); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("Update: %v", err)
	}
	db.Trim()
	db.Size()
}

// panics checks that a caller's panic is the caller's, and leaves the DB usable.
func panics(t *testing.T, db kv.DB) {
	defer db.Close()
	try := func(fn func()) {
		defer func() {
			if r := recover(); r != "mine" {
				t.Errorf("recovered %v", r)
			}
		}()
		fn()
		t.Error("no panic")
	}
	put := func(tx kv.Tx) error { return tx.Put("b", []byte("k"), []byte("v")) }
	must(t, db.Update(put))
	try(func() { db.View(func(tx kv.Tx) error { panic("mine") }) })
	try(func() { db.Update(func(tx kv.Tx) error { panic("mine") }) })
	try(func() {
		db.View(func(tx kv.Tx) error {
			return tx.Scan("b", nil, func(k, v []byte) bool {
				tx.Get("b", k)
				panic("mine")
			})
		})
	})
	must(t, db.Update(put))
}

// model compares random transactions with a sorted list.
// emptied holds that a bucket of many pages whose keys all go can be used in the same transaction.
func emptied(t *testing.T, db kv.DB) {
	defer db.Close()
	key := func(i int) []byte { return fmt.Appendf(nil, "%06d", i) }
	const n = 5000
	must(t, db.Update(func(tx kv.Tx) error {
		for i := range n {
			must(t, tx.Put("b", key(i), bytes.Repeat([]byte("v"), 50)))
		}
		return nil
	}))
	must(t, db.Update(func(tx kv.Tx) error {
		for i := range n {
			must(t, tx.Delete("b", key(i)))
		}
		if got := collect(tx.Scan, "b", nil); len(got) != 0 {
			t.Errorf("after all was deleted %d keys are there", len(got))
		}
		must(t, tx.Put("b", key(n/2), nil))
		must(t, tx.Put("b", key(n+1), nil))
		return nil
	}))
	must(t, db.View(func(tx kv.Tx) error {
		if got, want := collect(tx.ScanBack, "b", nil), []string{string(key(n + 1)), string(key(n / 2))}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		return nil
	}))
	must(t, db.Check())
}

func model(t *testing.T, rt *rapid.T, s Store) {
	db := s.Open(t)
	defer func() { db.Close() }()
	want := map[string]map[string]string{}
	key := rapid.Custom(func(rt *rapid.T) string {
		return fmt.Sprintf("%0*d", rapid.IntRange(1, 3).Draw(rt, "digits"), rapid.IntRange(0, 300).Draw(rt, "key"))
	})
	bucket := rapid.SampledFrom([]string{"a", "b"})
	for range rapid.IntRange(1, 8).Draw(rt, "transactions") {
		next := map[string]map[string]string{}
		for name, b := range want {
			next[name] = map[string]string{}
			for k, v := range b {
				next[name][k] = v
			}
		}
		fail := errors.New("undo")
		commit := rapid.Bool().Draw(rt, "commit")
		err := db.Update(func(tx kv.Tx) error {
			for range rapid.IntRange(0, 60).Draw(rt, "ops") {
				b, k := bucket.Draw(rt, "bucket"), key.Draw(rt, "k")
				if rapid.IntRange(0, 40).Draw(rt, "clear") == 0 {
					delete(next, b)
					must(t, tx.Clear(b))
					continue
				}
				if rapid.IntRange(0, 2).Draw(rt, "op") == 0 {
					delete(next[b], k)
					must(t, tx.Delete(b, []byte(k)))
					continue
				}
				v := string(bytes.Repeat([]byte{'v'}, rapid.IntRange(0, 900).Draw(rt, "len")))
				if next[b] == nil {
					next[b] = map[string]string{}
				}
				next[b][k] = v
				must(t, tx.Put(b, []byte(k), []byte(v)))
			}
			compare(rt, tx, next, key.Draw(rt, "from"), false)
			if !commit {
				return fail
			}
			return nil
		})
		if commit {
			must(t, err)
			want = next
		} else if !errors.Is(err, fail) {
			rt.Fatalf("got %v", err)
		}
		if s.Durable && rapid.IntRange(0, 3).Draw(rt, "reopen") == 0 {
			must(t, db.Close())
			db = s.Open(t)
		}
		must(t, db.View(func(tx kv.Tx) error { compare(rt, tx, want, key.Draw(rt, "from"), true); return nil }))
	}
	must(t, db.Check())
}

func compare(rt *rapid.T, tx kv.Tx, want map[string]map[string]string, from string, backward bool) {
	for name, b := range want {
		var keys []string
		for k, v := range b {
			keys = append(keys, k)
			if got := tx.Get(name, []byte(k)); string(got) != v {
				rt.Fatalf("%s/%s: %d bytes, want %d", name, k, len(got), len(v))
			}
		}
		sort.Strings(keys)
		at := sort.SearchStrings(keys, from)
		expect(rt, "all", keys, collect(tx.Scan, name, nil))
		expect(rt, "from "+from, keys[at:], collect(tx.Scan, name, []byte(from)))
		if !backward {
			if err := tx.ScanBack(name, nil, nil); err != kv.ErrUpdate {
				rt.Fatalf("scanning back within an update: %v", err)
			}
			continue
		}
		back := slices.Clone(keys)
		slices.Reverse(back)
		expect(rt, "all back", back, collect(tx.ScanBack, name, nil))
		if at < len(keys) && keys[at] == from {
			at++
		}
		expect(rt, "back from "+from, back[len(keys)-at:], collect(tx.ScanBack, name, []byte(from)))
	}
}

type scan func(bucket string, from []byte, fn func(k, v []byte) bool) error

func collect(scan scan, bucket string, from []byte) (keys []string) {
	scan(bucket, from, func(k, v []byte) bool { keys = append(keys, string(k)); return true })
	return keys
}

func expect(rt *rapid.T, what string, want, got []string) {
	if !slices.Equal(want, got) {
		rt.Fatalf("scan of %s: %q, want %q", what, got, want)
	}
}
