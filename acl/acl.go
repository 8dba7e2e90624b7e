// Package acl holds the keys of accounts and devices, and the access list of a space together with the read keys that it
// gives to this device.
//
// An Account follows from a phrase of twelve words. A Device has keys of its own and a certificate of its account. Keys
// are both as a home keeps them, in age files. A Space is an access list (package list, which sees no secret) whose
// epochs this device opens as far as it can. ACL.md gives the bytes and the rules.
package acl

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
)

// Errors that callers tell apart.
var (
	// ErrPhrase says that words are no recovery phrase, and which is wrong.
	ErrPhrase = errors.New("acl: not a recovery phrase")
	// ErrPassphrase says that the passphrase of the key file is wrong or missing.
	ErrPassphrase = errors.New("acl: wrong passphrase")
	// ErrNotInitialised says that the home has no keys yet.
	ErrNotInitialised = errors.New("acl: no account here yet; run `anyfs init` or `anyfs login`")
	// ErrInitialised says that the home has keys, which are not overwritten.
	ErrInitialised = errors.New("acl: there is an account here already; choose another home with --home")
	// ErrKeyFile says that a key file is damaged or open to others.
	ErrKeyFile = errors.New("acl: key file")
	// ErrNoSecret says that something takes the account's secret, which a device paired by code never gets.
	ErrNoSecret = errors.New("acl: this device does not hold the account's secret")
	// ErrNobody says that nobody, or more than one, is meant.
	ErrNobody = errors.New("acl: no such account in the space")
	// ErrNoSpace says that the store holds no such space.
	ErrNoSpace = errors.New("acl: no such space here")
)

// What package list says is wrong with a record, for callers that do not import it.
var (
	ErrDenied  = list.ErrDenied
	ErrUnknown = list.ErrUnknown
)

// Role is what a member may do.
type Role = list.Role

// The roles, from none to all.
const (
	RoleNone   = list.RoleNone
	RoleReader = list.RoleReader
	RoleWriter = list.RoleWriter
	RoleAdmin  = list.RoleAdmin
	RoleOwner  = list.RoleOwner
)

// ParseRole reads the name of a role.
func ParseRole(s string) (Role, error) { return list.ParseRole(s) }

// Member is an account in a space.
type Member = list.Member

// PeerID is the libp2p peer id of a device.
func PeerID(device dag.PublicKey) string { return list.PeerID(device) }

// FormatIdentity is an account as people see it; ParseIdentity reads it back.
func FormatIdentity(id dag.PublicKey) string { return list.FormatIdentity(id) }

// ParseIdentity reads what FormatIdentity wrote, in any multibase.
func ParseIdentity(s string) (dag.PublicKey, error) { return list.ParseIdentity(s) }

// fill reads random bytes from rnd, or from crypto/rand where it is nil.
func fill(rnd io.Reader, p []byte) error {
	if rnd == nil {
		rnd = rand.Reader
	}
	if _, err := io.ReadFull(rnd, p); err != nil {
		return fmt.Errorf("acl: randomness: %w", err)
	}
	return nil
}
