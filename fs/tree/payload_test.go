package tree

import (
	"bytes"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

func TestPayloadOfASmallFileIsSmall(t *testing.T) {
	text := bytes.Repeat([]byte("x"), 4096)
	p := &Payload{Kind: KindFile, Time: 1790000000123456789, Ops: []Op{
		{Kind: OpLink, Parent: dag.Sum([]byte("dir")), Name: "report-final.txt"},
		{Kind: OpMode, Mode: 0o644},
		{Kind: OpContent, Mtime: 1790000000123456789, Content: &Content{Size: 4096, Inline: text}},
	}}
	b, err := p.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	if over := len(b) - len(text); over > 120 {
		t.Errorf("a payload costs %d bytes beside the content, want at most 120", over)
	}
}
