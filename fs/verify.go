package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/anyfs/anyfs/acl/seal"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/dag/store"
	"github.com/anyfs/anyfs/fs/index"
	"github.com/anyfs/anyfs/fs/tree"
)

// Problem is something that Verify found wrong.
type Problem struct {
	Space string `json:"space,omitempty"` // its name; empty where the fault is the home's
	Where string `json:"where"`           // what is damaged: a batch, a block, an inode, a file of the home
	Text  string `json:"text"`
}

// Verified is what Verify found.
type Verified struct {
	Problems []Problem // what is wrong, at most 1000
	Absent   int       // contents that other devices made and that are not here, or not yet: no damage
	Void     int       // changes and contents that other devices signed and that say nothing: each is as it was made, and nobody's home is damaged
}

// maxProblems bounds what Verify lists.
const maxProblems = 1000

// verifier collects what one run finds.
type verifier struct {
	h        *Home
	space    string
	dir      string // of the space
	problems []Problem
	absent   int
	void     int
	done     int64
	total    int64
	progress func(done, total int64)
}

func (v *verifier) found(where string, err error) {
	if v.dir != "" {
		err = inDB(v.dir, err)
	}
	if len(v.problems) < maxProblems {
		v.problems = append(v.problems, Problem{Space: v.space, Where: where, Text: err.Error()})
	}
}

// index notes what is wrong with the index, which is in the space's database.
func (v *verifier) index(where string, err error) { v.found(v.dir+"/"+dbFile+": "+where, err) }

func (v *verifier) step() {
	if v.done++; v.done%64 == 0 && v.progress != nil {
		v.progress(v.done, max(v.done, v.total))
	}
}

// Verify checks everything that the home keeps against everything else: each signature and link of the access lists and the
// batches from the space's root on, each change's seal, each block against its CID, and the index against the fold of the
// history. It publishes what is dirty first. An error means that it could not go on; what is wrong is in the list.
// progress, if not nil, is called now and then, with a total that may grow.
func (h *Home) Verify(ctx context.Context, progress func(done, total int64)) (Verified, error) {
	v := &verifier{h: h, progress: progress}
	if err := h.Flush(ctx); err != nil {
		v.found("publication", err)
	}
	if err := h.jr.Damage(); err != nil {
		v.found("journal", err)
	}
	if err := h.jr.Verify(); err != nil {
		v.found("journal", err)
	}
	if _, err := h.readNext(); err != nil {
		v.found(nextFile, err)
	}
	if _, err := h.readOffers(); err != nil {
		v.found(offersFile, err)
	}
	names := map[*space]string{h.home: ""}
	infos, err := h.Spaces()
	if err != nil {
		v.found("root of the home", err)
	}
	for _, i := range infos {
		if s, err := h.spaceNamed(i.Name); err == nil {
			names[s] = i.Name
		} else {
			v.space = i.Name
			v.found("space", err)
		}
	}
	for _, s := range h.each() {
		batches, changes, _ := s.graph.Counters()
		v.total += int64(2*batches+changes) + 1
	}
	for _, s := range h.all() {
		v.space, v.dir = names[s], s.dir
		if s.sick != nil {
			v.found(s.dir, s.sick)
			if s.db != nil {
				if err := s.verifyDB(); err != nil {
					v.index("structure", err)
				}
			}
			continue
		}
		if id, _, err := h.readSpaceFile(s.dir); err != nil && !s.deleted() {
			v.found(s.dir+"/"+spaceFile, err)
		} else if err == nil && id != s.id {
			v.found(s.dir+"/"+spaceFile, fmt.Errorf("it says that this is space %s, and it is %s", id, s.id))
		}
		if err := s.verify(ctx, v); err != nil {
			return v.result(), fmt.Errorf("verify: %w", err)
		}
	}
	if progress != nil {
		progress(v.done, v.done)
	}
	return v.result(), nil
}

func (v *verifier) result() Verified { return Verified{v.problems, v.absent, v.void} }

// verify checks one space, while it is worked with.
func (s *space) verify(ctx context.Context, v *verifier) error {
	before := len(v.problems)
	defer func() {
		if s.deleted() {
			v.problems = v.problems[:before] // it was read while it went
		}
	}()
	if err := s.acl.Verify(); err != nil {
		v.found("access list", err)
	}
	if err := s.verifyDB(); err != nil {
		v.index("structure", err)
	}
	index := func(err error) { v.found("index", err) }
	for _, verify := range []func(context.Context, func(error)) error{
		s.aclLog.VerifyIndex, s.log.VerifyIndex, s.ix.VerifyStored, s.rows.VerifyStored, s.verifyPruned, s.verifyLedgers, s.verifyDevice,
	} {
		if err := verify(ctx, index); ctx.Err() != nil {
			return ctx.Err()
		} else if err != nil {
			v.index("index", err)
		}
	}
	if err := s.verifyBatches(ctx, v); err != nil {
		return err
	}
	if err := s.verifyGraph(ctx, v); err != nil {
		return err
	}
	if err := s.blocks.Verify(ctx, func(id block.ID, err error) {
		v.step()
		if err != nil {
			v.found("block "+id.String(), err)
		}
	}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		v.found("blocks", err)
	}
	s.verifyContents(ctx, v)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(v.problems) == before {
		newIndexCheck(s, v).run(ctx)
	}
	v.step()
	return ctx.Err()
}

