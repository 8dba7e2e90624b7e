package dag

func (c *Change) Encode() []byte                     { panic("dag: not built") }
func DecodeChange(b []byte) (*Change, error)         { return nil, errNotYet }
func (b *Batch) Encode() []byte                      { panic("dag: not built") }
func (b *Batch) SigningBytes() []byte                { panic("dag: not built") }
func (b *Batch) ID() ID                              { return Sum(b.Encode()) }
func DecodeBatch(p []byte) (*Batch, error)           { return nil, errNotYet }
func EncodeFrame(b *Batch, bodies [][]byte) []byte   { panic("dag: not built") }
func DecodeFrame(p []byte) (*Batch, [][]byte, error) { return nil, nil, errNotYet }
