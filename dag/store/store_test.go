package store_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/dag/storetest"
)

// sealer encrypts with AES-GCM, so that a value in a wrong place does not open.
type sealer struct{ aead cipher.AEAD }

func newSealer() sealer {
	b, _ := aes.NewCipher(make([]byte, 16))
	a, _ := cipher.NewGCMWithRandomNonce(b)
	return sealer{a}
}

func (s sealer) SealLocal(dst, plaintext, ad []byte) []byte {
	return s.aead.Seal(dst, nil, plaintext, ad)
}
func (s sealer) OpenLocal(dst, sealed, ad []byte) ([]byte, error) {
	return s.aead.Open(dst, nil, sealed, ad)
}

var errAbort = errors.New("aborted")

func subject(tb testing.TB, o store.Options) storetest.Subject {
	tb.Helper()
	st, err := store.Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	cur := st
	return storetest.Subject{
		Store:      st,
		Checkpoint: func(ok bool) error { return checkpoint(cur, o.DB, ok) },
		Reopen: func() (dag.Store, error) {
			cur.Close()
			cur, err = store.Open(o)
			return cur, err
		},
	}
}

func checkpoint(st *store.Store, db kv.DB, ok bool) error {
	write, done := st.Freeze()
	err := db.Update(func(tx kv.Tx) error {
		if err := write(tx); err != nil || ok {
			return err
		}
		return errAbort
	})
	done(err == nil)
	if err == errAbort {
		return nil
	}
	return err
}

func TestMem(t *testing.T) {
	storetest.Run(t, func(testing.TB) storetest.Subject { return storetest.Subject{Store: store.NewMem()} })
}

func TestSim(t *testing.T) {
	storetest.Run(t, func(tb testing.TB) storetest.Subject {
		return subject(tb, store.Options{Disk: disk.NewSim(nil), Dir: "batches", DB: kv.NewMem(), Name: "files", Seal: newSealer()})
	})
}

func TestOS(t *testing.T) {
	storetest.RunFixed(t, func(tb testing.TB) storetest.Subject { return subject(tb, onDisk(tb)) })
}

// onDisk returns the options of a store on a real disk, with bbolt.
func onDisk(tb testing.TB) store.Options {
	dir := tb.TempDir()
	d, err := disk.OS(dir)
	if err != nil {
		tb.Fatal(err)
	}
	db, err := kv.OpenBolt(filepath.Join(dir, "db"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return store.Options{Disk: d, Dir: "batches", DB: db, Name: "files", Seal: newSealer()}
}

func seedKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, 32))
}
