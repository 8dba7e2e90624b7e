package main

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/fs"
)

// account replace: a new account takes the place of the home's own, in the spaces first and then in the home. What is done is written down, so that running it again goes on.

// tellWithin is how long the others are given to hear of it before the old account's device is gone.
const tellWithin = 15 * time.Second

type replacedPlace struct {
	Space string `json:"space"`
	ID    string `json:"id"`
	State string `json:"state"` // "replaced", "asked", "left" or "failed"
	With  string `json:"with,omitempty"`
	Error string `json:"error,omitempty"`
}

// replaceResult is what account replace --json prints.
type replaceResult struct {
	Phrase string `json:"phrase,omitempty"`
	accountInfo
	Replaced string          `json:"replaced"` // the old account
	Spaces   []replacedPlace `json:"spaces"`
}

func accountReplaceCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "replace",
		Usage: "make a new account in the place of this one, whose secret somebody else may know",
		Description: `Where a device is lost that does not hold the phrase, 'anyfs device revoke' is enough. Who has the phrase can make devices as he likes; then only another account helps.

This makes one, with a new phrase, and puts it in the place of the old one: at once in the spaces that you own; in others it asks, and their owner or an admin sees it in
'anyfs requests' and lets it in with 'anyfs approve', best after a call. Until then the old account is still in them, and here they can be read. A one-to-one space is left: begin another
one. The mount, if there is one, ends; what is on this device stays. What was in Personal is in 'Personal (old)', as each account
has a Personal of its own; move it as you like. Your other devices are none of the new account's: let each in anew, in a home of its own, with 'anyfs login'.

Be quick, and run it while the others can be reached: who has the old phrase can do the same, and in a space that you own the first of the two holds. Where it is interrupted,
run it again: it goes on.

Examples:
  anyfs account replace
  anyfs account replace --yes --name Bob`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "what the new account is called in spaces where the old one has no name: `NAME`; otherwise the name of this device"},
			&cli.BoolFlag{Name: "yes", Usage: "do not ask"},
		},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			return runAccountReplace(c.Context, e, c.String("name"), c.Bool("yes"))
		},
	}
}

type replaceParams struct {
	Name string `json:"name,omitempty"`
}

// opGiveWay makes the successor, and has it take the account's place in the spaces.
var opGiveWay = operation[replaceParams, []replacedPlace]{"give-way", func(ctx context.Context, h *home, p replaceParams, out sink) ([]replacedPlace, error) {
	by, err := acl.MakeSuccessor(h.disk, h.keys, rand.Reader)
	if err != nil {
		return nil, err
	}
	if by.Account.Identity() == h.keys.Identity {
		return nil, nil // the home is its own already
	}
	if p.Name == "" {
		p.Name = h.keys.Device.Name
	}
	places, err := h.fs.GiveWay(ctx, by, p.Name)
	if err != nil {
		return nil, err
	}
	r := []replacedPlace{}
	for _, x := range places {
		y := replacedPlace{Space: x.Name, ID: x.ID, State: x.How, With: x.With}
		if x.Err != nil {
			y.State, y.Error = "failed", x.Err.Error()
		}
		r = append(r, y)
	}
	h.announce()
	if h.network != nil && len(h.network.engine.Status().Peers) > 0 {
		if err := out(event{Text: "The others are told."}); err != nil {
			return nil, err
		}
		within, cancel := context.WithTimeout(ctx, tellWithin)
		defer cancel()
		if _, err := opWait.run(within, h, waitParams{}, func(event) error { return nil }); err != nil && within.Err() == nil {
			h.log.Warn("whether the others have heard of the new account is not known", "err", err)
		}
	}
	return r, nil
}}

