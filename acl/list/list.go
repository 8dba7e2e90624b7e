// Package list is the access list of a space as all can read it: its root, its records, and what follows from them.
//
// A root names the owner and makes the space: the space's ID is the root's. Records change who is a member, in which
// role, with which devices, and which epochs of read keys there are. Each record is the one change of a batch in a graph
// of its own (dag.Graph); the first batches carry the root. State is a function of the set of records. List keeps that
// graph and its state and judges batches for it and for the graph of the files.
//
// The package sees no secret: sealed names and wrapped keys are bytes to it, so nodes link it. Keys are acl's.
// ../ACL.md gives the bytes and the rules.
package list

import (
	"errors"
	"fmt"

	"github.com/anyfs/anyfs/dag"
)

// What is wrong with a root, certificate or record. Errors wrap one of these and say more.
var (
	ErrFormat    = errors.New("acl: not canonical")
	ErrVersion   = errors.New("acl: made by a later version of anyfs")
	ErrSignature = errors.New("acl: wrong signature")
	ErrDenied    = errors.New("acl: not allowed")
	// ErrUnknown says that a record of a kind that must be understood is not: until anyfs is updated the space is
	// read-only.
	ErrUnknown = errors.New("acl: the access list has a record that this version of anyfs does not know; update anyfs")
)

// Version is the version of roots, certificates and records.
const Version = 1

// Role is what a member may do. Roles are ordered: a higher one may all that a lower one may.
type Role uint8

// The roles. The owner is one account; RoleNone is who is no member.
const (
	RoleNone Role = iota
	RoleReader
	RoleWriter
	RoleAdmin
	RoleOwner
)

var roleNames = [...]string{"none", "reader", "writer", "admin", "owner"}

// String is the role's name as commands take and print it.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ParseRole reads what String wrote.
func ParseRole(s string) (Role, error) {
	for i, n := range roleNames {
		if s == n {
			return Role(i), nil
		}
	}
	return RoleNone, fmt.Errorf("acl: no role %q; roles are reader, writer, admin and owner", s)
}

func sum(domain string, b []byte) []byte {
	h := dag.Sum(b)
	return append([]byte(domain), h[:]...)
}
