package merge_test

import (
	"fmt"

	"github.com/anyfs/anyfs/fs/merge"
)

func ExampleMerge() {
	base := []byte("milk\nbread\neggs\n")
	one := []byte("milk, 2 l\nbread\neggs\n")
	other := []byte("milk\nbread\neggs\nsalt\n")
	merged, ok := merge.Merge(base, one, other)
	fmt.Printf("%v\n%s", ok, merged)
	// Output:
	// true
	// milk, 2 l
	// bread
	// eggs
	// salt
}
