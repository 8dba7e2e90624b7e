package list

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anyfs/anyfs/dag"
)

// Kind is what a record does. All kinds of the format have their numbers; those that are not built yet count as
// unknown ones that must be understood.
type Kind uint64

// The kinds.
const (
	KindRoot           Kind = 1 // carries the root, and nothing else
	KindInvite         Kind = 2
	KindRevokeInvite   Kind = 3
	KindJoinRequest    Kind = 4
	KindJoin           Kind = 5
	KindAccept         Kind = 6
	KindDecline        Kind = 7
	KindCancel         Kind = 8
	KindChangeRole     Kind = 9
	KindRemove         Kind = 10
	KindLeave          Kind = 11
	KindTransfer       Kind = 12
	KindRotateKey      Kind = 13 // a new epoch
	KindShareKey       Kind = 14
	KindAddDevice      Kind = 15 // brings a device of the author's account into the space
	KindRevokeDevice   Kind = 16
	KindReplaceAccount Kind = 17
	KindAdopt          Kind = 18
	KindOptions        Kind = 19 // settings of the space
	KindCut            Kind = 20
	KindAgree          Kind = 21 // keys for members, under which those of later epochs are wrapped
)

// Limits of records.
const (
	MaxRecord  = 1<<20 - 1<<10 // bytes, so that a change with it fits into a batch
	maxOptions = 64
	maxOption  = 23 // bytes of an option's name
	maxFollows = 64
	maxRoot    = 16 << 10
)

// Record is one entry of the access list: the payload, in the clear, of the one change of a batch.
// Exactly one of the pointers is set for a known kind but KindRoot; Body holds the canonical body of an unknown one.
type Record struct {
	Kind Kind
	Must bool   // whoever does not know the kind may not write to the space
	Root []byte // the space's root: in batches with clock 1, and only there

	AddDevice    *AddDevice
	RotateKey    *RotateKey
	Options      *Options
	Invite       *Invite
	RevokeInvite *RevokeInvite
	JoinRequest  *JoinRequest
	Join         *Join
	Accept       *Accept
	Answer       *Answer // of KindDecline and KindCancel
	ChangeRole   *ChangeRole
	Remove       *Remove
	Leave        *Leave
	ShareKey     *ShareKey
	Agree        *Agree
	RevokeDevice *RevokeDevice
	Transfer     *Transfer
	Adopt        *Adopt
	Replace      *Replace
	Body         []byte
}

// AddDevice brings a device into the space, with wraps of an epoch's key for it where it cannot get that otherwise.
type AddDevice struct {
	Certificate Certificate
	Epoch       dag.ID // under whose key Name is sealed, and whose key is wrapped
	Name        []byte // sealed
	Wraps       []Wrap
}

// Follow holds the read key of an epoch, sealed under that of one which follows it.
type Follow struct {
	Epoch  dag.ID
	Sealed []byte
}

// RotateKey begins an epoch, named by the record's ID.
type RotateKey struct {
	Suite      uint64
	Commitment [32]byte
	Follows    []Follow
	Wraps      []Wrap
	Agreed     []AgreedWraps
}

// Options sets options of the space; later ones win over earlier ones, name by name.
type Options struct{ Set map[string]uint64 }

// Known says whether this version knows the kind.
func (rec *Record) Known() bool {
	return rec.Kind >= KindRoot && rec.Kind <= KindOptions || rec.Kind == KindAgree
}

// Encode returns the canonical encoding.
func (rec *Record) Encode() []byte {
	w := writer{make([]byte, 0, rec.room())}
	n := 4
	if rec.Root != nil {
		n++
	}
	w.fields(n)
	w.uint("v", Version)
	w.text("body")
	rec.writeBody(&w)
	w.uint("kind", uint64(rec.Kind))
	w.bool("must", rec.Must)
	if rec.Root != nil {
		w.blob("root", rec.Root)
	}
	return w.b
}

