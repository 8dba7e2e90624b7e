package integration

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/anyfs/anyfs/nodes/server/etcdtest"
)

// Two coordinators on one etcd: when one is killed for good, the other takes nodes in, and devices go on.
func TestCoordinatorsOnEtcd(t *testing.T) {
	etcd := etcdtest.Start(t)
	one := startNode(t, "coordinator", "127.0.0.2", "--etcd", etcd.URL)
	// The operator copies the network's key.
	key, err := os.ReadFile(filepath.Join(one.Dir, "network.key"))
	check(t, err)
	dir := filepath.Join(t.TempDir(), "two")
	check(t, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "network.key"), key, 0o600))
	cmd := exec.Command(Binary, "node", "coordinator", "--dir", dir, "--listen", "/ip4/127.0.0.3/tcp/0", "--etcd", etcd.URL)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	admin := func(args ...string) (string, error) {
		out, err := exec.Command(Binary, append(args, "--dir", dir)...).CombinedOutput()
		return string(out), err
	}
	eventually := func(what string, ok func() error) {
		t.Helper()
		var err error
		for end := time.Now().Add(syncPatience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			if err = ok(); err == nil {
				return
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
	nodes := func(want int) func() error {
		return func() error {
			out, err := admin("--json", "node", "list")
			var list []struct{}
			if err == nil {
				err = json.Unmarshal([]byte(out), &list)
			}
			if err == nil && len(list) != want {
				err = fmt.Errorf("%d nodes", len(list))
			}
			return err
		}
	}
	eventually("the second coordinator is in", nodes(2))
	one.Kill() // for good
	token, err := admin("node", "token")
	if err != nil {
		t.Fatal(token, err)
	}
	startNode(t, "sync", "127.0.0.4", "--network", filepath.Join(dir, "network.json"), "--token", token[:len(token)-1])
	eventually("a node joins by the second", nodes(3))
}
