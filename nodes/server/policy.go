package server

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/disk"
)

const (
	policyFile = "policy.json"
	policyLock = "policy.lock"
)

// Policy is whom a node serves, and how much it keeps for each. Commands change it while the node runs, which looks at it each second.
type Policy struct {
	Accounts []string         `json:"accounts"` // that may use an invitation-only node, sorted
	Quotas   map[string]int64 `json:"quotas"`   // bytes of the spaces that an account owns, or of a space; by its ID as it is printed
	Default  int64            `json:"default"`  // bytes of an account without a quota of its own; 0: no bound
}

// ReadPolicy reads the policy of a node's folder; without any it is that of a new node.
func ReadPolicy(dir string) (*Policy, error) {
	p := &Policy{Quotas: map[string]int64{}}
	b, err := os.ReadFile(filepath.Join(dir, policyFile))
	if errors.Is(err, iofs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(b, p)
	}
	if err != nil {
		return nil, fmt.Errorf("server: the policy %s cannot be read (put it back from a backup, or remove it and set accounts and quotas anew): %w",
			filepath.Join(dir, policyFile), err)
	}
	if p.Quotas == nil {
		p.Quotas = map[string]int64{}
	}
	return p, nil
}

// ChangePolicy changes the policy of a node's folder, durably; one process at a time.
func ChangePolicy(dir string, change func(*Policy) error) error {
	if _, err := os.Stat(filepath.Join(dir, nodeKey)); err != nil {
		return fmt.Errorf("server: %s is no node's folder: %w", dir, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, policyLock), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("server: policy: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("server: policy: %w", err)
	}
	p, err := ReadPolicy(dir)
	if err != nil {
		return err
	}
	if err := change(p); err != nil {
		return err
	}
	slices.Sort(p.Accounts)
	p.Accounts = slices.Compact(p.Accounts)
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	d, err := disk.OS(dir)
	if err == nil {
		err = d.WriteFileAtomic(policyFile, append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("server: policy: %w", err)
	}
	return nil
}

// rules is a policy as it is asked.
type rules struct {
	inviteOnly bool
	accounts   map[dag.PublicKey]bool
	quotas     map[string]int64
	def        int64
}

func (p *Policy) rules(inviteOnly bool) *rules {
	r := &rules{inviteOnly: inviteOnly, accounts: make(map[dag.PublicKey]bool), quotas: p.Quotas, def: p.Default}
	for _, a := range p.Accounts {
		if id, err := list.ParseIdentity(a); err == nil {
			r.accounts[id] = true
		}
	}
	return r
}

func (r *rules) admits(account dag.PublicKey) bool { return !r.inviteOnly || r.accounts[account] }

// quota gives how many bytes an account's spaces may take together, and this space by itself; 0: no bound.
func (r *rules) quota(owner dag.PublicKey, space dag.ID) (all, one int64) {
	all = r.def
	if q, ok := r.quotas[list.FormatIdentity(owner)]; ok {
		all = q
	}
	return all, r.quotas[space.String()]
}
