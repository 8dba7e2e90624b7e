package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/term"
)

// env is what a command sees of the process around it. Tests make their own.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	getwd          func() (string, error)
	// readSecret reads a line from the terminal without showing it; nil when stdin is no terminal, and then nothing is asked.
	readSecret func() (string, error)
	// hide turns the terminal's echo off, until what it returns is called; nil when stdin is no terminal.
	hide func() (restore func())
	// interrupted is closed by Ctrl-C and the like, which end a question; nil is never.
	interrupted <-chan struct{}
	// progress says that stderr is a terminal, where bars may be drawn.
	progress bool
	columns  int    // how wide the terminal is that stdout and stderr are; 0: they are none
	home     string // the home folder, absolute; set before a command runs
	json     bool   // --json
}

// processEnv is the env of this process.
func processEnv() *env {
	e := &env{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, getwd: os.Getwd,
		progress: term.IsTerminal(int(os.Stderr.Fd())),
		columns:  terminalColumns(),
	}
	if fd := int(os.Stdin.Fd()); term.IsTerminal(fd) {
		e.hide = func() func() { return echoOff(fd) }
		e.readSecret = func() (string, error) {
			b, err := term.ReadPassword(fd)
			return string(b), err
		}
	}
	return e
}

// interactive reports whether a person can be asked something.
func (e *env) interactive() bool { return e.readSecret != nil }

// defaultHome is the home folder when --home and ANYFS_HOME are silent: $XDG_DATA_HOME/anyfs, else ~/.local/share/anyfs.
func (e *env) defaultHome() (string, error) {
	if data := e.getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "anyfs"), nil
	}
	if home := e.getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "anyfs"), nil
	}
	return "", errNoHome
}

// abs makes a path absolute by the env's working directory, with neither "." nor ".." in it.
func (e *env) abs(path string) (string, error) {
	if filepath.IsAbs(path) {
		return filepath.Clean(path), nil
	}
	wd, err := e.getwd()
	if err != nil {
		return "", err
	}
	return filepath.Join(wd, path), nil
}

// open gives the file of that name, or stdin for "-".
func (e *env) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(e.stdin), nil
	}
	return os.Open(name)
}

// maxSecretBytes bounds what is read as a passphrase, a recovery phrase or an invitation.
const maxSecretBytes = 16 << 10

// readSecretFile reads the first line of a file (or of stdin for "-") without its line end; or the whole of it.
func (e *env) readSecretFile(name string, whole bool) (string, error) {
	f, err := e.open(name)
	if err != nil {
		return "", err
	}
	return e.await(func() (string, error) {
		defer f.Close()
		in := io.LimitReader(f, maxSecretBytes)
		if whole {
			b, err := io.ReadAll(in)
			return string(b), err
		}
		return readLine(in)
	})
}

// readLine reads up to the end of a line or of the input, and gives it without the line end.
func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(r).ReadString('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}

// await gives what read gives, or an error once somebody has interrupted; read then goes on, until the process ends.
func (e *env) await(read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := read()
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		return a.text, a.err
	case <-e.interrupted:
		return "", context.Canceled
	}
}

// ask puts a question on the terminal and reads the hidden answer.
func (e *env) ask(question string) (string, error) {
	if !e.interactive() {
		return "", errors.New("stdin is no terminal")
	}
	if e.hide != nil {
		defer e.hide()()
	}
	io.WriteString(e.stderr, question)
	answer, err := e.await(e.readSecret)
	io.WriteString(e.stderr, "\n")
	return answer, err
}
