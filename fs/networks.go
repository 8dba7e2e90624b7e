package fs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/fs/index"
)

// Which networks hold which spaces is known to all devices of the account: it stands in internal attributes, which are registers of their own,
// so that two devices which add and remove at once come to the same (TREE.md 14).
//
//   - The root of the home space has the networks that the account uses, their configurations, which is the default, and what a person chose for a
//     space.
//   - The entry of a space in it has what the space came to be on by itself, so that another default does not move it.
//   - The root of a space that is shared has the networks that its owner chose, so that members find it there.
//
// What a configuration says is nothing to this package: it is bytes that came with an ID.

// networkPrefix begins the names of these attributes: with the network's ID in hex, and nothing, ".config", ".rank" or a dot and the ID of a space
// in hex behind it.
const (
	networkPrefix = ".network."
	configSuffix  = ".config"
	rankSuffix    = ".rank"
)

// Bounds of what attributes hold of networks: they share those of an inode with others.
const (
	MaxNetworks      = 32
	MaxNetworkConfig = 16 << 10 // bytes of a configuration; of a larger one, where to ask for it is to be given
)

// Choices of an account for a space, as an entry has them.
const (
	choiceOff      = 0 // it is not on the network, whatever its owner says
	choiceOn       = 1
	choiceFollowed = 2 // its owner says so: a hint for devices on which the space is not yet
)

// NetworkID is the key that signs a network's configurations.
type NetworkID = dag.PublicKey

// Networks is what is known of networks in the home and in its spaces. It is a copy.
type Networks struct {
	Used    []NetworkID          // by the account: the default first, then by ID
	Configs map[NetworkID][]byte // as the account keeps them

	home   dag.ID
	spaces map[dag.ID]*spaceNetworks
}

// spaceNetworks is what is known of one space.
type spaceNetworks struct {
	entry  uint64 // the inode of its entry
	choice map[NetworkID]byte

	times  map[NetworkID]uint64 // how often a person chose
	person map[NetworkID]bool   // of these, those that stand in the root of the home space
	// derived: other devices make the entry too, before they meet, and one of the two is passed over then.
	derived bool

	owner  bool                 // this account owns it
	shared bool                 // others are members
	here   bool                 // on this device
	said   map[NetworkID][]byte // by its owner: the configuration, which may be empty
}

// Default is the network that a new space is put on; false where there is none.
func (n *Networks) Default() (NetworkID, bool) {
	if len(n.Used) == 0 {
		return NetworkID{}, false
	}
	return n.Used[0], true
}

// Of gives the networks that a space is on, in order. The home space is on all that the account uses: whichever one a new device is told of, it
// learns of the others there. One of which nothing was said is on the default. What was chosen of a network that is used no more counts again once
// it is used again.
func (n *Networks) Of(space dag.ID) []NetworkID {
	if space == n.home {
		return sortNetworks(n.Used)
	}
	on := map[NetworkID]bool{}
	nothing := true
	if s := n.spaces[space]; s != nil {
		for id, c := range s.choice {
			_, said := s.said[id]
			follows := c == choiceFollowed && (said || !s.here)
			if used := slices.Contains(n.Used, id); used || follows {
				nothing = false
				on[id] = used && c == choiceOn || follows
			}
		}
		for id := range s.said {
			if c, chosen := s.choice[id]; !chosen || c != choiceOff {
				nothing, on[id] = false, true
			}
		}
	}
	if d, ok := n.Default(); ok && nothing {
		on[d] = true
	}
	maps.DeleteFunc(on, func(_ NetworkID, on bool) bool { return !on })
	return sortNetworks(slices.Collect(maps.Keys(on)))
}

// Said gives the configurations of networks that owners of spaces keep in these.
func (n *Networks) Said(fn func(network NetworkID, config []byte)) {
	for _, s := range n.spaces {
		for id, config := range s.said {
			fn(id, config)
		}
	}
}

func sortNetworks(ids []NetworkID) []NetworkID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, func(a, b NetworkID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}

func networkAttr(id NetworkID, suffix string) string {
	return networkPrefix + hex.EncodeToString(id[:]) + suffix
}

// parseNetworkAttr reads the name of an attribute.
func parseNetworkAttr(name string) (id NetworkID, suffix string, ok bool) {
	rest, ok := strings.CutPrefix(name, networkPrefix)
	if !ok || len(rest) < 2*len(id) {
		return id, "", false
	}
	b, err := hex.DecodeString(rest[:2*len(id)])
	if err != nil || rest[:2*len(id)] != strings.ToLower(rest[:2*len(id)]) {
		return id, "", false
	}
	copy(id[:], b)
	return id, rest[2*len(id):], true
}

