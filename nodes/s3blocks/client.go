// Package s3blocks keeps the blocks of spaces in a bucket of an S3-compatible store, each as an object under its CID.
//
// What is in the bucket is known from an index in the space's kv.DB, so that only content itself goes over the line. The bucket may lose, change
// or withhold what it holds: each block is verified when it is read, and one that is not what it was is no longer here, so that a replica gives it
// again. Blocks are sealed; who has the bucket sees what a node sees (NODES.md).
package s3blocks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/anyfs/anyfs/dag/block"
)

const (
	maxPuts   = 8        // blocks on their way to the bucket at once, of all spaces; each is in memory
	keepBytes = 32 << 20 // of blocks that came last are in memory still: the other nodes ask for them at once
	tries     = 4
	tryAgain  = 200 * time.Millisecond // after the first failure; doubled each time
	// within is how long one request may take. A block has 16 MiB at most.
	within = time.Minute
)

// Options say where the bucket is. URL, Bucket and Prefix are required.
type Options struct {
	URL         string // http or https, of the store
	Bucket      string // which exists
	Prefix      string // of all keys: who has another prefix has other blocks
	Credentials string // a file as AWS's tools have it; "": AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment, or their own file
	Log         *slog.Logger
}

// Client is a bucket. It is safe for concurrent use.
type Client struct {
	opt  Options
	s3   *minio.Client
	puts chan struct{}

	failed, gets, put atomic.Uint64

	mu    sync.Mutex // guards what follows
	kept  map[block.ID][]byte
	order []block.ID // of kept, the oldest first
	bytes int
}

// New makes a client. It asks for nothing yet.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("s3blocks: %q is no URL of an S3 store: write https://HOST or http://HOST:PORT", o.URL)
	}
	if o.Bucket == "" || o.Prefix == "" {
		return nil, errors.New("s3blocks: say which bucket the blocks are to be in")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	chain := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if o.Credentials != "" {
		if _, err := os.Stat(o.Credentials); err != nil {
			return nil, fmt.Errorf("s3blocks: credentials: %w", err)
		}
		chain = []credentials.Provider{&credentials.FileAWSCredentials{Filename: o.Credentials}}
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 2 * maxPuts, IdleConnTimeout: time.Minute,
		ResponseHeaderTimeout: within, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true,
	}
	c, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewChainCredentials(chain), Secure: u.Scheme == "https", Region: os.Getenv("AWS_REGION"), Transport: transport,
		MaxRetries: 1, // it would rewind a body that the transport is still reading; retry gives each try its own
	})
	if err != nil {
		return nil, fmt.Errorf("s3blocks: %w", err)
	}
	return &Client{opt: o, s3: c, puts: make(chan struct{}, maxPuts), kept: make(map[block.ID][]byte)}, nil
}

// ErrRefused says that the store answers, and does not let the node in: another key, or another bucket, is needed.
var ErrRefused = errors.New("s3blocks: the S3 store refuses")

// Check asks for the bucket. Its errors match ErrRefused when waiting helps nothing.
func (c *Client) Check(ctx context.Context) error {
	var ok bool
	err := c.retry(ctx, func(ctx context.Context) (err error) {
		ok, err = c.s3.BucketExists(ctx, c.opt.Bucket)
		return err
	})
	code := minio.ToErrorResponse(err).StatusCode
	switch {
	case err != nil && code >= 400 && code < 500:
		return fmt.Errorf("%w: bucket %s at %s: %w", ErrRefused, c.opt.Bucket, c.opt.URL, err)
	case err != nil:
		return fmt.Errorf("s3blocks: bucket %s at %s: %w", c.opt.Bucket, c.opt.URL, err)
	case !ok:
		return fmt.Errorf("%w: there is no bucket %s at %s", ErrRefused, c.opt.Bucket, c.opt.URL)
	}
	return nil
}

// retry runs fn, again where trying again may help.
func (c *Client) retry(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	wait := tryAgain
	for i := range tries {
		err = func() error {
			ctx, cancel := context.WithTimeout(ctx, within)
			defer cancel()
			return fn(ctx)
		}()
		if err == nil || i == tries-1 {
			break
		}
		if code := minio.ToErrorResponse(err).StatusCode; code >= 400 && code < 500 && code != http.StatusTooManyRequests && code != http.StatusRequestTimeout {
			break
		}
		c.failed.Add(1)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
		wait *= 2
	}
	return err
}

// Stats are counts since the start.
type Stats struct{ Puts, Gets, Failed uint64 }

// Stats gives what was asked of the store: objects that were written and read, and requests that failed.
func (c *Client) Stats() Stats { return Stats{c.put.Load(), c.gets.Load(), c.failed.Load()} }

// keep has a block in memory for a while. data is not changed any more.
func (c *Client) keep(id block.ID, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept[id] != nil {
		return
	}
	c.kept[id], c.order, c.bytes = data, append(c.order, id), c.bytes+len(data)
	for c.bytes > keepBytes {
		old := c.order[0]
		c.order = c.order[1:]
		c.bytes -= len(c.kept[old])
		delete(c.kept, old)
	}
}

func (c *Client) recent(id block.ID) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept[id]
}
