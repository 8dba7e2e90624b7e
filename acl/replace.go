package acl

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

// fileSuccessor is the file of a home with the account that is about to take the place of its own, sealed with the store key.
const fileSuccessor = "successor"

// Successor is a new account, with a device on this home, that takes the place of the home's own.
type Successor struct {
	Account *Account
	Device  *Device
}

type successorFile struct {
	Version uint     `cbor:"v"`
	Entropy [16]byte `cbor:"entropy"`
	Name    string   `cbor:"name"`
	Sign    [32]byte `cbor:"sign"`
	HPKE    [32]byte `cbor:"hpke"`
}

// ReadSuccessor gives the account that is about to take the place of a home's own; nil where there is none.
func ReadSuccessor(d disk.FS, k *Keys) (*Successor, error) {
	sealed, err := d.ReadFile(fileSuccessor)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("acl: read %s: %w", fileSuccessor, err)
	}
	plain, err := k.Local.OpenLocal(nil, sealed, []byte(fileSuccessor))
	if err != nil {
		return nil, keyFileError(fileSuccessor, "%w", err)
	}
	mode, err := strictCBOR()
	if err != nil {
		return nil, err
	}
	var f successorFile
	if err := mode.Unmarshal(plain, &f); err != nil || f.Version != keysVersion {
		return nil, keyFileError(fileSuccessor, "its content is damaged: %w", err)
	}
	s := &Successor{Device: &Device{Name: CleanDeviceName(f.Name), signSeed: f.Sign, hpkeSeed: f.HPKE}}
	if s.Account, err = accountOf(f.Entropy); err != nil {
		return nil, err
	}
	return s, s.certify()
}

func (s *Successor) certify() error {
	if err := s.Device.expand(); err != nil {
		return err
	}
	s.Device.Certificate = s.Account.Certify(s.Device.PublicKey(), s.Device.hpke.PublicKey().Bytes(), 1)
	return nil
}

// MakeSuccessor makes an account that is to take the place of a home's own, with a device that is called as this one, and writes it down: it is the same until
// EndSuccession. rnd nil means crypto/rand.
func MakeSuccessor(d disk.FS, k *Keys, rnd io.Reader) (*Successor, error) {
	if s, err := ReadSuccessor(d, k); s != nil || err != nil {
		return s, err
	}
	a, err := NewAccount(rnd)
	if err != nil {
		return nil, err
	}
	s := &Successor{Account: a}
	if s.Device, err = newDevice(k.Device.Name, rnd); err != nil {
		return nil, err
	}
	plain, err := cbor.Marshal(successorFile{keysVersion, a.entropy, s.Device.Name, s.Device.signSeed, s.Device.hpkeSeed})
	if err != nil {
		return nil, fmt.Errorf("acl: encode %s: %w", fileSuccessor, err)
	}
	if err := d.WriteFileAtomic(fileSuccessor, k.Local.SealLocal(nil, plain, []byte(fileSuccessor))); err != nil {
		return nil, fmt.Errorf("acl: write %s: %w", fileSuccessor, err)
	}
	return s, s.certify()
}

// EndSuccession forgets the successor, once the home is its own.
func EndSuccession(d disk.FS) error { return removeKeyFile(d, fileSuccessor) }

