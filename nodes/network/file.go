package network

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/anyfs/anyfs/acl/list"
)

// Prefix begins a link.
const Prefix = "anyfs://network/"

// Link is the configuration in one line, to be handed over in any way: the encoding in URL-safe base64 behind Prefix.
func (c *Config) Link() string { return Prefix + base64.RawURLEncoding.EncodeToString(c.Encode()) }

// file is a configuration as it stands in network.json.
type file struct {
	Network     string     `json:"network"`
	Epoch       uint64     `json:"epoch"`
	Partitions  uint64     `json:"partitions"`
	Replication uint64     `json:"replication"`
	Nodes       []fileNode `json:"nodes"`
	Signature   []byte     `json:"signature"`
	Version     uint64     `json:"version"`
}

type fileNode struct {
	Peer      string   `json:"peer"`
	Kinds     []string `json:"kinds"`
	Addresses []string `json:"addresses"`
	Capacity  uint64   `json:"capacity"`
}

// JSON is the configuration as a file.
func (c *Config) JSON() []byte {
	f := file{
		Network: Name(c.ID), Epoch: c.Epoch, Partitions: c.Partitions, Replication: c.Replication, Signature: c.Signature[:], Version: c.Version,
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		f.Nodes = append(f.Nodes, fileNode{n.Peer(), n.Kinds.Names(), n.Addresses, n.Capacity})
	}
	b, err := json.MarshalIndent(&f, "", "  ")
	if err != nil {
		panic("network: " + err.Error())
	}
	return append(b, '\n')
}

// Parse reads a configuration as a file or a link, with space around it, and verifies it. What a file says in another order, or with other
// space, is the same: what is signed is the canonical encoding.
func Parse(b []byte) (*Config, error) {
	if len(b) > 2*MaxBytes {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, len(b))
	}
	b = bytes.TrimSpace(b)
	if rest, ok := strings.CutPrefix(string(b), Prefix); ok {
		p, err := base64.RawURLEncoding.Strict().DecodeString(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: the link is cut short or changed: %w", ErrFormat, err)
		}
		return Decode(p)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		var any struct {
			Version uint64 `json:"version"`
		}
		if json.Unmarshal(b, &any) == nil && any.Version > Version {
			return nil, fmt.Errorf("%w: version %d", ErrVersion, any.Version)
		}
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("%w: more behind it", ErrFormat)
	}
	c := &Config{Version: f.Version, Epoch: f.Epoch, Partitions: f.Partitions, Replication: f.Replication}
	if c.Version != Version {
		return nil, fmt.Errorf("%w: version %d", ErrVersion, f.Version)
	}
	var err error
	if c.ID, err = ParseName(f.Network); err != nil {
		return nil, err
	}
	if len(f.Signature) != len(c.Signature) || len(f.Nodes) > MaxNodes {
		return nil, fmt.Errorf("%w: a signature of %d bytes, %d nodes", ErrFormat, len(f.Signature), len(f.Nodes))
	}
	copy(c.Signature[:], f.Signature)
	for _, x := range f.Nodes {
		n := Node{Addresses: x.Addresses, Capacity: x.Capacity}
		if n.Key, err = list.ParsePeerID(x.Peer); err != nil {
			return nil, fmt.Errorf("%w: node %q: %w", ErrFormat, x.Peer, err)
		}
		for _, name := range x.Kinds {
			k, err := ParseKind(name)
			if err != nil {
				return nil, err
			}
			n.Kinds |= k
		}
		c.Nodes = append(c.Nodes, n)
	}
	c.sort()
	if err := c.Verify(); err != nil {
		return nil, err
	}
	return c, nil
}
