package main

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/mount"
	"github.com/anyfs/anyfs/mount/control"
	"github.com/urfave/cli/v2"
)

func mountCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "show the spaces as folders in DIR",
		ArgsUsage: "DIR",
		Description: `Returns when DIR can be used; a daemon goes on in the background until 'anyfs unmount DIR'. DIR is made when it is not
there, and has to be empty. The first mount makes an account and prints its recovery phrase, 12 words on one line of
stdout: write them down.

Examples:
  anyfs mount ~/Any
  anyfs mount --space Personal ~/Documents   # one space as the folder itself
  anyfs mount -o allow_other,noexec /srv/any
  anyfs mount -f ~/Any                       # stay in the foreground
  anyfs mount --install ~/Any                # now, and at each login (systemd)
  anyfs mount --uninstall ~/Any`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "foreground", Aliases: []string{"f"}, Usage: "stay in the foreground until unmounted"},
			&cli.StringSliceFlag{Name: "o", Usage: "mount with `OPTIONS`, commas between them: ro, noexec, allow_other"},
			&cli.StringFlag{Name: "space", Usage: "show only the space `NAME`, as DIR itself"},
			&cli.StringSliceFlag{Name: "listen", Usage: "take connections of other devices at `MULTIADDR`; none: have no network (ANYFS_LISTEN)"},
			&cli.BoolFlag{Name: "no-discovery", Usage: "do not look for devices on the local network"},
			&cli.BoolFlag{Name: "install", Usage: "have the user's systemd mount at each login, with these flags, and now"},
			&cli.BoolFlag{Name: "uninstall", Usage: "end that, and unmount"},
			passphraseFlag("read the passphrase of the keys"),
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			o := mountOptions{
				dir: a[0], space: c.String("space"), options: c.StringSlice("o"),
				foreground: c.Bool("foreground"), passphraseFile: c.String("passphrase-file"),
				listen: c.StringSlice("listen"), noDiscovery: c.Bool("no-discovery"),
			}
			if env := e.getenv("ANYFS_LISTEN"); len(o.listen) == 0 && env != "" {
				o.listen = strings.Split(env, ",")
			}
			starter, err := mount.FromStarter()
			if err != nil {
				return err
			}
			if starter != nil {
				return runForeground(c.Context, e, o, starter, func() {})
			}
			switch install, uninstall := c.Bool("install"), c.Bool("uninstall"); {
			case (install || uninstall) && o.foreground || install && uninstall:
				return failf(exitUsage, "--install, --uninstall and --foreground exclude each other")
			case install:
				return runInstall(c.Context, e, o)
			case uninstall:
				return runUninstall(c.Context, e, o.dir)
			}
			return runMount(c.Context, e, o)
		},
	}
}

type mountOptions struct {
	dir, space     string
	options        []string
	foreground     bool
	passphraseFile string
	listen         []string // where connections are taken; none: everywhere
	noDiscovery    bool
	stopping       func() error // called, if not nil, when the daemon begins to end
}

// mountResult is what mount --json prints.
type mountResult struct {
	Phrase     string `json:"phrase,omitempty"`
	Mountpoint string `json:"mountpoint"`
	PID        int    `json:"pid"`
}

// checkMount refuses what can be no mount, and makes the path of the mountpoint whole.
func checkMount(e *env, o *mountOptions) error {
	if err := mount.CheckOptions(o.options); err != nil {
		return &failure{exitUsage, err}
	}
	if e.home == "" {
		return errNoHome
	}
	var err error
	if o.dir, err = e.mountpoint(o.dir); err != nil {
		return err
	}
	home := realParent(e.home)
	if real, err := filepath.EvalSymlinks(e.home); err == nil {
		home = real
	}
	if _, inside := below(o.dir, home); inside {
		return failf(exitUsage, "the home %s lies in %s; mount somewhere else", e.home, o.dir)
	}
	if _, inside := below(home, o.dir); inside {
		return failf(exitUsage, "%s lies in the home %s; mount somewhere else", o.dir, e.home)
	}
	return nil
}

