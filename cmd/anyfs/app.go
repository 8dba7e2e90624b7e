package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
)

// newApp is the tree of all commands, bound to e.
func newApp(e *env) *cli.App {
	app := &cli.App{
		Name:            "anyfs",
		Usage:           "encrypted folders with a history, local first",
		HideHelpCommand: true,
		HideVersion:     true,
		Writer:          e.stdout,
		ErrWriter:       e.stderr,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "home", Usage: "keep keys and data in `DIR` (ANYFS_HOME; default $XDG_DATA_HOME/anyfs)"},
			&cli.BoolFlag{Name: "json", Usage: "print one JSON value instead of text", DisableDefaultText: true},
			&cli.BoolFlag{Name: "version", Usage: "print the version", DisableDefaultText: true}, // arrange makes it the command
			cli.HelpFlag, // the parser adds it only where there is no command called help
		},
		Before: func(c *cli.Context) error { return e.setGlobals(c.String("home"), c.Bool("json")) },
		Action: func(c *cli.Context) error {
			c.App.Writer = e.stderr
			if err := cli.ShowAppHelp(c); err != nil {
				return err
			}
			return failf(exitUsage, "name a command")
		},
		CustomAppHelpTemplate: appHelp,
		ExitErrHandler:        func(*cli.Context, error) {}, // only main exits
		OnUsageError:          usageError,
		Commands:              commands(e),
	}
	prepare(app.Commands)
	return app
}

// prepare gives every command what all of them share.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = usageError
		c.CustomHelpTemplate = commandHelp
		for _, f := range c.Flags {
			switch f := f.(type) { // that a flag is off, or has no value, unless given goes without saying
			case *cli.BoolFlag:
				f.DisableDefaultText = true
			case *cli.StringFlag:
				f.DefaultText = ""
			}
		}
		if len(c.Subcommands) > 0 {
			c.CustomHelpTemplate = groupHelp
			if c.Action == nil {
				c.Action = nameSubcommand
			}
			prepare(c.Subcommands)
		}
	}
}

func usageError(_ *cli.Context, err error, _ bool) error { return failf(exitUsage, "%w", err) }

func nameSubcommand(c *cli.Context) error {
	var names []string
	for _, s := range c.Command.Subcommands {
		names = append(names, s.Name)
	}
	return failf(exitUsage, "say what to do: %s", strings.Join(names, ", "))
}

// setGlobals takes over the global flags.
func (e *env) setGlobals(home string, json bool) error {
	e.json = json
	if home == "" {
		home = e.getenv("ANYFS_HOME")
	}
	if home == "" {
		var err error
		if home, err = e.defaultHome(); err != nil {
			e.home = "" // commands that need it say so
			return nil
		}
	}
	abs, err := e.abs(home)
	if err != nil {
		return err
	}
	e.home = filepath.Clean(abs)
	return nil
}

// run does what args say and returns the exit code. It writes the error, if any.
func run(ctx context.Context, e *env, args []string) int {
	e.interrupted = ctx.Done()
	app := newApp(e)
	arranged, path, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, arranged)
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = failf(exitFailed, "interrupted")
	}
	if err != nil {
		report(e.stderr, strings.Join(path, " "), err)
	}
	return exitCode(err)
}

// args checks the number of a command's arguments. usage is what the command expects, as its help shows it.
func args(c *cli.Context, least, most int) ([]string, error) {
	a := c.Args().Slice()
	if len(a) < least || len(a) > most {
		want := c.Command.ArgsUsage
		if want == "" {
			want = "no arguments"
		}
		return nil, failf(exitUsage, "expected %s; 'anyfs help %s' explains", want, strings.TrimPrefix(c.Command.HelpName, "anyfs "))
	}
	return a, nil
}

const appHelp = `{{.Name}}: {{.Usage}}

Usage: anyfs [--home DIR] [--json] COMMAND [FLAGS] [ARGUMENTS]

Commands:
{{range .VisibleCommands}}   {{printf "%-12s" .Name}} {{.Usage}}
{{end}}
Global flags:
{{range .VisibleFlags}}   {{.}}
{{end}}
'anyfs help COMMAND' explains a command with examples. Flags may stand before or after arguments; -- ends them.

Exit codes: 0 done, 1 failed (or verify found something wrong), 2 wrong command line, 3 no such home, space, path or
version, 4 waited in vain, 5 passphrase needed or wrong, 6 in use by another process.
`

const commandHelp = `{{.HelpName}}: {{.Usage}}

Usage: {{.HelpName}}{{if gt (len .VisibleFlags) 1}} [FLAGS]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{if .Description}}
{{.Description}}
{{end}}{{if .VisibleFlags}}
Flags:
{{range .VisibleFlags}}   {{.}}
{{end}}{{end}}`

const groupHelp = `{{.HelpName}}: {{.Usage}}

Usage: {{if .ArgsUsage}}{{.HelpName}}{{if gt (len .VisibleFlags) 1}} [FLAGS]{{end}} {{.ArgsUsage}}
       {{end}}{{.HelpName}} COMMAND [FLAGS] [ARGUMENTS]

Commands:
{{range .VisibleCommands}}   {{printf "%-12s" .Name}} {{.Usage}}
{{end}}{{if .Description}}
{{.Description}}
{{end}}{{if gt (len .VisibleFlags) 1}}
Flags:
{{range .VisibleFlags}}   {{.}}
{{end}}{{end}}
'anyfs help {{.Name}} COMMAND' explains a command.
`

// helpCommand shows help for anything.
func helpCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "help",
		Usage:       "explain a command, with examples",
		ArgsUsage:   "[COMMAND...]",
		Description: "Examples:\n  anyfs help mount\n  anyfs help space create",
		Action: func(c *cli.Context) error {
			return runHelp(c.Context, e, c.Args().Slice())
		},
	}
}

func runHelp(ctx context.Context, e *env, path []string) error {
	app := newApp(e)
	commands := app.Commands
	if len(path) == 0 {
		return app.RunContext(ctx, []string{app.Name, "--help"})
	}
	for i, name := range path {
		cmd := findCommand(commands, name)
		if cmd == nil {
			return unknownCommand(path[:i], name)
		}
		commands = cmd.Subcommands
	}
	return app.RunContext(ctx, append(append([]string{app.Name}, path...), "--help"))
}

// writeLine writes one line of a result.
func writeLine(w io.Writer, s string) error {
	_, err := io.WriteString(w, s+"\n")
	return err
}
