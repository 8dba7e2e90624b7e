package mount

import (
	"context"
	"math"
	"os"
	"syscall"

	"github.com/anyfs/anyfs/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Open is answered so once; from then on the kernel opens files by itself, and no close is told.
func (f *filesystem) Open(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.ENOSYS
}

// Flush too: a close has nothing to wait for.
func (f *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// Read fills buf, which is the reply's own.
func (f *filesystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return nil, errStale
	}
	ctx := f.newWait(cancel, &in.InHeader)
	defer ctx.finish()
	n, err := f.back.Read(ctx, h, buf, int64(in.Offset))
	if err != nil {
		return nil, f.status("read", err)
	}
	return inPlace(n), fuse.OK
}

// inPlace says that so many bytes are where they belong: in the answer.
type inPlace int

func (n inPlace) Size() int { return int(n) }

func (n inPlace) Done() {}

func (n inPlace) Bytes(buf []byte) ([]byte, fuse.Status) { return buf[:n], fuse.OK }

// Readv is how the protocol server takes it.
func (n inPlace) Readv([][]byte) (int, fuse.Status) { return int(n), fuse.OK }

// Writev leaves the work to Write: /dev/fuse gives data in one piece.
func (f *filesystem) Writev(<-chan struct{}, *fuse.WriteIn, [][]byte) (uint32, fuse.Status) {
	return 0, fuse.ENOSYS
}

// Write stores data. Written-back pages of a shared map come without the flags of a file (WRITE_CACHE).
func (f *filesystem) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return 0, errStale
	}
	flags := fs.WriteFlags{
		Append:   in.Flags&syscall.O_APPEND != 0 && in.WriteFlags&fuse.WRITE_CACHE == 0,
		KillPriv: in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0,
	}
	ctx := f.newWait(cancel, &in.InHeader)
	defer ctx.finish()
	n, err := f.back.Write(ctx, h, data, int64(in.Offset), flags)
	if err != nil && n == 0 {
		return 0, f.status("write", err)
	}
	return uint32(n), fuse.OK
}

// Fsync returns when everything about the inode is durable. It is not interrupted: the disk answers.
func (f *filesystem) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	return f.status("fsync", f.back.Fsync(context.Background(), h))
}

// Fallocate reserves, punches or zeroes a range.
func (f *filesystem) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	if in.Offset > math.MaxInt64 || in.Length > math.MaxInt64 {
		return fuse.Status(syscall.EFBIG)
	}
	ctx := f.newWait(cancel, &in.InHeader)
	defer ctx.finish()
	err := f.back.Fallocate(ctx, h, in.Mode, int64(in.Offset), int64(in.Length))
	if err == nil {
		err = f.killPriv(ctx, h, &in.InHeader)
	}
	return f.status("fallocate", err)
}

// killPriv clears suid and sgid after a change of content whose request has no flag for it. Root keeps them, as with
// write(2); other holders of CAP_FSETID cannot be told from here, and lose them.
func (f *filesystem) killPriv(ctx context.Context, h fs.Ino, in *fuse.InHeader) error {
	if in.Uid == 0 {
		return nil
	}
	a, err := f.back.Getattr(h)
	if err == nil && a.Mode&(syscall.S_ISUID|syscall.S_ISGID) != 0 {
		_, err = f.back.Setattr(ctx, h, fs.SetAttr{KillPriv: true})
	}
	return err
}

// Lseek finds data and holes; the kernel does all other seeking.
func (f *filesystem) Lseek(_ <-chan struct{}, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	h, ok := f.nodes.handle(in.NodeId)
	if !ok {
		return errStale
	}
	off, err := f.back.Seek(h, int64(in.Offset), int(in.Whence))
	out.Offset = uint64(off)
	return f.status("lseek", err)
}

// CopyFileRange copies within the backend: references, where it can.
func (f *filesystem) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	src, ok := f.nodes.handle(in.NodeId)
	dst, ok2 := f.nodes.handle(in.NodeIdOut)
	if !ok || !ok2 {
		return 0, errStale
	}
	if in.Flags != 0 {
		return 0, fuse.EINVAL
	}
	// The reply has 32 bits, and the kernel asks again for the rest.
	n := int64(min(in.Len, math.MaxUint32&^uint64(os.Getpagesize()-1)))
	ctx := f.newWait(cancel, &in.InHeader)
	defer ctx.finish()
	done, err := f.back.CopyRange(ctx, src, int64(in.OffIn), dst, int64(in.OffOut), n)
	if err == nil {
		err = f.killPriv(ctx, dst, &in.InHeader)
	}
	if err != nil && done == 0 {
		return 0, f.status("copy_file_range", err)
	}
	return uint32(done), fuse.OK
}
