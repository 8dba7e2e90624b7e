package network

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// addressed is a network of n nodes with many addresses each, of which one is a coordinator.
func addressed(t testing.TB, n int) *Config {
	c := &Config{Epoch: 7, Partitions: 100, Replication: 3}
	for i := range n {
		x := Node{Key: public(key(fmt.Sprint("node ", i))), Kinds: Sync, Capacity: 1}
		for k := range MaxAddrs {
			x.Addresses = append(x.Addresses, fmt.Sprintf("/ip4/192.0.2.%d/tcp/%d", i%250, 1000+k))
		}
		if i == n/2 {
			x.Kinds = Coordinator
		}
		c.Nodes = append(c.Nodes, x)
	}
	if err := c.Sign(key("network")); err != nil {
		t.Fatal(err)
	}
	return c
}

// A contact is small however large the network is, names a coordinator, and is the same wherever it is made.
func TestContact(t *testing.T) {
	c := addressed(t, 1000)
	x := c.Contact()
	b := x.Encode()
	if len(b) > 10<<10 || len(c.Encode()) < 100<<10 {
		t.Errorf("a contact of %d bytes for a configuration of %d", len(b), len(c.Encode()))
	}
	coordinator := public(key("node 500"))
	if !slices.ContainsFunc(x.Nodes, func(n ContactNode) bool { return n.Key == coordinator && len(n.Multiaddrs()) == contactAddrs }) {
		t.Error("it has no coordinator")
	}
	back, err := DecodeContact(b)
	if err != nil || back.ID != c.ID || back.Epoch != 7 || !bytes.Equal(back.Encode(), b) {
		t.Fatalf("%+v, %v", back, err)
	}
	again, err := Decode(c.Encode())
	if err != nil || !bytes.Equal(again.Contact().Encode(), b) {
		t.Error("another device makes another contact of it", err)
	}
	if _, err := Decode(b); !errors.Is(err, ErrFormat) {
		t.Errorf("it is taken for a configuration: %v", err)
	}
	if _, err := DecodeContact(config(t, 1, "a").Encode()); !errors.Is(err, ErrFormat) {
		t.Errorf("a configuration is taken for it: %v", err)
	}
	for name, change := range map[string]func(*Contact){
		"no nodes":       func(x *Contact) { x.Nodes = nil },
		"epoch 0":        func(x *Contact) { x.Epoch = 0 },
		"too many":       func(x *Contact) { x.Nodes = append(x.Nodes, ContactNode{c.Nodes[999].Key, c.Nodes[999].Addresses[:1]}) },
		"one twice":      func(x *Contact) { x.Nodes[1] = x.Nodes[0] },
		"no address":     func(x *Contact) { x.Nodes[0].Addresses = nil },
		"many addresses": func(x *Contact) { x.Nodes[0].Addresses = c.Nodes[0].Addresses[:contactAddrs+1] },
		"a peer":         func(x *Contact) { x.Nodes[0].Addresses = x.Nodes[0].Multiaddrs()[:1] },
	} {
		x := c.Contact()
		change(x)
		if _, err := DecodeContact(x.Encode()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	x.Version++
	if _, err := DecodeContact(x.Encode()); !errors.Is(err, ErrVersion) {
		t.Errorf("of a later version: %v", err)
	}
}

func FuzzDecodeContact(f *testing.F) {
	f.Add(addressed(f, 20).Contact().Encode())
	f.Add(config(f, 1, "a", "b").Contact().Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if x, err := DecodeContact(p); err == nil && !bytes.Equal(x.Encode(), p) {
			t.Errorf("%x is read as %x", p, x.Encode())
		}
	})
}
