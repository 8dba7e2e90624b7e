package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const deploy = "../nodes/deploy"

// accepted fails the test unless the command takes all flags of a command line.
func accepted(t *testing.T, where string, args ...string) {
	t.Helper()
	// Flags are parsed before help is shown.
	if out, err := exec.Command(Binary, append(slices.Clone(args), "--help")...).CombinedOutput(); err != nil {
		t.Errorf("%s: anyfs %s: %v: %s", where, strings.Join(args, " "), err, out)
	}
}

// What is deployed calls the command as it is.
func TestDeployFlags(t *testing.T) {
	if exec.Command(Binary, "node", "all", "--no-such-flag", "--help").Run() == nil {
		t.Fatal("a flag that is none is accepted: this test would find nothing")
	}
	for _, kind := range []string{"all", "coordinator", "sync", "file"} {
		for _, unit := range []string{"system", "user"} {
			b, err := os.ReadFile(filepath.Join(deploy, unit, "anyfs-node@.service"))
			check(t, err)
			m := regexp.MustCompile(`(?m)^ExecStart=\S+/anyfs (.*)$`).FindSubmatch(b)
			if m == nil {
				t.Fatalf("%s: no ExecStart", unit)
			}
			line := strings.NewReplacer("%i", kind, "%h", "/home/me", "$ANYFS_NODE_FLAGS", "--announce /ip4/203.0.113.5/tcp/7328 --http 127.0.0.1:9328").Replace(string(m[1]))
			accepted(t, unit+" unit", strings.Fields(line)...)
		}
	}
	b, err := os.ReadFile(filepath.Join(deploy, "Dockerfile"))
	check(t, err)
	lists := regexp.MustCompile(`(?m)^(?:HEALTHCHECK .* )?CMD (\[.*\])$`).FindAllSubmatch(b, -1)
	if len(lists) != 2 || !bytes.Contains(b, []byte("\nFROM scratch\n")) || !bytes.Contains(b, []byte("CGO_ENABLED=0")) {
		t.Errorf("the Dockerfile has %d commands, or is no static image", len(lists))
	}
	for _, l := range lists {
		var args []string
		check(t, json.Unmarshal(l[1], &args))
		if args[0] == "/anyfs" {
			args = args[1:]
		}
		accepted(t, "Dockerfile", args...)
	}
}

// systemd takes the units.
func TestDeployUnits(t *testing.T) {
	Need(t, "systemd-analyze")
	for _, unit := range []string{"system", "user"} {
		// The binary has to be there.
		dir := t.TempDir()
		b, err := os.ReadFile(filepath.Join(deploy, unit, "anyfs-node@.service"))
		check(t, err)
		b = regexp.MustCompile(`(?m)^ExecStart=\S+/anyfs`).ReplaceAll(b, []byte("ExecStart="+Binary))
		file := filepath.Join(dir, "anyfs-node@all.service")
		check(t, os.WriteFile(file, b, 0o644))
		args := []string{"verify", "--man=no", file}
		if unit == "user" {
			args = append([]string{"--user"}, args...)
		}
		cmd := exec.Command("systemd-analyze", args...)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+dir)
		out, err := cmd.CombinedOutput()
		if bytes.Contains(out, []byte("Failed to initialize manager")) {
			t.Logf("%s: %s", unit, out) // no user's systemd on this machine
			continue
		}
		if err != nil || bytes.Contains(out, []byte("anyfs-node@")) {
			t.Errorf("%s: %v: %s", unit, err, out)
		}
	}
}

