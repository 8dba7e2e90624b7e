package server

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/anyfs/anyfs/nodes/network"
)

// A coordinator that was restored may know an older configuration than the network has: nodes joined since, or were removed. Until it has heard
// from half of the others it makes none, for what it made would be in the place of the newer one. What it makes then begins a new age: its epoch is
// one that nobody has seen, whatever was made since the backup and is known to devices alone, and devices ask again whether the nodes hold what
// they had given before, which may have come after the backup.

var errNotHeard = errors.New("server: the coordinator was restored from a backup, and has not heard yet from the other nodes what they know")

// restored reports whether the coordinator was restored and has made no configuration since.
func (n *Node) restored() bool {
	_, err := os.Stat(filepath.Join(n.opt.Dir, restoredFile))
	return n.signer != nil && !errors.Is(err, iofs.ErrNotExist)
}

// nextEpoch gives the epoch of a configuration that a coordinator is about to make after c. configuring is held.
func (n *Node) nextEpoch(c *network.Config) (uint64, error) {
	if !n.restored() {
		return c.Epoch + 1, nil
	}
	connected := n.engine.Mesh()
	others, heard := 0, 0
	for i := range c.Nodes {
		if key := c.Nodes[i].Key; key != n.self() {
			others++
			if connected[key] {
				heard++
			}
		}
	}
	if 2*heard < others {
		return 0, fmt.Errorf("%w: %d of %d are connected; where the others are gone for good, remove the file %s", errNotHeard, heard, others,
			filepath.Join(n.opt.Dir, restoredFile))
	}
	return c.NextAge(), nil
}

// afterChange notes that a configuration was made. configuring is held.
func (n *Node) afterChange() error {
	err := n.disk.Remove(restoredFile)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = n.disk.SyncDir(".")
	}
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	return nil
}

// placeLater puts this coordinator into the configuration when it has heard from the others, and those from etcd, or ctx ends.
func (n *Node) placeLater(ctx context.Context, addrs []string) (*network.Config, error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
		c, err := n.placeSelf(addrs)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errNotHeard) && !errors.Is(err, errShared) {
			n.opt.Log.Error("the network does not know where the coordinator is now", "err", err)
			if c == nil {
				return nil, err
			}
		}
	}
}
