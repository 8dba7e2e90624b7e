package dag

// A frame is a batch with its changes, as disk and wire carry it: an array of the batch without the links to its changes,
// which are recomputed, and the bodies. A body leaves out what every change of a batch has in common (version, clock,
// device): [payload] for a root, [object, [parents], payload] for others, or the change's link where its body is forgotten.

// parsed is a decoded frame. Before a batch is believed it holds no more than 48 bytes for each change.
type parsed struct {
	batch     *Batch
	id        ID
	raw       []byte
	head      int // length of what comes before the bodies
	bodies    []body
	forgotten int
}

// EncodeFrame returns the frame of b, whose changes have the given encodings, in the order of their places.
//
// A nil body is a forgotten one; so is one that is not a change of b's clock and device, which no valid batch has.
func EncodeFrame(b *Batch, bodies [][]byte) []byte {
	n := b.room()
	for i := range bodies {
		n += len(bodies[i])
	}
	p := appendFrameHead(make([]byte, 0, n), b, len(bodies))
	for i := range bodies {
		c, err := DecodeChange(bodies[i])
		if err != nil || c.Clock != b.Clock || c.Device != b.Device {
			p = appendLink(p, b.Changes[i])
			continue
		}
		p = c.appendBody(p)
	}
	return p
}

func appendFrameHead(p []byte, b *Batch, bodies int) []byte {
	p = b.append(appendHead(p, majorArray, 2), headOnly)
	return appendHead(p, majorArray, uint64(bodies))
}

// DecodeFrame reads what EncodeFrame wrote and refuses every other byte string. It gives the encoding of each change, nil
// where it was forgotten. The signature is not checked.
func DecodeFrame(p []byte) (*Batch, [][]byte, error) {
	f, err := parseFrame(p)
	if err != nil {
		return nil, nil, err
	}
	return f.batch, f.encodings(), nil
}

// encodings returns the canonical encodings of the changes.
func (f *parsed) encodings() [][]byte {
	n := 0
	for i := range f.bodies {
		n += int(f.bodies[i].size) + 80 + int(f.bodies[i].parents)*(linkBytes-34)
	}
	arena := make([]byte, 0, n)
	out := make([][]byte, len(f.bodies))
	h := borrowHasher(f.batch)
	defer h.done()
	for i := range f.bodies {
		if f.bodies[i].kind != forgottenBody {
			from := len(arena)
			arena = append(arena, h.encode(&f.bodies[i], f.raw)...)
			out[i] = arena[from:len(arena):len(arena)]
		}
	}
	return out
}

// changes returns the changes, nil where forgotten. They alias the frame.
func (f *parsed) changes() []*Change {
	all := make([]Change, len(f.bodies))
	out := make([]*Change, len(f.bodies))
	var arena []ID
	for i := range f.bodies {
		if f.bodies[i].kind != forgottenBody {
			arena = f.bodies[i].change(&all[i], f.raw, f.batch, arena)
			out[i] = &all[i]
		}
	}
	return out
}

// parseHead reads what comes before the bodies. It leaves out their number.
func parseHead(p []byte) (*Batch, error) {
	r := reader{b: p}
	b := new(Batch)
	r.frameHead(b)
	return b, r.err
}

func (r *reader) frameHead(b *Batch) {
	if n := r.head(majorArray, 2, "frame"); r.err == nil && n != 2 {
		r.fail(ErrFormat, "frame with too few items")
	}
	r.batch(b, headOnly)
}

// parseFrame decodes p and computes the links and the batch's ID.
func parseFrame(p []byte) (*parsed, error) {
	if len(p) > MaxFrame {
		return nil, errTooLong("frame")
	}
	f := &parsed{batch: new(Batch), raw: p}
	r := reader{b: p}
	r.frameHead(f.batch)
	f.head = r.off
	n := int(r.head(majorArray, MaxChanges, "bodies"))
	if r.err == nil && n*2 > len(p)-r.off {
		r.fail(ErrFormat, "bodies cut short")
	}
	if r.err != nil {
		return nil, r.err
	}
	if n > 0 {
		f.batch.Changes = make([]ID, n)
		f.bodies = make([]body, n)
	}
	for i := range f.bodies {
		if f.bodies[i] = r.body(); r.err != nil {
			return nil, r.err
		}
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	return f, f.identify()
}

// identify computes the links and the ID.
func (f *parsed) identify() error {
	h := borrowHasher(f.batch)
	defer h.done()
	for i := range f.bodies {
		b := &f.bodies[i]
		if b.kind == forgottenBody {
			copy(f.batch.Changes[i][:], f.raw[int(b.off)+len(linkHead):])
			f.forgotten++
			continue
		}
		f.batch.Changes[i] = Sum(h.encode(b, f.raw))
		if h.bytes > MaxBytes {
			return errTooLong("batch")
		}
	}
	f.id = f.batch.digest(whole)
	f.batch.id = f.id
	return nil
}
