package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/acl"
)

func inviteCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "invite",
		Usage:     "invite others to a space",
		ArgsUsage: "SPACE",
		Description: `Prints a link. Whoever has it can ask to join the space with 'anyfs join LINK'; you see who does with 'anyfs requests
SPACE' and let them in with 'anyfs approve SPACE WHO'. With --open they are in without being asked for: then the link is
a key, so hand it on in private. The link names this device, which has to be mounted when it is used,
and the nodes of the space: where there are any, it need not be. On a terminal it is drawn as a QR code too.

Examples:
  anyfs invite Work
  anyfs invite Work --role reader --expires 7d
  anyfs invite Work --open --uses 1
  anyfs invite revoke Work bafyr4i...`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "role", Value: "writer", Usage: "what they may do: `ROLE` is reader, writer or admin"},
			&cli.BoolFlag{Name: "open", Usage: "let them in without approval"},
			&cli.StringFlag{Name: "expires", Usage: "until when it can be used: `TIME` from now, as 12h or 7d"},
			&cli.Uint64Flag{Name: "uses", Usage: "how many can join by it: `N`; 0 is any number"},
			qrFlag(),
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			p := inviteParams{Space: a[0], Role: c.String("role"), Open: c.Bool("open"), Uses: c.Uint64("uses")}
			if s := c.String("expires"); s != "" {
				if p.Expires, err = parseAge(s); err != nil {
					return err
				}
				if p.Expires < time.Second {
					return failf(exitUsage, "an invitation that expires at once is of no use; without --expires it never does")
				}
			}
			return runInvite(c.Context, e, p, c.Bool("qr"))
		},
		Subcommands: []*cli.Command{{
			Name: "revoke", Usage: "end an invitation", ArgsUsage: "SPACE INVITATION",
			Description: `Nobody can join by it any more. Who did is still a member; 'anyfs remove' ends that.

Examples:
  anyfs invites Work
  anyfs invite revoke Work bafyr4i...`,
			Action: func(c *cli.Context) error {
				a, err := args(c, 2, 2)
				if err != nil {
					return err
				}
				i, err := opInviteRevoke.call(c.Context, e, whoParams{Space: a[0], Who: a[1]})
				if err != nil || !e.json {
					return err
				}
				return e.printJSON(i)
			},
		}},
	}
}

func runInvite(ctx context.Context, e *env, p inviteParams, qr bool) error {
	r, err := opInvite.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	if err := writeLine(e.stdout, r.Link); err != nil {
		return err
	}
	return e.showQR(qr, linkTexts(r.Link)...)
}

// linkTexts are an invitation, and the same with ever fewer addresses.
func linkTexts(link string) []string {
	l, err := acl.ParseLink(link)
	if err != nil {
		return []string{link}
	}
	return shorter(l.Addresses, func(addresses []string) string {
		l.Addresses = addresses
		return l.String()
	})
}

func invitesCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "invites", Usage: "list the invitations to a space", ArgsUsage: "SPACE",
		Description: "A link is shown only once, when it is made.\n\nExamples:\n  anyfs invites Work",
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			all, err := opInvites.call(c.Context, e, nameParams{a[0]})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(all)
			}
			if len(all) == 0 {
				e.say("There are no invitations to %s.", a[0])
				return nil
			}
			rows := [][]string{{"INVITATION", "ROLE", "KIND", "USED", "STATE", "MADE"}}
			for _, i := range all {
				used := fmt.Sprint(i.Used)
				if i.Uses > 0 {
					used += fmt.Sprintf(" of %d", i.Uses)
				}
				kind := "with approval"
				if i.Open {
					kind = "open"
				}
				rows = append(rows, []string{i.ID, i.Role, kind, used, i.State, i.Time})
			}
			return e.table(rows)
		},
	}
}

func joinCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "join", Usage: "join a space by an invitation", ArgsUsage: "LINK",
		Description: `The space appears in the mount once you are let in. Without --wait the command returns when the request is on its way;
the mount goes on waiting for the answer, across restarts. The devices that the link names are added as by 'anyfs peer
add'. Quote the link: the shell takes # and ? for something else. A LINK of - is read from stdin: what stands in a command is seen by
others on this machine, and kept by the shell.

Examples:
  anyfs join 'anyfs:bafyr4i...' --wait
  anyfs join 'anyfs:bafyr4i...' --name Bob --as Team
  wl-paste | anyfs join -`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "what the others see you as: `NAME`; otherwise the name of this device"},
			&cli.StringFlag{Name: "as", Usage: "what the space is called in your mount: `NAME`; otherwise what it is called by who invites"},
			&cli.BoolFlag{Name: "wait", Usage: "return when the request is answered"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			if a[0] == "-" {
				if a[0], err = e.readSecretFile("-", false); err != nil {
					return err
				}
			}
			return runJoin(c.Context, e, joinParams{Link: a[0], Name: c.String("as"), As: c.String("name"), Wait: c.Bool("wait")})
		},
	}
}

