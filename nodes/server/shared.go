package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/anyfs/anyfs/nodes/network"
)

// Several coordinators of one network share its state in etcd: the configuration and the tokens. Each change is a transaction on what was read, so
// that of two at once one begins again with what the other made, no epoch is made twice and no token is spent twice. Each has the network's key in
// its own folder: etcd never sees it, and who can write to etcd can make no configuration.

const (
	sharedRoot   = "anyfs/network/"
	sharedWithin = 5 * time.Second // for a request to etcd
	sharedEvery  = 2 * time.Second // between two looks at what other coordinators made; they tell each other too
	sharedTries  = 20              // at a transaction
)

// errShared says that etcd does not answer. What was known before holds.
var errShared = errors.New("server: etcd does not answer")

// shared is the state that coordinators share.
type shared struct {
	c      *clientv3.Client
	config string // keys
	tokens string
}

// sharedState is that state as it was read, and what is to be in its place.
type sharedState struct {
	config       *network.Config // nil: there is none yet
	tokens       []token
	configAt     int64 // revisions; 0: there is none
	tokensAt     int64
	next         *network.Config // nil: none
	tokensChange bool
}

// openEtcd makes a client. URLs are of one cluster; TLS and the user are as etcdctl has them in the environment.
func openEtcd(urls []string) (*clientv3.Client, error) {
	o := clientv3.Config{Endpoints: urls, DialTimeout: sharedWithin, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: sharedWithin, Logger: zap.NewNop()}
	for _, u := range urls {
		if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
			return nil, fmt.Errorf("server: %q is no URL of etcd: write http://HOST:2379 or https://HOST:2379", u)
		}
	}
	o.Username, o.Password, _ = strings.Cut(os.Getenv("ETCDCTL_USER"), ":")
	if ca, cert := os.Getenv("ETCDCTL_CACERT"), os.Getenv("ETCDCTL_CERT"); ca != "" || cert != "" {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
		if ca != "" {
			pem, err := os.ReadFile(ca)
			if err != nil {
				return nil, fmt.Errorf("server: ETCDCTL_CACERT: %w", err)
			}
			if o.TLS.RootCAs = x509.NewCertPool(); !o.TLS.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("server: ETCDCTL_CACERT: %s holds no certificate", ca)
			}
		}
		if cert != "" {
			pair, err := tls.LoadX509KeyPair(cert, os.Getenv("ETCDCTL_KEY"))
			if err != nil {
				return nil, fmt.Errorf("server: ETCDCTL_CERT and ETCDCTL_KEY: %w", err)
			}
			o.TLS.Certificates = []tls.Certificate{pair}
		}
	}
	c, err := clientv3.New(o)
	if err != nil {
		return nil, fmt.Errorf("server: etcd: %w", err)
	}
	return c, nil
}

// openNetwork takes or makes the key of a coordinator's network, and opens what it shares with others.
func (n *Node) openNetwork() (err error) {
	var c *clientv3.Client
	if len(n.opt.Etcd) > 0 {
		if c, err = openEtcd(n.opt.Etcd); err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, c.Close())
			}
		}()
		if _, err := n.disk.ReadFile(networkKey); errors.Is(err, iofs.ErrNotExist) {
			if err := checkNoNetwork(c, n.opt.Dir); err != nil {
				return err
			}
		}
	}
	if n.signer, err = n.readKey(networkKey); err != nil {
		return err
	}
	if c != nil {
		n.shared = newShared(c, n.networkID())
	}
	return nil
}

// checkNoNetwork refuses to begin a network where another coordinator's is: this one lacks its key.
func checkNoNetwork(c *clientv3.Client, dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), sharedWithin)
	defer cancel()
	r, err := c.Get(ctx, sharedRoot, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(1))
	if err != nil {
		return fmt.Errorf("%w, and without it nobody knows whether there is a network already: %w", errShared, err)
	}
	if len(r.Kvs) > 0 {
		id, _, _ := strings.Cut(strings.TrimPrefix(string(r.Kvs[0].Key), sharedRoot), "/")
		return fmt.Errorf("server: etcd has network %s, and %s no key of it; copy %s there from another of its coordinators", id, dir, networkKey)
	}
	return nil
}

