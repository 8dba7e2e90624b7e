package mount

import (
	"context"
	"crypto/rand"
	"os"
	"testing"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

var _ Backend = (*fs.Home)(nil)

// newRealHome makes a home with the space Personal, at work for the time of a test.
func newRealHome(t testing.TB) Backend {
	t.Helper()
	dir := t.TempDir()
	d, err := disk.OS(dir)
	must(t, err)
	account, err := acl.NewAccount(rand.Reader)
	must(t, err)
	keys, err := acl.InitKeys(d, account, "test", nil, rand.Reader)
	must(t, err)
	h, err := fs.Open(context.Background(), fs.Options{
		Disk: d, Dir: dir, Keys: keys, Rand: rand.Reader,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
	})
	must(t, err)
	_, err = h.CreatePersonal()
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the home's work: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Errorf("closing the home: %v", err)
		}
	})
	return h
}
