package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange brings a command line into the order that the parser wants: global flags, command, its flags, "--", arguments.
//
// People write flags before or after a command's arguments, and global ones after the command too; the parser takes flags
// only in front. A lone "--" ends the flags. args[0] is the program's name and stays first. The second result is the path of
// the command as far as it was understood, for messages. An unknown command or flag, and a flag without its value, are
// errors for usage. --help or -h anywhere makes all of it a question for help.
func arrange(app *cli.App, args []string) ([]string, []string, error) {
	var globals, path, flags, rest []string
	var cmd *cli.Command
	var help bool
	commands := app.Commands
	for i := 1; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(rest, args[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			if len(commands) == 0 {
				rest = append(rest, a)
				continue
			}
			next := findCommand(commands, a)
			if next == nil && cmd != nil && cmd.ArgsUsage != "" { // it takes arguments as well
				rest, commands = append(rest, a), nil
				continue
			}
			if next == nil {
				return nil, path, unknownCommand(path, a)
			}
			cmd, commands, path = next, next.Subcommands, append(path, a)
			continue
		}
		name, value, has := strings.Cut(strings.TrimPrefix(a[1:], "-"), "=")
		var f cli.Flag
		var own bool
		if cmd != nil {
			f = findFlag(cmd.Flags, name)
			own = f != nil
		}
		if f == nil {
			f = findFlag(app.Flags, name)
		}
		if name == "help" || name == "h" {
			help = true
			continue
		}
		if !own && name == "version" && f != nil {
			if cmd == nil && i == len(args)-1 {
				return slices.Concat(args[:1], globals, []string{"version"}), []string{"version"}, nil
			}
			f = nil
		}
		if f == nil {
			return nil, path, failf(exitUsage, "unknown flag %s; %s shows the flags", a, helpFor(path))
		}
		word := "--" + name
		switch {
		case has:
			word += "=" + value
		case takesValue(f):
			if i+1 >= len(args) {
				return nil, path, failf(exitUsage, "%s needs a value", a)
			}
			i++
			word += "=" + args[i]
		}
		if own {
			flags = append(flags, word)
		} else {
			globals = append(globals, word)
		}
	}
	if help {
		return slices.Concat(args[:1], path, []string{"--help"}), path, nil
	}
	out := slices.Concat(args[:1], globals, path, flags)
	if len(rest) > 0 {
		out = append(append(out, "--"), rest...)
	}
	return out, path, nil
}

// findCommand gives the command of that name among commands, or nil.
func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// findFlag gives the flag of that name or alias, or nil.
func findFlag(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// takesValue reports whether the flag is followed by a value.
func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

// helpFor is the command that shows help for a path of commands.
func helpFor(path []string) string {
	return strings.Join(append([]string{"'anyfs", "help"}, path...), " ") + "'"
}

// unknownCommand says that there is no such command.
func unknownCommand(path []string, name string) error {
	what := strings.Join(append(slices.Clone(path), name), " ")
	return failf(exitUsage, "there is no command %q; %s lists them", what, helpFor(path))
}
