package memfs

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestContentAgainstBytes holds that content with holes reads as a plain slice of bytes does.
func TestContentAgainstBytes(t *testing.T) {
	const most = 4 * chunkBytes
	rapid.Check(t, func(t *rapid.T) {
		var c content
		model := make([]byte, most)
		size := int64(0)
		place := func(name string) int64 {
			near := rapid.SampledFrom([]int64{0, 100, chunkBytes, 2 * chunkBytes, most - 70000}).Draw(t, name)
			return near + rapid.Int64Range(0, 300).Draw(t, name+" after")
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				p := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "bytes")
				p = bytes.Repeat(p, rapid.SampledFrom([]int{1, 1, 300}).Draw(t, "times"))
				off := place("off")
				p = p[:min(int64(len(p)), most-off)]
				c.write(p, off)
				copy(model[off:], p)
				size = max(size, off+int64(len(p)))
			},
			"zero": func(t *rapid.T) {
				off, end := place("off"), place("end")
				if off >= end {
					t.Skip()
				}
				c.zero(off, end)
				clear(model[off:end])
			},
			"": func(t *rapid.T) {
				got := make([]byte, most)
				c.read(got, 0)
				if !bytes.Equal(got, model) {
					t.Fatal("content differs")
				}
				for off := int64(0); off < size; {
					data, ok := c.data(off, size)
					if !ok {
						data = size
					}
					for _, b := range model[off:min(data, size)] {
						if b != 0 {
							t.Fatalf("bytes in what is called a hole, from %d to %d", off, data)
						}
					}
					if !ok {
						break
					}
					off = c.hole(data, size)
					if off <= data {
						t.Fatalf("no data at %d, where there should be", data)
					}
				}
			},
		})
	})
}
