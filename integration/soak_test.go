package integration

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestSoak has a network of several nodes and three devices, two of one account and one of another in a shared space, at work for a long time, with a
// fault each minute: a node or a device killed, a process stopped, a device paused, the disk of a node wiped, a node drained and another in its place.
// In the end all devices and a new one that reaches the nodes alone show the same, nothing that was acknowledged is missing, and no process has more
// memory, descriptors or goroutines than it had, but for a small bound (soakGrown).
//
// ANYFS_SOAK is how long (as 2h). Without it, it is for some seconds, with a fault every other one, and memory is not judged.
func TestSoak(t *testing.T) {
	NeedFUSE(t)
	t.Parallel()
	lasts, every := time.Duration(0), time.Second
	if v := os.Getenv("ANYFS_SOAK"); v != "" {
		d, err := time.ParseDuration(v)
		check(t, err)
		lasts, every = d, time.Minute
	}
	s := newSoak(t, envNumber("ANYFS_SEED", uint64(time.Now().UnixNano())), lasts > 0)
	t.Logf("ANYFS_SEED=%d", s.seed)
	half := s.began.Add(lasts / 2)
	defer s.tell(half)
	s.log.start()
	for _, d := range s.devices {
		d.start()
	}
	if lasts == 0 {
		for _, f := range s.bag() {
			s.fault(f)
			s.rest(every)
		}
	}
	var bag []string
	for end, report := s.began.Add(lasts), s.began; lasts > 0 && time.Now().Before(end) && !t.Failed(); {
		next := time.Now().Add(every)
		if len(bag) == 0 {
			bag = s.bag()
		}
		s.spare = time.Now().After(half)
		s.fault(bag[0])
		bag = bag[1:]
		s.rest(time.Until(next))
		if time.Since(report) > 10*time.Minute {
			report = time.Now()
			t.Logf("after %v: %v operations, faults %v\n%s", time.Since(s.began).Round(time.Second), s.done(), s.landed, s.log.table())
		}
	}
	s.finish()
}

// tell says what became of it, also where it failed on the way.
func (s *soak) tell(half time.Time) {
	n := 0
	for _, k := range s.landed {
		n += k
	}
	if n == 0 {
		s.t.Error("no fault landed: nothing was tried")
	}
	if s.long {
		for _, what := range s.log.grown(half) {
			s.t.Error(what)
		}
	}
	verdict := "PASSED: all devices are equal, nothing is lost, and memory, descriptors and goroutines are flat"
	if s.t.Failed() {
		verdict = "FAILED"
	}
	s.t.Logf("%v: %d faults landed, %v; %d operations were acknowledged; %d conflict copies in the end; lost: %d\n%s%s",
		time.Since(s.began).Round(time.Second), n, s.landed, s.done(), s.copies, s.lost, s.log.table(), verdict)
}

// soak is the network, the devices, and what was done to them.
type soak struct {
	t       *testing.T
	seed    uint64
	rnd     *rand.Rand
	w       *Network
	names   map[*Node]string
	devices []*soakDevice
	log     *soakLog
	began   time.Time
	long    bool
	spare   bool            // let the processes in spared live on, to see what becomes of them
	spared  map[string]bool // by name, in the second half
	landed  map[string]int
	serial  map[string]int // nodes of a kind so far

	copies, lost int
}

