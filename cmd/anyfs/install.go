package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/mount/control"
)

// A mount that comes with each login is a unit of the user's systemd.

// installResult is what mount --install and --uninstall print with --json.
type installResult struct {
	Phrase     string `json:"phrase,omitempty"`
	Mountpoint string `json:"mountpoint"`
	Unit       string `json:"unit"` // its name
	File       string `json:"file"`
	Started    bool   `json:"started"`
}

// runInstall has systemd mount at each login of the user, and at once.
func runInstall(ctx context.Context, e *env, o mountOptions) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if strings.Contains(exe, string(filepath.Separator)+"go-build") {
		return failf(exitUsage, "this command is a temporary one of 'go run'; 'go install ./cmd/anyfs' first, and then 'anyfs mount --install %s'", o.dir)
	}
	if err := checkMount(e, &o); err != nil {
		return err
	}
	if err := systemctl(ctx, "show-environment"); err != nil {
		return err
	}
	running, err := mountedAt(ctx, e, o)
	if err != nil {
		return err
	}
	if !running {
		if err := checkMountpoint(e, o.dir); err != nil {
			return err
		}
	}
	if o.passphraseFile != "" {
		if o.passphraseFile, err = e.abs(o.passphraseFile); err != nil {
			return err
		}
	}
	phrase, err := initialise(ctx, e, o)
	if err != nil {
		return err
	}
	if phrase != "" && !e.json {
		e.sayPhrase()
		if err := writeLine(e.stdout, phrase); err != nil {
			return err
		}
	}
	if err := readableWithoutTerminal(e, o.passphraseFile); err != nil {
		return err
	}
	name, file, err := unitOf(e, o.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(unitText(exe, e.home, o)), 0o644); err != nil {
		return err
	}
	if err := systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	enable := []string{"enable", name}
	if !running {
		enable = []string{"enable", "--now", name}
	}
	if err := systemctl(ctx, enable...); err != nil {
		return fmt.Errorf("%w; 'systemctl --user status %s' tells more, and 'anyfs mount --uninstall %s' takes the unit away", err, name, o.dir)
	}
	if e.json {
		return e.printJSON(installResult{phrase, o.dir, name, file, !running})
	}
	if running {
		e.say("%s is mounted already, and will be at each login from the next one on (%s).", o.dir, name)
	} else {
		e.say("%s is mounted, and will be at each login (%s). 'anyfs mount --uninstall %s' ends that.", o.dir, name, o.dir)
	}
	return nil
}

// runUninstall ends what runInstall began, and unmounts where the unit had mounted.
func runUninstall(ctx context.Context, e *env, given string) error {
	dir, err := e.mountpoint(given)
	if err != nil {
		return err
	}
	name, file, err := unitOf(e, dir)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(file); errors.Is(err, iofs.ErrNotExist) {
		return failf(exitNotFound, "no unit mounts %s at login: there is no %s", dir, file)
	}
	// Where there is no systemd now, the file is what can be taken away.
	stopped := systemctl(ctx, "disable", "--now", name)
	if err := os.Remove(file); err != nil {
		return err
	}
	if stopped == nil {
		stopped = systemctl(ctx, "daemon-reload")
	}
	if stopped != nil {
		e.say("The unit %s is removed; systemd was not told: %v", name, stopped)
	}
	if e.json {
		return e.printJSON(installResult{Mountpoint: dir, Unit: name, File: file})
	}
	return nil
}

// mountedAt reports whether a daemon of the home shows it at the mountpoint already. One that shows it elsewhere is an error.
func mountedAt(ctx context.Context, e *env, o mountOptions) (bool, error) {
	client, err := control.Dial(ctx, e.home)
	if err != nil {
		return false, nil // nobody there
	}
	defer client.Close()
	w, err := e.whereabouts(ctx, client)
	if err != nil || !w.Mounted {
		return false, err
	}
	if w.Dir != o.dir || w.Space != o.space {
		return false, failf(exitBusy, "this home is already mounted at %s; unmount it first, or use another home with --home", w.Dir)
	}
	return true, nil
}

