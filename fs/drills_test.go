package fs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs"
)

// late says of steps that what one was to do may be seen, whole, after the next opening, though it failed: the disk can fail in such
// a way that neither the end of it is known to be durable, nor that it was undone.
func late(list []task) []task {
	for i := range list {
		list[i].late = true
	}
	return list
}

// both is a step that the model does as like, which is nil where the tree stays.
func both(name, file string, home func(r *drilling) error, like func(m walker) error) []task {
	return []task{{action: action{name: name, file: file, do: like}, home: home}}
}

// inParts says of steps that a failure may leave a part of them.
func inParts(list []task) []task {
	for i := range list {
		list[i].some = true
	}
	return list
}

// away moves a path of the model out of the tree, back brings it in again.
func away(path, as string) func(m walker) error {
	return func(m walker) error { return rename("home/"+path, "away/"+as, 0).do(walker{m.v, fs.RootIno}) }
}

func back(as, path string) func(m walker) error {
	return func(m walker) error { return rename("away/"+as, "home/"+path, 0).do(walker{m.v, fs.RootIno}) }
}

// rewritten gives a file of the model another content.
func rewritten(path string, data []byte) func(m walker) error {
	return func(m walker) error {
		if err := truncate(path, 0).do(m); err != nil {
			return err
		}
		return regular(path, func(w walker, a fs.Attr) error {
			_, err := w.v.Write(ctx, a.Ino, data, 0, fs.WriteFlags{})
			return err
		})(m)
	}
}

// content writes a file as a program does, in one call of each kind.
func content(path string, data []byte) action {
	return action{name: fmt.Sprintf("write %s: %d bytes", path, len(data)), file: path, parts: len(data) > piece, do: regular(path, func(w walker, a fs.Attr) error {
		_, err := w.v.Write(ctx, a.Ino, data, 0, fs.WriteFlags{})
		return err
	})}
}

func removeAll(w walker, path string) error {
	a, err := w.find(path)
	if err != nil {
		return err
	}
	if !a.IsDir() {
		return unlink(path).do(w)
	}
	var names []string
	if err := w.v.ReadDir(a.Ino, 0, func(e fs.Dirent) bool {
		names = append(names, e.Name)
		return true
	}); err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(w, path+"/"+name); err != nil {
			return err
		}
	}
	return rmdir(path).do(w)
}

func removed(path, as string) []task {
	return both("rm -r "+path, path, func(r *drilling) error { return removeAll(r.walker(), path) }, away(path, as))
}

func tick(d time.Duration) []task {
	return alone("time passes", ackNone, func(r *drilling) error {
		r.th.Tick(d)
		return nil
	})
}

// older gives the ID of the i-th content before the present one of a path.
func older(r *drilling, path string, i int) (string, error) {
	list, err := r.th.Log(path)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, v := range list {
		if v.Content {
			ids = append(ids, v.ID)
		}
	}
	if len(ids) <= i {
		return "", fmt.Errorf("%s has %d contents", path, len(ids))
	}
	return ids[i], nil
}

func restored(path string, i int, to string, like func(m walker) error) []task {
	return inParts(both(fmt.Sprintf("restore %s %d to %q", path, i, to), path, func(r *drilling) error {
		id := ""
		if i > 0 {
			var err error
			if id, err = older(r, path, i); err != nil {
				return err
			}
		}
		res, err := r.th.Restore(ctx, path, id, to)
		if err == nil && len(res.Skipped) > 0 {
			err = fmt.Errorf("%w: %s", syscall.EIO, res.Skipped[0])
		}
		return err
	}, like))
}

