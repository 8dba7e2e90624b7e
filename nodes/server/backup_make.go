package server

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anyfs/anyfs/acl/list"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/nodes/backup"
	"github.com/anyfs/anyfs/nodes/network"
	"github.com/anyfs/anyfs/nodes/spaces"
)

// blockPage is how many blocks a backup asks for at once.
const blockPage = 64

// BackedUp is what a backup did.
type BackedUp struct {
	Whole   bool   `json:"whole"` // the file is new; else what came since was added to it
	Bytes   int64  `json:"bytes"` // that were written
	Spaces  int    `json:"spaces"`
	Changes uint64 `json:"changes"` // batches that were written, of access lists too
	Blocks  uint64 `json:"blocks"`  // blocks that were written

	Damaged []string `json:"damaged"` // what does not read on the node: it is not in the backup
}

// Backup writes what the node of a folder holds into file, while it runs or not. A file that is a backup of that node already gets what came since.
// Whatever ends it before, the file is the backup that it was.
//
// What does not read on the node is left out and named in the result; the rest is whole. It takes some 20 bytes of memory for each block.
func Backup(ctx context.Context, dir, file string, log *slog.Logger) (done *BackedUp, err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("server: back up: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("server: back up: another process writes %s: %w", file, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("server: back up: %w", err)
	}
	b := &backing{done: &BackedUp{Damaged: []string{}}, marks: map[dag.ID][]byte{}, seed: maphash.MakeSeed(), blocks: map[uint64]struct{}{}}
	end := int64(0)
	if st.Size() > 0 {
		if end, err = b.read(f, st.Size()); err != nil {
			return nil, fmt.Errorf("server: back up: %s: %w", file, err)
		}
	}
	ask, give, err := askerOf(ctx, dir, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, give()) }()
	run, err := runOf(dir)
	if err == nil && end > 0 && b.last.Node != run.Node {
		err = fmt.Errorf("%s is a backup of node %s, and this one is %s; name another file", file, b.last.Node, run.Node)
	}
	if err != nil {
		return nil, fmt.Errorf("server: back up: %w", err)
	}
	if err := f.Truncate(end); err != nil {
		return nil, fmt.Errorf("server: back up: %w", err)
	}
	if b.w, err = backup.NewWriter(io.NewOffsetWriter(f, end), end); err == nil {
		err = b.run(ctx, ask, run)
	}
	// The end of a run is durable after all that it ends.
	if err == nil {
		err = errors.Join(b.w.Flush(), f.Sync())
	}
	if err == nil {
		err = errors.Join(b.w.Put(backup.End, dag.ID{}, nil), b.w.Flush(), f.Sync(), syncDir(filepath.Dir(file)))
	}
	if err != nil {
		return nil, fmt.Errorf("server: back up: %w", err)
	}
	b.done.Whole, b.done.Bytes = end == 0, b.w.At()-end
	return b.done, nil
}

// runOf says of which node a run is.
func runOf(dir string) (r backup.Run, err error) {
	b, err := os.ReadFile(filepath.Join(dir, nodeKey))
	if err != nil {
		return r, err
	}
	key, err := parseKey(filepath.Join(dir, nodeKey), b)
	if err != nil {
		return r, err
	}
	b, err = os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return r, err
	}
	c, err := network.Parse(b)
	if err != nil {
		return r, fmt.Errorf("%s: %w", filepath.Join(dir, ConfigFile), err)
	}
	return backup.Run{Time: time.Now().UTC().Format(time.RFC3339), Node: list.PeerID(dag.PublicKey(key.Public().(ed25519.PublicKey))), Network: network.Name(c.ID)}, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// backing is a backup that is being made.
type backing struct {
	w      *backup.Writer
	done   *BackedUp
	last   backup.Run          // that the file holds
	marks  map[dag.ID][]byte   // of each space in the file, how far it has come
	blocks map[uint64]struct{} // keyed hashes of the blocks in the file: who makes blocks cannot make two with one
	seed   maphash.Seed
}

func (b *backing) key(space dag.ID, id []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(b.seed)
	_, _ = h.Write(space[:])
	_, _ = h.Write(id)
	return h.Sum64()
}

// read learns what a file holds. Of a run that was not finished nothing counts.
func (b *backing) read(f *os.File, size int64) (end int64, err error) {
	var last backup.Run
	marks, blocks := map[dag.ID][]byte{}, []uint64{} // of the run that is read
	return backup.Scan(f, size, func(r *backup.Record) bool {
		switch r.Kind {
		case backup.Begin:
			clear(marks)
			blocks = blocks[:0]
		case backup.Block:
			blocks = append(blocks, b.key(r.Space, r.Sum[:]))
		case backup.End:
			b.last = last
			for id, m := range marks {
				b.marks[id] = m
			}
			for _, k := range blocks {
				b.blocks[k] = struct{}{}
			}
		}
		return r.Kind == backup.Mark || r.Kind == backup.Begin
	}, func(r *backup.Record) error {
		if r.Kind == backup.Begin {
			return json.Unmarshal(r.Body, &last)
		}
		marks[r.Space] = r.Body
		return nil
	})
}

