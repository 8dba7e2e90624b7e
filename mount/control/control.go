// Package control is how commands talk to the daemon of a home: calls by name over a unix socket in the home.
//
// A call is an HTTP POST to /v1/NAME with JSON parameters; the answer is a line of JSON for each event and then one
// with the result or the error. ../MOUNT.md has the form of it. Only the owner of the home (and root) gets in: the
// folder and the socket are the owner's alone, and the credentials of who connects are checked. A call ends when
// its caller goes away. The path of the home may have any length.
package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	socketName  = "control.sock"
	pathPrefix  = "/v1/"
	contentType = "application/x-ndjson"

	maxParamsBytes = 1 << 20
	maxEventBytes  = 1 << 20
	maxResultBytes = 64 << 20
	maxHeaderBytes = 16 << 10
	maxCalls       = 128 // at once; more are refused
)

// ErrNoDaemon says that no daemon listens in a home.
var ErrNoDaemon = errors.New("no daemon is running")

// Error is what a handler returned, on the caller's side.
type Error struct {
	Text string `json:"text"`
	Exit int    `json:"exit"` // the code for the command to exit with, at least 1
}

func (e *Error) Error() string { return e.Text }

// ExitCode is the code for the command to exit with.
func (e *Error) ExitCode() int { return e.Exit }

// asError gives an error the form in which it travels. Its code is that of the first error in its chain that has one.
func asError(err error) *Error {
	e := &Error{Text: err.Error(), Exit: 1}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) && coded.ExitCode() > 0 {
		e.Exit = coded.ExitCode()
	}
	return e
}

// line is one line of an answer: exactly one of its fields is set.
type line struct {
	Event  json.RawMessage `json:"event,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// inHome calls fn with a short path of the socket of a home: a socket's address has 108 bytes, a home any number.
func inHome(home string, fn func(path string) error) error {
	dir, err := unix.Open(home, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: home, Err: err}
	}
	defer unix.Close(dir)
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", dir, socketName))
}
