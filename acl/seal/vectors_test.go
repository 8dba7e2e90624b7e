package seal

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/anyfs/anyfs/dag"
	"github.com/zeebo/blake3"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorsFile = "testdata/vectors.json"

// hexBytes are shown as hex.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }
func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type vectors struct {
	About           string
	Space, Epoch    hexBytes
	FirstKey, Key   hexBytes // of the first epoch, whose id is the space's, and of Epoch
	FirstCommitment hexBytes
	Commitment      hexBytes
	Padme           [][2]int
	Changes         []changeVector
	Blocks          []blockVector
	GearBLAKE3      hexBytes // of the table as 256 little-endian words
	Gear0           uint64
	Names           []nameVector
	Field           fieldVector
	Wrap            wrapVector
	Agreed          agreedVector
	Local           localVector
}

type changeVector struct {
	Object    hexBytes // empty in a root
	Parents   []hexBytes
	Clock     uint64
	Device    hexBytes
	Plaintext hexBytes
	Payload   hexBytes
}

type blockVector struct {
	Length int // of a plaintext whose byte i is (i*7>>3) mod 256
	Size   int
	Block  hexBytes `json:",omitempty"`
	BLAKE3 hexBytes // of the block: the digest of its CID
}

type nameVector struct {
	Parent hexBytes
	Name   string
	Hash   uint64
}

type fieldVector struct {
	Label                 string
	AD, Plaintext, Sealed hexBytes
}

type wrapVector struct{ PrivateSeed, PublicBLAKE3, Info, Wrap hexBytes } // of Key

type agreedVector struct{ Secret, With, Key, Info, Wrap hexBytes } // Wrap is of Key of all

type localVector struct {
	StoreKey, AD, Plaintext, Sealed, SealedByDerivedX, KeyX hexBytes
	Hash64                                                  uint64 // of Plaintext
}

// counter is a source of randomness that counts.
type counter byte

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		*c++
		p[i] = byte(*c)
	}
	return len(p), nil
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7 >> 3)
	}
	return b
}

