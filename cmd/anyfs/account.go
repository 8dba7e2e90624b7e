package main

import (
	"context"
	"errors"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/urfave/cli/v2"
)

// accountInfo is what account show --json prints.
type accountInfo struct {
	Account     string     `json:"account"`
	Fingerprint string     `json:"fingerprint"`
	Device      deviceInfo `json:"device"`
}

type deviceInfo struct {
	PeerID string `json:"peer_id"`
	Name   string `json:"name"`
}

func accountShowCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "show",
		Usage: "show the account and this device",
		Description: `The fingerprint, six words, is for others to know the account by: tell it to them by voice. It is no secret, and not the recovery phrase.

Examples:
  anyfs account show
  anyfs account show --json`,
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runAccountShow(c.Context, e)
		},
	}
}

func runAccountShow(ctx context.Context, e *env) error {
	info, err := opAccount.call(ctx, e, none{})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(info)
	}
	return e.table([][]string{{"account", info.Account}, {"fingerprint", info.Fingerprint}, {"device", info.Device.PeerID}, {"name", info.Device.Name}})
}

func accountPhraseCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "phrase",
		Usage: "print the recovery phrase, 12 words on one line",
		Description: `Only a device that made the account, or logged in by the phrase, has it.

Examples:
  anyfs account phrase`,
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runAccountPhrase(e)
		},
	}
}

// runAccountPhrase opens the keys itself, so that a daemon never hands out the account's secret.
func runAccountPhrase(e *env) error {
	keys, _, err := openKeys(e, "")
	if err != nil {
		return err
	}
	if keys.Account == nil {
		return failf(exitNotFound, "this device was paired by a code and does not have the account's phrase; ask for it on the device that made the account")
	}
	if e.json {
		return e.printJSON(struct {
			Phrase string `json:"phrase"`
		}{keys.Account.Phrase()})
	}
	return writeLine(e.stdout, keys.Account.Phrase())
}

func accountPassphraseCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "passphrase",
		Usage: "set, change or remove the passphrase that guards the keys on this device",
		Description: `The present passphrase, if there is one, is asked for on the terminal, or read from the file that
ANYFS_PASSPHRASE_FILE names.

Examples:
  anyfs account passphrase
  anyfs account passphrase --passphrase-file new.txt
  anyfs account passphrase --remove`,
		Flags: []cli.Flag{
			passphraseFlag("set the passphrase"),
			&cli.BoolFlag{Name: "remove", Usage: "use no passphrase: whoever can read the home can open it"},
		},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runAccountPassphrase(e, c.String("passphrase-file"), c.Bool("remove"))
		},
	}
}

// runAccountPassphrase rewrites the key file, which the daemon read when it began and does not look at again.
func runAccountPassphrase(e *env, file string, remove bool) error {
	if remove && file != "" {
		return failf(exitUsage, "--remove and --passphrase-file exclude each other")
	}
	keys, d, err := openKeys(e, "")
	if err != nil {
		return err
	}
	var pass []byte
	if !remove {
		if pass, err = e.newPassphrase(file); err != nil {
			return err
		}
	}
	guarded, err := hasPassphrase(d)
	if err != nil {
		return err
	}
	if err := acl.ChangePassphrase(d, keys, pass); err != nil {
		return err
	}
	switch {
	case e.json:
		return e.printJSON(struct {
			Guarded bool `json:"guarded"`
		}{!remove})
	case remove && !guarded:
		e.say("There was no passphrase.")
	case remove:
		e.say("The passphrase is removed: whoever can read %s can open it.", e.home)
	case guarded:
		e.say("The passphrase is changed.")
	default:
		e.say("The passphrase is set. The next mount asks for it.")
	}
	return nil
}

// hasPassphrase reports whether the keys are guarded by a passphrase.
func hasPassphrase(d disk.FS) (bool, error) {
	_, err := acl.OpenKeys(d, nil)
	if errors.Is(err, acl.ErrPassphrase) {
		return true, nil
	}
	return false, err
}

// openKeys opens the keys of the home, asking for the passphrase as far as somebody can be asked. file may name a file
// that holds it.
func openKeys(e *env, file string) (*acl.Keys, disk.FS, error) {
	d, err := homeDisk(e.home)
	if err != nil {
		return nil, nil, err
	}
	keys, err := acl.OpenKeys(d, func() ([]byte, error) { return e.currentPassphrase(file) })
	if err != nil {
		return nil, nil, keysError(e.home, err)
	}
	return keys, d, nil
}