// verifyDB checks the structure of the database, and that it has no bucket that nobody asks for: a name that changed takes what is
// in the bucket away.
func (s *space) verifyDB() error {
	if err := s.db.Check(); err != nil {
		return err
	}
	names, err := s.db.Buckets()
	if err != nil {
		return err
	}
	for _, known := range [][]string{{bucketPruned, bucketReceipts, bucketReleases, bucketPromises, bucketDevice}, index.Buckets(), block.Buckets(), store.Buckets(logACL), store.Buckets(logFiles)} {
		names = slices.DeleteFunc(names, func(n string) bool { return slices.Contains(known, n) })
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: unknown buckets %q", kv.ErrCorrupt, names)
	}
	return nil
}

// verifyPruned opens what is in the list of what was pruned.
func (s *space) verifyPruned(ctx context.Context, report func(error)) error {
	seal := s.prunedSeal()
	return kv.Each(ctx, s.db, bucketPruned, func(k, v []byte) {
		var id block.ID
		if copy(id[:], k) != len(id) || len(k) != len(id) {
			report(fmt.Errorf("%w: key %x in %s", index.ErrCorrupt, k, bucketPruned))
		} else if _, err := seal.OpenLocal(nil, v, prunedAD(id)); err != nil {
			report(fmt.Errorf("%w: value in %s, key %x: %w", index.ErrCorrupt, bucketPruned, k, err))
		}
	})
}

