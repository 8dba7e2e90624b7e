package exchange

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// secured is libp2p's TLS with a certificate that is valid at any time. libp2p makes its own valid from an hour before it was made, by the maker's
// clock, and has the other side look at that by its clock: so hosts whose clocks are further apart than that would never connect. The certificate
// is made anew at each start, signed by the host's key and not revoked by anything: its time says nothing.
type secured struct {
	id       protocol.ID
	self     peer.ID
	identity *libp2ptls.Identity
	muxers   []string
}

func newSecured(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (*secured, error) {
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("exchange: TLS: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 62))
	if err != nil {
		return nil, fmt.Errorf("exchange: TLS: %w", err)
	}
	identity, err := libp2ptls.NewIdentity(key, libp2ptls.WithCertTemplate(&x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{SerialNumber: serial.String()},
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // which is how RFC 5280 says "never"
	}))
	if err != nil {
		return nil, fmt.Errorf("exchange: TLS: %w", err)
	}
	s := &secured{id: id, self: self, identity: identity}
	for _, m := range muxers {
		s.muxers = append(s.muxers, string(m.ID))
	}
	return s, nil
}

// ID is the name under which the two sides agree on it.
func (s *secured) ID() protocol.ID { return s.id }

// SecureInbound secures a connection that p made; "": anybody.
func (s *secured) SecureInbound(ctx context.Context, raw net.Conn, p peer.ID) (sec.SecureConn, error) {
	return s.secure(ctx, raw, p, tls.Server)
}

// SecureOutbound secures a connection to p.
func (s *secured) SecureOutbound(ctx context.Context, raw net.Conn, p peer.ID) (sec.SecureConn, error) {
	return s.secure(ctx, raw, p, tls.Client)
}

// secure closes raw where that fails.
func (s *secured) secure(ctx context.Context, raw net.Conn, p peer.ID, side func(net.Conn, *tls.Config) *tls.Conn) (sec.SecureConn, error) {
	config, proved := s.identity.ConfigForPeer(p)
	config.NextProtos = append(append([]string(nil), s.muxers...), config.NextProtos...) // so the muxer needs no messages of its own
	conn := side(raw, config)
	err := conn.HandshakeContext(ctx)
	var key crypto.PubKey
	if err == nil {
		select {
		case key = <-proved:
		default:
		}
		if key == nil {
			err = errors.New("exchange: TLS without a key")
		}
	}
	var id peer.ID
	if err == nil {
		id, err = peer.IDFromPublicKey(key)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	c := &securedConn{Conn: conn, local: s.self, remote: id, key: key}
	for _, m := range s.muxers {
		if conn.ConnectionState().NegotiatedProtocol == m {
			c.state = network.ConnectionState{StreamMultiplexer: protocol.ID(m), UsedEarlyMuxerNegotiation: true}
		}
	}
	return c, nil
}

// securedConn is a connection whose both ends have proved who they are.
type securedConn struct {
	*tls.Conn
	local, remote peer.ID
	key           crypto.PubKey
	state         network.ConnectionState
}

func (c *securedConn) LocalPeer() peer.ID                 { return c.local }
func (c *securedConn) RemotePeer() peer.ID                { return c.remote }
func (c *securedConn) RemotePublicKey() crypto.PubKey     { return c.key }
func (c *securedConn) ConnState() network.ConnectionState { return c.state }
