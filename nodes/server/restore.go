package server

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/nodes/backup"
	"github.com/anyfs/anyfs/nodes/s3blocks"
	"github.com/anyfs/anyfs/nodes/spaces"
)

// ErrNotEmpty says that a node is not restored into a folder that holds something.
var ErrNotEmpty = errors.New("server: the folder is not empty; restore into a new one")

// errRestoring is told of a folder whose restore was not finished.
var errRestoring = errors.New("server: the node was not restored to the end; run 'anyfs node restore' again")

// Restored is what a restore did.
type Restored struct {
	Time    string `json:"time"` // of the backup
	Node    string `json:"node"`
	Network string `json:"network"`
	Spaces  int    `json:"spaces"`
	Changes uint64 `json:"changes"` // batches, of access lists too
	Blocks  uint64 `json:"blocks"`
	Torn    int64  `json:"torn_bytes"` // of a run that was not finished, behind the last one
}

// Restore makes a node's folder of a backup, as of the last run in it that was finished. The folder must be new or empty, or one whose
// restore was not finished. All that is in the backup is checked: checksums, signatures, who might write. Where something is wrong the error
// names it, and the folder is no node's. With an empty dir it only checks the file's checksums. Content goes into the bucket that s3 names, if it
// names one; what is there already is not written again.
func Restore(ctx context.Context, dir, file string, s3 *s3blocks.Options, log *slog.Logger) (*Restored, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("server: restore: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("server: restore: %w", err)
	}
	end, err := backup.Scan(f, st.Size(), func(*backup.Record) bool { return false }, nil)
	if err == nil && end == 0 {
		err = backup.ErrIncomplete
	}
	if err != nil {
		return nil, fmt.Errorf("server: restore: %s: %w", file, err)
	}
	r := &restoring{dir: dir, s3: s3, log: log, files: map[string][]byte{}, in: map[dag.ID]bool{}}
	r.done.Torn = st.Size() - end
	if dir != "" {
		done, err := r.begin()
		if err != nil {
			return nil, err
		}
		defer done()
	}
	if err := r.read(ctx, f, end); err != nil {
		return nil, fmt.Errorf("server: restore: %s: %w", file, err)
	}
	r.done.Spaces = len(r.in)
	if dir == "" {
		return &r.done, nil
	}
	return &r.done, r.finish()
}

// restoring is a restore that is being made.
type restoring struct {
	dir   string // "": nothing is restored
	s3    *s3blocks.Options
	log   *slog.Logger
	disk  disk.FS
	set   *spaces.Set
	files map[string][]byte
	in    map[dag.ID]bool // spaces
	done  Restored

	space *spaces.Restoring
	id    dag.ID
	some  [][]byte // batches that are taken in together
	first backup.Record
}

