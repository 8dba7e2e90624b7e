package mount

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// errNoHelper says what to install where only a helper may mount.
var errNoHelper = errors.New("only root can mount without fusermount3; install the package fuse3 (apt install fuse3)")

// fusermount returns the path of the helper that mounts for those who are not root.
func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount", "/bin/fusermount3", "/usr/bin/fusermount3", "/bin/fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errNoHelper
}

func fusermountUnmount(path string, lazily bool) error {
	bin, err := fusermount()
	if err != nil {
		return err
	}
	flags := "-u"
	if lazily {
		flags = "-uz"
	}
	var said bytes.Buffer
	cmd := exec.Command(bin, flags, "--", path)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(said.String())
		if strings.Contains(text, "busy") {
			return syscall.EBUSY
		}
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// othersAllowed reports whether the machine's administrator lets people give others access to their mounts.
func othersAllowed() bool {
	conf, err := os.ReadFile("/etc/fuse.conf")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(conf)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return true
		}
	}
	return false
}
