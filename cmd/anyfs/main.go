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
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/libp2p/go-libp2p/gologshim"
)

func main() {
	if os.Getenv("GOLOG_LOG_LEVEL") == "" {
		gologshim.SetDefaultHandler(slog.DiscardHandler) // libp2p writes to stderr by itself; what matters of it comes as an error
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, processEnv(), os.Args)
	stop()
	os.Exit(code)
}
