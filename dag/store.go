package dag

// Store keeps the frames of one graph in the order in which they came, and the graph's index of them.
//
// dag/store has one in memory and one on disk; dag/storetest is the suite that both pass. The index is the graph's: a store
// knows nothing of what it means. One goroutine writes at a time, any number read meanwhile. Slices that a store returns are
// the caller's to keep, not to change; those that it is given are the store's.
type Store interface {
	// Next returns the position that an appended frame of n bytes will get. Positions ascend and are never 0.
	Next(n int) uint64
	// Append adds rec, whose At is what Next returned for its frame, and makes u visible; both or nothing.
	// It is durable after Sync.
	Append(rec Record, u *Update) error
	// Index makes u visible alone. rec, unless zero, is a record of the log that the index covers now, with all before it.
	Index(rec Record, u *Update) error
	// Indexed returns the position from which on frames are in the log and not in the index: a crash loses what was
	// indexed since the last checkpoint, and Open indexes it again.
	Indexed() uint64
	// Walk calls fn for the records from a position on, in the order of the log.
	Walk(from uint64, fn func(Record) error) error
	// Read returns a whole record, ErrCorrupt if it is not what was written.
	Read(at uint64) (Record, error)
	// ReadHead is Read with only the first rec.Head bytes of the frame.
	ReadHead(at uint64) (Record, error)
	// ReadSpans fills in the Data of each span, with few and large reads.
	ReadSpans(spans []Span) error

	// Get returns the value of key, nil when there is none.
	Get(t Table, key []byte) ([]byte, error)
	// Floor returns the pair with the greatest key that is not above key, Ceil the one with the smallest that is not
	// below; nil when there is none.
	Floor(t Table, key []byte) (k, v []byte, err error)
	Ceil(t Table, key []byte) (k, v []byte, err error)
	// Find appends to dst the values that were added to the set under prefix, in no order, perhaps more than once.
	Find(s Set, prefix uint64, dst []Value) ([]Value, error)

	// Sync makes all that was appended durable. Callers that come together share one write.
	Sync() error
}

// Record is a frame as a store keeps it.
type Record struct {
	At, End uint64 // its position, and where the next may begin
	ID      ID     // of the batch
	Head    int    // length of what comes before the bodies
	Frame   []byte
}

// Span asks for Len bytes at Off of the frame at a position.
type Span struct {
	At       uint64
	Off, Len uint32
	Data     []byte
	// Head marks a span that begins the frame: its Data is cut to the frame's head, checked, and ID is filled in. Data is
	// nil when Len did not reach.
	Head bool
	ID   ID
}

// Table names an ordered table of the index.
type Table uint8

// The tables of a graph's index. index.go says what they hold.
const (
	TableMeta Table = iota
	TableObjects
	TableLogs
	TableChains
	TableFeeds
	TablePasts
	TableQuarantine
	Tables // how many there are
)

// Set names a table that is asked only for a hash's first 8 bytes, which arrive in no order.
type Set uint8

// The sets of a graph's index.
const (
	SetBatches Set = iota
	SetObjects
	SetChanges
	Sets // how many there are
)

// Value is what a set holds under a prefix.
type Value struct{ A, B uint64 }

// Update is a change of the index. A pair with an empty value deletes the key; later ones win.
type Update struct {
	Puts []Put
	Adds []Add
}

// Put sets a key of a table. Late, where it is set, makes the value when it is asked for: what is overwritten soon need not
// be encoded. It gives the same each time, about Size bytes, and may be called by any goroutine.
type Put struct {
	Table Table
	Key   string
	Value []byte
	Late  func() []byte
	Size  int
}

// Add adds a value to a set. Adding the same twice is no error.
type Add struct {
	Set    Set
	Prefix uint64
	Value  Value
}

func (u *Update) put(t Table, key, value []byte) {
	u.Puts = append(u.Puts, Put{Table: t, Key: string(key), Value: value, Size: len(value)})
}

func (u *Update) putObject(o *object) {
	u.Puts = append(u.Puts, Put{Table: TableObjects, Key: string(key64(o.num)), Late: o.encode, Size: o.bytes()})
}

func (u *Update) add(s Set, id ID, v Value) {
	u.Adds = append(u.Adds, Add{s, id.Prefix(), v})
}