// readable checks that every version of a path can be read, but for what was pruned.
func readable(path string, contents ...[]byte) func(th fs.TestHome) error {
	return func(th fs.TestHome) error {
		list, err := th.Log(path)
		if err != nil {
			return err
		}
		seen := 0
		for _, v := range list {
			if !v.Content {
				continue
			}
			f, err := th.OpenVersion(ctx, path, v.ID)
			if err != nil {
				if v.Pruned && errors.Is(err, fs.ErrPruned) {
					continue
				}
				return fmt.Errorf("version %s of %s: %w", v.ID, path, err)
			}
			b := make([]byte, f.Size())
			_, err = f.ReadAt(b, 0)
			if err != nil {
				return fmt.Errorf("version %s of %s: %w", v.ID, path, err)
			}
			if len(b) > 0 && !slices.ContainsFunc(contents, func(c []byte) bool { return bytes.Equal(b, c) }) {
				return fmt.Errorf("version %s of %s holds %d bytes that it never had", v.ID, path, len(b))
			}
			seen++
		}
		if seen == 0 {
			return fmt.Errorf("%s has no version", path)
		}
		return nil
	}
}

var (
	docOne, docTwo, docThree = pattern(101, 300<<10), pattern(102, 5000), pattern(103, 90<<10)

	// doc has three versions, an hour apart.
	doc = tasks(
		do(create("Personal/doc"), content("Personal/doc", docOne)), publish, tick(time.Hour),
		do(truncate("Personal/doc", 0), content("Personal/doc", docTwo)), publish, tick(time.Hour),
		do(truncate("Personal/doc", 0), content("Personal/doc", docThree)), publish, tick(time.Hour), checkpoint,
	)
	// gone is a directory that was deleted.
	gone = tasks(
		do(mkdir("Personal/gone"), create("Personal/gone/a"), write("Personal/gone/a", 0, 60<<10), mkdir("Personal/gone/sub"),
			create("Personal/gone/sub/b"), write("Personal/gone/sub/b", 0, 900), symlink("Personal/gone/s", "a")), publish, tick(time.Hour),
		removed("Personal/gone", "gone"), publish, tick(time.Hour), checkpoint,
	)
)

// small makes n files of some KiB each.
func small(dir string, n, size int) (out []task) {
	out = do(mkdir(dir))
	for i := range n {
		f := fmt.Sprintf("%s/%d", dir, i)
		out = append(out, do(create(f), write(f, 0, size+i))...)
	}
	return out
}

// large writes n MiB in pieces of 1 MiB.
func large(path string, n int) (out []task) {
	for range n {
		out = append(out, do(write(path, end, 1<<20))...)
	}
	return out
}