// compute makes the vectors; what is random in them comes from old where it opens to what it should.
func compute(t *testing.T, old *vectors) *vectors {
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	space, epoch := dag.Sum([]byte("space")), dag.Sum([]byte("epoch"))
	first, key := ReadKey(dag.Sum([]byte("first key"))), ReadKey(dag.Sum([]byte("key")))
	s := NewSpaceRand(space, new(counter))
	s.Add(space, first)
	s.Add(epoch, key)
	must(s.SetCurrent(epoch))
	c1, c2 := first.Commitment(dag.ID{}), key.Commitment(space)
	v := &vectors{
		About: "Vectors of FORMAT.md. All byte strings are hex. Nonces of changes and of the field count: 01 02 03 …",
		Space: space[:], Epoch: epoch[:], FirstKey: first[:], Key: key[:], FirstCommitment: c1[:], Commitment: c2[:],
	}
	for _, n := range []int{1, 2, 9, 31, 33, 100, 501, 1000, 4100, 65537, 1 << 20, 1<<20 + 1, 4<<20 + 4} {
		v.Padme = append(v.Padme, [2]int{n, padme(n)})
	}
	object, p1, p2 := dag.Sum([]byte("object")), dag.Sum([]byte("p1")), dag.Sum([]byte("p2"))
	device := dag.PublicKey(dag.Sum([]byte("device")))
	for _, c := range []struct {
		object  dag.ID
		parents []dag.ID
		plain   []byte
	}{{dag.ID{}, nil, nil}, {dag.ID{}, nil, []byte("a root")}, {object, []dag.ID{object}, []byte("a change")}, {object, []dag.ID{p1, p2}, pattern(100)}} {
		h := dag.Header{Space: space, Object: c.object, Parents: c.parents, Epoch: epoch, Clock: 300, Device: device}
		payload, err := s.SealChange(h, c.plain)
		must(err)
		x := changeVector{Clock: h.Clock, Device: device[:], Plaintext: c.plain, Payload: payload}
		if !c.object.IsZero() {
			x.Object = c.object[:]
		}
		for i := range c.parents {
			x.Parents = append(x.Parents, c.parents[i][:])
		}
		v.Changes = append(v.Changes, x)
	}
	for _, n := range []int{0, 1, 100, 16380, 16381, 20000, 1 << 20, MaxChunk} {
		block, err := s.SealChunk(nil, pattern(n))
		must(err)
		sum := blake3.Sum256(block)
		x := blockVector{Length: n, Size: len(block), BLAKE3: sum[:]}
		if n <= 100 {
			x.Block = block
		}
		v.Blocks = append(v.Blocks, x)
	}
	gear := s.GearTable()
	var table []byte
	for _, g := range gear {
		for i := range 8 {
			table = append(table, byte(g>>(8*i)))
		}
	}
	sum := blake3.Sum256(table)
	v.GearBLAKE3, v.Gear0 = sum[:], gear[0]
	for _, n := range []nameVector{{nil, "", 0}, {object[:], "README.md", 0}, {object[:], "Новая папка", 0}, {p1[:8], "x", 0}} {
		n.Hash = s.NameHash(n.Parent, n.Name)
		v.Names = append(v.Names, n)
	}
	field, err := key.SealField("label", []byte("ad"), []byte("plaintext"), new(counter))
	must(err)
	v.Field = fieldVector{"label", []byte("ad"), []byte("plaintext"), field}

	seed := dag.Sum([]byte("hpke seed"))
	private, err := KEM().NewPrivateKey(seed[:])
	must(err)
	sum = blake3.Sum256(private.PublicKey().Bytes())
	agreed := AgreedKey(seed[:], []byte("with"))
	v.Agreed = agreedVector{seed[:], []byte("with"), agreed[:], []byte("info"), WrapAgreed(agreed, []byte("info"), key)}
	v.Wrap = wrapVector{seed[:], sum[:], []byte("info"), old.Wrap.Wrap}
	if got, err := Unwrap(private, v.Wrap.Info, v.Wrap.Wrap); err != nil || got != key {
		v.Wrap.Wrap, err = Wrap(private.PublicKey(), v.Wrap.Info, key)
		must(err)
	}

	store := dag.Sum([]byte("store key"))
	l := NewLocal(store)
	x := l.Key("x")
	plain, ad := []byte("a value"), []byte("its key")
	v.Local = localVector{store[:], ad, plain, old.Local.Sealed, old.Local.SealedByDerivedX, x[:], l.Hash64(plain)}
	again := func(l *Local, sealed *hexBytes) {
		if got, err := l.OpenLocal(nil, *sealed, ad); err != nil || !bytes.Equal(got, plain) {
			*sealed = l.SealLocal(nil, plain, ad)
		}
	}
	again(l, &v.Local.Sealed)
	again(l.Derive("x"), &v.Local.SealedByDerivedX)
	return v
}

func TestVectors(t *testing.T) {
	old := new(vectors)
	b, err := os.ReadFile(vectorsFile)
	if err == nil {
		err = json.Unmarshal(b, old)
	}
	if err != nil && !*update {
		t.Fatal(err)
	}
	now, err := json.MarshalIndent(compute(t, old), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	now = append(now, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, now, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	} else if !bytes.Equal(now, b) {
		t.Fatalf("the format changed; %s holds what was promised\n%s", vectorsFile, now)
	}
	s := NewSpace(dag.ID(old.Space))
	s.Add(s.ID(), ReadKey(old.FirstKey))
	s.Add(dag.ID(old.Epoch), ReadKey(old.Key))
	for i, c := range old.Changes {
		h := dag.Header{Space: s.ID(), Epoch: dag.ID(old.Epoch), Clock: c.Clock, Device: dag.PublicKey(c.Device)}
		copy(h.Object[:], c.Object)
		for _, p := range c.Parents {
			h.Parents = append(h.Parents, dag.ID(p))
		}
		if got, err := s.OpenChange(h, c.Payload); err != nil || !bytes.Equal(got, c.Plaintext) {
			t.Errorf("change %d: %x, %v", i, got, err)
		}
	}
	for _, b := range old.Blocks {
		if b.Block == nil {
			continue
		}
		if got, err := s.OpenChunk(nil, b.Block); err != nil || !bytes.Equal(got, pattern(b.Length)) {
			t.Errorf("block of %d: %v", b.Length, err)
		}
	}
}
