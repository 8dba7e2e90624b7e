package network

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

func key(name string) ed25519.PrivateKey {
	h := dag.Sum([]byte(name))
	return ed25519.NewKeyFromSeed(h[:])
}

func public(k ed25519.PrivateKey) dag.PublicKey { return dag.PublicKey(k.Public().(ed25519.PublicKey)) }

func config(t testing.TB, epoch uint64, nodes ...string) *Config {
	c := &Config{Epoch: epoch, Partitions: 100, Replication: 3}
	for _, n := range nodes {
		c.Nodes = append(c.Nodes, Node{Key: public(key(n)), Kinds: Coordinator | Sync | File, Capacity: 1,
			Addresses: []string{"/ip4/192.0.2.1/udp/7327/quic-v1", "/ip4/192.0.2.1/tcp/7327"}})
	}
	if err := c.Sign(key("network")); err != nil {
		t.Fatal(err)
	}
	return c
}

// vector is a configuration in its three forms.
type vector struct {
	Seed   string `json:"network_seed"`
	CBOR   string `json:"cbor"`
	Link   string `json:"link"`
	File   string `json:"file"`
	Spaces map[string][]string
}

func TestVectors(t *testing.T) {
	c := config(t, 7, "a", "b", "c", "d", "e")
	v := vector{Seed: hex.EncodeToString(key("network").Seed()), CBOR: hex.EncodeToString(c.Encode()), Link: c.Link(), File: string(c.JSON()),
		Spaces: map[string][]string{}}
	p, err := c.Place(Sync)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"one", "two", "three"} {
		id := dag.Sum([]byte(s))
		for _, n := range p.Of(id) {
			v.Spaces[hex.EncodeToString(id[:])] = append(v.Spaces[hex.EncodeToString(id[:])], n.Peer())
		}
	}
	now, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	now = append(now, '\n')
	const name = "testdata/vectors.json"
	if *update {
		if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(name, now, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, now) {
		t.Errorf("%s is not what is made now: %v", name, err)
	}
}

func TestForms(t *testing.T) {
	c := config(t, 1, "a", "b")
	for name, b := range map[string][]byte{"file": c.JSON(), "link": []byte(" " + c.Link() + "\n")} {
		back, err := Parse(b)
		if err != nil || !bytes.Equal(back.Encode(), c.Encode()) {
			t.Errorf("%s: %+v, %v", name, back, err)
		}
	}
	if id, err := ParseName(Name(c.ID)); err != nil || id != c.ID {
		t.Errorf("the name reads as %x, %v", id, err)
	}
}

// Nothing that the operator did not sign is a configuration.
func TestEveryByteIsSigned(t *testing.T) {
	good := config(t, 1, "a").Encode()
	for i := range good {
		for _, x := range []byte{1, 0x80} {
			b := bytes.Clone(good)
			b[i] ^= x
			if _, err := Decode(b); err == nil {
				t.Fatalf("byte %d changed by %x is accepted", i, x)
			}
		}
		if _, err := Decode(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes it is accepted", i)
		}
	}
	if _, err := Decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("a byte behind it is accepted")
	}
	file := string(config(t, 1, "a").JSON())
	for was, now := range map[string]string{
		`"epoch": 1`: `"epoch": 2`, "192.0.2.1/tcp": "192.0.2.2/tcp", `"sync"`: `"sync", "file"`, `"file"`: `"coordinator"`, `"partitions"`: `"parts"`,
		`"replication": 3`: `"replication": 1`, `"version": 1`: `"version": 2`,
	} {
		if !strings.Contains(file, was) {
			t.Fatalf("the file does not have %s", was)
		}
		if b := strings.Replace(file, was, now, 1); was != `"sync"` {
			if _, err := Parse([]byte(b)); err == nil {
				t.Errorf("with %s for %s it is accepted", now, was)
			}
		}
	}
}

// A configuration of a later version says so, whatever it has that is not known here: it is nobody's fault.
func TestLaterVersion(t *testing.T) {
	file := strings.Replace(string(config(t, 1, "a").JSON()), `"version": 1`, `"more": [{"a": 1}], "version": 2`, 1)
	if _, err := Parse([]byte(file)); !errors.Is(err, ErrVersion) {
		t.Errorf("a file: %v", err)
	}
	b, err := encMode.Marshal(map[string]any{"v": 2, "id": make([]byte, 32), "more": map[string]any{"a": []int{1}}})
	if err != nil {
		t.Fatal(err)
	}
	link := Prefix + base64.RawURLEncoding.EncodeToString(b)
	if _, err := Decode(b); !errors.Is(err, ErrVersion) {
		t.Errorf("an encoding: %v", err)
	}
	if _, err := Parse([]byte(link)); !errors.Is(err, ErrVersion) {
		t.Errorf("a link: %v", err)
	}
	if _, err := Parse([]byte(strings.Replace(file, `"version": 2`, `"version": 1`, 1))); !errors.Is(err, ErrFormat) {
		t.Errorf("this version with more: %v", err)
	}
}

