package main

import (
	"context"

	"github.com/urfave/cli/v2"
)

func pauseCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "pause",
		Usage: "exchange nothing with other devices until 'anyfs resume'",
		Description: `Connections are closed, and none is made or taken. The mount goes on as before, and what is done meanwhile is exchanged
afterwards. It holds across restarts.

Examples:
  anyfs pause
  anyfs resume`,
		Action: func(c *cli.Context) error { return runPause(c, e, true) },
	}
}

func resumeCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:        "resume",
		Usage:       "exchange with other devices again, after 'anyfs pause'",
		Description: "Examples:\n  anyfs resume",
		Action:      func(c *cli.Context) error { return runPause(c, e, false) },
	}
}

// pauseState is the parameter of an operation, and what pause and resume print with --json.
type pauseState struct {
	Paused bool `json:"paused"`
}

var opPause = operation[pauseState, pauseState]{"pause", func(_ context.Context, h *home, p pauseState, _ sink) (pauseState, error) {
	_, err := h.changeSettings(func(s *settings) { s.Paused = p.Paused }, h.applySettings)
	return p, err
}}

func runPause(c *cli.Context, e *env, paused bool) error {
	if _, err := args(c, 0, 0); err != nil {
		return err
	}
	r, err := opPause.call(c.Context, e, pauseState{paused})
	if err != nil || !e.json {
		return err
	}
	return e.printJSON(r)
}