// begin takes the folder, and marks it as no node's.
func (r *restoring) begin() (done func(), err error) {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return nil, fmt.Errorf("server: restore: %w", err)
	}
	names, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("server: restore: %w", err)
	}
	begun := slices.ContainsFunc(names, func(n os.DirEntry) bool { return n.Name() == restoringFile })
	for _, n := range names {
		// A restore that was killed at once leaves these.
		if !begun && n.Name() != lockFile && n.Name() != restoringFile+".tmp" {
			return nil, fmt.Errorf("%w: %s", ErrNotEmpty, r.dir)
		}
	}
	lock, err := lockFolder(r.dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if r.disk, err = disk.OS(r.dir); err == nil {
		err = r.disk.WriteFileAtomic(restoringFile, nil)
	}
	for i := 0; i < len(names) && err == nil; i++ {
		if n := names[i].Name(); n != restoringFile && n != lockFile {
			err = r.disk.RemoveAll(n)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("server: restore: %w", err)
	}
	return func() {
		if r.space != nil {
			_ = r.space.Close(context.Background())
		}
		if r.set != nil {
			_ = r.set.Close()
		}
		_ = lock.Close()
	}, nil
}

// read takes in the records of a file up to an offset.
func (r *restoring) read(ctx context.Context, f io.ReaderAt, end int64) error {
	in, err := backup.NewReader(io.NewSectionReader(f, 0, end), end)
	if err != nil {
		return err
	}
	for {
		rec, err := in.Next()
		if err == io.EOF {
			return r.leave(ctx)
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = r.take(ctx, rec)
		}
		if err != nil {
			return err
		}
	}
}

const together = 1 << 20 // bytes of batches that are taken in at once

func (r *restoring) take(ctx context.Context, rec *backup.Record) error {
	if rec.Kind == backup.Begin {
		var run backup.Run
		if err := json.Unmarshal(rec.Body, &run); err != nil {
			return rec.Err(err)
		}
		r.done.Time, r.done.Node, r.done.Network = run.Time, run.Node, run.Network
	}
	if rec.Kind == backup.File {
		name, content, ok := strings.Cut(string(rec.Body), "\x00")
		if !ok || !backedUp(name) {
			return rec.Err(fmt.Errorf("%q is no file of a node", name))
		}
		r.files[name] = []byte(content)
	}
	if rec.Kind == backup.Word && r.dir != "" {
		if err := r.openSet(); err != nil {
			return err
		}
		if err := r.set.RestoreWord(rec.Space, rec.Body); err != nil {
			return rec.Err(err)
		}
	}
	if rec.Kind != backup.Access && rec.Kind != backup.Change && rec.Kind != backup.Block {
		return nil
	}
	if !r.in[rec.Space] {
		r.in[rec.Space] = true
	}
	if rec.Kind == backup.Block {
		r.done.Blocks++
	} else {
		r.done.Changes++
	}
	if r.dir == "" {
		return nil
	}
	if err := r.enter(ctx, rec); err != nil {
		return err
	}
	switch rec.Kind {
	case backup.Access:
		if err := r.space.Access(append([]byte(nil), rec.Body...)); err != nil {
			return rec.Err(err)
		}
	case backup.Change:
		if len(r.some) == 0 {
			r.first = *rec
		}
		r.some = append(r.some, append([]byte(nil), rec.Body...))
		if rec.At-r.first.At > together {
			return r.ingest()
		}
	case backup.Block:
		if err := r.ingest(); err != nil {
			return err
		}
		if err := r.space.Block(block.ID(rec.Sum), rec.Body); err != nil {
			return rec.Err(err)
		}
	}
	return nil
}

// ingest takes in the batches that wait.
func (r *restoring) ingest() error {
	if len(r.some) == 0 {
		return nil
	}
	err := r.space.Changes(r.some)
	clear(r.some)
	r.some = r.some[:0]
	if err != nil {
		return fmt.Errorf("of the batches from this one on: %w", r.first.Err(err))
	}
	return nil
}

// enter opens the space of a record.
func (r *restoring) enter(ctx context.Context, rec *backup.Record) (err error) {
	if r.space != nil && r.id == rec.Space {
		return nil
	}
	if err := r.leave(ctx); err != nil {
		return err
	}
	if err := r.openSet(); err != nil {
		return err
	}
	r.id = rec.Space
	r.space, err = r.set.Restore(rec.Space)
	return err
}

// openSet opens the spaces, once it is known whose they are: the files of the folder come first.
func (r *restoring) openSet() (err error) {
	if r.set != nil {
		return nil
	}
	o := spaces.Options{Dir: r.dir, Log: r.log}
	if r.s3 != nil {
		key, err := parseKey(nodeKey, r.files[nodeKey])
		if err != nil {
			return err
		}
		if o.S3, err = openS3(*r.s3, r.log, dag.PublicKey(key.Public().(ed25519.PublicKey))); err != nil {
			return err
		}
	}
	r.set, err = spaces.Open(o)
	return err
}

// leave makes the space that is open durable.
func (r *restoring) leave(ctx context.Context) error {
	if r.space == nil {
		return nil
	}
	err := r.ingest()
	sp := r.space
	r.space = nil
	return errors.Join(err, sp.Close(ctx))
}

// finish makes the folder a node's.
func (r *restoring) finish() error {
	err := r.openSet() // there may be no space
	if err == nil {
		err = r.set.Close()
	}
	r.set = nil
	if _, ok := r.files[nodeKey]; !ok && err == nil {
		err = errors.New("the backup has no key of a node")
	}
	for name, b := range r.files {
		if err == nil {
			err = r.disk.WriteFileAtomic(name, b)
		}
	}
	if err == nil {
		err = r.disk.WriteFileAtomic(restoredFile, []byte(r.done.Time+"\n"))
	}
	if err == nil {
		err = errors.Join(r.disk.Remove(restoringFile), r.disk.SyncDir("."))
	}
	if err != nil {
		return fmt.Errorf("server: restore: %w", err)
	}
	return nil
}

// checkRestored refuses a folder whose restore was not finished.
func checkRestored(dir string) error {
	_, err := os.Stat(filepath.Join(dir, restoringFile))
	switch {
	case err == nil:
		return fmt.Errorf("%w: %s", errRestoring, dir)
	case !errors.Is(err, iofs.ErrNotExist):
		return fmt.Errorf("server: %w", err)
	}
	return nil
}
