// Command anyfs mounts spaces: local-first, end-to-end encrypted directories with a history.
//
// This package wires the parts together and talks to the person: each command is one file with its options and a run
// function, which tests call; only main exits. What a command does to a home stands in the operations (ops_*.go), which
// run in the daemon when one has the home open and in this process when none has.
//
// Results go to stdout, talk to stderr. Exit codes are the constants exit….
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, processEnv(), os.Args)
	stop()
	os.Exit(code)
}
