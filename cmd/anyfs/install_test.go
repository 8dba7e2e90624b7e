package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestUnitText(t *testing.T) {
	const want = `# Made by anyfs mount --install; anyfs mount --uninstall takes it away.
[Unit]
Description=anyfs at /home/me/My 100%% files

[Service]
Type=notify
ExecStart=/usr/bin/anyfs --home "/home/me/a \"home\" $$HOME" mount --foreground -o ro,noexec --space "It's mine" --listen /ip4/0.0.0.0/tcp/7327 --no-discovery --passphrase-file "/run/p\x0a" -- "/home/me/My 100%% files"
# It makes everything durable when it ends.
TimeoutStopSec=2min
TimeoutStartSec=5min
Restart=on-failure
RestartSec=5s
# A wrong command line, no home, a wrong passphrase, in use: trying again helps nothing.
RestartPreventExitStatus=2 3 5 6

[Install]
WantedBy=default.target
`
	got := unitText("/usr/bin/anyfs", `/home/me/a "home" $HOME`, mountOptions{
		dir: "/home/me/My 100% files", space: "It's mine", options: []string{"ro,noexec"}, listen: []string{"/ip4/0.0.0.0/tcp/7327"},
		noDiscovery: true, passphraseFile: "/run/p\n",
	})
	if got != want {
		t.Errorf("the unit is\n%s", got)
	}
}

// TestEscapePath holds the names of units against what systemd makes of paths.
func TestEscapePath(t *testing.T) {
	paths := []string{"/home/me/Any", "/", "/home/me/My files", "/a-b/.hidden", "/.a", "/ä/%$", "/a\\b"}
	for path, want := range map[string]string{"/home/me/Any": "home-me-Any", "/": "-", "/a-b/c d": `a\x2db-c\x20d`, "/.a/.b": `\x2ea-.b`} {
		if got := escapePath(path); got != want {
			t.Errorf("%s becomes %s, want %s", path, got, want)
		}
	}
	tool, err := exec.LookPath("systemd-escape")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no systemd-escape to compare with (Debian: systemd)")
		}
		t.Skip("there is no systemd-escape to compare with (Debian: systemd)")
	}
	for _, path := range paths {
		out, err := exec.Command(tool, "--path", path).Output()
		if want := strings.TrimSpace(string(out)); err != nil || escapePath(path) != want {
			t.Errorf("%s becomes %s, systemd has %s, %v", path, escapePath(path), want, err)
		}
	}
}
