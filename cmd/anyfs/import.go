package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
)

func importCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "take a space from a CAR file that export wrote",
		ArgsUsage: "FILE.car",
		Description: `The file has to be of a space of this account. The space comes back as the one that it was, with all of its history, so
it must not be on this device already: what is there and what is in the file are not merged yet. (One in which nothing was
ever made, as Personal after a login, gives way.)

Examples:
  anyfs import /media/backup/personal.car
  anyfs import /media/backup/work.car --as Archive`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "as", Usage: "call the space `NAME` (default: Personal for that one, else the file's name without .car)"}},
		Action: func(c *cli.Context) error {
			a, err := args(c, 1, 1)
			if err != nil {
				return err
			}
			return runImport(c.Context, e, a[0], c.String("as"))
		},
	}
}

// importParams name a pipe in the home from which the file is read.
type importParams struct {
	Pipe      string `json:"pipe"`
	Name      string `json:"name"`      // "" for its own, as far as it has one
	Otherwise string `json:"otherwise"` // where it has none
	Size      int64  `json:"size"`
}

// runImport reads the file itself and hands it on through a pipe in the home: a daemon never reads from its own mount, and
// needs no right to read what its caller reads.
func runImport(ctx context.Context, e *env, file, as string) error {
	file, err := e.abs(file)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := homeDisk(e.home); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(e.home, "import-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(filepath.Base(dir), "pipe")
	pipe := filepath.Join(e.home, name)
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		return err
	}
	// Open for both, so that neither side's opening waits for the other. The reader sees the end when this is closed.
	w, err := os.OpenFile(pipe, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	var copyErr error
	var copying sync.WaitGroup
	begin := sync.OnceFunc(func() {
		copying.Go(func() {
			_, copyErr = io.Copy(w, f)
			w.Close()
		})
	})
	b := newBar(e, "import")
	r, err := opImport.follow(ctx, e, importParams{Pipe: name, Name: as, Otherwise: strings.TrimSuffix(filepath.Base(file), ".car"), Size: st.Size()}, func(ev event) error {
		begin() // the first event says that the other side has opened the pipe: before, nothing would hold what is in it
		return b.event(ev)
	})
	b.end(err == nil)
	w.Close() // where the reader went before the end
	copying.Wait()
	if err != nil {
		return err
	}
	if copyErr != nil {
		return copyErr
	}
	if e.json {
		return e.printJSON(r)
	}
	e.say("The space is called %s: %s.", printable(r.Name), count(r.Objects, "object"))
	return writeLine(e.stdout, r.ID)
}
