package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/nodes/backup"
	"github.com/anyfs/anyfs/nodes/spaces"
)

const (
	restoringFile = "restoring" // a restore that is not finished
	restoredFile  = "restored"  // the node was restored, and has not made sure yet that the network has gone on meanwhile

	backupPath  = "/backup"
	backupStall = 2 * time.Minute // a reader that takes nothing for so long is gone
	maxFile     = 8 << 20         // of a file of the node's folder
)

// notBackedUp are files of a node's folder that a backup leaves out: what follows from the rest, what is of the process, and the tokens, which work
// once: one that was used since the backup would work again.
var notBackedUp = []string{lockFile, socketFile, tokensFile, policyLock, restoringFile, restoredFile, "spaces", "usage.db", "usage.db.damaged"}

func backedUp(name string) bool {
	return !slices.Contains(notBackedUp, name) && !strings.HasSuffix(name, ".tmp") && filepath.Base(name) == name && name != "." && name != ".."
}

// source is a node as a backup is made of it.
type source struct {
	dir string
	set *spaces.Set
}

// serve answers what a backup asks: for the files of the folder and the spaces that are here; for what came in one of them since a mark, and
// its blocks by ID; for blocks.
func (s *source) serve(ctx context.Context, w *backup.Writer, what string, space dag.ID, body []byte) error {
	var err error
	switch what {
	case "all":
		err = s.all(ctx, w)
	case "space":
		err = s.space(ctx, w, space, body)
	case "blocks":
		err = s.blocks(ctx, w, space, body)
	default:
		err = fmt.Errorf("server: a backup is not asked for %q", what)
	}
	kind, text := backup.End, ""
	if err != nil {
		kind, text = backup.Failed, err.Error()
	}
	return errors.Join(w.Put(kind, space, []byte(text)), w.Flush())
}

func (s *source) all(_ context.Context, w *backup.Writer) error {
	files, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	for _, f := range files {
		if !f.Type().IsRegular() || !backedUp(f.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(s.dir, f.Name()))
		if errors.Is(err, iofs.ErrNotExist) {
			continue
		}
		if err == nil && len(b) > maxFile {
			err = fmt.Errorf("%s has %d bytes: it is no file of a node", f.Name(), len(b))
		}
		if err != nil {
			return fmt.Errorf("server: %w", err)
		}
		if err := w.Put(backup.File, dag.ID{}, append([]byte(f.Name()+"\x00"), b...)); err != nil {
			return err
		}
	}
	if err := s.set.Words(func(space dag.ID, word []byte) error { return w.Put(backup.Word, space, word) }); err != nil {
		return err
	}
	var ids []byte
	for _, id := range s.set.Held() {
		ids = append(ids, id[:]...)
	}
	return putIDs(w, dag.ID{}, ids)
}

func putIDs(w *backup.Writer, space dag.ID, ids []byte) error {
	for len(ids) > 0 {
		n := min(len(ids), 1<<20)
		if err := w.Put(backup.Held, space, ids[:n]); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return nil
}

func (s *source) space(ctx context.Context, w *backup.Writer, space dag.ID, since []byte) error {
	var mark spaces.Mark
	if len(since) > 0 {
		if err := json.Unmarshal(since, &mark); err != nil {
			return fmt.Errorf("server: a mark: %w", err)
		}
	}
	put := func(kind backup.Kind) func([]byte) error {
		return func(frame []byte) error { return w.Put(kind, space, frame) }
	}
	now, found, err := s.set.Frames(ctx, space, mark, put(backup.Access), put(backup.Change))
	if err != nil || !found {
		return err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	var page []byte
	err = s.set.Blocks(ctx, space, func(id block.ID) error {
		page = append(page, id[:]...)
		if len(page) < 1<<20 {
			return nil
		}
		err := putIDs(w, space, page)
		page = page[:0]
		return err
	})
	if err != nil {
		return err
	}
	if err := putIDs(w, space, page); err != nil {
		return err
	}
	return w.Put(backup.Mark, space, b)
}

func (s *source) blocks(ctx context.Context, w *backup.Writer, space dag.ID, ids []byte) error {
	var buf []byte
	for id := range slices.Chunk(ids, len(block.ID{})) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(id) != len(block.ID{}) {
			return errors.New("server: an ID that is cut off")
		}
		data, err := s.set.Block(space, block.ID(id), buf)
		switch {
		case errors.Is(err, block.ErrAbsent): // the space has gone
			continue
		case err != nil:
			err = w.PutDamaged(space, dag.ID(id), err.Error())
		default:
			buf = data
			err = w.Put(backup.Block, space, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// serveBackup answers who makes a backup, at the socket for commands.
func (n *Node) serveBackup(w http.ResponseWriter, r *http.Request) {
	var space dag.ID
	if b, err := hex.DecodeString(r.FormValue("space")); err != nil || len(b) != 0 && len(b) != len(space) {
		http.Error(w, "no ID of a space", http.StatusBadRequest)
		return
	} else {
		copy(space[:], b)
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(backupStall))
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	out, err := backup.NewWriter(patient{w, c}, 0)
	if err == nil {
		err = (&source{n.opt.Dir, n.set}).serve(r.Context(), out, r.FormValue("what"), space, body)
	}
	if err != nil {
		n.opt.Log.Warn("a backup was cut short", "err", err)
	}
}

// patient gives each write its own time.
type patient struct {
	w io.Writer
	c *http.ResponseController
}

func (p patient) Write(b []byte) (int, error) {
	_ = p.c.SetWriteDeadline(time.Now().Add(backupStall))
	return p.w.Write(b)
}
