package fs

import "context"

// views serves the read-only directories under .anyfs. Its inodes are virtual.
type views struct{ h *Home }

func newViews(h *Home) *views { return &views{h: h} }

func (v *views) lookup(parent Ino, name string) (Attr, error)            { return Attr{}, ErrNotExist }
func (v *views) parent(dir Ino) (Ino, error)                             { return 0, ErrStale }
func (v *views) readDir(dir Ino, off uint64, fn func(Dirent) bool) error { return ErrStale }
func (v *views) getattr(ino Ino) (Attr, error)                           { return Attr{}, ErrStale }
func (v *views) read(ctx context.Context, ino Ino, p []byte, off int64) (int, error) {
	return 0, ErrStale
}
func (v *views) readlink(ino Ino) (string, error)                   { return "", ErrStale }
func (v *views) seek(ino Ino, off int64, whence int) (int64, error) { return 0, ErrStale }
func (v *views) ref(ino Ino)                                        {}
func (v *views) unref(ino Ino)                                      {}