func spaceSuffix(space dag.ID) string { return "." + hex.EncodeToString(space[:]) }

func parseSpaceSuffix(suffix string) (space dag.ID, ok bool) {
	b, err := hex.DecodeString(strings.TrimPrefix(suffix, "."))
	if err != nil || len(b) != len(space) {
		return space, false
	}
	copy(space[:], b)
	return space, suffix == spaceSuffix(space)
}

// ErrNetworks says that there are too many networks.
var ErrNetworks = fmt.Errorf("%w: at most %d networks can be used", ErrNoSpace, MaxNetworks)

// Networks reads what is known of networks.
func (h *Home) Networks() (*Networks, error) {
	out := &Networks{Configs: map[NetworkID][]byte{}, home: h.home.id, spaces: map[dag.ID]*spaceNetworks{}}
	ranks := map[NetworkID]uint64{}
	type choice struct {
		space   dag.ID
		network NetworkID
		choice  byte
		times   uint64
	}
	var chosen []choice
	home := h.home
	err := func() error {
		home.mu.Lock()
		defer home.mu.Unlock()
		root, err := home.inode(rootDir)
		if err != nil {
			return err
		}
		for _, x := range root.Xattrs {
			id, suffix, ok := parseNetworkAttr(x.Name)
			switch {
			case !ok:
			case suffix == "" && bytes.Equal(x.Value, []byte{1}):
				out.Used = append(out.Used, id)
			case suffix == configSuffix:
				out.Configs[id] = bytes.Clone(x.Value)
			case suffix == rankSuffix:
				if r, n := binary.Uvarint(x.Value); n == len(x.Value) {
					ranks[id] = r
				}
			case len(x.Value) > 0 && x.Value[0] <= choiceFollowed:
				times, n := binary.Uvarint(x.Value[1:])
				if space, ok := parseSpaceSuffix(suffix); ok && n == len(x.Value)-1 {
					chosen = append(chosen, choice{space, id, x.Value[0], times})
				}
			}
		}
		return home.ix.Scan(rootDir, 0, func(_ uint64, e *index.Entry) bool {
			n, err := home.ix.Inode(e.Ino)
			if err != nil || n == nil {
				return true
			}
			ref, ok := entryRef(n)
			if !ok {
				return true
			}
			s := &spaceNetworks{entry: e.Ino, choice: map[NetworkID]byte{}, times: map[NetworkID]uint64{}, person: map[NetworkID]bool{}, said: map[NetworkID][]byte{}}
			for _, x := range n.Xattrs {
				if id, suffix, ok := parseNetworkAttr(x.Name); ok && suffix == "" && len(x.Value) == 1 && x.Value[0] <= choiceFollowed {
					s.choice[id] = x.Value[0]
				}
			}
			if other := out.spaces[ref.id]; other != nil { // named twice for a moment: what either says holds
				maps.Copy(s.choice, other.choice)
			}
			s.derived = ref.label != ""
			out.spaces[ref.id] = s
			return true
		})
	}()
	if err != nil {
		return nil, home.damaged(err)
	}
	slices.SortFunc(out.Used, func(a, b NetworkID) int {
		if ranks[a] != ranks[b] {
			if ranks[a] > ranks[b] {
				return -1
			}
			return 1
		}
		return bytes.Compare(a[:], b[:])
	})
	for _, c := range chosen {
		if s := out.spaces[c.space]; s != nil {
			s.choice[c.network], s.times[c.network], s.person[c.network] = c.choice, c.times, true
		}
	}
	for id, n := range out.spaces {
		s := h.spaceOf(id)
		if s == nil || s.sick != nil || s.deleted() {
			continue
		}
		n.here, n.owner, n.shared = true, s.acl.Role() == acl.RoleOwner, len(s.acl.Members()) > 1
		s.mu.Lock()
		root, err := s.inode(rootDir)
		if err == nil {
			configs := map[NetworkID][]byte{}
			for _, x := range root.Xattrs {
				switch id, suffix, ok := parseNetworkAttr(x.Name); {
				case !ok:
				case suffix == "" && bytes.Equal(x.Value, []byte{1}):
					n.said[id] = nil
				case suffix == configSuffix:
					configs[id] = bytes.Clone(x.Value)
				}
			}
			for id := range n.said {
				n.said[id] = configs[id]
			}
		}
		s.mu.Unlock()
		if errors.Is(err, ErrStale) {
			continue
		}
		if err != nil {
			return nil, s.damaged(err)
		}
	}
	return out, nil
}