var drills = []drill{
	{name: "create, write, fsync", work: tasks(do(create("Personal/f"), write("Personal/f", 0, 3000)), fsyncOf("Personal/f"),
		do(write("Personal/f", 1000, 3000)), fsyncOf("Personal/f"), fsyncOf("Personal"))},
	{name: "large file", work: tasks(do(create("Personal/f")), large("Personal/f", 5), fsyncOf("Personal/f"), large("Personal/f", 1), publish)},
	{name: "save by a temporary file", setup: doc, work: tasks(do(create("Personal/.doc.tmp"), content("Personal/.doc.tmp", docTwo)),
		fsyncOf("Personal/.doc.tmp"), do(rename("Personal/.doc.tmp", "Personal/doc", 0)), publish, checkpoint),
		after: readable("Personal/doc", docOne, docTwo, docThree)},
	{name: "save by setting aside", setup: doc, work: tasks(do(rename("Personal/doc", "Personal/doc~", 0), create("Personal/doc"),
		content("Personal/doc", docTwo)), fsyncOf("Personal/doc"), do(unlink("Personal/doc~")), publish, checkpoint)},
	{name: "unlink", setup: tasks(doc, do(create("Personal/new"), write("Personal/new", 0, 9000))),
		work: tasks(do(unlink("Personal/doc"), unlink("Personal/new")), syncAll, publish, checkpoint)},
	{name: "many small files", work: tasks(small("Personal/d", 60, 900), publish, checkpoint, small("Personal/e", 20, 12<<10), publish)},
	{name: "truncate", setup: tasks(doc, do(create("Personal/big")), large("Personal/big", 2), publish), work: tasks(
		do(truncate("Personal/big", 1<<20)), fsyncOf("Personal/big"), do(truncate("Personal/big", 3<<20)), publish,
		do(truncate("Personal/doc", 100), truncate("Personal/big", 0)), syncAll, publish)},
	{name: "attributes", setup: doc, work: tasks(do(setxattr("Personal/doc", "user.a", "one"), setxattr("Personal/doc", "user.b", string(pattern(7, 30<<10)))),
		publish, do(setxattr("Personal/doc", "user.a", "two"), removexattr("Personal/doc", "user.b"), chmod("Personal/doc", 0400)), syncAll, publish, checkpoint)},
	{name: "spaces", setup: doc, work: tasks(do(mkdir("Work"), create("Work/f"), write("Work/f", 0, 40<<10)), syncAll, publish,
		do(rename("Work", "Office", 0)), checkpoint,
		both("delete the space", "", func(r *drilling) error { return r.th.DeleteSpace("Office") }, away("Office", "office")),
		do(mkdir("Empty"), rmdir("Empty")), checkpoint)},
	{name: "restore in place", setup: doc, work: tasks(restored("Personal/doc", 1, "", rewritten("Personal/doc", docTwo)), publish,
		restored("Personal/doc", 3, "", rewritten("Personal/doc", docOne)), syncAll), after: readable("Personal/doc", docOne, docTwo, docThree)},
	{name: "restore what was deleted", setup: gone, work: tasks(restored("Personal/gone", 0, "", back("gone", "Personal/gone")), publish, checkpoint)},
	{name: "restore as a copy", setup: doc, work: tasks(restored("Personal/doc", 2, "Personal/new/copy", func(m walker) error {
		if err := mkdir("Personal/new").do(m); err != nil {
			return err
		}
		if err := create("Personal/new/copy").do(m); err != nil {
			return err
		}
		return content("Personal/new/copy", docOne).do(m)
	}), syncAll, publish)},
	{name: "prune", setup: doc, work: tasks(alone("prune", ackNone, prune(fs.KeepPolicy{})), do(create("Personal/f"), write("Personal/f", 0, 30<<10)),
		publish, checkpoint), after: readable("Personal/doc", docOne, docTwo, docThree)},
	{name: "prune what is old", setup: tasks(doc, gone), work: tasks(alone("prune", ackNone, prune(fs.KeepPolicy{Within: 90 * time.Minute, Last: 2})),
		do(create("Personal/copy"), content("Personal/copy", docOne)), publish, checkpoint, alone("prune", ackNone, prune(fs.KeepPolicy{}))),
		after: readable("Personal/doc", docOne, docTwo, docThree)},
	{name: "export and import", setup: tasks(doc, do(mkdir("Work"), create("Work/f"), write("Work/f", 0, 70<<10)), publish, do(write("Work/f", 10, 500))),
		work: tasks(alone("export", ackNone, func(r *drilling) error {
			var b bytes.Buffer
			_, err := r.th.Export(ctx, "Work", &b)
			r.buf = b.Bytes()
			return err
		}), both("delete the space", "", func(r *drilling) error {
			if len(r.buf) == 0 {
				return syscall.EIO
			}
			return r.th.DeleteSpace("Work")
		}, away("Work", "work")), late(both("import", "", func(r *drilling) error {
			_, err := r.th.Import(ctx, bytes.NewReader(r.buf), "Back", "")
			return err
		}, back("work", "Back"))), do(create("Back/new")), syncAll)},
	{name: "verify", setup: tasks(doc, gone), work: tasks(do(create("Personal/f"), write("Personal/f", 0, 20<<10)), alone("verify", ackNone, func(r *drilling) error {
		verified, err := r.th.Verify(ctx, nil)
		list := verified.Problems
		if len(list) > 0 {
			return fmt.Errorf("%w: %s", syscall.EIO, list[0].Text)
		}
		return err
	}), do(unlink("Personal/f")), syncAll)},
	{name: "first opening", bare: true, work: tasks(alone("first opening", ackNone, func(r *drilling) error { return r.open() }),
		both("make the first space", "", func(r *drilling) error {
			_, err := r.th.CreatePersonal()
			return err
		}, mkdir("Personal").do), do(create("Personal/f"), write("Personal/f", 0, 3000)), fsyncOf("Personal/f"), publish, reopen)},
	{name: "opening after a kill", setup: tasks(doc, do(create("Personal/f"), write("Personal/f", 0, 30<<10), create("Personal/g")), large("Personal/g", 2),
		do(rename("Personal/f", "Personal/h", 0))), work: tasks(killed, do(write("Personal/g", 0, 200)), fsyncOf("Personal/g"), killed, publish, killed)},
	{name: "opening after a checkpoint and a kill", setup: tasks(doc, do(create("Personal/f"), write("Personal/f", 0, 30<<10)), checkpoint,
		do(write("Personal/f", 100, 100), unlink("Personal/doc"))), work: tasks(killed, checkpoint, killed, publish)},
	{name: "closing and opening", setup: doc, work: tasks(do(create("Personal/f"), write("Personal/f", 0, 100<<10)), reopen, do(unlink("Personal/f")), reopen)},
	{name: "a journal of many files", journalBytes: 256 << 10, work: tasks(small("Personal/a", 12, 40<<10), syncAll, small("Personal/b", 12, 40<<10), publish,
		checkpoint, checkpoint, small("Personal/c", 12, 40<<10), syncAll, checkpoint)},
	{name: "many segments", segmentBytes: 1 << 20, work: tasks(do(create("Personal/a")), large("Personal/a", 2), publish, do(create("Personal/b")),
		large("Personal/b", 2), publish, do(unlink("Personal/a")), publish, alone("prune", ackNone, prune(fs.KeepPolicy{})), checkpoint)},
	{name: "checkpoints between", work: tasks(small("Personal/a", 4, 20<<10), checkpoint, do(create("Personal/f"), write("Personal/f", end, 300<<10)), checkpoint,
		do(write("Personal/f", end, 300<<10), rename("Personal/f", "Personal/a/f", 0)), checkpoint, publish, checkpoint, do(write("Personal/a/f", 7, 7)), checkpoint)},
	{name: "holes", setup: tasks(do(create("Personal/f")), large("Personal/f", 1), publish), work: tasks(
		do(fallocate("Personal/f", fs.FallocKeepSize|fs.FallocPunchHole, 100<<10, 300<<10)), fsyncOf("Personal/f"), publish,
		do(fallocate("Personal/f", fs.FallocZeroRange, 500<<10, 900<<10)), syncAll, do(fallocate("Personal/f", fs.FallocKeepSize, 0, 5<<20)), publish)},
	{name: "links", setup: doc, work: tasks(do(link("Personal/doc", "Personal/ln"), symlink("Personal/s", "doc"), mkdir("Personal/d"),
		link("Personal/ln", "Personal/d/ln")), publish, do(unlink("Personal/doc"), rename("Personal/ln", "Personal/d/other", 0)), syncAll, publish, checkpoint)},
	{name: "directories", setup: gone, work: tasks(do(mkdir("Personal/a"), mkdir("Personal/a/b"), create("Personal/a/b/f"), write("Personal/a/b/f", 0, 5000)),
		publish, do(mkdir("Personal/c"), rename("Personal/a/b", "Personal/c/b", 0), rmdir("Personal/a"), rename("Personal/c", "Personal/a", 0)), syncAll, publish)},
	{name: "exchange", setup: tasks(doc, do(create("Personal/other"), write("Personal/other", 0, 40<<10), mkdir("Personal/d"))), work: tasks(
		do(rename("Personal/doc", "Personal/other", fs.RenameExchange)), syncAll, do(rename("Personal/doc", "Personal/d", fs.RenameExchange)), publish, checkpoint)},
	{name: "a file without a name", setup: doc, work: tasks(both("tmpfile, write, link", "Personal/f", func(r *drilling) error {
		root, err := r.th.SpaceRoot("Personal")
		if err != nil {
			return err
		}
		a, err := r.th.Tmpfile(root, 0644, someone)
		if err != nil {
			return err
		}
		r.th.Ref(a.Ino)
		defer r.th.Unref(a.Ino)
		if _, err := r.th.Write(ctx, a.Ino, docTwo, 0, fs.WriteFlags{}); err != nil {
			return err
		}
		_, err = r.th.Link(a.Ino, root, "f")
		return err
	}, func(m walker) error {
		return errors.Join(create("Personal/f").do(m), content("Personal/f", docTwo).do(m))
	}), fsyncOf("Personal/f"), publish)},
	{name: "an open file without a name", setup: doc, work: tasks(both("open and unlink", "", func(r *drilling) error {
		a, err := r.walker().find("Personal/doc")
		if err != nil {
			return err
		}
		r.th.Ref(a.Ino)
		if err := unlink("Personal/doc").do(r.walker()); err != nil {
			r.th.Unref(a.Ino)
			return err
		}
		r.held = a.Ino
		return nil
	}, unlink("Personal/doc").do), alone("write to it", ackNone, func(r *drilling) error {
		if r.held == 0 {
			return nil
		}
		_, err := r.th.Write(ctx, r.held, docOne, 50, fs.WriteFlags{})
		return err
	}), checkpoint, publish, alone("close it", ackNone, func(r *drilling) error {
		if r.held != 0 {
			r.th.Unref(r.held)
		}
		return nil
	}), checkpoint)},
	{name: "copies", setup: tasks(do(create("Personal/a")), large("Personal/a", 2), publish), work: tasks(do(create("Personal/b"),
		copyRange("Personal/a", 0, "Personal/b", 0, 20<<10)), fsyncOf("Personal/b"), inParts(do(copyRange("Personal/a", 0, "Personal/b", 0, 2<<20))), syncAll, publish,
		do(unlink("Personal/a")), publish)},
	{name: "writes in a published file", setup: tasks(do(create("Personal/f")), large("Personal/f", 2), publish), work: tasks(do(write("Personal/f", 4096, 4096),
		write("Personal/f", 900<<10, 4096)), fsyncOf("Personal/f"), publish, do(write("Personal/f", 1<<20, 4096)), publish, checkpoint,
		do(write("Personal/f", 12345, 6000)), fsyncOf("Personal/f"), publish)},
	{name: "a log", work: func() []task {
		out := do(create("Personal/log"))
		for range 12 {
			out = tasks(out, do(write("Personal/log", end, 100)), fsyncOf("Personal/log"))
		}
		return tasks(out, publish, do(write("Personal/log", end, 100)), fsyncOf("Personal/log"), checkpoint)
	}()},
	{name: "two spaces", setup: do(mkdir("Work")), work: tasks(do(create("Work/f"), write("Work/f", end, 400<<10), create("Personal/f"), write("Personal/f", 0, 500)),
		fsyncOf("Personal/f"), publish, do(write("Work/f", 0, 500)), checkpoint, fsyncOf("Work/f"), do(unlink("Personal/f")), fsyncOf("Personal"))},
	{name: "old versions are read", setup: tasks(doc, gone), work: tasks(alone("read", ackNone, func(r *drilling) error {
		id, err := older(r, "Personal/doc", 2)
		if err != nil {
			return err
		}
		f, err := r.th.OpenVersion(ctx, "Personal/doc", id)
		if err != nil {
			return err
		}
		b := make([]byte, f.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			return err
		}
		if !bytes.Equal(b, docOne) {
			return errors.New("another content is read")
		}
		list, err := r.th.Deleted("Personal")
		if err == nil && len(list) == 0 {
			err = errors.New("nothing is deleted")
		}
		return err
	}), do(create("Personal/f")), syncAll)},
	{name: "everything at once", setup: doc, work: tasks(alone("begin", ackNone, func(r *drilling) error {
		ctx, cancel := context.WithCancel(context.Background())
		done, th := make(chan error, 1), r.th
		go func() { done <- th.Run(ctx) }()
		r.stop = func() error {
			cancel()
			return <-done
		}
		return nil
	}), small("Personal/a", 20, 2000), do(create("Personal/f"), write("Personal/f", end, 500<<10)), fsyncOf("Personal/f"), alone("wait", ackNone, func(*drilling) error {
		time.Sleep(20 * time.Millisecond)
		return nil
	}), do(create("Personal/.t"), write("Personal/.t", 0, 5000), rename("Personal/.t", "Personal/doc", 0)), fsyncOf("Personal/doc"),
		alone("end", ackAll, func(r *drilling) error { return r.end() }))},
}

func prune(keep fs.KeepPolicy) func(r *drilling) error {
	return func(r *drilling) error {
		_, err := r.th.Prune(ctx, "Personal", keep, false)
		return err
	}
}