func runAccountReplace(ctx context.Context, e *env, name string, yes bool) error {
	var pass []byte
	d, err := readyHome(e.home)
	if err != nil {
		return err
	}
	if pass, err = e.passphraseOf(d); err != nil {
		return err
	}
	if e.interactive() && !yes {
		answer, err := e.askLine("A new account with a new phrase takes the place of this one, and your other devices have to be let in anew. Type 'replace' to go on: ")
		if err != nil {
			return err
		}
		if answer != "replace" {
			return failf(exitFailed, "nothing is changed")
		}
	}
	places, err := opGiveWay.follow(ctx, e, replaceParams{name}, func(ev event) error {
		e.say("%s", ev.Text)
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.State == "failed" {
			return failf(exitFailed, "the account keeps its place in %s: %s; see to that, or delete the space here, and run this again. The home is still the old account's", printable(p.Space), p.Error)
		}
	}
	client, err := dialDaemon(ctx, e)
	if err != nil {
		return err
	}
	mounted := ""
	if client != nil {
		w, err := e.whereabouts(ctx, client)
		if err == nil {
			mounted = w.Dir
			err = e.endDaemon(ctx, client, w.PID)
		}
		client.Close()
		if err != nil {
			return failf(exitFailed, "the spaces know of the new account, but this device is still the old one's: %w; unmount, and run this again", err)
		}
	}
	r, err := succeed(ctx, e, pass)
	if err != nil {
		return failf(exitFailed, "the account is not wholly replaced: %w; run this again", err)
	}
	r.Spaces = append([]replacedPlace{}, places...)
	if err := e.sayReplaced(r, mounted); err != nil {
		return err
	}
	return acl.EndSuccession(d) // not before the phrase was given
}

// sayReplaced prints what became of the account. mounted is where it was, or empty.
func (e *env) sayReplaced(r replaceResult, mounted string) error {
	if e.json {
		return e.printJSON(r)
	}
	rows := [][]string{{"SPACE", "STATE", ""}}
	for _, p := range r.Spaces {
		what := p.Error
		switch p.State {
		case fs.PlaceAsked:
			what = "its owner or an admin lets the new account in; tell them its fingerprint"
		case fs.PlaceLeft:
			if what = "it can be read as it is"; p.With != "" {
				what = "begin another one with 'anyfs space create --with'"
			}
		}
		rows = append(rows, []string{p.Space, p.State, what})
	}
	if len(rows) > 1 {
		talk := *e
		talk.stdout = e.stderr // what the command gives is the phrase
		if err := talk.table(rows); err != nil {
			return err
		}
	}
	e.say("The new account is %s, its fingerprint %s.", r.Account, r.Fingerprint)
	if mounted != "" {
		e.say("%s is unmounted; 'anyfs mount' mounts it again.", mounted)
	}
	e.sayPhrase()
	return writeLine(e.stdout, r.Phrase)
}

// passphraseOf asks for the passphrase of a home's keys; nil where they take none.
func (e *env) passphraseOf(d disk.FS) ([]byte, error) {
	if guarded, err := hasPassphrase(d); err != nil || !guarded {
		return nil, err
	}
	pass, err := e.currentPassphrase("")
	if err != nil {
		return nil, err
	}
	_, err = acl.OpenKeys(d, func() ([]byte, error) { return pass, nil })
	return pass, keysError(e.home, err)
}

// succeed makes the home the successor's.
func succeed(ctx context.Context, e *env, pass []byte) (r replaceResult, err error) {
	lock, err := lockHome(ctx, e.home, e.sayWaiting)
	if err != nil {
		return r, err
	}
	defer lock.Unlock()
	d, err := homeDisk(e.home)
	if err != nil {
		return r, err
	}
	keys, err := acl.OpenKeys(d, func() ([]byte, error) { return pass, nil })
	if err != nil {
		return r, keysError(e.home, err)
	}
	by, err := acl.ReadSuccessor(d, keys)
	if err == nil && by == nil {
		err = errors.New("nobody is to take the account's place")
	}
	if err != nil {
		return r, err
	}
	var spaces []acl.SpaceSecret
	if keys.Identity != by.Account.Identity() {
		r.Replaced = acl.FormatIdentity(keys.Identity)
		h, err := openWith(ctx, e.home, keys, slog.New(slog.DiscardHandler))
		if err != nil {
			return r, err
		}
		spaces, err = h.fs.Bequeath()
		if err := errors.Join(err, h.close()); err != nil {
			return r, err
		}
	}
	if keys, err = acl.Succeed(d, keys, by, spaces, pass); err != nil {
		return r, err
	}
	if err := d.WriteFileAtomic(setupName, nil); err != nil { // a Personal of its own
		return r, err
	}
	h, err := openWith(ctx, e.home, keys, slog.New(slog.DiscardHandler))
	if err != nil {
		return r, err
	}
	h.fs.Heal() // new keys, where the new account may make them
	r.accountInfo, r.Phrase = h.accountInfo(), by.Account.Phrase()
	return r, h.close()
}
