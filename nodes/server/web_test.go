package server_test

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/nodes/server"
)

// TestWebPages: what a node answers by HTTP changes nothing, and is to be read by no page of another origin; commands are answered at the socket of its folder alone, also where
// a page has its own name point at the node (DNS rebinding). The gateway's sealed blocks are for everybody, for pages too.
func TestWebPages(t *testing.T) {
	addrs := map[string]string{}
	for _, what := range []string{"metrics", "gateway"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addrs[what] = l.Addr().String()
		l.Close()
	}
	run(t, server.Options{Dir: filepath.Join(t.TempDir(), "node"), Listen: []string{loopback}, HTTP: addrs["metrics"], Gateway: addrs["gateway"]})
	ask := func(what, method, path, host string) (int, http.Header, []byte) {
		t.Helper()
		req, err := http.NewRequest(method, "http://"+addrs[what]+path, strings.NewReader("node=x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Origin", "http://evil.example")
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return r.StatusCode, r.Header, b
	}
	for _, host := range []string{"", "localhost", "evil.example"} {
		for what := range addrs {
			for _, path := range []string{"/status", "/nodes", "/token?for=1h", "/remove?node=x", "/drain?node=x", "/backup", "/metrics", "/healthz", "/", "/debug/pprof/", "/ipfs/", "/api/v0/id", "/%2e%2e/%2e%2e/etc/passwd"} {
				for _, method := range []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"} {
					code, header, body := ask(what, method, path, host)
					open := what == "metrics" && (path == "/metrics" || path == "/healthz") && method == "GET"
					if (code == 200) != open {
						t.Errorf("%s of %s at %s: %d", method, path, what, code)
					}
					for name := range header {
						if strings.HasPrefix(name, "Access-Control-") && (what != "gateway" || !strings.HasPrefix(path, "/ipfs/")) {
							t.Errorf("%s of %s at %s, as %q: other origins may read it: %s", method, path, what, host, name)
						}
					}
					if bytes.Contains(body, []byte("root:")) {
						t.Errorf("%s gives a file", path)
					}
				}
			}
		}
	}
}