func runMount(ctx context.Context, e *env, o mountOptions) error {
	if err := checkMount(e, &o); err != nil {
		return err
	}
	if done, err := alreadyMounted(ctx, e, o); done || err != nil {
		if err == nil && o.foreground && mount.Supervised() {
			err = failf(exitBusy, "%s is mounted by another process; unmount it first", o.dir) // it would wait for READY in vain
		}
		return err
	}
	if err := checkMountpoint(e, o.dir); err != nil {
		return err
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
	if o.foreground {
		boss, err := mount.FromSupervisor()
		if err != nil {
			return err
		}
		defer boss.Close()
		o.stopping = boss.Stopping
		return runForeground(ctx, e, o, nil, func() {
			if err := boss.Ready("mounted at " + o.dir); err != nil {
				e.say("%v", err)
			}
			if e.json {
				_ = e.printJSON(mountResult{phrase, o.dir, os.Getpid()})
			}
			e.say("%s is mounted; 'anyfs unmount %s' or Ctrl-C ends it.", o.dir, o.dir)
		})
	}
	pass, err := passphraseFor(e, o.passphraseFile)
	if err != nil {
		return err
	}
	pid, err := startDaemon(ctx, e, o, pass)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(mountResult{phrase, o.dir, pid})
	}
	e.sayMounted(o)
	return nil
}

// mountpoint makes the path of a mount as it is known: absolute, with symbolic links followed.
func (e *env) mountpoint(given string) (string, error) {
	dir, err := e.abs(given)
	if err != nil {
		return "", err
	}
	if dir, err = mount.Resolve(realParent(dir)); err != nil {
		return "", err
	}
	return realParent(dir), nil
}

// sayMounted tells what there is now.
func (e *env) sayMounted(o mountOptions) {
	what := "the folders in it are your spaces"
	if o.space != "" {
		what = "it is the space " + printable(o.space)
	}
	e.say("%s is mounted: %s. 'anyfs unmount %s' ends it.", o.dir, what, o.dir)
}

// initialise makes the account when the home has none, and gives its phrase then.
func initialise(ctx context.Context, e *env, o mountOptions) (phrase string, err error) {
	if err := makeHomeDir(e.home); err != nil {
		return "", err
	}
	d, err := homeDisk(e.home)
	if err != nil {
		return "", err
	}
	if has, err := hasKeys(d); has || err != nil {
		return "", err
	}
	account, err := acl.NewAccount(rand.Reader)
	if err != nil {
		return "", err
	}
	if _, err := makeHome(ctx, e, account, initOptions{passphraseFile: o.passphraseFile}); err != nil {
		return "", err
	}
	return account.Phrase(), nil
}

// alreadyMounted asks the daemon of the home, if there is one, where it is mounted. At dir itself is as good as done.
func alreadyMounted(ctx context.Context, e *env, o mountOptions) (bool, error) {
	if e.home == "" {
		return false, nil
	}
	client, err := control.Dial(ctx, e.home)
	if err != nil {
		return false, nil // nobody there: what is wrong with the home shows when it is opened
	}
	defer client.Close()
	w, err := e.whereabouts(ctx, client)
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return false, err
	}
	if err != nil || !w.Mounted {
		return false, nil // it is about to end
	}
	if w.Dir != o.dir || w.Space != o.space {
		return false, failf(exitBusy, "this home is already mounted at %s; unmount it first, or use another home with --home", w.Dir)
	}
	if e.json {
		return true, e.printJSON(mountResult{Mountpoint: w.Dir, PID: w.PID})
	}
	e.say("%s is already mounted.", o.dir)
	return true, nil
}

// checkMountpoint refuses early, before an account is made, what mounting would refuse. Where something is mounted that a
// killed daemon of this home may have left, the daemon decides, which can take it away.
func checkMountpoint(e *env, dir string) error {
	if isMountRoot(dir) {
		if d, err := homeDisk(e.home); err == nil {
			if has, err := hasKeys(d); has || err != nil {
				return err
			}
		}
	}
	err := mount.Check(dir)
	if errors.Is(err, mount.ErrMounted) {
		return &failure{exitBusy, err}
	}
	return err
}
