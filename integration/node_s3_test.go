package integration

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anyfs/anyfs/nodes/s3blocks/s3test"
)

// Content that a node keeps in a bucket survives the S3 server's being killed while it comes, and the loss of the node's own disk but for its backup;
// nothing that is readable is in the bucket.
func TestNodeS3(t *testing.T) {
	NeedFUSE(t)
	far := s3test.Start(t)
	for k, v := range far.Env() {
		t.Setenv(k, v)
	}
	node := NewNode(t, "--s3", far.URL, "--bucket", s3test.Bucket)
	a := NewHome(t)
	a.Listen = "/ip4/127.0.0.1/tcp/0"
	a.Mount("--no-discovery")
	a.Must("network", "add", node.Link)
	plant(t, a)
	for i := range 4 {
		large := make([]byte, 4<<20)
		_, _ = rand.Read(large)
		check(t, os.WriteFile(a.Personal("large "+string(rune('a'+i))), large, 0o644))
		time.Sleep(50 * time.Millisecond)
		far.Stop()
		time.Sleep(100 * time.Millisecond)
		far.Start()
	}
	// While it is away, content waits and changes go on.
	far.Stop()
	check(t, os.WriteFile(a.Personal("meanwhile"), bytes.Repeat([]byte(plantedContent), 5_000), 0o644))
	time.Sleep(300 * time.Millisecond)
	far.Start()
	a.Sync()
	want := ReadTree(t, a.Mnt, TreeOptions{})
	a.Unmount()

	objects, size := 0, int64(0)
	check(t, filepath.WalkDir(far.Dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		objects, size = objects+1, size+int64(len(b))
		if bytes.Contains(b, []byte(plantedContent[:30])) {
			t.Error("the bucket has what was written")
		}
		return err
	}))
	held := int64(0)
	for _, s := range node.Status().Spaces {
		held += s.Blocks
	}
	if objects < 10 || held < 16<<20 || held > size {
		t.Errorf("the bucket has %d objects with %d bytes, the node counts %d", objects, size, held)
	}
	node.Disk(func(name string, _ []byte) {
		if filepath.Base(filepath.Dir(name)) == "blocks" {
			t.Errorf("content is on the node's disk: %s", name)
		}
	})

	// The node's disk is lost.
	file := filepath.Join(t.TempDir(), "node.anyfs")
	node.Backup(file)
	node.Kill()
	check(t, os.RemoveAll(node.Dir))
	out, err := restoreWith(node.Dir, file, "--s3", far.URL, "--bucket", s3test.Bucket)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	node.Start()
	b := login(t, a, "second")
	b.Must("network", "add", node.Link)
	b.Mount("--no-discovery")
	b.Sync()
	arrives(t, b, want)
	b.Must("verify")
	node.Stop()
}
