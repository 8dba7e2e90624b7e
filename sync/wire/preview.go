package wire

import "fmt"

// MaxPreview is the length of a preview's record at most.
const MaxPreview = 8 << 10

// Preview tells of the preview that the sender made of a space: its signed record, which this package does not open.
type Preview struct {
	_      struct{} `cbor:",toarray"`
	T      head[Preview]
	Record []byte
}

func (Preview) kind() Kind { return KindPreview }

func (m *Preview) check() error {
	if len(m.Record) == 0 || len(m.Record) > MaxPreview {
		return fmt.Errorf("a record of %d bytes", len(m.Record))
	}
	return nil
}
