package main

import (
	"context"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func completionCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print a script that completes anyfs commands in your shell",
		ArgsUsage: "bash|zsh|fish",
		Description: `Examples:
  source <(anyfs completion bash)          # this shell; put it into ~/.bashrc to keep it
  source <(anyfs completion zsh)
  anyfs completion fish | source`,
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runCompletion(e, a[0])
		},
	}
}

// completeCommand answers the shells' scripts: the words that may follow, one a line.
func completeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name: "__complete", Hidden: true, ArgsUsage: "-- WORD...",
		Action: func(c *cli.Context) error {
			for _, w := range complete(c.Context, newApp(e), e, c.Args().Slice()) {
				if err := writeLine(e.stdout, w); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func runCompletion(e *env, shell string) error {
	script, ok := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[shell]
	if !ok {
		return failf(exitUsage, "no completion for %q; there is bash, zsh and fish", shell)
	}
	return writeLine(e.stdout, strings.TrimRight(script, "\n"))
}

// complete gives the words that can stand in place of the last of words, which may be empty or begun. words[0] is anyfs.
// Nothing means that the shell should offer files.
func complete(ctx context.Context, app *cli.App, e *env, words []string) []string {
	if len(words) < 2 {
		return nil
	}
	last := words[len(words)-1]
	var out []string
	add := func(w string) {
		if strings.HasPrefix(w, last) && !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	addSpaces := func() {
		for _, name := range spaceNames(ctx, e) {
			add(name)
		}
	}
	commands, flags := app.Commands, app.Flags
	var cmd *cli.Command
	given, ended := 0, false // arguments before last; whether flags have ended
	for i := 1; i < len(words)-1; i++ {
		w := words[i]
		if w == "--" {
			ended = true
			given += len(words) - 2 - i
			break
		}
		if strings.HasPrefix(w, "-") {
			name, value, has := strings.Cut(strings.TrimLeft(w, "-"), "=")
			f := findFlag(flags, name)
			if f != nil && takesValue(f) && !has {
				if i++; i == len(words)-1 { // last is the flag's value
					switch {
					case name == "space":
						addSpaces()
					case name == "with":
						for _, name := range contactNames(ctx, e) {
							add(name)
						}
					case name == "network" && cmd != nil && cmd.Name == "create":
						for _, id := range networkNames(ctx, e) {
							add(id)
						}
					case name == "keep" && cmd != nil && cmd.Name == "resolve":
						add("this")
						add("that")
						add("both")
					}
					return out
				}
				value = words[i]
			}
			if f != nil && name == "home" { // the spaces are that one's
				x := *e
				if x.setGlobals(value, false) == nil {
					e = &x
				}
			}
			continue
		}
		if cmd != nil && cmd.Name == "help" { // its arguments are commands
			cmd, commands, flags = nil, app.Commands, nil
		}
		next := findCommand(commands, w)
		if next == nil {
			if len(commands) > 0 && (cmd == nil || cmd.ArgsUsage == "") {
				return nil // there is no such command
			}
			commands = nil
			given++
			continue
		}
		cmd, commands, flags = next, next.Subcommands, slices.Concat(next.Flags, app.Flags)
	}
	if cmd != nil && cmd.Name == "help" {
		commands = app.Commands
	}
	switch {
	case strings.HasPrefix(last, "-") && !ended:
		for _, f := range flags {
			switch name := f.Names()[0]; {
			case cmd != nil && (name == "help" || name == "version" && findFlag(cmd.Flags, name) == nil):
				// --help comes last, and --version stands alone
			case len(name) > 1:
				add("--" + name)
			default:
				add("-" + name)
			}
		}
		if cmd != nil {
			add("--help")
		}
	case len(commands) > 0:
		for _, c := range commands {
			if !c.Hidden {
				add(c.Name)
			}
		}
		if cmd != nil && strings.Contains(cmd.ArgsUsage, "SPACE") {
			addSpaces()
		}
	case cmd != nil && given == 0 && cmd.Name == "completion":
		add("bash")
		add("zsh")
		add("fish")
	case cmd != nil && given == 0 && strings.Contains(cmd.ArgsUsage, "SPACE"):
		addSpaces()
	case cmd != nil && given == 1 && strings.Contains(cmd.ArgsUsage, "add NETWORK"):
		for _, w := range []string{"list", "add", "remove"} {
			add(w)
		}
	case cmd != nil && (given == 0 && (cmd.ArgsUsage == "NETWORK" || cmd.ArgsUsage == "[NETWORK]") || given == 2 && strings.Contains(cmd.ArgsUsage, "add NETWORK")):
		for _, id := range networkNames(ctx, e) {
			add(id)
		}
	}
	return out
}

const bashScript = `_anyfs() {
  local IFS=$'\n' cur="${COMP_WORDS[COMP_CWORD]}" i
  COMPREPLY=($("${COMP_WORDS[0]}" __complete -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null))
  if [ ${#COMPREPLY[@]} -eq 0 ]; then
    COMPREPLY=($(compgen -f -- "$cur"))
    compopt -o filenames
  else
    for i in "${!COMPREPLY[@]}"; do printf -v "COMPREPLY[i]" %q "${COMPREPLY[i]}"; done
  fi
}
complete -F _anyfs anyfs
`

const zshScript = `#compdef anyfs
_anyfs() {
  local -a found
  found=("${(@f)$("${words[1]}" __complete -- "${(@)words[1,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then
    compadd -a found
  else
    _files
  fi
}
compdef _anyfs anyfs
`

const fishScript = `function __anyfs_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l found ($words[1] __complete -- $words 2>/dev/null)
  if test (count $found) -gt 0
    printf '%s\n' $found
  else
    __fish_complete_path (commandline -ct)
  end
end
complete -c anyfs -f -a '(__anyfs_complete)'
`
