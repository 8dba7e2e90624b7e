// Package pair lets a new device in by a code that a person reads on one device and types on the other.
//
// The two agree on a key by a PAKE (CPace) whose password is the code: who does not know it can try one code for each attempt, of which
// the device that shows it allows a few in all. The key is bound to both peers' IDs, which the connection has proved, and to all that was
// said. Then each side proves that it has it, and what they tell each other goes sealed under it. What that is, the package does not know.
// ../PROTOCOL.md, section 10, gives the messages. The package opens no connection and starts no goroutine.
package pair

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// ErrCode says that a text is no code.
var ErrCode = errors.New("pair: not a code")

// Lengths of a code, in digits. The tag tells codes that are shown at one time apart and is no secret.
const (
	tagDigits    = 3
	secretDigits = 8
	codeDigits   = tagDigits + secretDigits
)

// Code is what a person reads and types. The zero Code is none.
type Code struct {
	digits string // the tag first
	// Addresses are multiaddrs with /p2p/ID of the device that shows the code, where it came with some.
	Addresses []string
}

// NewCode draws a code. Its secret part is one of 10^8, each as likely as any other.
func NewCode(rnd io.Reader) (Code, error) {
	var d []byte
	for len(d) < codeDigits {
		var b [1]byte
		if _, err := io.ReadFull(rnd, b[:]); err != nil {
			return Code{}, fmt.Errorf("pair: randomness: %w", err)
		}
		if b[0] < 250 { // the rest would make some digits likelier
			d = append(d, '0'+b[0]%10)
		}
	}
	return Code{digits: string(d)}, nil
}

// String is the code as a person reads it.
func (c Code) String() string {
	if c.digits == "" {
		return ""
	}
	return c.digits[:3] + "-" + c.digits[3:7] + "-" + c.digits[7:]
}

// Tag is the part of the code that is said in the clear.
func (c Code) Tag() uint64 {
	var n uint64
	for _, r := range c.digits[:tagDigits] {
		n = n*10 + uint64(r-'0')
	}
	return n
}

func (c Code) password() []byte { return []byte(c.digits) }

// ticketScheme is what a code with addresses begins with, as text for a QR code.
const ticketScheme = "anyfs-pair:"

// Bounds of a ticket.
const (
	maxTicket    = 4 << 10
	MaxAddresses = 16
)

// Ticket is the code with the addresses, as one text.
func (c Code) Ticket() string {
	q := url.Values{}
	for _, a := range c.Addresses {
		q.Add("at", a)
	}
	return ticketScheme + c.String() + "?" + strings.ReplaceAll(q.Encode(), "%2F", "/")
}

// ParseCode reads a code as a person types it, with or without hyphens and spaces, or what Ticket gave. It returns an ErrCode that says
// what is wrong.
func ParseCode(s string) (Code, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxTicket {
		return Code{}, fmt.Errorf("%w: it has %d characters", ErrCode, len(s))
	}
	var c Code
	if rest, ok := strings.CutPrefix(s, ticketScheme); ok {
		var query string
		s, query, _ = strings.Cut(rest, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			return Code{}, fmt.Errorf("%w: its addresses are damaged: %w", ErrCode, err)
		}
		if c.Addresses = q["at"]; len(c.Addresses) > MaxAddresses {
			return Code{}, fmt.Errorf("%w: it has %d addresses", ErrCode, len(c.Addresses))
		}
	}
	var d strings.Builder
	for _, r := range s {
		switch {
		case r >= '0' && r <= '9':
			d.WriteRune(r)
		case r != '-' && r != ' ':
			return Code{}, fmt.Errorf("%w: it has %q, and a code has digits alone", ErrCode, r)
		}
	}
	if d.Len() != codeDigits {
		return Code{}, fmt.Errorf("%w: it has %d digits, a code has %d", ErrCode, d.Len(), codeDigits)
	}
	c.digits = d.String()
	return c, nil
}