func newSoak(t *testing.T, seed uint64, long bool) *soak {
	t.Helper()
	dir := t.TempDir()
	binary := overlay(t, "probed", map[string]string{
		"cmd/anyfs/main_probe.go": "package main\n\nimport _ \"github.com/anyfs/anyfs/integration/inside\"\n"})
	s := &soak{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0)), began: time.Now(), long: long, names: map[*Node]string{}, landed: map[string]int{},
		serial: map[string]int{}, log: newSoakLog(t, dir, long)}
	probed := []string{"ANYFS_PROBE=" + dir}
	s.w = &Network{t: t, next: 41, binary: binary, env: probed, flags: []string{"--no-relay"}} // or devices would meet without them
	s.w.Coordinator = runNode(&Node{t: t, Kind: "coordinator", binary: binary, env: probed, listen: []string{"/ip4/127.0.0.40/tcp/0"}, flags: s.w.flags})
	s.runs(s.w.Coordinator)
	for range 3 {
		s.join("sync")
	}
	for range 2 {
		s.join("file")
	}
	d := &Devices{t: t}
	for i, name := range []string{"a", "b", "c"} {
		h := NewHome(t)
		h.Listen, h.binary, h.env = "/ip4/127.0.0.1/tcp/0", binary, probed
		if i == 1 {
			d.login(h, i)
		}
		h.Mount("--no-discovery")
		h.Must("network", "add", s.w.Coordinator.File())
		d.All = append(d.All, h)
		s.devices = append(s.devices, &soakDevice{Home: h, s: s, name: name, rnd: rand.New(rand.NewPCG(seed, uint64(i+1)))})
	}
	a, b, c := s.devices[0], s.devices[1], s.devices[2]
	a.Must("space", "create", "Team")
	check(t, os.Mkdir(filepath.Join(a.Mnt, "Team", "together"), 0o755))
	a.Sync()
	c.Must("join", strings.TrimSpace(a.Must("invite", "Team", "--open")), "--wait")
	for _, d := range []*soakDevice{b, c} {
		d.eventually("the shared space is there", func() error {
			_, err := os.Stat(filepath.Join(d.Mnt, "Team", "together"))
			return err
		})
	}
	for _, d := range s.devices {
		where := "Team"
		if d == a {
			where = "Personal"
		}
		dir := filepath.Join(d.Mnt, where, "of "+d.name)
		check(t, os.Mkdir(dir, 0o755))
		d.own = &crasher{dir: dir, rnd: d.rnd, names: map[string]*crashFile{}}
		d.runs()
	}
	s.spared = map[string]bool{"coordinator": true, []string{"device a", "device b"}[s.rnd.IntN(2)]: true, "device c": true}
	t.Logf("the network and the devices are there after %v", time.Since(s.began).Round(time.Millisecond))
	s.began = time.Now()
	return s
}

// join has another node of a kind come.
func (s *soak) join(kind string) *Node {
	s.t.Helper()
	n := s.w.Join(kind)
	s.serial[kind]++
	s.names[n] = fmt.Sprint(kind, " ", s.serial[kind])
	if kind == "sync" {
		s.w.Sync = append(s.w.Sync, n)
	} else {
		s.w.File = append(s.w.File, n)
	}
	s.runs(n)
	return n
}

// runs tells that a node was started.
func (s *soak) runs(n *Node) {
	if n == s.w.Coordinator {
		s.names[n] = "coordinator"
	}
	s.log.runs(s.names[n], n.cmd.Process.Pid)
}

// kill ends a node at once.
func (s *soak) kill(n *Node) {
	s.log.ends(s.names[n])
	n.Kill()
}

// done is how many operations were acknowledged.
func (s *soak) done() (n int) {
	for _, d := range s.devices {
		n += int(d.ops.Load())
	}
	return n
}

// rest waits, and fails early when a worker has failed.
func (s *soak) rest(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(time.Second, max(0, time.Until(end)))) {
		s.working()
	}
}

// working fails the test where the work of a device has ended by itself.
func (s *soak) working() {
	s.t.Helper()
	for _, d := range s.devices {
		select {
		case <-d.ended:
			s.t.Fatalf("%v after the begin an operation on device %s fails, and no fault explains it: %v\n%s", time.Since(s.began).Round(time.Second), d.name, d.fault, d.logTail())
		default:
		}
	}
}

// bag gives the kinds of the faults that come next, in the order in which they do.
func (s *soak) bag() []string {
	b := []string{"node killed", "device killed", "node stopped", "device paused", "node wiped", "coordinator killed"}
	if s.long {
		b = append(b, b...)
		b = append(b, "node killed", "node killed", "device killed", "device killed", "device stopped", "device stopped", "node replaced")
	}
	s.rnd.Shuffle(len(b), func(i, j int) { b[i], b[j] = b[j], b[i] })
	return b
}

