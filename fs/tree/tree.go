// Package tree is a space as a tree of files: what the changes of its objects mean.
//
// An object is a file, a directory, a symlink or a special file. A change of it holds a Payload, a list of operations. The
// fold of an object's changes in total order is its State: its links, its attributes, and the content values that are
// candidates for what it holds. A Tree is the visible tree as a function of all objects' states and of the directory
// moves of the space: equal sets of changes give equal trees, whatever the order of arrival. TREE.md says exactly how.
//
// The package does no I/O but through the Store that its caller gives, starts no goroutine and reads no clock. Nothing in
// it is safe for concurrent use, except that values which are only read may be read by many.
package tree

import (
	"github.com/zeebo/blake3"

	"github.com/anyfs/anyfs/dag"
)

// rootLabel derives the id of a space's root directory.
const rootLabel = "anyfs/tree/root/1"

// RootObject returns the id of the root directory of a space. It has no root change.
func RootObject(space dag.ID) dag.ID {
	h := blake3.New()
	h.WriteString(rootLabel)
	h.Write(space[:])
	var id dag.ID
	h.Sum(id[:0])
	return id
}
