package exchange

import (
	"bytes"
	"errors"
	"testing"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// A word that was changed, or is of another network, or signed for by another device, is the sender's fault.
func TestWordIsProved(t *testing.T) {
	e, other := engineOf(t, Options{}, 1), engineOf(t, Options{}, 21)
	network := dag.PublicKey{7}
	good := func() *wire.Place { return e.newPlace(network, dag.ID{1}, false, 3) }
	if cert, err := checkPlace(network, good()); err != nil || cert.Device != e.key {
		t.Fatalf("%+v, %v", cert, err)
	}
	for what, change := range map[string]func(m *wire.Place){
		"another space":          func(m *wire.Place) { m.Space[0]++ },
		"the opposite":           func(m *wire.Place) { m.On = true },
		"another counter":        func(m *wire.Place) { m.Counter++ },
		"no counter":             func(m *wire.Place) { *m = *e.newPlace(network, m.Space, false, 0) },
		"another signature":      func(m *wire.Place) { m.Signature[0]++ },
		"another's certificate":  func(m *wire.Place) { m.Certificate = other.opt.Certificate.Encode() },
		"no certificate":         func(m *wire.Place) { m.Certificate = nil },
		"a certificate, changed": func(m *wire.Place) { m.Certificate = append(bytes.Clone(m.Certificate), 0) },
		"of another network":     func(m *wire.Place) { *m = *e.newPlace(dag.PublicKey{8}, m.Space, false, 3) },
		"the account of zeros": func(m *wire.Place) {
			c := *e.opt.Certificate
			c.Account = dag.PublicKey{}
			m.Certificate = (&list.Certificate{Account: c.Account, Device: c.Device, HPKE: c.HPKE, Serial: 1, Signature: c.Signature}).Encode()
		},
	} {
		m := good()
		change(m)
		if _, err := checkPlace(network, m); !errors.Is(err, session.ErrPeer) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
