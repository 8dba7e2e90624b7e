package tree

import (
	"strconv"
	"strings"

	"github.com/anyfs/anyfs/dag"
)

// ConflictXattr is the attribute that marks a conflict copy which became a file of its own. Its name is one that no person can give.
const ConflictXattr = ".conflict"

const conflictVersion = 1

// Conflict is what the mark of a conflict copy says. The object is a conflict copy as long as it has the name Name, in whatever
// directory: who gives it another has dealt with it.
type Conflict struct {
	Of   dag.ID // the object that kept the name
	Lost string // that name
	Name string // the copy's
}

// Value returns the value of the mark.
func (c *Conflict) Value() []byte {
	var e encoder
	e.array(4)
	e.uint(conflictVersion)
	e.bytes(c.Of[:])
	e.str(c.Lost)
	e.str(c.Name)
	return e.b
}

// ParseConflict reads the value of a mark. ok is false for what is none of this version.
func ParseConflict(b []byte) (c Conflict, ok bool) {
	d := decoder{b: b}
	d.fixed(4, "conflict")
	version := d.uint(conflictVersion, "version")
	c.Of = d.id("object")
	c.Lost, c.Name = string(d.bytes(MaxName, "name")), string(d.bytes(MaxName, "name"))
	if d.done() != nil || version != conflictVersion || !ValidName(c.Lost) || !ValidName(c.Name) {
		return Conflict{}, false
	}
	return c, true
}

// Made returns the name of the device whose change lost, and the day of that, as the copy's name has them; empty where it does not.
func (c *Conflict) Made() (device, day string) {
	i := strings.LastIndex(c.Name, copyTag)
	j := strings.LastIndexByte(c.Name, ')')
	if i < 0 || j < i+len(copyTag) {
		return "", ""
	}
	inner := c.Name[i+len(copyTag) : j]
	inner, _, ok := cutLastSpace(inner)
	if !ok {
		return "", ""
	}
	device, day, ok = cutLastSpace(inner)
	if !ok {
		return "", ""
	}
	return device, day
}

func cutLastSpace(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ' ')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

// OrdinaryName returns the n-th name, from 2 on, that a conflict copy may get which is none any more: `stem (2).ext`.
func OrdinaryName(lost string, n int) string {
	stem, ext := splitName(lost)
	tail := " (" + strconv.Itoa(n) + ")" + ext
	return cut(stem, max(0, MaxName-len(tail))) + tail
}