func newShared(c *clientv3.Client, id network.ID) *shared {
	root := sharedRoot + network.Name(id) + "/"
	return &shared{c: c, config: root + "config", tokens: root + "tokens"}
}

// load reads the state as it is now.
func (s *shared) load() (*sharedState, error) {
	ctx, cancel := context.WithTimeout(context.Background(), sharedWithin)
	defer cancel()
	r, err := s.c.Txn(ctx).Then(clientv3.OpGet(s.config), clientv3.OpGet(s.tokens)).Commit()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errShared, err)
	}
	st := &sharedState{}
	if kvs := r.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		st.configAt = kvs[0].ModRevision
		if st.config, err = network.Decode(kvs[0].Value); err != nil {
			return nil, fmt.Errorf("server: the configuration in etcd under %s: %w", s.config, err)
		}
	}
	if kvs := r.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		st.tokensAt = kvs[0].ModRevision
		if err := json.Unmarshal(kvs[0].Value, &st.tokens); err != nil {
			return nil, fmt.Errorf("server: the tokens in etcd under %s (without that, those that were not used are void): %w", s.tokens, err)
		}
	}
	return st, nil
}

// store puts what follows a state in its place; ok says whether it was still the state. An error leaves open whether it did.
func (s *shared) store(st *sharedState) (ok bool, err error) {
	var puts []clientv3.Op
	if st.next != nil {
		puts = append(puts, clientv3.OpPut(s.config, string(st.next.Encode())))
	}
	if st.tokensChange {
		b, err := json.Marshal(st.tokens)
		if err != nil {
			return false, err
		}
		puts = append(puts, clientv3.OpPut(s.tokens, string(b)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), sharedWithin)
	defer cancel()
	r, err := s.c.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(s.config), "=", st.configAt),
		clientv3.Compare(clientv3.ModRevision(s.tokens), "=", st.tokensAt),
	).Then(puts...).Commit()
	if err != nil {
		return false, fmt.Errorf("%w: %w", errShared, err)
	}
	return r.Succeeded, nil
}

// transact runs fn, which reads tokens and the configuration and changes them by commit and writeTokens, again where another coordinator changed
// them meanwhile. Nothing that fn does is true before transact returns nil. configuring is held.
func (n *Node) transact(fn func() error) error {
	if n.shared == nil {
		return fn()
	}
	defer func() { n.tx = nil }()
	for range sharedTries {
		st, err := n.shared.load()
		if err != nil {
			return err
		}
		if c := st.config; c != nil {
			if c.ID != n.networkID() {
				return fmt.Errorf("server: the configuration in etcd under %s is of another network", n.shared.config)
			}
			if n.saved == nil || c.Epoch > n.saved.Epoch {
				if err := n.adopt(c); err != nil {
					return err
				}
			}
		}
		n.tx = st
		if err := fn(); err != nil {
			return err
		}
		made := st.next
		if made == nil && n.saved != nil && (st.config == nil || st.config.Epoch < n.saved.Epoch) {
			st.next = n.saved // etcd was lost, or is new
		}
		if st.next == nil && !st.tokensChange {
			return nil
		}
		ok, err := n.shared.store(st)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if made == nil {
			return nil
		}
		return errors.Join(n.adopt(made), n.afterChange())
	}
	return fmt.Errorf("server: other coordinators change the network without end; try again")
}

// commit makes c the configuration: at once, or with the transaction under way. configuring is held.
func (n *Node) commit(c *network.Config) error {
	if n.tx != nil {
		n.tx.next = c
		return nil
	}
	return errors.Join(n.adopt(c), n.afterChange())
}

// followShared takes over what other coordinators made, until ctx ends.
func (n *Node) followShared(ctx context.Context) {
	if n.shared == nil {
		return
	}
	tick := time.NewTicker(sharedEvery)
	defer tick.Stop()
	away := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n.configuring.Lock()
		err := n.transact(func() error { return nil })
		n.configuring.Unlock()
		if err != nil && !away {
			n.opt.Log.Error("what other coordinators do is not known, and nothing can be changed", "err", err)
		}
		away = err != nil
	}
}
