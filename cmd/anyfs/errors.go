package main

import (
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"strings"

	"github.com/anyfs/anyfs/acl"
)

// Exit codes. They are a promise to scripts; docs/cli.md shows the same table.
const (
	exitDone       = 0 // what was asked for is done
	exitFailed     = 1 // it failed, or verify found something wrong
	exitUsage      = 2 // the command line is wrong
	exitNotFound   = 3 // no such home, space, path or version
	exitTimeout    = 4 // status --wait waited longer than --timeout
	exitPassphrase = 5 // a passphrase is needed or wrong
	exitBusy       = 6 // another process has the home or the mountpoint in use
)

// failure is an error with the exit code it leads to. Its text is for a person and names the next step where there is one.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// ExitCode lets a failure keep its code on its way from the daemon.
func (f *failure) ExitCode() int { return f.code }

// failf makes a failure with a formatted text; %w works.
func failf(code int, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

// exitCode gives the code for what a command returned.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return exitFailed
}

// explain gives the errors that operations return the words and the exit code for a person.
func explain(err error) error {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil || errors.As(err, &coded):
		return err
	case errors.Is(err, iofs.ErrNotExist):
		return &failure{exitNotFound, err}
	case errors.Is(err, acl.ErrPassphrase):
		return &failure{exitPassphrase, err}
	}
	return err
}

// errSilent fails without a word of its own: the command has said all there is.
var errSilent = errors.New("")

// report writes what went wrong as "anyfs: COMMAND: text". Names that others chose may be in it.
func report(w io.Writer, command string, err error) {
	text := err.Error()
	if text == "" {
		return
	}
	if last := command[strings.LastIndexByte(command, ' ')+1:]; last != "" {
		text = command + ": " + strings.TrimPrefix(text, last+": ") // the lower layer may have said it too
	}
	fmt.Fprintln(w, "anyfs: "+printableLines(text))
}
