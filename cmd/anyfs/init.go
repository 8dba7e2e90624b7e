package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
)

func initCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "make an account, a device and the space Personal",
		Description: `The first mount does this too. The 12 words that are printed are the account: whoever has them has everything, and
without them nobody can bring it back. Write them down.

Examples:
  anyfs init
  anyfs init --passphrase --device-name laptop
  anyfs init --passphrase-file ~/.anyfs-passphrase`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "passphrase", Usage: "guard the keys on this device with a passphrase, and ask for it"},
			passphraseFlag("guard the keys with the passphrase"),
			deviceNameFlag(),
		},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runInit(c.Context, e, initOptions{c.Bool("passphrase"), c.String("passphrase-file"), c.String("device-name"), false})
		},
	}
}

func deviceNameFlag() cli.Flag {
	return &cli.StringFlag{Name: "device-name", Usage: "call this device `NAME` (default: the host's name)"}
}

type initOptions struct {
	passphrase     bool
	passphraseFile string
	deviceName     string
	joins          bool // an account that other devices have
}

func runInit(ctx context.Context, e *env, o initOptions) error {
	account, err := acl.NewAccount(rand.Reader)
	if err != nil {
		return err
	}
	made, err := makeHome(ctx, e, account, o)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(struct {
			Phrase string `json:"phrase"`
			accountInfo
		}{account.Phrase(), made})
	}
	e.sayPhrase()
	return writeLine(e.stdout, account.Phrase())
}

// sayPhrase tells what the line on stdout is.
func (e *env) sayPhrase() {
	e.say("Your new account's recovery phrase. Write it down: it opens everything, and without it and this device nobody can\n" +
		"bring anything back. ('anyfs account phrase' shows it again on this device.)")
}

func loginCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "login",
		Usage:     "set up this device for an account that you have, by its recovery phrase or a code",
		ArgsUsage: "[CODE]",
		Description: `Makes the keys of this device, and the space Personal. What other devices of the account hold comes once this one is mounted and
one of them is found on the local network, or named by 'anyfs peer add'. Without --phrase-file the words are asked for on the terminal.

With --pair no phrase is typed: 'anyfs device add' on a device that has the account shows a code, and this one finds it on the local network, or at
the address that --peer gives ('anyfs status' shows it there). This device then has everything but the phrase itself. The CODE is asked for
where it is not given; - reads it from stdin.

Examples:
  anyfs login
  anyfs login --phrase-file words.txt
  pass anyfs | anyfs login --phrase-file -
  anyfs login --pair 123-4567-8901
  anyfs login --pair --network anyfs://network/... 123-4567-8901
  anyfs login --pair --peer /ip4/192.0.2.7/tcp/7327/p2p/12D3KooW... 123-4567-8901`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "pair", Usage: "be let in by a device that shows a code"},
			&cli.StringFlag{Name: "peer", Usage: "look for that device at `MULTIADDR`, and not on the local network"},
			&cli.StringFlag{Name: "network", Usage: "look for it through the nodes of a network too, by its `FILE|LINK`, and use that network from then on"},
			&cli.StringFlag{Name: "phrase-file", Usage: "read the 12 words from `FILE` (- for stdin)"},
			&cli.BoolFlag{Name: "passphrase", Usage: "guard the keys on this device with a passphrase, and ask for it"},
			passphraseFlag("guard the keys with the passphrase"),
			deviceNameFlag(),
		},
		Action: func(c *cli.Context) error {
			o := initOptions{c.Bool("passphrase"), c.String("passphrase-file"), c.String("device-name"), true}
			if c.Bool("pair") {
				a, err := args(c, 0, 1)
				if err != nil {
					return err
				}
				if c.IsSet("phrase-file") {
					return failf(exitUsage, "--pair and --phrase-file exclude each other")
				}
				return runPair(c.Context, e, append(a, "")[0], c.String("peer"), c.String("network"), o)
			}
			if a, err := args(c, 0, 1); err != nil {
				return err
			} else if len(a) > 0 || c.IsSet("peer") || c.IsSet("network") {
				return failf(exitUsage, "a code, --peer and --network go with --pair; the 12 words go into a file that --phrase-file names")
			}
			return runLogin(c.Context, e, c.String("phrase-file"), o)
		},
	}
}

