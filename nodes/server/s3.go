package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/s3blocks"
)

// openS3 opens the bucket in which a node keeps content, under a prefix of its own, so that nodes may share one. A store that is away for a while
// keeps no node from starting; one that refuses it does.
func openS3(o s3blocks.Options, log *slog.Logger, self dag.PublicKey) (*s3blocks.Client, error) {
	o.Prefix, o.Log = list.PeerID(self), log
	c, err := s3blocks.New(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := c.Check(ctx); errors.Is(err, s3blocks.ErrRefused) {
		return nil, err
	} else if err != nil {
		log.Error("the S3 store does not answer; content is neither taken nor given until it does", "err", err)
	}
	return c, nil
}