// run writes a run, but for its end.
func (b *backing) run(ctx context.Context, ask asker, run backup.Run) error {
	begin, err := json.Marshal(run)
	if err == nil {
		err = b.w.Put(backup.Begin, dag.ID{}, begin)
	}
	if err != nil {
		return err
	}
	var ids []byte
	err = ask(ctx, "all", dag.ID{}, nil, func(r *backup.Record) error {
		switch r.Kind {
		case backup.File, backup.Word:
			return b.w.Put(r.Kind, r.Space, r.Body)
		case backup.Held:
			ids = append(ids, r.Body...)
		}
		return nil
	})
	for ; err == nil && len(ids) >= len(dag.ID{}); ids = ids[len(dag.ID{}):] {
		err = b.space(ctx, ask, dag.ID(ids[:len(dag.ID{})]))
	}
	return err
}

// space writes what came in a space since the file's last run.
func (b *backing) space(ctx context.Context, ask asker, space dag.ID) error {
	var lacks, mark []byte
	err := ask(ctx, "space", space, b.marks[space], func(r *backup.Record) error {
		switch r.Kind {
		case backup.Access, backup.Change:
			b.done.Changes++
			return b.w.Put(r.Kind, space, r.Body)
		case backup.Held:
			for at := 0; at+len(dag.ID{}) <= len(r.Body); at += len(dag.ID{}) {
				id := r.Body[at : at+len(dag.ID{})]
				if _, ok := b.blocks[b.key(space, id)]; !ok {
					lacks = append(lacks, id...)
				}
			}
		case backup.Mark:
			mark = bytes.Clone(r.Body)
		}
		return nil
	})
	if err != nil || mark == nil { // handed over meanwhile
		return err
	}
	for len(lacks) > 0 {
		n := min(len(lacks), blockPage*len(dag.ID{}))
		err := ask(ctx, "blocks", space, lacks[:n], func(r *backup.Record) error {
			if r.Kind == backup.Damaged {
				b.done.Damaged = append(b.done.Damaged, fmt.Sprintf("block %s of space %s: %s", r.Sum, space, r.Body))
				return nil
			}
			b.done.Blocks++
			return b.w.Put(backup.Block, space, r.Body)
		})
		if err != nil {
			return err
		}
		lacks = lacks[n:]
	}
	b.done.Spaces++
	return b.w.Put(backup.Mark, space, mark)
}

// asker asks a node what a backup needs, and reads the answer up to its end.
type asker func(ctx context.Context, what string, space dag.ID, body []byte, fn func(*backup.Record) error) error

// reading reads an answer up to its end.
func reading(r io.Reader, fn func(*backup.Record) error) error {
	in, err := backup.NewReader(r, 0)
	if err != nil {
		return err
	}
	for {
		rec, err := in.Next()
		if err == io.EOF {
			return errors.New("server: the node ended in the middle of its answer")
		}
		if err != nil {
			return err
		}
		switch rec.Kind {
		case backup.End:
			return nil
		case backup.Failed:
			return errors.New(string(rec.Body))
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}

// askerOf gives the node that runs on a folder, or the folder itself where none does; done ends that.
func askerOf(ctx context.Context, dir string, log *slog.Logger) (a asker, done func() error, err error) {
	_, err = AskStatus(ctx, dir)
	if err == nil {
		c, done, err := clientOf(dir)
		if err != nil {
			return nil, nil, err
		}
		return func(ctx context.Context, what string, space dag.ID, body []byte, fn func(*backup.Record) error) error {
			q := url.Values{"what": {what}}
			if space != (dag.ID{}) {
				q.Set("space", hex.EncodeToString(space[:]))
			}
			u := url.URL{Scheme: "http", Host: "node", Path: backupPath, RawQuery: q.Encode()}
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
			if err != nil {
				return err
			}
			r, err := c.Do(req)
			if err != nil {
				return fmt.Errorf("%w: %s: %w", ErrNoNode, dir, err)
			}
			defer r.Body.Close()
			if r.StatusCode != http.StatusOK {
				text, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
				return errors.New(strings.TrimSpace(string(text)))
			}
			return reading(r.Body, fn)
		}, func() error { done(); return nil }, nil
	}
	if !errors.Is(err, ErrNoNode) {
		return nil, nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, nodeKey)); err != nil {
		return nil, nil, fmt.Errorf("server: %s is no node's folder: %w", dir, err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	set, err := spaces.Open(spaces.Options{Dir: dir, Log: log})
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	s := &source{dir, set}
	return func(ctx context.Context, what string, space dag.ID, body []byte, fn func(*backup.Record) error) error {
		pr, pw := io.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w, err := backup.NewWriter(pw, 0)
			if err == nil {
				err = s.serve(ctx, w, what, space, body)
			}
			_ = pw.CloseWithError(err)
		}()
		err := reading(pr, fn)
		_ = pr.Close()
		<-ended
		return err
	}, func() error { return errors.Join(set.Close(), lock.Close()) }, nil
}