func runLogin(ctx context.Context, e *env, phraseFile string, o initOptions) error {
	var words string
	var err error
	switch {
	case phraseFile != "":
		words, err = e.readSecretFile(phraseFile, true)
	case e.interactive():
		words, err = e.ask("The 12 words: ")
	default:
		return failf(exitUsage, "stdin is no terminal; name the file that holds the 12 words with --phrase-file FILE")
	}
	if err != nil {
		return err
	}
	account, err := acl.AccountFromPhrase(words)
	if err != nil {
		return failf(exitFailed, "%s", strings.TrimPrefix(err.Error(), "acl: "))
	}
	made, err := makeHome(ctx, e, account, o)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(made)
	}
	return writeLine(e.stdout, made.Account)
}

// makeHome makes the home's folder, the keys of account and of a new device, and the space Personal. A home that has keys
// already is an error.
func makeHome(ctx context.Context, e *env, account *acl.Account, o initOptions) (accountInfo, error) {
	return fillHome(ctx, e, o, func(d disk.FS, name string, pass []byte) (*acl.Keys, error) {
		return acl.InitKeys(d, account, name, pass, rand.Reader)
	}, nil)
}

// fillHome is makeHome with keys that write makes and writes, for a device of that name. then, if not nil, is called with the home before it is
// closed.
func fillHome(ctx context.Context, e *env, o initOptions, write func(d disk.FS, name string, pass []byte) (*acl.Keys, error), then func(*home) error) (accountInfo, error) {
	if err := makeHomeDir(e.home); err != nil {
		return accountInfo{}, err
	}
	lock, err := lockHome(ctx, e.home, e.sayWaiting)
	if err != nil {
		return accountInfo{}, err
	}
	defer lock.Unlock()
	d, err := disk.OS(e.home)
	if err != nil {
		return accountInfo{}, err
	}
	if has, err := hasKeys(d); err != nil || has {
		if has {
			err = failf(exitFailed, "%s holds an account already; name another home with --home", e.home)
		}
		return accountInfo{}, err
	}
	var pass []byte
	if o.passphrase || o.passphraseFile != "" {
		if pass, err = e.newPassphrase(o.passphraseFile); err != nil {
			return accountInfo{}, err
		}
	}
	name := o.deviceName
	if name == "" {
		if name, err = os.Hostname(); err != nil || name == "" {
			name = "device"
		}
	}
	if err := d.WriteFileAtomic(setupName, nil); err != nil {
		return accountInfo{}, err
	}
	keys, err := write(d, name, pass)
	if err != nil {
		return accountInfo{}, err
	}
	h, err := openWith(ctx, e.home, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		return accountInfo{}, err
	}
	if o.joins {
		if _, err := h.changeSettings(func(s *settings) { s.Joined = true }, func(settings) {}); err != nil {
			return accountInfo{}, errors.Join(err, h.close())
		}
	}
	if then != nil {
		err = then(h)
	}
	return h.accountInfo(), errors.Join(err, h.close())
}

// hasKeys reports whether a home has an account, whose keys may be damaged.
func hasKeys(d disk.FS) (bool, error) {
	_, err := acl.OpenKeys(d, nil)
	switch {
	case err == nil, errors.Is(err, acl.ErrPassphrase), errors.Is(err, acl.ErrKeyFile):
		return true, nil
	case errors.Is(err, acl.ErrNotInitialised):
		return false, nil
	}
	return false, err
}

// makeHomeDir makes the home's folder, and makes it private where it was there before.
func makeHomeDir(dir string) error {
	if dir == "" {
		return errNoHome
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}