// Succeed makes a home the successor's: its key files hold the new account and device, and what opens the spaces that are here, the old home space among them. pass is as in InitKeys. A crash leaves
// the home to the old account or to the new one; Succeed is called again then, also where the home is the successor's already.
func Succeed(d disk.FS, k *Keys, s *Successor, spaces []SpaceSecret, pass []byte) (*Keys, error) {
	n := &Keys{
		Account: s.Account, Identity: s.Account.Identity(), Public: s.Account.Public(), Device: s.Device, Rand: k.Rand, Local: k.Local,
		store: k.store, unlock: k.unlock, Spaces: k.Spaces,
	}
	if k.Identity != n.Identity {
		// For as long as it is missing, the home is one that does not hold the secret: of either account. So it is told what opens the new one's home space.
		root := s.Account.deriveRoot(LabelHome)
		home := SpaceSecret{ID: root.ID(), Label: LabelHome, Root: root.Encode(), Epochs: []EpochSecret{{root.ID(), s.Account.spaceKey(LabelHome)}}}
		spaces = append(slices.Clone(spaces), home)
		if err := n.writeSpaces(d, spaces); err != nil {
			return nil, err
		}
		if err := removeKeyFile(d, fileAccount); err != nil {
			return nil, err
		}
		if err := changePassphrase(d, n, pass, scryptWork); err != nil {
			return nil, err
		}
	}
	sealed, err := encrypt([]byte(s.Account.Phrase()+"\n"), k.unlock.Recipient())
	if err != nil {
		return nil, fmt.Errorf("acl: seal %s: %w", fileAccount, err)
	}
	if err := d.WriteFileAtomic(fileAccount, sealed); err != nil {
		return nil, fmt.Errorf("acl: write %s: %w", fileAccount, err)
	}
	return n, nil
}

// DerivedID is the account's derived space that label names. On a device without the account's secret it takes what was handed over, else it returns ErrNoSecret.
func DerivedID(k *Keys, label string) (dag.ID, error) {
	id, _, _, err := k.derived(label)
	return id, err
}

// AskReplaced asks, as a member, for the successor to take this account's place, unless it has asked already. It gives the request. It is durable only after the
// store's Sync.
func (s *Space) AskReplaced(by *Successor, name string, now time.Time, rnd io.Reader) (dag.ID, error) {
	account := by.Account.Identity()
	for _, q := range s.list.State().Requests() {
		if q.Account == account && q.Replaces == s.k.Identity && (q.State == list.RequestOpen || q.State == list.RequestAccepted) {
			return q.ID, nil
		}
	}
	e, key, err := s.sealing()
	if err != nil {
		return dag.ID{}, err
	}
	p := &list.Replace{Certificate: *by.Device.Certificate, Keys: by.Account.Public(), Time: seconds(now), Epoch: e.ID}
	p.Proof = list.ProveReplace(by.Device.sign, s.ID(), s.k.Identity, account)
	if p.Name, err = sealMemberName(key, account, name, rnd); err != nil {
		return dag.ID{}, err
	}
	if p.Device, err = sealDeviceName(key, by.Device.PublicKey(), by.Device.Name, rnd); err != nil {
		return dag.ID{}, err
	}
	return s.write(&list.Record{Kind: list.KindReplaceAccount, Replace: p})
}

// GiveWay lets the successor into a space that this account owns, gives it that, and leaves. What was done of it already is not done again. tips are the last batches of
// this account that are here. It is durable only after the store's Sync.
func (s *Space) GiveWay(by *Successor, request dag.ID, tips []dag.ID, now time.Time, rnd io.Reader) error {
	account := by.Account.Identity()
	if s.list.State().Role(account) == RoleNone {
		if err := s.Approve(request, RoleAdmin, now, rnd); err != nil {
			return err
		}
	}
	if s.Role() == RoleOwner {
		if err := s.Transfer(account); err != nil {
			return err
		}
	}
	if s.Role() == RoleNone {
		return nil
	}
	return s.Leave(tips)
}

// Asked says whether this account waits for an answer to a request of its own.
func (s *Space) Asked() bool {
	return slices.ContainsFunc(s.list.State().Requests(), func(q list.Request) bool { return q.Account == s.k.Identity && q.State == list.RequestOpen })
}

// namesOf opens the names in a request to take a member's place.
func (s *Space) namesOf(q *list.Request) (name, device string) {
	if key, ok := s.keys.Key(q.Epoch); ok {
		name, _ = openMemberName(key, q.Account, q.Name)
		device, _ = openName(key, q.Certificate.Device, q.Device)
	}
	return name, device
}