func runJoin(ctx context.Context, e *env, p joinParams) error {
	r, err := opJoin.follow(ctx, e, p, func(ev event) error {
		e.say("%s", ev.Text)
		return nil
	})
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(r)
	}
	e.say("You were invited by %s (%s).", r.Fingerprint, r.By)
	if r.State == "asked" {
		e.say("The request is on its way. The space appears as %s once you are let in.", printable(r.Name))
		return nil
	}
	e.say("You are in. The space is %s.", printable(r.Name))
	return nil
}

func membersCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "members", Usage: "list the members of a space", ArgsUsage: "SPACE",
		Description: `A name is what they call themselves, and is remembered with the account that it was first seen with: another account by the same name is warned of, until
--accept says that it is right. The fingerprint, six words, is the account's: compare it by voice with what 'anyfs account show' prints on their side.

Examples:
  anyfs members Work
  anyfs members Work --json
  anyfs members Work --accept guard-tornado-custom-scissors-ten-knife`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "accept", Usage: "`WHO` rightly has a name that another account had before: warn no more"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			all, err := opMembers.call(c.Context, e, membersParams{a[0], c.String("accept")})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(all)
			}
			rows := [][]string{{"ROLE", "NAME", "FINGERPRINT", "ACCOUNT", "SINCE", ""}}
			for _, m := range all {
				rows = append(rows, []string{m.Role, m.Name, m.Fingerprint, m.Account, m.Since, remark(m.Self, m.Other)})
			}
			if err := e.table(rows); err != nil {
				return err
			}
			for _, m := range all {
				e.warnOther(m.Name, m.Account, m.Fingerprint, m.Other)
			}
			return nil
		},
	}
}

// remark is what a line about an account ends with.
func remark(self bool, other string) string {
	switch {
	case self:
		return "you"
	case other != "":
		return "NOT WHO HAD THIS NAME"
	}
	return ""
}

// remarkOn is what a line about a request ends with.
func remarkOn(q request) string {
	if q.Replaces != "" {
		return "in the place of " + q.Replaces
	}
	return remark(false, q.Other)
}

func requestsCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "requests", Usage: "list who asks to join a space, or offers a one-to-one space", ArgsUsage: "[SPACE]",
		Description: `Without SPACE: of all spaces, and who has begun a one-to-one space with you, as far as a device of theirs that yours is connected to, or a node, knows of it; the
command 'anyfs space create --with WHO' takes it, and 'anyfs decline WHO' declines it. A name is what they call themselves. Who is behind an account is certain only if they tell you its fingerprint, as 'anyfs account
show' prints it on their side, in another way than by the link.

Examples:
  anyfs requests
  anyfs requests Work
  anyfs approve Work Bob`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 0, 1)
			if err != nil {
				return err
			}
			if len(a) == 0 {
				return runAllRequests(c.Context, e)
			}
			all, err := opRequests.call(c.Context, e, nameParams{a[0]})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(all)
			}
			if len(all) == 0 {
				e.say("Nobody asks to join %s.", a[0])
				return nil
			}
			rows := [][]string{{"ROLE", "NAME", "FINGERPRINT", "ACCOUNT", "TIME", ""}}
			for _, q := range all {
				rows = append(rows, []string{q.Role, q.Name, q.Fingerprint, q.Account, q.Time, remarkOn(q)})
			}
			if err := e.table(rows); err != nil {
				return err
			}
			for _, q := range all {
				e.warnOther(q.Name, q.Account, q.Fingerprint, q.Other)
			}
			return nil
		},
	}
}

const whoText = "WHO is a name, a fingerprint, an account, or the beginning of one."

func approveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "approve", Usage: "let someone in who asks to join a space", ArgsUsage: "SPACE WHO",
		Description: whoText + `

Who asked by 'anyfs account replace' takes the place of a member, whose membership ends: that one has made a new account, since somebody may
know the secret of the old one. Be sure that it is the same person, as who knows that secret can ask too: call them, and have them read you the new fingerprint, as 'anyfs account
show' prints it. With --replaces whoever asks is put in a member's place. The owner of a space can so replace an own account too.

Examples:
  anyfs requests Work
  anyfs approve Work Bob
  anyfs approve Work Bob --role reader
  anyfs approve Work z6MkhaXg --replaces Bob`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "role", Usage: "another role than the invitation's: `ROLE` is reader, writer or admin"},
			&cli.StringFlag{Name: "replaces", Usage: "put them in the place of the member `WHO`, in the role of that"},
		},
		Action: func(c *cli.Context) error {
			a, err := args(c, 2, 2)
			if err != nil {
				return err
			}
			if c.IsSet("role") && c.IsSet("replaces") {
				return failf(exitUsage, "--role and --replaces exclude each other: who replaces a member has its role")
			}
			m, err := opApprove.call(c.Context, e, approveParams{whoParams{a[0], a[1], c.String("role")}, c.String("replaces")})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(m)
			}
			e.say("%s is in, as %s. The fingerprint is %s.", printable(m.Name), m.Role, m.Fingerprint)
			return nil
		},
	}
}

func declineCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "decline", Usage: "refuse someone who asks to join a space, or offers a one-to-one space", ArgsUsage: "[SPACE] WHO",
		Description: whoText + `

Without SPACE it is the one-to-one space that WHO has begun with you, as 'anyfs requests' shows it. They are not told, and see no more than that you
have not come; nothing that they offer is shown any more on this device, until you take it after all by 'anyfs space create --with WHO'.

Examples:
  anyfs requests Work
  anyfs decline Work z6MkhaXg
  anyfs decline Bob`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 2)
			if err != nil {
				return err
			}
			if len(a) == 1 {
				o, err := opDeclineOffer.call(c.Context, e, whoParams{Who: a[0]})
				if err != nil || !e.json {
					return err
				}
				return e.printJSON(o)
			}
			m, err := opDecline.call(c.Context, e, whoParams{Space: a[0], Who: a[1]})
			if err != nil || !e.json {
				return err
			}
			return e.printJSON(m)
		},
	}
}

func roleCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "role", Usage: "change what a member may do", ArgsUsage: "SPACE WHO ROLE",
		Description: `A reader reads; a writer writes too; an admin also invites, lets in, and changes and removes readers and writers. Only the
owner makes and removes admins. What a member wrote before it became a reader stays. ` + whoText + `

Examples:
  anyfs role Work Bob reader`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 3, 3)
			if err != nil {
				return err
			}
			m, err := opRole.call(c.Context, e, whoParams{a[0], a[1], a[2]})
			if err != nil || !e.json {
				return err
			}
			return e.printJSON(m)
		},
	}
}

func removeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "remove", Usage: "end a membership", ArgsUsage: "SPACE WHO",
		Description: `What is written from now on is sealed with a key that the removed member does not get, and other members' devices give
it nothing more. What it has already stays with it. Who has the link of an open invitation can come back by it: 'anyfs invite revoke' ends
one. ` + whoText + `

Examples:
  anyfs remove Work Bob`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 2, 2)
			if err != nil {
				return err
			}
			m, err := opRemove.call(c.Context, e, whoParams{Space: a[0], Who: a[1]})
			if err != nil {
				return err
			}
			e.warnOpen(c.Context, a[0])
			if !e.json {
				return nil
			}
			return e.printJSON(m)
		},
	}
}

// warnOpen says which open invitations to a space are live: who was removed may have the link.
// The removal stands: that they can't be listed is said, and no failure.
func (e *env) warnOpen(ctx context.Context, space string) {
	all, err := opInvites.call(ctx, e, nameParams{space})
	if err != nil {
		e.say("Which open invitations are live is not known (%v): 'anyfs invites %s' lists them.", err, printable(space))
	}
	for _, i := range all {
		if i.Open && i.State == "live" {
			e.say("The open invitation %s is live: who has its link can come in, also who was removed. 'anyfs invite revoke %s %s' ends it.", i.ID, printable(space), i.ID)
		}
	}
}

func transferCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "transfer", Usage: "give a space that you own to another member", ArgsUsage: "SPACE WHO",
		Description: `The other one is its owner from then on, and you are an admin, who can leave. You can't take it back: only the owner gives a
space away. ` + whoText + `

Examples:
  anyfs transfer Work Bob
  anyfs leave Work`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 2, 2)
			if err != nil {
				return err
			}
			m, err := opTransfer.call(c.Context, e, whoParams{Space: a[0], Who: a[1]})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(m)
			}
			e.say("%s owns %s now; you are an admin.", printable(m.Name), printable(a[0]))
			return nil
		},
	}
}

func leaveCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "leave", Usage: "leave a space that someone else owns, or a one-to-one space", ArgsUsage: "SPACE",
		Description: `The space stays in the mount as it is now, read-only, until you delete it.

Examples:
  anyfs leave Work
  anyfs space delete Work`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			m, err := opLeave.call(c.Context, e, nameParams{a[0]})
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(m)
			}
			e.say("You have left %s. It stays in the mount as it is now, read-only, until 'anyfs space delete %[1]s'.", printable(a[0]))
			return nil
		},
	}
}