// member draws a node that is not the coordinator. One that may end is none that is to be seen through.
func (s *soak) member(ends bool) *Node {
	all := slices.Concat(s.w.Sync, s.w.File)
	if ends && s.spare { // the first of each kind is seen through
		all = slices.Concat(s.w.Sync[1:], s.w.File[1:])
	}
	return all[s.rnd.IntN(len(all))]
}

// device draws a device.
func (s *soak) device(ends bool) *soakDevice {
	var all []*soakDevice
	for _, d := range s.devices {
		if !ends || !s.spare || !s.spared["device "+d.name] {
			all = append(all, d)
		}
	}
	return all[s.rnd.IntN(len(all))]
}

// short is a time for which something is away.
func (s *soak) short(most time.Duration) time.Duration {
	if !s.long {
		most /= 20
	}
	return time.Duration(s.rnd.Int64N(int64(most)))
}

// fault does one thing of a kind to a process, and counts it where it took hold.
func (s *soak) fault(kind string) {
	s.t.Helper()
	s.working()
	began := time.Now()
	what := ""
	switch kind {
	case "node killed":
		n := s.member(true)
		what = s.names[n]
		s.kill(n)
		time.Sleep(s.short(20 * time.Second))
		n.Start()
		s.runs(n)
	case "coordinator killed":
		n := s.w.Coordinator
		if s.spare { // its memory is looked at: it is away in another way
			s.stopped(s.names[n], n.cmd.Process.Pid)
			break
		}
		s.kill(n)
		time.Sleep(s.short(20 * time.Second))
		n.Start()
		s.runs(n)
	case "device killed":
		d := s.device(true)
		what = d.name
		d.kill()
		time.Sleep(s.short(10 * time.Second))
		d.again()
	case "node stopped":
		n := s.member(false)
		what = s.names[n]
		s.stopped(s.names[n], n.cmd.Process.Pid)
	case "device stopped":
		d := s.device(false)
		what = d.name
		s.stopped("device "+d.name, d.pid)
	case "device paused":
		d := s.device(false)
		what = d.name
		d.Must("pause")
		time.Sleep(s.short(40 * time.Second))
		d.Must("resume")
	case "node wiped":
		what = s.wipe()
	case "node replaced":
		what = s.replace()
	}
	s.landed[kind]++
	if s.long {
		s.t.Logf("%7.1f s: %s %s, %.1f s", began.Sub(s.began).Seconds(), kind, what, time.Since(began).Seconds())
	}
}

// stopped stops a process for a while.
func (s *soak) stopped(name string, pid int) {
	s.t.Helper()
	s.log.pause(name, true)
	defer s.log.pause(name, false)
	check(s.t, stop(pid))
	defer func() { check(s.t, syscall.Kill(pid, syscall.SIGCONT)) }()
	time.Sleep(time.Second/2 + s.short(20*time.Second))
}

// wipe takes the disk of a node, which must have from the others what they had, before another node can lose its own.
func (s *soak) wipe() string {
	s.t.Helper()
	n := s.member(true)
	others := s.w.Sync
	blocks := n.Kind == "file"
	if blocks {
		others = s.w.File
	}
	var want map[string]int64
	for _, o := range others {
		if o != n {
			want = held(o, blocks)
		}
	}
	s.kill(n)
	n.Wipe()
	n.Start()
	s.runs(n)
	var have map[string]int64
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		s.working()
		healed := true
		have = held(n, blocks)
		for id, size := range want {
			healed = healed && (have[id] >= size || !blocks && have[id] >= size*9/10) // in another order they take a little less or more
		}
		if healed {
			return s.names[n]
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s was wiped; it has %v still, the other had %v", s.names[n], have, want)
		}
	}
}

// replace has another node come in the place of one, which is drained.
func (s *soak) replace() string {
	s.t.Helper()
	old := s.member(true)
	id := old.Status().PeerID
	n := s.join(old.Kind)
	s.w.Admin("drain", id)
	var last NodeStatus
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		s.working()
		if last = old.Status(); last.Draining && last.Leaving == 0 && len(last.Spaces) == 0 {
			break
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s is not drained: %+v", s.names[old], last)
		}
	}
	s.log.ends(s.names[old])
	old.Stop()
	s.w.Admin("remove", id)
	gone := func(x *Node) bool { return x == old }
	s.w.Sync, s.w.File = slices.DeleteFunc(s.w.Sync, gone), slices.DeleteFunc(s.w.File, gone)
	return s.names[old] + " by " + s.names[n]
}

