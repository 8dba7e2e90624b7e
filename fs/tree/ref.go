package tree

import (
	"cmp"

	"github.com/anyfs/anyfs/dag"
)

// Ref names a link, a placement or a content value: the change that made it, and the index of the operation in that change.
//
// In the operations of a payload, a zero Change is the change itself. The zero Ref names the first operation of the change
// itself; where a Ref may be absent, the text says how that is told.
type Ref struct {
	Change dag.ID
	Place  uint32
}

// Compare orders refs by their bytes. That order has no meaning but that it is one.
func (r Ref) Compare(o Ref) int {
	if c := r.Change.Compare(o.Change); c != 0 {
		return c
	}
	return cmp.Compare(r.Place, o.Place)
}

// Stamp says where in the total order a change stands, and who made it.
type Stamp struct {
	ID     dag.ID
	Pos    dag.Pos
	Device dag.PublicKey
}

// Kind says what an object is. It is given by the object's root and never changes.
type Kind uint8

// The kinds. KindNone is that of a change that is no root, and of an object whose root did not parse.
const (
	KindNone Kind = iota
	KindFile
	KindDir
	KindSymlink
	KindFIFO
	KindSocket
	KindChar
	KindBlock
	kindEnd
)

// The file types of st_mode, as on Linux; named here so that the package means the same on every system.
const (
	typeFIFO    = 0x1000
	typeChar    = 0x2000
	typeDir     = 0x4000
	typeBlock   = 0x6000
	typeFile    = 0x8000
	typeSymlink = 0xa000
	typeSocket  = 0xc000
	typeMask    = 0xf000
)

var modeTypes = [kindEnd]uint32{
	KindFile: typeFile, KindDir: typeDir, KindSymlink: typeSymlink, KindFIFO: typeFIFO, KindSocket: typeSocket,
	KindChar: typeChar, KindBlock: typeBlock,
}

// Type returns the type bits (S_IFMT) of st_mode; 0 for KindNone.
func (k Kind) Type() uint32 {
	if k >= kindEnd {
		return 0
	}
	return modeTypes[k]
}

// KindOf returns the kind that the type bits of an st_mode name, or KindNone.
func KindOf(mode uint32) Kind {
	for k, t := range modeTypes {
		if t != 0 && t == mode&typeMask {
			return Kind(k)
		}
	}
	return KindNone
}
