package memfs

import (
	"syscall"
	"time"

	"github.com/anyfs/anyfs/fs"
)

// Events calls fn for what Emit is given.
func (m *FS) Events(fn func([]fs.Event)) (cancel func()) {
	m.eventsMu.Lock()
	defer m.eventsMu.Unlock()
	m.eventID++
	id := m.eventID
	m.events[id] = fn
	return func() {
		m.eventsMu.Lock()
		defer m.eventsMu.Unlock()
		delete(m.events, id)
	}
}

// Emit tells who listens that something changed behind the kernel's back. It returns when they have been told.
func (m *FS) Emit(events ...fs.Event) {
	m.eventsMu.Lock()
	fns := make([]func([]fs.Event), 0, len(m.events))
	for _, fn := range m.events {
		fns = append(fns, fn)
	}
	m.eventsMu.Unlock()
	for _, fn := range fns {
		fn(events)
	}
}

// Renew gives the file at parent/name new content as a change from another device does: the name shows a new version
// under a new handle, and who holds the old handle keeps the old version. It returns the events to emit.
func (m *FS) Renew(parent fs.Ino, name string, data []byte) ([]fs.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, e, err := m.entryLocked(parent, name)
	if err != nil {
		return nil, err
	}
	old := e.in
	if old.kind != syscall.S_IFREG {
		return nil, fs.ErrInvalid
	}
	m.handles++
	in := &inode{handle: virtual | m.handles, kind: old.kind, nlink: old.nlink}
	old.mu.Lock()
	in.attr = old.attr
	old.mu.Unlock()
	now := time.Now().UnixNano()
	in.attr.Size, in.attr.Mtime, in.attr.Ctime = int64(len(data)), now, now
	in.data.write(data, 0)
	m.used.Add(in.data.allocated())
	m.inodes[in.handle] = in

	var events []fs.Event
	for _, dir := range m.inodes {
		if dir.dir == nil {
			continue
		}
		for _, f := range dir.dir.names {
			if f.in == old {
				f.in = in
				events = append(events, fs.Event{Parent: dir.handle, Name: f.name, Inode: old.handle, Renewed: true})
			}
		}
	}
	old.nlink = 0
	m.reapLocked(old)
	return events, nil
}
