package kv_test

import (
	"path/filepath"
	"testing"

	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/kv/kvtest"
)

func TestBolt(t *testing.T) {
	kvtest.Run(t, func(tb testing.TB) kvtest.Store {
		path := filepath.Join(tb.TempDir(), "x.db")
		return kvtest.Store{Durable: true, Open: func(tb testing.TB) kv.DB { return openBolt(tb, path) }}
	})
}

func openBolt(tb testing.TB, path string) *kv.Bolt {
	tb.Helper()
	db, err := kv.OpenBolt(path)
	if err != nil {
		tb.Fatal(err)
	}
	return db
}

func TestMem(t *testing.T) {
	kvtest.Run(t, func(tb testing.TB) kvtest.Store {
		return kvtest.Store{Open: func(tb testing.TB) kv.DB { return kv.NewMem() }}
	})
}

func TestSimDB(t *testing.T) {
	kvtest.Run(t, func(tb testing.TB) kvtest.Store {
		d, err := disk.OS(tb.TempDir())
		if err != nil {
			tb.Fatal(err)
		}
		return kvtest.Store{Durable: true, Open: func(tb testing.TB) kv.DB {
			db, err := kv.NewSimDB(d, "x.db")
			if err != nil {
				tb.Fatal(err)
			}
			return db
		}}
	})
}