// verifyBatches holds the log against its index, with all signatures, links and rules, checks each batch's authorisation, and
// opens each change.
func (s *space) verifyBatches(ctx context.Context, v *verifier) error {
	err := s.graph.VerifyContext(ctx, func(err error) { v.found("history", err) }, func(uint64, uint64) { v.step() })
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		v.found("history", err)
	}
	files, own := s.acl.Files(), s.h.keys.Author().Device
	err = s.graph.Batches(func(b *dag.Batch, bodies [][]byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		v.step()
		id := b.ID()
		changes := make([]*dag.Change, len(bodies))
		for i, body := range bodies {
			v.step()
			c, err := dag.DecodeChange(body)
			if err != nil {
				v.found("change "+b.Changes[i].String(), err)
				return nil
			}
			changes[i] = c
			if e, err := s.graph.Change(b.Changes[i]); err != nil {
				v.found("change "+b.Changes[i].String(), fmt.Errorf("it cannot be found by its ID: %w", err))
			} else if e.Change.Object != c.Object || e.Change.Clock != c.Clock || e.Change.Device != c.Device {
				v.found("change "+b.Changes[i].String(), errors.New("by its ID another is found"))
			}
			// A change of another device that does not open is as that one signed it: whoever may write can write what says nothing.
			if _, err := s.open(&dag.Entry{ID: b.Changes[i], Change: c, Batch: b}); b.Device != own && (errors.Is(err, seal.ErrForged) || errors.Is(err, tree.ErrInvalid)) {
				v.void++
			} else if err != nil {
				v.found("change "+b.Changes[i].String(), err)
			}
		}
		if err := files.Accept(b, changes); err != nil {
			v.found("batch "+id.String(), err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		v.found("batches", err)
		return nil
	}
	return err
}

// heldBack counts the changes of batches in quarantine, which no object shows.
func (s *space) heldBack() (changes uint64, err error) {
	ids, err := s.graph.Quarantined()
	for _, id := range ids {
		b, _, err := s.graph.Batch(id)
		if err != nil {
			return 0, fmt.Errorf("batch %s: %w", id, err)
		}
		changes += uint64(len(b.Changes))
	}
	return changes, err
}

// verifyGraph checks that the changes of all objects, as reading a file or its history finds them, are those of the batches. What
// is published meanwhile may be counted or not.
func (s *space) verifyGraph(ctx context.Context, v *verifier) error {
	var sum uint64
	_, before, _ := s.graph.Counters()
	err := s.graph.Objects(func(id dag.ID) error {
		n := uint64(0)
		err := s.graph.Changes(id, func(dag.Entry) error {
			n++
			return ctx.Err()
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			_, err = s.graph.HeadsOf(id)
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: it has no changes", dag.ErrIndex)
		}
		if err != nil {
			v.found("object "+id.String(), err)
		}
		sum += n
		return nil
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		v.found("objects", err)
		return nil
	}
	held, err := s.heldBack()
	if err != nil {
		v.found("quarantine", err)
		return nil
	}
	sum += held
	if _, after, _ := s.graph.Counters(); sum < before || sum > after {
		v.index("objects", fmt.Errorf("they have %d changes together, the batches have %d", sum, after))
	}
	return nil
}

// verifyContents checks that every content of the history is here whole, or was pruned; and that its layout fits to its blocks. What
// another device made may have never come, as old versions do not, or is still to come, and what this one made may have gone under a
// receipt: no damage. A block that was here and is lost shows where the segments are held against their index.
func (s *space) verifyContents(ctx context.Context, v *verifier) {
	own := s.h.keys.Author().Device
	err := s.eachContent(ctx, func(b *dag.Batch, c *tree.Content) error {
		if pruned, err := s.isPruned(c.Root); err != nil || pruned {
			return err
		}
		missing, err := s.missingOf(ctx, c)
		if err == nil && !missing.IsZero() {
			if s.policy().OnDemand || b.Device != own || s.hasReceipt(missing) {
				v.absent++
				return nil
			}
			err = s.lacks(missing)
		}
		if err == nil {
			_, err = s.manifest(ctx, c)
		}
		if err != nil && ctx.Err() == nil {
			if pruned, e := s.isPruned(c.Root); e == nil && pruned {
				return nil // meanwhile
			}
			if b.Device != own && !errors.Is(err, block.ErrCorrupt) {
				v.void++ // its blocks are what their names say, and do not make what it said of them
				return nil
			}
			v.found("content "+c.Root.String(), err)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		v.found("contents", err)
	}
}

// missingOf gives a block of a content that is not here, zero where all are.
func (s *space) missingOf(ctx context.Context, c *tree.Content) (missing block.ID, err error) {
	if l := c.LayoutBlock; !l.IsZero() && !s.blocks.Has(l) {
		return l, nil
	}
	err = s.eachBlock(ctx, c.Root, func(id block.ID) bool {
		if !s.blocks.Has(id) {
			missing = id
		}
		return missing.IsZero()
	})
	return missing, err
}

// hasReceipt reports whether another device promised to keep a block.
func (s *space) hasReceipt(id block.ID) bool {
	var by []dag.PublicKey
	err := s.db.View(func(tx kv.Tx) (err error) {
		by, err = s.ledger(bucketReceipts).of(tx, id)
		return err
	})
	return err == nil && len(by) > 0
}

// verifyInode holds one clean inode against the state of its object.
func (s *space) verifyInode(n *index.Inode, node *tree.Node, st *tree.MemStore) error {
	if n.Object != node.Object {
		return fmt.Errorf("it stands for object %s, its history says %s", n.Object, node.Object)
	}
	o, err := st.Object(node.Object)
	if err != nil || o == nil {
		return errors.Join(errors.New("its object is not in the history"), err)
	}
	x := o.State
	switch {
	case n.Type() != x.Kind.Type():
		return errors.New("its type is not what its history says")
	case x.ModeSet && n.Mode&07777 != x.Mode:
		return fmt.Errorf("its mode is %o, its history says %o", n.Mode&07777, x.Mode)
	case n.Type() == syscall.S_IFLNK && n.Target != x.Target:
		return errors.New("its target is not what its history says")
	case len(n.Xattrs) != len(x.Xattrs):
		return errors.New("its attributes are not what its history says")
	}
	for _, a := range n.Xattrs {
		if b, ok := x.Xattrs[a.Name]; !ok || !bytes.Equal(a.Value, b) {
			return errors.New("its attributes are not what its history says")
		}
	}
	if !n.IsRegular() {
		return nil
	}
	view := x.View()
	if n.Size != view.Size() {
		return fmt.Errorf("its size is %d, its history says %d", n.Size, view.Size())
	}
	if len(n.Contents) > 0 && !shows(n, &view) {
		return errors.New("its content is not the one that its history says")
	}
	if n.Base != nil && n.Base.Root.Defined() != view.Main.Base.Root.Defined() ||
		n.Base != nil && n.Base.Root.Defined() && (!n.Base.Root.Equals(view.Main.Base.Root) ||
			n.Base.LayoutBlock != view.Main.Base.LayoutBlock || !slices.Equal(n.Base.Layout, view.Main.Base.Layout)) {
		return errors.New("its content has another root than its history says")
	}
	if n.Patched.Count > 0 {
		f, err := s.contentOf(view.Main.Ref)
		if err != nil {
			return err
		}
		var want index.Inode
		if f.show(&want); !n.ShowsLike(&want) {
			return errors.New("the patches of its content are not what its history says")
		}
	}
	return nil
}
