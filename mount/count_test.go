package mount

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// counting counts the kernel's requests by name.
type counting struct {
	*filesystem
	mu     sync.Mutex
	counts map[string]int
}

func (c *counting) count(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]int)
	}
	c.counts[name]++
}

// take returns what was counted since the last time, as "NAME n" in order of the names.
func (c *counting) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s []string
	for _, name := range slices.Sorted(maps.Keys(c.counts)) {
		s = append(s, fmt.Sprint(name, " ", c.counts[name]))
	}
	c.counts = nil
	return strings.Join(s, ", ")
}

type cancelled = <-chan struct{}

func (c *counting) Lookup(x cancelled, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	c.count("LOOKUP")
	return c.filesystem.Lookup(x, in, name, out)
}

func (c *counting) GetAttr(x cancelled, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	c.count("GETATTR")
	return c.filesystem.GetAttr(x, in, out)
}

func (c *counting) Statx(x cancelled, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	c.count("STATX")
	return c.filesystem.Statx(x, in, out)
}

func (c *counting) SetAttr(x cancelled, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	c.count("SETATTR")
	return c.filesystem.SetAttr(x, in, out)
}

func (c *counting) Create(x cancelled, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	c.count("CREATE")
	return c.filesystem.Create(x, in, name, out)
}

func (c *counting) Open(x cancelled, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c.count("OPEN")
	return c.filesystem.Open(x, in, out)
}

func (c *counting) OpenDir(x cancelled, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	c.count("OPENDIR")
	return c.filesystem.OpenDir(x, in, out)
}

func (c *counting) Read(x cancelled, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	c.count("READ")
	return c.filesystem.Read(x, in, buf)
}

func (c *counting) Write(x cancelled, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	c.count("WRITE")
	return c.filesystem.Write(x, in, data)
}

func (c *counting) Flush(x cancelled, in *fuse.FlushIn) fuse.Status {
	c.count("FLUSH")
	return c.filesystem.Flush(x, in)
}

func (c *counting) Release(x cancelled, in *fuse.ReleaseIn) {
	c.count("RELEASE")
	c.filesystem.Release(x, in)
}

func (c *counting) ReleaseDir(in *fuse.ReleaseIn) {
	c.count("RELEASEDIR")
	c.filesystem.ReleaseDir(in)
}

func (c *counting) Fsync(x cancelled, in *fuse.FsyncIn) fuse.Status {
	c.count("FSYNC")
	return c.filesystem.Fsync(x, in)
}

func (c *counting) Access(x cancelled, in *fuse.AccessIn) fuse.Status {
	c.count("ACCESS")
	return c.filesystem.Access(x, in)
}

func (c *counting) Readlink(x cancelled, in *fuse.InHeader) ([]byte, fuse.Status) {
	c.count("READLINK")
	return c.filesystem.Readlink(x, in)
}

func (c *counting) ReadDir(x cancelled, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c.count("READDIR")
	return c.filesystem.ReadDir(x, in, out)
}

func (c *counting) ReadDirPlus(x cancelled, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c.count("READDIRPLUS")
	return c.filesystem.ReadDirPlus(x, in, out)
}

func (c *counting) GetXAttr(x cancelled, in *fuse.InHeader, attr string, dest []byte) (uint32, fuse.Status) {
	c.count("GETXATTR")
	return c.filesystem.GetXAttr(x, in, attr, dest)
}

func (c *counting) Lseek(x cancelled, in *fuse.LseekIn, out *fuse.LseekOut) fuse.Status {
	c.count("LSEEK")
	return c.filesystem.Lseek(x, in, out)
}

func (c *counting) CopyFileRange(x cancelled, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	c.count("COPY_FILE_RANGE")
	return c.filesystem.CopyFileRange(x, in)
}

func (c *counting) Forget(id, n uint64) {
	c.count("FORGET")
	c.filesystem.Forget(id, n)
}