// room is an upper bound of the encoding's length.
func (rec *Record) room() int {
	n := 128 + len(rec.Root) + len(rec.Body)
	var wraps []Wrap
	switch {
	case rec.AddDevice != nil:
		n += HPKEBytes + 512 + len(rec.AddDevice.Name)
		wraps = rec.AddDevice.Wraps
	case rec.Options != nil:
		n += len(rec.Options.Set) * (maxOption + 10)
	}
	if more, w := rec.roomShare(); more > 0 {
		n, wraps = n+more, w
	}
	if rec.Agree != nil {
		n += 64
		for i := range rec.Agree.Members {
			n += 48
			for _, w := range rec.Agree.Members[i].Wraps {
				n += 40 + len(w.Sealed)
			}
		}
	}
	if k := rec.next(); k != nil {
		wraps = k.Wraps
		n += roomAgreed(k.Agreed)
		for i := range k.Follows {
			n += 48 + len(k.Follows[i].Sealed)
		}
	}
	for i := range wraps {
		n += 40 + len(wraps[i].Sealed)
	}
	return n
}

func (rec *Record) writeBody(w *writer) {
	switch rec.Kind {
	case KindRoot:
		w.fields(0)
	case KindAddDevice:
		d := rec.AddDevice
		w.fields(4)
		w.text("cert")
		d.Certificate.write(w, true)
		w.blob("name", d.Name)
		w.text("epoch")
		w.link(d.Epoch)
		w.text("wraps")
		writeWraps(w, d.Wraps)
	case KindRotateKey:
		rec.RotateKey.write(w)
	case KindOptions:
		w.fields(1)
		w.text("set")
		w.fields(len(rec.Options.Set))
		for _, name := range slices.SortedFunc(maps.Keys(rec.Options.Set), byLength) {
			w.uint(name, rec.Options.Set[name])
		}
	default:
		if rec.Known() {
			rec.writeShare(w)
			return
		}
		w.raw(rec.Body)
	}
}

// byLength is the order of keys in canonical dag-cbor.
func byLength(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	if a < b {
		return -1
	}
	return 1
}

// DecodeRecord reads what Encode wrote and refuses every other byte string. It checks no signature. Slices of the
// record alias b.
func DecodeRecord(b []byte) (*Record, error) {
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("%w: a record of %d bytes", ErrFormat, len(b))
	}
	rec, r := new(Record), reader{b: b}
	r.open("record")
	r.key("body")
	rec.Body = r.item(0)
	rec.Kind = Kind(r.uint("kind"))
	rec.Must = r.bool("must")
	if r.has("root") {
		rec.Root = r.take(r.want(majorBytes, maxRoot, "root"))
		if r.err == nil && len(rec.Root) == 0 {
			r.fail("empty root")
		}
	}
	if r.err == nil && rec.Known() {
		body := reader{b: rec.Body}
		rec.readBody(&body)
		rec.Body = nil
		if err := body.done(); err != nil {
			return nil, fmt.Errorf("record of kind %d: %w", rec.Kind, err)
		}
		if !rec.Must {
			return nil, fmt.Errorf("%w: a record of kind %d must be understood", ErrFormat, rec.Kind)
		}
	}
	return strict(rec, b, &r, rec.Encode)
}

func (rec *Record) readBody(r *reader) {
	switch rec.Kind {
	case KindRoot:
		r.fields(0, "body")
	case KindAddDevice:
		d := new(AddDevice)
		rec.AddDevice = d
		r.fields(4, "body")
		r.key("cert")
		d.Certificate.read(r)
		d.Name = r.blob("name", maxName)
		r.key("epoch")
		d.Epoch = r.link("epoch")
		r.key("wraps")
		d.Wraps = readWraps(r)
	case KindRotateKey:
		rec.RotateKey = new(RotateKey)
		rec.RotateKey.read(r)
	case KindOptions:
		rec.Options = &Options{make(map[string]uint64)}
		r.fields(1, "body")
		r.key("set")
		for n := r.fields(maxOptions, "options"); n > 0 && r.err == nil; n-- {
			name := string(r.take(r.want(majorText, maxOption, "option")))
			rec.Options.Set[name] = r.want(majorUint, 1<<63-1, name)
		}
	default:
		rec.readShare(r)
	}
}

// readFollows reads sealed keys in the order of their epochs.
func readFollows(r *reader) []Follow {
	var f []Follow
	for n := r.want(majorArray, maxFollows, "follows"); n > 0 && r.err == nil; n-- {
		var x Follow
		r.pair("follow")
		x.Epoch = r.link("epoch")
		x.Sealed = r.wrap()
		if k := len(f); r.err == nil && k > 0 && f[k-1].Epoch.Compare(x.Epoch) >= 0 {
			r.fail("epochs that are not in order")
		}
		f = append(f, x)
	}
	return f
}