// readableWithoutTerminal refuses keys that nobody could open at a login.
func readableWithoutTerminal(e *env, passphraseFile string) error {
	d, err := homeDisk(e.home)
	if err != nil {
		return err
	}
	if _, err := acl.OpenKeys(d, nil); !errors.Is(err, acl.ErrPassphrase) {
		return err
	}
	if passphraseFile == "" {
		return failf(exitPassphrase, "the keys are guarded by a passphrase, which systemd can't type; name a file that has it with --passphrase-file FILE")
	}
	_, err = passphraseFor(e, passphraseFile)
	return err
}

// unitOf gives the name of the unit that mounts a folder, and its file.
func unitOf(e *env, dir string) (name, file string, err error) {
	config := e.getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(config) { // as the specification says
		home := e.getenv("HOME")
		if home == "" {
			return "", "", failf(exitUsage, "HOME is not set, so that the user's units can't be found")
		}
		config = filepath.Join(home, ".config")
	}
	name = "anyfs-" + escapePath(dir) + ".service"
	if len(name) > 255 {
		return "", "", failf(exitUsage, "the path %s is too long for the name of a unit", dir)
	}
	return name, filepath.Join(config, "systemd", "user", name), nil
}

// escapePath gives a path the form that it has in the name of a unit, as systemd-escape --path does.
func escapePath(path string) string {
	path = strings.Trim(path, "/")
	if path == "" {
		return "-"
	}
	var b strings.Builder
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			b.WriteByte('-')
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ':', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// unitText is the unit that mounts a home.
func unitText(exe, home string, o mountOptions) string {
	words := []string{exe, "--home", home, "mount", "--foreground"}
	for _, opt := range o.options {
		words = append(words, "-o", opt)
	}
	if o.space != "" {
		words = append(words, "--space", o.space)
	}
	for _, l := range o.listen {
		words = append(words, "--listen", l)
	}
	if o.noDiscovery {
		words = append(words, "--no-discovery")
	}
	if o.passphraseFile != "" {
		words = append(words, "--passphrase-file", o.passphraseFile)
	}
	words = append(words, "--", o.dir)
	for i, w := range words {
		words[i] = unitWord(w, true)
	}
	return `# Made by anyfs mount --install; anyfs mount --uninstall takes it away.
[Unit]
Description=anyfs at ` + unitWord(o.dir, false) + `

[Service]
Type=notify
ExecStart=` + strings.Join(words, " ") + `
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
}

// unitWord gives a text the form in which it stands in a unit: a word of a command line, or a text.
func unitWord(s string, command bool) string {
	var b strings.Builder
	quote := command && strings.ContainsAny(s, " \t\"'\\;") || command && s == ""
	for i := range len(s) {
		switch c := s[i]; {
		case c == '%':
			b.WriteString("%%") // a specifier
		case c == '$' && command:
			b.WriteString("$$") // a variable
		case c < ' ' || c == 0x7f:
			quote = quote || command
			fmt.Fprintf(&b, `\x%02x`, c)
		case (c == '"' || c == '\\') && command:
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	if quote {
		return `"` + b.String() + `"`
	}
	return b.String()
}

// systemctl asks the user's systemd for something.
func systemctl(ctx context.Context, args ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemctl", append([]string{"--user"}, args...)...)
	cmd.Stderr = &said
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return failf(exitFailed, "there is no systemd here (no systemctl); have 'anyfs mount DIR' run at login in another way")
	}
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(said.String())
	if strings.Contains(text, "bus") || args[0] == "show-environment" {
		return failf(exitFailed, "the user's systemd does not answer (%s); where there is none, have 'anyfs mount DIR' run at login in another way", firstLine(text, err))
	}
	return fmt.Errorf("systemctl --user %s: %s", strings.Join(args, " "), firstLine(text, err))
}

func firstLine(text string, err error) string {
	if text == "" {
		return err.Error()
	}
	line, _, _ := strings.Cut(text, "\n")
	return printable(line)
}