// A node tells the service manager when it is ready and when it ends.
func TestNodeNotifies(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	check(t, err)
	defer l.Close()
	hear := func(want string) {
		t.Helper()
		b := make([]byte, 4096)
		check(t, l.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, err := l.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), want+"\n") {
			t.Fatalf("the manager hears %q, %v, want %s", b[:n], err, want)
		}
	}
	cmd := exec.Command(Binary, "node", "all", "--dir", t.TempDir(), "--listen", "/ip4/127.0.0.1/tcp/0")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	hear("READY=1")
	check(t, cmd.Process.Signal(syscall.SIGTERM))
	hear("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// The network of the compose file comes up as join.sh starts it: with real nodes, at ports of loopback in the place of containers.
func TestDeployCompose(t *testing.T) {
	Need(t, "sh")
	dir := t.TempDir()
	for _, name := range []string{"compose.yaml", "join.sh"} {
		b, err := os.ReadFile(filepath.Join(deploy, name))
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, name), b, 0o755))
	}
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
			Volumes     []string
		}
		Volumes map[string]any
	}
	b, err := os.ReadFile(filepath.Join(dir, "compose.yaml"))
	check(t, err)
	check(t, yaml.Unmarshal(b, &file))
	kinds := map[string]int{}
	for name, s := range file.Services {
		accepted(t, name, s.Command...)
		kinds[s.Command[1]]++
		if _, ok := file.Volumes[name]; !ok || !slices.Contains(s.Volumes, name+":/data") {
			t.Errorf("%s keeps its data in %v", name, s.Volumes)
		}
	}
	if kinds["coordinator"] != 1 || kinds["sync"] != 3 || kinds["file"] != 2 {
		t.Errorf("%v", kinds)
	}

	// start runs a service as a process.
	ports := map[string]string{}
	for name := range file.Services {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		check(t, err)
		_, ports[name], _ = net.SplitHostPort(l.Addr().String())
		check(t, l.Close())
	}
	variables := map[string]string{}
	start := func(name string) {
		t.Helper()
		var args []string
		for _, a := range file.Services[name].Command {
			a = strings.ReplaceAll(a, "/ip4/0.0.0.0/tcp/7328", "/ip4/127.0.0.1/tcp/"+ports[name])
			a = strings.ReplaceAll(a, "/dns4/"+name+"/tcp/7328", "/dns4/localhost/tcp/"+ports[name])
			a = strings.ReplaceAll(a, "${ANYFS_HOST:-localhost}", "localhost")
			a = strings.ReplaceAll(a, "0.0.0.0:9328", "127.0.0.1:0")
			if a == "/data" {
				a = filepath.Join(dir, name)
			}
			args = append(args, a)
		}
		out, err := os.Create(filepath.Join(dir, name+".out"))
		check(t, err)
		cmd := exec.Command(Binary, args...)
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		cmd.Env = os.Environ()
		for k, v := range file.Services[name].Environment {
			v, ok := variables[strings.TrimSuffix(strings.TrimPrefix(v, "${"), ":-}")]
			if !ok {
				t.Errorf("%s: join.sh says nothing of %s", name, k)
			}
			cmd.Env = append(cmd.Env, k+"="+v)
		}
		check(t, cmd.Start())
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		t.Cleanup(func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := <-done; err != nil {
				t.Errorf("%s ends with %v", name, err)
			}
			_ = out.Close()
		})
	}
	start("coordinator")

	// join.sh speaks to docker, in whose place this is.
	docker := fmt.Sprintf(`#!/bin/sh
case "$*" in
"compose up -d"*) ;;
"compose exec -T coordinator /anyfs "*) shift 5; for a; do shift; [ "$a" = /data ] && a=%[1]s/coordinator; set -- "$@" "$a"; done; exec %[2]s "$@" ;;
"compose logs --no-log-prefix coordinator") cat %[1]s/coordinator.out ;;
*) echo "docker $*" >&2; exit 1 ;;
esac
`, dir, Binary)
	check(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	check(t, os.WriteFile(filepath.Join(dir, "bin", "docker"), []byte(docker), 0o755))
	cmd := exec.Command(filepath.Join(dir, "join.sh"))
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	link, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(link), "anyfs://network/") {
		t.Fatalf("join.sh: %v: %s", err, link)
	}
	env, err := os.ReadFile(filepath.Join(dir, ".env"))
	check(t, err)
	for l := range strings.Lines(string(env)) {
		k, v, _ := strings.Cut(strings.TrimSpace(l), "=")
		variables[k] = v
	}
	for name := range file.Services {
		if name != "coordinator" {
			start(name)
		}
	}
	var nodes []struct {
		Connected bool `json:"connected"`
	}
	for end := time.Now().Add(syncPatience); ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command(Binary, "--json", "node", "list", "--dir", filepath.Join(dir, "coordinator")).Output()
		check(t, err)
		check(t, json.Unmarshal(out, &nodes))
		connected := 0
		for _, x := range nodes {
			if x.Connected {
				connected++
			}
		}
		if connected == 6 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%s", out)
		}
	}
}
