package dag

// Encode returns the canonical encoding, whose hash is the change's ID.
func (c *Change) Encode() []byte {
	return c.append(make([]byte, 0, 160+len(c.Parents)*linkBytes+len(c.Payload)))
}

// ID returns the hash of the encoding.
func (c *Change) ID() ID { return Sum(c.Encode()) }

func (c *Change) append(b []byte) []byte {
	b = appendChangeHead(b, c.Clock, c.Device, !c.Object.IsZero())
	return c.appendRest(b)
}

// appendChangeHead writes what all changes of a batch begin with: two byte strings, one for roots, one for the others.
func appendChangeHead(b []byte, clock uint64, device PublicKey, hasObject bool) []byte {
	pairs := uint64(5)
	if hasObject {
		pairs = 6
	}
	b = appendHead(b, majorMap, pairs)
	b = append(b, "\x61v"...)
	b = appendHead(b, majorUint, Version)
	b = append(b, "\x65clock"...)
	b = appendHead(b, majorUint, clock)
	b = append(b, "\x66device"...)
	b = appendDigest(b, (*[32]byte)(&device))
	if hasObject {
		b = append(b, "\x66object"...)
		b = append(b, digestHead...)
	}
	return b
}

// appendRest writes what follows the head: it begins with the object's 32 bytes.
func (c *Change) appendRest(b []byte) []byte {
	if !c.Object.IsZero() {
		b = append(b, c.Object[:]...)
	}
	b = append(b, "\x67parents"...)
	b = appendLinks(b, c.Parents)
	b = append(b, "\x67payload"...)
	b = appendHead(b, majorBytes, uint64(len(c.Payload)))
	return append(b, c.Payload...)
}

// DecodeChange reads what Encode wrote and refuses every other byte string. The change's payload aliases b.
func DecodeChange(b []byte) (*Change, error) {
	if len(b) > MaxBytes {
		return nil, errTooLong("change")
	}
	c := new(Change)
	r := reader{b: b}
	pairs, _ := r.fields("change")
	if r.err == nil && pairs != 5 && pairs != 6 {
		r.fail(ErrFormat, "change with another number of fields")
	}
	r.expect("\x65clock", "clock")
	c.Clock = r.clock()
	r.expect("\x66device", "device")
	c.Device = r.digest("device")
	if pairs == 6 {
		r.expect("\x66object", "object")
		c.Object = r.digest("object")
		if r.err == nil && c.Object.IsZero() {
			r.fail(ErrFormat, "object of zeroes")
		}
	}
	r.expect("\x67parents", "parents")
	c.Parents = r.links(MaxParents, nil, "parents")
	r.sorted(c.Parents, "parents")
	if r.err == nil && pairs == 5 && len(c.Parents) > 0 {
		r.fail(ErrFormat, "root with parents")
	}
	r.expect("\x67payload", "payload")
	c.Payload = r.bytes(MaxBytes, "payload")
	if err := r.done(); err != nil {
		return nil, err
	}
	return c, nil
}

// clock reads a clock: it counts from 1.
func (r *reader) clock() uint64 {
	n := r.head(majorUint, MaxClock, "clock")
	if r.err == nil && n == 0 {
		r.fail(ErrFormat, "clock of zero")
	}
	return n
}