// setAttr sets an internal attribute; nil removes it. What is so already is left alone.
func (s *space) setAttr(ino uint64, name string, value []byte) error {
	return s.xattr(value == nil, ino, func(n *index.Inode) (*xattrRecord, error) {
		old, has := n.Xattr(name)
		switch {
		case value == nil && !has, value != nil && has && bytes.Equal(old, value):
			return nil, nil
		case value == nil:
			return &xattrRecord{Name: name, Remove: true}, nil
		}
		sum := len(name) + len(value)
		for _, x := range n.Xattrs {
			if x.Name != name {
				sum += len(x.Name) + len(x.Value)
			}
		}
		if sum > maxXattrs || !has && len(n.Xattrs) >= maxXattrCount {
			return nil, ErrNoSpace
		}
		return &xattrRecord{Name: name, Value: bytes.Clone(value)}, nil
	})
}

// UseNetwork has the account use a network with that configuration, and the home space be on it. The first one is the default. Of one that is used
// the configuration is replaced. What has more than MaxNetworkConfig bytes is left out: other devices are to be told it.
func (h *Home) UseNetwork(id NetworkID, config []byte) error {
	now, err := h.Networks()
	if err != nil {
		return err
	}
	if !slices.Contains(now.Used, id) && len(now.Used) >= MaxNetworks {
		return ErrNetworks
	}
	if err := h.NetworkConfig(id, config); errors.Is(err, ErrNoSpace) {
		err = h.NetworkConfig(id, nil) // other devices are to be told it, as one that is too long
		if err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if len(now.Used) == 0 {
		if err := h.home.setAttr(rootDir, networkAttr(id, rankSuffix), binary.AppendUvarint(nil, 1)); err != nil {
			return err
		}
	}
	return h.home.setAttr(rootDir, networkAttr(id, ""), []byte{1})
}

// NetworkConfig replaces the configuration that the account keeps of a network.
func (h *Home) NetworkConfig(id NetworkID, config []byte) error {
	if len(config) > MaxNetworkConfig {
		config = nil
	}
	return h.home.setAttr(rootDir, networkAttr(id, configSuffix), config)
}

// DefaultNetwork makes a network that is used the default. Spaces stay where they are.
func (h *Home) DefaultNetwork(id NetworkID) error {
	if err := h.SettleNetworks(nil); err != nil { // those that were to follow the old one
		return err
	}
	now, err := h.Networks()
	if err != nil {
		return err
	}
	if !slices.Contains(now.Used, id) {
		return ErrNotExist
	}
	if now.Used[0] == id {
		return nil
	}
	most := uint64(0)
	h.home.mu.Lock()
	root, err := h.home.inode(rootDir)
	if err == nil {
		for _, x := range root.Xattrs {
			if _, suffix, ok := parseNetworkAttr(x.Name); ok && suffix == rankSuffix {
				if r, n := binary.Uvarint(x.Value); n == len(x.Value) && r < 1<<62 {
					most = max(most, r)
				}
			}
		}
	}
	h.home.mu.Unlock()
	if err != nil {
		return err
	}
	return h.home.setAttr(rootDir, networkAttr(id, rankSuffix), binary.AppendUvarint(nil, most+1))
}

// DropNetwork has the account use a network no more.
func (h *Home) DropNetwork(id NetworkID) error {
	now, err := h.Networks()
	if err != nil {
		return err
	}
	for space, s := range now.spaces {
		if s.here && s.owner {
			if err := h.say(space, id, nil, false); err != nil {
				return err
			}
		}
	}
	for _, suffix := range []string{"", rankSuffix, configSuffix} {
		if err := h.home.setAttr(rootDir, networkAttr(id, suffix), nil); err != nil {
			return err
		}
	}
	return nil
}

// ChooseNetwork puts a space on a network, or takes it off. Where the account owns the space, SettleNetworks has its members told.
func (h *Home) ChooseNetwork(space dag.ID, id NetworkID, on bool) error {
	if err := h.SettleNetworks(nil); err != nil { // what it is on by default stays, beside the new one
		return err
	}
	now, err := h.Networks()
	if err != nil {
		return err
	}
	if err := h.chooseNetwork(now, space, id, on); err != nil {
		return err
	}
	return h.SettleNetworks(nil)
}

// CreateSpaceOn is CreateSpace of one that is on a network, and not on the default.
func (h *Home) CreateSpaceOn(name string, id NetworkID) (SpaceInfo, error) {
	i, err := h.CreateSpace(name)
	if err != nil {
		return i, err
	}
	now, err := h.Networks()
	if err != nil {
		return i, err
	}
	space, err := dag.ParseID(i.ID)
	if err != nil {
		return i, err
	}
	return i, h.chooseNetwork(now, space, id, true)
}

func (h *Home) chooseNetwork(now *Networks, space dag.ID, id NetworkID, on bool) error {
	s := now.spaces[space]
	if s == nil {
		return ErrNotExist
	}
	choice := byte(choiceOff)
	if on {
		choice = choiceOn
	}
	if err := h.home.setAttr(rootDir, networkAttr(id, spaceSuffix(space)), encodeChoice(choice, s.times[id]+1)); err != nil {
		return err
	}
	if !on && s.here && s.owner {
		return h.say(space, id, nil, false)
	}
	return nil
}

func encodeChoice(choice byte, times uint64) []byte {
	return binary.AppendUvarint([]byte{choice}, times)
}

// Word gives how often a person chose whether a space is on a network; false where the account does not own the space, or nobody ever chose: then nodes
// are told nothing.
func (n *Networks) Word(space dag.ID, id NetworkID) (times uint64, ok bool) {
	s := n.spaces[space]
	if s == nil || !s.owner || s.times[id] == 0 {
		return 0, false
	}
	return s.times[id], true
}

// noteChoice writes down what a space came to be on by itself.
func (h *Home) noteChoice(space dag.ID, s *spaceNetworks, id NetworkID, choice byte) error {
	if s.derived || s.person[id] {
		return h.home.setAttr(rootDir, networkAttr(id, spaceSuffix(space)), encodeChoice(choice, s.times[id]))
	}
	return h.home.setAttr(s.entry, networkAttr(id, ""), []byte{choice})
}

// say has the owner's choice in a space's own root.
func (h *Home) say(space dag.ID, id NetworkID, config []byte, on bool) error {
	s := h.spaceOf(space)
	if s == nil || s.sick != nil || s.deleted() {
		return nil
	}
	if len(config) > MaxNetworkConfig || !on {
		config = nil
	}
	if err := s.setAttr(rootDir, networkAttr(id, configSuffix), config); err != nil {
		return err
	}
	if !on {
		return s.setAttr(rootDir, networkAttr(id, ""), nil)
	}
	return s.setAttr(rootDir, networkAttr(id, ""), []byte{1})
}

// SettleNetworks writes down for each space that this device has what it is on, where nothing was said of it yet: so another default moves none. In
// those that are shared and that the account owns it says so to the members; config gives the newest configuration of a network; nil: the one that
// the account keeps.
func (h *Home) SettleNetworks(config func(NetworkID) []byte) error {
	now, err := h.Networks()
	if err != nil {
		return err
	}
	if config == nil {
		config = func(id NetworkID) []byte { return now.Configs[id] }
	}
	var failed error
	for space, s := range now.spaces {
		if !s.here {
			continue
		}
		on := now.Of(space)
		for _, id := range on {
			_, said := s.said[id]
			choice := byte(choiceOn)
			if said && s.choice[id] != choiceOn {
				choice = choiceFollowed
			}
			if c, chosen := s.choice[id]; !chosen || c != choice && c != choiceOn {
				failed = errors.Join(failed, h.noteChoice(space, s, id, choice))
			}
			if s.owner && s.shared && (!said || !bytes.Equal(s.said[id], config(id))) && (said || choice == choiceOn) {
				if c := config(id); len(c) > 0 {
					failed = errors.Join(failed, h.say(space, id, c, true))
				}
			}
		}
		for id := range s.said {
			// The owner took it off on a device that could not reach the space itself.
			if c, chosen := s.choice[id]; s.owner && chosen && c == choiceOff {
				failed = errors.Join(failed, h.say(space, id, nil, false))
			}
		}
	}
	return failed
}

// Moment tells how far a home is: its records, and those of its spaces' access lists, which say who owns them and who is a member.
type Moment struct{ journal, access uint64 }

// Moved gives how far the home is: while it is the same, Networks gives the same.
func (h *Home) Moved() Moment {
	m := Moment{journal: uint64(h.jr.Next())}
	for _, s := range h.each() {
		n, _, _ := s.acl.List().Graph().Counters()
		m.access += n
	}
	return m
}

// HomeArriving reports whether something of the home space has come that does not show yet.
func (h *Home) HomeArriving() bool {
	in := &h.home.in
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.due || in.taking
}
