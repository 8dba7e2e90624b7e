package server

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"slices"
	"time"

	"github.com/anyfs/anyfs/dag"
)

const (
	tokensFile  = "tokens.json"
	tokenBytes  = 32
	maxTokens   = 1024
	domainToken = "anyfs/token/1\x00"

	// DefaultTokenFor is how long a token can be used unless it is said, MaxTokenFor how long at most.
	DefaultTokenFor = 24 * time.Hour
	MaxTokenFor     = 30 * 24 * time.Hour
)

var (
	// ErrNoCoordinator says that a node coordinates no network.
	ErrNoCoordinator = errors.New("server: the node is no coordinator; ask the node that is")
	// ErrUnknownNode says that a network has no such node.
	ErrUnknownNode = errors.New("server: no such node in the network")

	errToken = errors.New("a token that is not known, was used, or has expired")
)

// token is what a coordinator knows of one that can be used still: not the token.
type token struct {
	Hash    string    `json:"hash"` // of it, in hex
	Expires time.Time `json:"expires"`
}

// ParseToken reads a token as newToken wrote it.
func ParseToken(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != tokenBytes {
		return nil, errors.New("server: that is no token; 'anyfs node token' on the coordinator makes one")
	}
	return b, nil
}

func hashToken(b []byte) string {
	h := dag.Sum(append([]byte(domainToken), b...))
	return hex.EncodeToString(h[:])
}

// readTokens gives the tokens that can be used still. configuring is held.
func (n *Node) readTokens() ([]token, error) {
	var list []token
	if n.tx != nil {
		list = slices.Clone(n.tx.tokens)
	} else if err := n.readTokensFile(&list); err != nil {
		return nil, err
	}
	now := time.Now()
	return slices.DeleteFunc(list, func(t token) bool { return !now.Before(t.Expires) }), nil
}

func (n *Node) readTokensFile(list *[]token) error {
	b, err := n.disk.ReadFile(tokensFile)
	if errors.Is(err, iofs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, list)
	}
	if err != nil {
		return fmt.Errorf("server: the tokens in %s cannot be read (without the file, those that were made and not used are void): %w", tokensFile, err)
	}
	return nil
}

// writeTokens keeps the tokens: durably, or with the transaction under way. configuring is held.
func (n *Node) writeTokens(list []token) error {
	if n.tx != nil {
		n.tx.tokens, n.tx.tokensChange = list, true
		return nil
	}
	b, err := json.MarshalIndent(list, "", "  ")
	if err == nil {
		err = n.disk.WriteFileAtomic(tokensFile, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("server: keep the tokens: %w", err)
	}
	return nil
}

// newToken makes a token with which one node can join within a time.
func (n *Node) newToken(within time.Duration) (string, error) {
	if n.signer == nil {
		return "", ErrNoCoordinator
	}
	if within <= 0 || within > MaxTokenFor {
		return "", fmt.Errorf("server: a token can be used for %s at most, not %s", MaxTokenFor, within)
	}
	n.configuring.Lock()
	defer n.configuring.Unlock()
	b := make([]byte, tokenBytes)
	_, _ = rand.Read(b)
	err := n.transact(func() error {
		list, err := n.readTokens()
		if err != nil {
			return err
		}
		if len(list) >= maxTokens {
			return fmt.Errorf("server: %d tokens wait to be used already", len(list))
		}
		return n.writeTokens(append(list, token{hashToken(b), time.Now().Add(within)}))
	})
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// spendToken strikes a token out, durably, before anything follows from it. configuring is held.
func (n *Node) spendToken(b []byte) error {
	list, err := n.readTokens()
	if err != nil {
		return err
	}
	// Hashes are compared: how long it takes tells nothing of a token.
	h := hashToken(b)
	i := slices.IndexFunc(list, func(t token) bool { return t.Hash == h })
	if i < 0 || len(b) != tokenBytes {
		return errToken
	}
	return n.writeTokens(slices.Delete(list, i, i+1))
}