// finish ends the work, and looks at what there is.
func (s *soak) finish() {
	s.t.Helper()
	t := s.t
	for _, d := range s.devices {
		d.end()
	}
	ended, patience, patient := time.Now(), time.Minute, "60s"
	if s.long {
		patience, patient = 4*time.Minute, "240s"
	}
	a, b, c := s.devices[0], s.devices[1], s.devices[2]
	for _, d := range s.devices {
		d.Must("status", "--wait", "--timeout", patient)
	}
	same := func(what string, one, other *soakDevice, dir string) {
		for end := time.Now().Add(patience); ; time.Sleep(time.Second) { // a device may yet publish what two edits merge to
			x, err := readTree(filepath.Join(one.Mnt, dir), TreeOptions{})
			y, err2 := readTree(filepath.Join(other.Mnt, dir), TreeOptions{})
			diff := DiffTrees(x, y)
			if err == nil && err2 == nil && len(diff) == 0 && len(x) > 0 {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%s differ: %v, %v, %s", what, err, err2, strings.Join(diff, "\n"))
				return
			}
		}
	}
	same("the devices of one account", a, b, "")
	same("the devices of two accounts", a, c, "Team")
	t.Logf("all devices are equal %v after the work", time.Since(ended).Round(time.Millisecond))
	for _, d := range s.devices {
		if err := d.own.verify(); err != nil {
			s.lost++
			t.Errorf("what device %s wrote alone: %v", d.name, err)
		}
	}
	s.log.stop() // before processes come that are no part of it
	s.w.equal(s.w.File, true)
	n := login(t, a.Home, "a new one")
	n.Must("network", "add", s.w.Coordinator.File())
	n.Mount("--no-discovery")
	n.Must("status", "--wait", "--timeout", patient)
	same("a new device that reaches the nodes alone", a, &soakDevice{Home: n}, "")
	n.Unmount()
	s.together()
	for _, d := range s.devices {
		d.Must("verify")
		text := string(must(t)(os.ReadFile(filepath.Join(d.Dir, "anyfs.log"))))
		if strings.Contains(text, "broke the protocol") {
			t.Errorf("a device says that somebody broke the protocol: %s", d.logTail())
		}
	}
	for n, name := range s.names {
		if strings.Contains(n.log.String(), "broke the protocol") {
			t.Errorf("%s says that somebody broke the protocol:\n%s", name, tail(n.log.String()))
		}
	}
}

// together looks for what the devices wrote into files that they have in common. Each line that was appended is in the file or in a conflict copy of it.
// A saved content may be gone only where another save of the same file began after its own had.
func (s *soak) together() {
	s.t.Helper()
	dir := filepath.Join(s.devices[0].Mnt, "Team", "together")
	entries, err := os.ReadDir(dir)
	check(s.t, err)
	texts := map[string]string{}
	for _, e := range entries {
		name, rest, copied := strings.Cut(e.Name(), " (conflict")
		if copied && rest != "" {
			s.copies++
		}
		texts[name] += "\n" + string(must(s.t)(os.ReadFile(filepath.Join(dir, e.Name()))))
	}
	saves := map[string][]soakSave{}
	for _, d := range s.devices {
		for _, l := range d.lines {
			if !strings.Contains(texts[l.file], l.text) {
				s.lost++
				s.t.Errorf("device %s appended %q to %s, which has it no more", d.name, l.text, l.file)
			}
		}
		for _, v := range d.saves {
			saves[v.file] = append(saves[v.file], v)
		}
	}
	for file, all := range saves {
		for _, v := range all {
			later := slices.ContainsFunc(all, func(o soakSave) bool { return o.text != v.text && o.began.After(v.began) })
			if v.acknowledged && !later && !strings.Contains(texts[file], v.text) {
				s.lost++
				s.t.Errorf("%q was saved as %s last, and is not there:\n%s", v.text, file, tail(texts[file]))
			}
		}
	}
}

