// Package next notes what a build of a next version did that this one does not do.
//
// No build of the product links it. TestRollingUpgrade builds the command with some lines replaced (go build -overlay), which say so here.
package next

import (
	"fmt"
	"os"
)

// Did adds a line to the file that ANYFS_NEXT_LOG names.
func Did(what string) {
	name := os.Getenv("ANYFS_NEXT_LOG")
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = fmt.Fprintln(f, what)
}
