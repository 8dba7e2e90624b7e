package fs

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs/index"
)

// ContentPolicy says which content of a space this device holds. It is a setting of the device, and not synced. The zero value is a mirror:
// all that is current comes here by itself and stays.
type ContentPolicy struct {
	OnDemand   bool  // content comes when it is read, and may go again
	CacheLimit int64 // bytes of blocks; 0: as the disk allows
}

func (p ContentPolicy) mirrors() bool { return !p.OnDemand }

// String is "mirror" or "on-demand".
func (p ContentPolicy) String() string {
	if p.OnDemand {
		return "on-demand"
	}
	return "mirror"
}

// bucketDevice holds what this device has been told about a space, sealed, durable at once: under "policy" its ContentPolicy, under "pin" and
// the ID of an object that this is pinned.
const (
	bucketDevice = "device"
	keyPolicy    = "policy"
	keyPin       = "pin"
)

// maxPins bounds the pins of a space: they are in memory.
const maxPins = 1 << 16

func (s *space) policy() ContentPolicy {
	if p := s.pol.Load(); p != nil {
		return *p
	}
	return ContentPolicy{}
}

func (s *space) deviceSeal() *seal.Local {
	return s.h.local.Derive("space " + s.dir).Derive(bucketDevice)
}

func deviceAD(key []byte) []byte { return append([]byte(bucketDevice+"\x00"), key...) }

// loadDevice reads what this device has been told about the space.
func (s *space) loadDevice() error {
	local := s.deviceSeal()
	pins := map[dag.ID]struct{}{}
	var failed error
	err := s.db.View(func(tx kv.Tx) error {
		return tx.Scan(bucketDevice, nil, func(k, v []byte) bool {
			var b []byte
			if b, failed = local.OpenLocal(nil, v, deviceAD(k)); failed == nil {
				failed = s.loadSetting(string(k), b, pins)
			}
			if failed != nil {
				failed = fmt.Errorf("%w: key %x in %s: %w", index.ErrCorrupt, k, bucketDevice, failed)
			}
			return failed == nil
		})
	})
	s.pins = pins
	if err == nil {
		err = failed
	}
	return err
}

func (s *space) loadSetting(key string, b []byte, pins map[dag.ID]struct{}) error {
	switch {
	case key == keyPolicy:
		p, err := decodePolicy(b)
		if err == nil {
			s.pol.Store(&p)
		}
		return err
	case len(key) == len(keyPin)+len(dag.ID{}) && key[:len(keyPin)] == keyPin && len(b) == 0:
		pins[dag.ID([]byte(key[len(keyPin):]))] = struct{}{}
		return nil
	}
	return fmt.Errorf("a setting of %d bytes that is not known", len(b))
}

func (p ContentPolicy) encode() []byte {
	b := []byte{0}
	if p.OnDemand {
		b[0] = 1
	}
	return binary.AppendUvarint(b, uint64(p.CacheLimit))
}

func decodePolicy(b []byte) (p ContentPolicy, err error) {
	if len(b) < 2 || b[0] > 1 {
		return p, fmt.Errorf("a policy of %d bytes", len(b))
	}
	limit, n := binary.Uvarint(b[1:])
	if n != len(b)-1 || limit > 1<<62 {
		return p, fmt.Errorf("a policy of %d bytes", len(b))
	}
	return ContentPolicy{OnDemand: b[0] == 1, CacheLimit: int64(limit)}, nil
}

// tellDevice keeps a setting; nil removes it.
func (s *space) tellDevice(key string, value []byte) error {
	k := []byte(key)
	err := s.db.Update(func(tx kv.Tx) error {
		if value == nil {
			return tx.Delete(bucketDevice, k)
		}
		return tx.Put(bucketDevice, k, s.deviceSeal().SealLocal(nil, value, deviceAD(k)))
	})
	if err != nil {
		return s.damaged(err)
	}
	return nil
}

// verifyDevice opens what this device was told about the space.
func (s *space) verifyDevice(ctx context.Context, report func(error)) error {
	local := s.deviceSeal()
	return kv.Each(ctx, s.db, bucketDevice, func(k, v []byte) {
		if _, err := local.OpenLocal(nil, v, deviceAD(k)); err != nil {
			report(fmt.Errorf("%w: value in %s, key %x: %w", index.ErrCorrupt, bucketDevice, k, err))
		}
	})
}
