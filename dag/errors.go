package dag

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart with errors.Is. What is wrong in detail stands in the text.
var (
	ErrFormat    = errors.New("dag: not canonical")        // bytes that no writer of this format makes
	ErrVersion   = errors.New("dag: unknown version")      // bytes of a later format
	ErrInvalid   = errors.New("dag: invalid batch")        // well formed, but it breaks a rule: nobody accepts it
	ErrSignature = errors.New("dag: wrong signature")      // not signed by the device that it names
	ErrDenied    = errors.New("dag: not allowed")          // the Authorizer refused it
	ErrSpace     = errors.New("dag: of another space")     // a batch that belongs elsewhere
	ErrForgotten = errors.New("dag: body forgotten")       // the body of a change is not held any more
	ErrBatchFull = errors.New("dag: the batch is full")    // Add: commit, and begin another
	ErrNotFound  = errors.New("dag: not found")            // no such batch, change or object here
	ErrQuota     = errors.New("dag: quarantine is full")   // no room for another batch in quarantine
	ErrCorrupt   = errors.New("dag: the store is damaged") // what the disk holds is not what was written
	ErrClosed    = errors.New("dag: the builder is done")  // Commit or Abort was called before
)

// ErrIndex is the ErrCorrupt of what a store keeps besides its log: its database.
var ErrIndex = fmt.Errorf("%w: index", ErrCorrupt)

// MissingError is an Authorizer's answer to a batch that names access records which are not held.
type MissingError struct{ ACL []ID }

func (e *MissingError) Error() string { return "dag: access records are missing" }

var errBody = errors.New("a body is not what was written")
