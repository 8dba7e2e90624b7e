//go:build !crashpoints

package crashpoint

// Shrink is by how many powers of two files are begun anew sooner: not at all.
const Shrink = 0

// Here ends the process when this passing of the point is the one that was asked for.
func Here(Point) {}
