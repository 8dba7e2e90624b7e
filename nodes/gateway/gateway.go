// Package gateway serves blocks and trees of blocks by the IPFS trustless gateway protocol over HTTP, with boxo's handler: each block raw, and each
// tree under its root as a CAR. What is asked for is named by its CID and proves itself; nothing is decoded, and no names are resolved.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/gateway"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/anyfs/anyfs/dag/block"
)

const (
	maxRequests = 64 // at once; others are told to come again
	maxDuration = time.Hour
	stall       = time.Minute
)

// Source reads a block that the node holds, whichever space it is of. ErrAbsent where there is none; the bytes are the caller's.
type Source func(ctx context.Context, id block.ID) ([]byte, error)

// New makes the handler of /ipfs/CID.
func New(from Source) (http.Handler, error) {
	backend, err := gateway.NewBlocksBackend(blockservice.New(store{from}, nil))
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	h := gateway.NewHandler(gateway.Config{
		NoDNSLink: true, DisableHTMLErrors: true, MaxConcurrentRequests: maxRequests, MaxRequestDuration: maxDuration, RetrievalTimeout: stall,
		MetricsRegistry: prometheus.NewRegistry(),
	}, backend)
	m := http.NewServeMux()
	m.Handle("GET /ipfs/", gateway.NewHeaders(nil).ApplyCors().Wrap(h))
	return m, nil
}

// store is a Source as boxo has it.
type store struct{ from Source }

var errReadOnly = errors.New("gateway: nothing is written through it")

// Get implements blockstore.Blockstore.
func (s store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	id, _, err := block.IDFromCID(c)
	if err != nil {
		return nil, format.ErrNotFound{Cid: c} // a block of another form is not here
	}
	b, err := s.from(ctx, id)
	if errors.Is(err, block.ErrAbsent) {
		return nil, format.ErrNotFound{Cid: c}
	}
	if err != nil {
		return nil, err
	}
	return blocks.NewBlockWithCid(b, c)
}

// Has implements blockstore.Blockstore.
func (s store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := s.Get(ctx, c)
	if format.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// GetSize implements blockstore.Blockstore.
func (s store) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	b, err := s.Get(ctx, c)
	if err != nil {
		return 0, err
	}
	return len(b.RawData()), nil
}

// DeleteBlock implements blockstore.Blockstore.
func (store) DeleteBlock(context.Context, cid.Cid) error { return errReadOnly }

// Put implements blockstore.Blockstore.
func (store) Put(context.Context, blocks.Block) error { return errReadOnly }

// PutMany implements blockstore.Blockstore.
func (store) PutMany(context.Context, []blocks.Block) error { return errReadOnly }

// AllKeysChan implements blockstore.Blockstore: what there is, is told to nobody.
func (store) AllKeysChan(context.Context) (<-chan cid.Cid, error) { return nil, errReadOnly }