// soakDevice is a device and its work: in a folder of its own, and in files that the others write to as well.
type soakDevice struct {
	*Home
	s    *soak
	name string
	pid  int
	rnd  *rand.Rand
	own  *crasher
	ops  atomic.Int64

	lines  []soakLine // that were acknowledged
	saves  []soakSave
	serial int

	quit  chan struct{}
	ended chan struct{}
	fault error
	wg    sync.WaitGroup
}

type soakLine struct{ file, text string }

type soakSave struct {
	file, text   string
	began        time.Time
	acknowledged bool
}

// runs tells that the daemon was started.
func (d *soakDevice) runs() {
	d.pid = d.PID()
	d.s.log.runs("device "+d.name, d.pid)
}

// start has the work begin.
func (d *soakDevice) start() {
	d.quit, d.ended = make(chan struct{}), make(chan struct{})
	pause := 1200 * time.Millisecond
	if !d.s.long {
		pause = 100 * time.Millisecond
	}
	d.wg.Go(func() {
		defer close(d.ended)
		for {
			select {
			case <-d.quit:
				return
			case <-time.After(pause/3 + time.Duration(d.rnd.Int64N(int64(pause)))):
			}
			if d.rnd.IntN(4) > 0 {
				if !d.own.step() {
					d.fault = d.own.fault
					return
				}
			} else if err := d.shared(); err != nil {
				d.fault = err
				return
			}
			d.ops.Add(1)
		}
	})
}

// end waits for the operation in flight, which must do well.
func (d *soakDevice) end() {
	d.s.t.Helper()
	close(d.quit)
	d.wg.Wait()
	if d.fault != nil {
		d.s.t.Fatalf("device %s: %v", d.name, d.fault)
	}
}

// kill ends the daemon at once, in the middle of the work.
func (d *soakDevice) kill() {
	t := d.s.t
	t.Helper()
	d.s.log.ends("device " + d.name)
	d.KillPID(d.pid)
	close(d.quit)
	d.wg.Wait()
	if d.fault != nil && !disconnected(d.fault) {
		t.Fatalf("device %s is killed, and its work ends with %v", d.name, d.fault)
	}
}

// again mounts the home after a kill. What was acknowledged is there.
func (d *soakDevice) again() {
	t := d.s.t
	t.Helper()
	d.fault = nil
	d.Mount("--no-discovery")
	d.runs()
	if err := d.own.verify(); err != nil {
		d.s.lost++
		t.Fatalf("after device %s was killed: %v", d.name, err)
	}
	d.start()
}

// shared appends a line to a file that all devices append to, or saves one that all save.
func (d *soakDevice) shared() error {
	d.serial++
	text := fmt.Sprintf("%s %d\n", d.name, d.serial)
	dir := filepath.Join(d.Mnt, "Team", "together")
	if d.rnd.IntN(2) == 0 {
		span := 10 * time.Minute
		if !d.s.long {
			span = 5 * time.Second
		}
		file := fmt.Sprint("log ", int(time.Since(d.s.began)/span))
		err := syncedWrite(filepath.Join(dir, file), os.O_APPEND, text)
		if err == nil {
			d.lines = append(d.lines, soakLine{file, text})
		}
		return err
	}
	file := fmt.Sprint("document ", d.rnd.IntN(3))
	d.saves = append(d.saves, soakSave{file, text, time.Now(), false})
	saving := filepath.Join(dir, ".saving "+d.name)
	err := syncedWrite(saving, os.O_TRUNC, text)
	if err == nil {
		err = os.Rename(saving, filepath.Join(dir, file))
	}
	if err == nil {
		d.saves[len(d.saves)-1].acknowledged = true
	}
	return err
}

// syncedWrite writes to a file and has it fsynced.
func syncedWrite(path string, how int, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|how, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.WriteString(f, text); err != nil {
		return err
	}
	return f.Sync()
}
