package mount

import (
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Sizes of buffers, in bytes.
const (
	requestBytes = maxRequestBytes + 8<<10 // the largest request: a write
	smallBytes   = 72 << 10                // most answers, also the longest xattr
	mediumBytes  = 136 << 10               // reads ahead of 128 KiB
	largeBytes   = maxRequestBytes + 8<<10 // the largest answer: a read
	shortRequest = 8 << 10                 // copied when it takes long, so that the large buffer goes on reading
)

// Opcodes that the server looks at: those that may take long, have long answers, or want none.
const (
	opForget    = 2
	opRead      = 15
	opFsync     = 20
	opReaddir   = 28
	opFsyncdir  = 30
	opBatch     = 42
	opFallocate = 43
	opPlus      = 44
	opCopy      = 47
)

// A read that takes longLeader should not be answered by the leader; where reads take longHelper, as from a disk, many
// at once are worth their threads.
const (
	longLeader = time.Millisecond
	longHelper = 40 * time.Microsecond
	manyReads  = 8
)

// Who makes one call after another sends the next request some microseconds after the answer, and waking a thread takes several
// times that (measured in files of 4 KiB made one after another: 3,700 a second, and 6,200 when nobody sleeps in between). So
// where requests came spinGap apart lately, and processors stand idle (spare), the leader looks for the next one for spinFor before it sleeps.
const (
	spinFor = 50 * time.Microsecond
	spinGap = 80 * time.Microsecond
)

const (
	watchTick  = 2 * time.Millisecond
	watchQuiet = 50 // ticks without a request after which nobody watches
)

// server answers the kernel's requests on few threads. Waking one costs more than most requests do: so one goroutine,
// the *leader*, waits for a request and answers it itself, and nobody else is disturbed.
//
//   - A request that may take long is answered by who read it, after another leader was started.
//   - Where one is pending each time the leader comes back, *helpers* are started, which go when none is.
//   - A leader that does not come back within two ticks, since something holds it up, is replaced (watch).
//
// So at any time either somebody waits for requests, or will within some milliseconds.
type server struct {
	dev   *device
	proto *fuse.ProtocolServer
	log   *slog.Logger
	ended func() // called once, when the kernel ends the connection

	wg      sync.WaitGroup
	done    chan struct{}
	once    sync.Once
	turn    atomic.Uint64 // counts the leaders' requests twice: odd while one is answered
	helpers atomic.Int32
	begun   atomic.Int64 // requests so far
	inHand  atomic.Int64 // of these, those that are not answered
	reading atomic.Int64 // nanoseconds that a read takes lately
	gap     atomic.Int64 // nanoseconds that the leader waits for a request lately
	spins   bool         // there are threads enough for others to go on while the leader looks for a request
	spare   spare        // and whether there are processors enough for its caller

	watching atomic.Bool
	wake     chan struct{}

	requests, small, medium, large sync.Pool // of *[]byte
}

func newServer(dev *device, raw fuse.RawFileSystem, o fuse.MountOptions, log *slog.Logger, ended func()) *server {
	pool := func(n int) sync.Pool {
		return sync.Pool{New: func() any { b := make([]byte, n); return &b }}
	}
	s := &server{
		dev: dev, proto: fuse.NewProtocolServer(raw, &o), log: log, ended: ended,
		done: make(chan struct{}), wake: make(chan struct{}, 1), spins: runtime.GOMAXPROCS(0) > 1, spare: spare{since: idleSince},
		requests: pool(requestBytes), small: pool(smallBytes), medium: pool(mediumBytes), large: pool(largeBytes),
	}
	s.spare.some.Store(true)
	return s
}

// job is a request on its way.
type job struct {
	s      *server
	in     *[]byte
	n      int
	errno  syscall.Errno
	waited bool // for the kernel to have a request
	try    func(uintptr) bool
}

func (s *server) newJob() *job {
	j := &job{s: s, in: s.requests.Get().(*[]byte)}
	j.try = func(uintptr) bool {
		j.n, j.errno = s.dev.read(*j.in)
		if j.errno == unix.EAGAIN {
			j.waited = true
			return false
		}
		return true
	}
	return j
}

// free gives the buffer back.
func (j *job) free() {
	if j.in != nil {
		j.s.requests.Put(j.in)
		j.in = nil
	}
}

// await waits for a request and reports whether there is one; else the connection has ended.
func (j *job) await() bool {
	j.waited = false
	s, start := j.s, time.Now()
	found := false // else conn.Read tries first, too
	if s.spins && s.spare.some.Load() && s.gap.Load() < int64(spinGap) {
		for found = j.try(0); !found && time.Since(start) < spinFor; {
			found = j.try(0)
		}
	}
	if !found {
		if err := s.dev.conn.Read(j.try); err != nil {
			j.errno = unix.ENODEV // closed
		}
	}
	// Lost updates of leaders that come and go do not matter.
	old := s.gap.Load()
	s.gap.Store(old + (int64(min(time.Since(start), 10*spinGap))-old)/8)
	return j.ok()
}

// ok reports whether a request was read. What else there was ends the server, but for having none.
func (j *job) ok() bool {
	switch {
	case j.errno == unix.EAGAIN:
		return false
	case j.errno == 0 && j.n >= int(unsafe.Sizeof(fuse.InHeader{})):
		return true
	case j.errno != unix.ENODEV:
		j.s.log.Error("reading requests", "cause", j.errno, "bytes", j.n)
	}
	j.s.end()
	return false
}

func (j *job) header() *fuse.InHeader { return (*fuse.InHeader)(unsafe.Pointer(&(*j.in)[0])) }

// takesLong reports whether others should not wait until this is answered.
func (j *job) takesLong() bool {
	switch j.header().Opcode {
	case opFsync, opFsyncdir, opFallocate, opCopy:
		return true
	case opRead:
		return j.s.reading.Load() > int64(longLeader)
	}
	return false
}

// room returns where there are buffers with room for the answer.
func (j *job) room() *sync.Pool {
	switch h := j.header(); h.Opcode {
	case opRead, opReaddir, opPlus:
		const before = 1 << 10
		switch n := (*fuse.ReadIn)(unsafe.Pointer(h)).Size; {
		case n > mediumBytes-before:
			return &j.s.large
		case n > smallBytes-before:
			return &j.s.medium
		}
	}
	return &j.s.small
}

// answer answers the request.
func (j *job) answer() {
	if j.header().Opcode != opRead {
		j.answerNow()
		return
	}
	start := time.Now()
	j.answerNow()
	// Lost updates of concurrent reads do not matter.
	old := j.s.reading.Load()
	j.s.reading.Store(old + (int64(min(time.Since(start), 10*time.Millisecond))-old)/8)
}

func (j *job) answerNow() {
	j.s.begun.Add(1)
	j.s.inHand.Add(1)
	defer j.s.inHand.Add(-1)
	room := j.room()
	out := room.Get().(*[]byte)
	defer room.Put(out)
	n, status := j.s.proto.HandleRequest([][]byte{(*j.in)[:j.n]}, [][]byte{*out})
	if !status.Ok() {
		// The request could not even be read: the kernel must hear something, or its caller waits for ever.
		h := fuse.OutHeader{Status: -int32(unix.EIO), Unique: j.header().Unique}
		h.Length = uint32(unsafe.Sizeof(h))
		n = copy(*out, bytesOf(&h))
		j.s.log.Error("a request that is not understood", "opcode", j.header().Opcode, "bytes", j.n)
	}
	if n == 0 {
		return // no answer is expected
	}
	// ENOENT: its caller is gone, or it was about an interrupt. ENODEV: so is the mount.
	if errno := j.s.dev.answer((*out)[:n]); errno != 0 && errno != unix.ENOENT && errno != unix.ENODEV {
		j.s.log.Error("answering a request", "opcode", j.header().Opcode, "cause", errno)
	}
}

// begin reads and answers the kernel's first request, which negotiates.
func (s *server) begin() error {
	j := s.newJob()
	defer j.free()
	if !j.await() {
		return errors.New("the kernel ended the connection")
	}
	j.answer()
	return nil
}

// run answers requests until the kernel ends the connection, and returns when all are answered.
func (s *server) run() {
	s.wg.Go(s.lead)
	s.wg.Go(s.watch)
	s.wg.Wait()
	s.dev.close()
}

// settle waits until no request has come for a while and all are answered, for at most limit.
func (s *server) settle(limit time.Duration) {
	const while, step = 40 * time.Millisecond, 4 * time.Millisecond
	end := time.Now().Add(limit)
	last, since := s.begun.Load(), time.Now()
	for time.Now().Before(end) && !isClosed(s.done) {
		time.Sleep(step)
		if n := s.begun.Load(); n != last || s.inHand.Load() > 0 {
			last, since = n, time.Now()
		} else if time.Since(since) >= while {
			return
		}
	}
}

func (s *server) end() {
	s.once.Do(func() {
		close(s.done)
		s.ended()
	})
}

// lead waits for requests and answers them, until another does.
func (s *server) lead() {
	j := s.newJob()
	defer j.free()
	pending := 0 // requests that were there already when it came back for them
	for {
		if !j.await() {
			return
		}
		if j.takesLong() {
			s.wg.Go(s.lead)
			s.answerLong(j)
			return
		}
		if pending++; j.waited || j.header().Opcode == opForget || j.header().Opcode == opBatch {
			pending = 0
		}
		if pending > 2 {
			s.help()
			pending = 0
		}
		turn := s.turn.Add(1)
		if !s.watching.Load() && s.watching.CompareAndSwap(false, true) {
			s.wake <- struct{}{}
		}
		j.answer()
		if !s.turn.CompareAndSwap(turn, turn+1) {
			return // it took so long that the watch found another
		}
	}
}

// answerLong answers a request that may take long. A short one first leaves its large buffer to the next leader.
func (s *server) answerLong(j *job) {
	if j.n > shortRequest {
		j.answer()
		return
	}
	short := make([]byte, j.n)
	copy(short, *j.in)
	j.free()
	(&job{s: s, in: &short, n: len(short)}).answer()
}

// help starts a goroutine that answers what is pending beside the leader.
func (s *server) help() {
	most := int32(runtime.GOMAXPROCS(0)) - 1
	if s.reading.Load() > int64(longHelper) {
		most = max(most, manyReads)
	}
	if s.helpers.Add(1) > most {
		s.helpers.Add(-1)
		return
	}
	s.wg.Go(func() {
		defer s.helpers.Add(-1)
		j := s.newJob()
		defer j.free()
		for j.try(0) && j.ok() {
			j.answer()
		}
	})
}

// watch replaces a leader that is held up, until the connection ends. It sleeps where nothing has happened for a while.
func (s *server) watch() {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-s.wake:
		}
		tick.Reset(watchTick)
		s.spare.begin(time.Now())
		last := s.turn.Load()
		for quiet := 0; ; {
			select {
			case <-s.done:
				return
			case <-tick.C:
			}
			s.spare.look(time.Now())
			turn := s.turn.Load()
			switch {
			case turn != last:
				quiet = 0
			case turn%2 == 0:
				quiet++
			case s.turn.CompareAndSwap(turn, turn+1):
				s.wg.Go(s.lead)
			}
			last = turn
			if quiet < watchQuiet {
				continue
			}
			s.watching.Store(false)
			if s.turn.Load() == last || !s.watching.CompareAndSwap(false, true) {
				break // from here on a leader wakes it
			}
			quiet = 0
		}
		tick.Reset(time.Hour)
	}
}