func TestReplaces(t *testing.T) {
	old := config(t, 3, "a")
	if err := config(t, 4, "a").Replaces(old); err != nil {
		t.Error(err)
	}
	for _, epoch := range []uint64{1, 3} {
		if err := config(t, epoch, "b").Replaces(old); !errors.Is(err, ErrEpoch) {
			t.Errorf("epoch %d: %v", epoch, err)
		}
	}
	other := &Config{Epoch: 9, Partitions: 100, Replication: 1, Nodes: old.Nodes}
	if err := other.Sign(key("another")); err != nil {
		t.Fatal(err)
	}
	if err := other.Replaces(old); !errors.Is(err, ErrOther) {
		t.Error(err)
	}
	forged := *config(t, 9, "a")
	forged.ID = public(key("another"))
	if err := forged.Verify(); !errors.Is(err, ErrSignature) {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no nodes":     func(c *Config) { c.Nodes = nil },
		"epoch 0":      func(c *Config) { c.Epoch = 0 },
		"partitions":   func(c *Config) { c.Partitions = 9 },
		"replication":  func(c *Config) { c.Replication = 0 },
		"kinds":        func(c *Config) { c.Nodes[0].Kinds = 0 },
		"unknown kind": func(c *Config) { c.Nodes[0].Kinds = kinds },
		"capacity":     func(c *Config) { c.Nodes[0].Capacity = 0 },
		"no address":   func(c *Config) { c.Nodes[0].Addresses = nil },
		"a peer":       func(c *Config) { c.Nodes[0].Addresses = []string{c.Nodes[0].Multiaddrs()[0]} },
		"an address":   func(c *Config) { c.Nodes[0].Addresses = []string{"localhost:80"} },
		"not UTF-8":    func(c *Config) { c.Nodes[0].Addresses = []string{"/dns4/a\xff/tcp/80"} },
		"another form": func(c *Config) { c.Nodes[0].Addresses = []string{"/ip4/192.0.2.1/tcp/07327"} },
		"one twice":    func(c *Config) { c.Nodes = append(c.Nodes, c.Nodes[0]) },
	} {
		c := config(t, 1, "a", "b")
		change(c)
		if err := c.Sign(key("network")); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A configuration that nobody would read is not signed: each node is within its bounds, and all of them are too long.
func TestTooLongToSign(t *testing.T) {
	c := config(t, 1, "a")
	for n := range 400 {
		x := Node{Key: public(key(fmt.Sprint(n))), Kinds: Sync, Capacity: 1}
		for k := range MaxAddrs {
			x.Addresses = append(x.Addresses, fmt.Sprintf("/dns4/%02d.%s.example/tcp/7327", k, strings.Repeat("a", 200)))
		}
		c.Nodes = append(c.Nodes, x)
	}
	if err := c.Sign(key("network")); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "fewer addresses") {
		t.Fatal(err)
	}
	c.Nodes = c.Nodes[:200]
	if err := c.Sign(key("network")); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(c.Encode()); err != nil {
		t.Fatal(err)
	}
}

// Everybody of an epoch comes to the same nodes, each once.
func TestPlacement(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	one, err := config(t, 1, names...).Place(Sync)
	if err != nil {
		t.Fatal(err)
	}
	two, err := config(t, 1, "e", "d", "c", "b", "a").Place(Sync)
	if err != nil {
		t.Fatal(err)
	}
	had := map[string]int{}
	for i := range 1000 {
		id := dag.Sum([]byte{byte(i), byte(i >> 8)})
		a, b := one.Of(id), two.Of(id)
		seen := map[string]bool{}
		for k := range a {
			if a[k].Key != b[k].Key || !one.Has(id, a[k].Key) {
				t.Fatalf("space %s: node %d differs", id, k)
			}
			seen[a[k].Peer()] = true
			had[a[k].Peer()]++
		}
		if len(a) != 3 || len(seen) != 3 {
			t.Fatalf("space %s is on %d nodes, %d of them different", id, len(a), len(seen))
		}
	}
	for n, k := range had {
		if k < 450 || k > 750 {
			t.Errorf("node %s has %d of 1,000 spaces, where 600 are its share", n, k)
		}
	}
	alone, err := config(t, 1, "a").Place(File)
	if err != nil || len(alone.Of(dag.Sum(nil))) != 1 {
		t.Errorf("of one node: %v", err)
	}
}

// FuzzParse: what is read as a configuration is signed and has one encoding, in each of its forms.
func FuzzParse(f *testing.F) {
	c := config(f, 1, "a", "b")
	f.Add(c.Encode())
	f.Add(c.JSON())
	f.Add([]byte(c.Link()))
	f.Fuzz(func(t *testing.T, p []byte) {
		if c, err := Decode(p); err == nil && (!bytes.Equal(c.Encode(), p) || c.Verify() != nil) {
			t.Errorf("%x is read as %x", p, c.Encode())
		}
		if c, err := Parse(p); err == nil {
			back, err := Decode(c.Encode())
			if err != nil || c.Verify() != nil || back.Link() != c.Link() || !bytes.Equal(back.JSON(), c.JSON()) {
				t.Errorf("%q: %v", p, err)
			}
		}
	})
}
