// Package sim simulates devices that share a space: real homes, graphs and sessions in one process, on disks in memory, that do what
// a seed says and nothing else.
//
// A World has 2 to 7 devices of one account. Its steps are operations on files, publications, arrivals, messages that are carried or
// are late, connections that come and end with what is on the way, batches that come twice, early or not at all, kills, power losses
// that take what was not synced, and clocks that are years off. Nothing runs beside a step, so a seed gives the same bytes each time.
// At the end all are connected: then they have to agree within MaxRounds rounds, and what was acknowledged has to be there.
package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anyfs/anyfs/acl"
	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/block"
	"github.com/anyfs/anyfs/dag/disk"
	"github.com/anyfs/anyfs/dag/kv"
	"github.com/anyfs/anyfs/fs"
	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

// MaxRounds is within how many rounds devices that are all connected agree. In a round each takes in what came, publishes, and all
// that it has to say is carried.
const MaxRounds = 6

// Faults are how often what was made to go wrong did.
type Faults struct {
	Cuts       int // connections that ended with messages on the way
	Dropped    int // messages that were lost so
	Late       int // messages that were overtaken by something else
	Duplicated int // batches that came again
	Early      int // batches that came before their past
	Kills      int
	Losses     int // power losses
	Clocks     int // clocks that were set
	Absent     int // blocks that nobody who was reached had
}

// Landed is how many faults there were.
func (f *Faults) Landed() int {
	return f.Cuts + f.Dropped + f.Late + f.Duplicated + f.Early + f.Kills + f.Losses + f.Clocks + f.Absent
}

// Add adds another run's.
func (f *Faults) Add(o Faults) {
	f.Cuts, f.Dropped, f.Late = f.Cuts+o.Cuts, f.Dropped+o.Dropped, f.Late+o.Late
	f.Duplicated, f.Early, f.Kills = f.Duplicated+o.Duplicated, f.Early+o.Early, f.Kills+o.Kills
	f.Losses, f.Clocks, f.Absent = f.Losses+o.Losses, f.Clocks+o.Clocks, f.Absent+o.Absent
}

// Result is what a run came to.
type Result struct {
	Faults  Faults
	Devices int
	Done    int    // operations that had an effect
	Rounds  int    // until all agreed
	Values  int    // written
	Copies  int    // conflict copies at the end
	Digest  string // of all messages, heads and trees
}

// World is the devices of a run.
type World struct {
	seed   uint64
	rnd    *rand.Rand
	now    time.Time
	nodes  []*node
	links  []*link
	stray  []stray // batches on other ways than a connection
	values []value
	losses []loss
	groups map[string]string
	sum    hash.Hash
	result Result
	log    []string
}

// node is a device.
type node struct {
	w      *World
	i      int
	disk   *disk.Sim
	keys   *acl.Keys
	rnd    *lockedRand
	skew   time.Duration
	home   *fs.Home
	root   fs.Ino
	spaces []*space
	synced int // values before this one are durable, as far as they are its own
	open   []openFile
}

// openFile is a file that a program has open.
type openFile struct {
	ino  fs.Ino
	name string
}

// space is a replica with its sessions.
type space struct {
	fs.Replica
	ex    *session.Space
	woken bool
}

// link is a way between two nodes; it is connected or not.
type link struct {
	a, b *node
	up   bool
	ways []*way
}

// way is one direction of a session.
type way struct {
	l          *link
	from, to   *node
	space      dag.ID
	send, take *session.Session
	carried    [][]byte // on the way
	skipped    bool     // something else went first
}

// stray is a batch that comes by itself.
type stray struct {
	space dag.ID
	kind  int
	from  int
	may   []int // the values that it may bring
	frame []byte
}

// value is a line that was written.
type value struct {
	text  string
	name  string
	node  int
	may   map[int]bool // the nodes that may have it
	maybe bool         // a power loss may have taken it
}

// loss is an operation that may have taken away what its node had.
type loss struct {
	name string
	had  map[int]bool
}

// lockedRand is a source of random bytes from a seed.
type lockedRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newRand(seed uint64, i int) *lockedRand {
	var s [32]byte
	copy(s[:], fmt.Sprintf("%d %d", seed, i))
	return &lockedRand{r: rand.NewChaCha8(s)}
}

func (r *lockedRand) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.Read(p)
}

// Steps are the numbers of n steps.
func Steps(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// Shrink gives fewer steps, with which a run fails still.
func Shrink(steps []int, fails func(steps []int) bool) []int {
	for n := len(steps) / 2; n > 0; {
		fewer := false
		for at := 0; at+n <= len(steps); {
			if less := slices.Delete(slices.Clone(steps), at, at+n); fails(less) {
				steps, fewer = less, true
			} else {
				at += n
			}
		}
		if !fewer || n > 1 {
			n /= 2
		}
	}
	return steps
}

// Run runs those of a seed's steps. Each has random numbers of its own, so that leaving out one leaves the others as they are. What it
// returns as an error tells the last steps.
func Run(seed uint64, steps []int) (r Result, err error) {
	w := &World{
		seed: seed, rnd: rand.New(rand.NewPCG(seed, 0)), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		groups: map[string]string{}, sum: sha256.New(),
	}
	defer func() {
		if p := recover(); p != nil {
			f, ok := p.(failure)
			if !ok {
				panic(p)
			}
			err = fmt.Errorf("seed %d: %w\nthe last steps:\n%s", seed, f.err, bytes.Join(w.tail(), []byte("\n")))
		}
		for _, n := range w.nodes {
			n.close()
		}
	}()
	w.begin()
	for _, k := range steps {
		w.rnd = rand.New(rand.NewPCG(seed, uint64(k)+1))
		w.now = w.now.Add(time.Duration(w.rnd.IntN(3000)) * time.Millisecond)
		w.step()
	}
	w.rest()
	w.judge()
	w.result.Values = len(w.values)
	w.result.Devices = len(w.nodes)
	w.result.Digest = hex.EncodeToString(w.sum.Sum(nil))
	return w.result, nil
}

// failure is what ends a run.
type failure struct{ err error }

func failf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

func must(err error) {
	if err != nil {
		failf("%w", err)
	}
}

func must2[T any](v T, err error) T {
	must(err)
	return v
}

func (w *World) logf(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
}

func (w *World) tail() (out [][]byte) {
	for _, l := range w.log[max(0, len(w.log)-400):] {
		out = append(out, []byte("  "+l))
	}
	return out
}

// begin makes the devices, which agree on a first tree.
func (w *World) begin() {
	count := 2
	for count < 7 && w.rnd.IntN(2) == 0 {
		count++
	}
	account := must2(acl.NewAccount(newRand(w.seed, -1)))
	for i := range count {
		n := &node{w: w, i: i, rnd: newRand(w.seed, i), disk: disk.NewSim(rand.New(rand.NewPCG(w.seed, uint64(i))))}
		n.keys = must2(acl.InitKeys(n.disk, account, fmt.Sprintf("device %d", i), nil, n.rnd))
		w.nodes = append(w.nodes, n)
		n.start()
		must2(n.home.CreatePersonal())
		must(n.home.Flush(ctx))
		n.attach()
		for _, o := range w.nodes[:i] {
			w.links = append(w.links, &link{a: o, b: n})
		}
	}
	first := w.nodes[0]
	first.mkdir("", "d1")
	first.mkdir("", "d2")
	for _, f := range []string{"f1", "d1/f3", "d2/f5"} {
		first.write(f, 0, false)
	}
	w.rest()
	w.result = Result{}
}

var ctx = context.Background()

// start opens the home.
func (n *node) start() {
	n.home = must2(fs.Open(ctx, fs.Options{
		Disk: n.disk, Keys: n.keys, Rand: n.rnd, UID: 1000, GID: 1000, Stepped: true,
		Clock:  func() time.Time { return n.w.now.Add(n.skew) },
		OpenDB: func(name string) (kv.DB, error) { return kv.NewSimDB(n.disk, name) },
	}))
}

// attach exchanges what spaces there are.
func (n *node) attach() {
	n.root = must2(n.home.SpaceRoot(fs.PersonalName))
	n.spaces = nil
	replicas := n.home.Replicas()
	slices.SortFunc(replicas, func(a, b fs.Replica) int { return dag.ID.Compare(a.ID, b.ID) })
	for _, r := range replicas {
		s := &space{Replica: r}
		s.ex = session.NewSpace(session.Config{
			ID: r.ID, ACL: r.ACL, Files: r.Files, Device: dag.PublicKey(n.keys.Author().Device), Durable: s.Durable, Grown: s.Grown,
			Wake: func() { s.woken = true },
		})
		r.Blocks.SetFetcher(fetcher{n, r.ID})
		n.spaces = append(n.spaces, s)
	}
}

func (n *node) close() {
	for _, l := range n.w.links {
		if l.a == n || l.b == n {
			l.down()
		}
	}
	for _, s := range n.spaces {
		s.ex.Close()
	}
	n.spaces, n.open = nil, nil
	n.home = nil // it has nothing that goes on by itself
}

func (n *node) space(id dag.ID) *space {
	for _, s := range n.spaces {
		if s.ID == id {
			return s
		}
	}
	return nil
}

// fetcher gets blocks from who is connected.
type fetcher struct {
	n  *node
	id dag.ID
}

func (f fetcher) Fetch(ctx context.Context, id block.ID) ([]byte, error) {
	for _, l := range f.n.w.links {
		o := l.other(f.n)
		if o == nil || !l.up || o.space(f.id) == nil {
			continue
		}
		if s := o.space(f.id); s.Blocks.Has(id) {
			return s.Blocks.Get(ctx, id)
		}
	}
	f.n.w.result.Faults.Absent++
	return nil, block.ErrAbsent
}

func (l *link) other(n *node) *node {
	switch n {
	case l.a:
		return l.b
	case l.b:
		return l.a
	}
	return nil
}

// connect makes a connection, with a session for each space.
func (l *link) connect() {
	if l.up || l.a.home == nil || l.b.home == nil {
		return
	}
	l.up = true
	for _, s := range l.a.spaces {
		t := l.b.space(s.ID)
		if t == nil {
			continue
		}
		sa := s.ex.New(session.Peer{Name: fmt.Sprint(l.b.i), Wake: func() {}})
		sb := t.ex.New(session.Peer{Name: fmt.Sprint(l.a.i), Wake: func() {}})
		l.ways = append(l.ways,
			&way{l: l, from: l.a, to: l.b, space: s.ID, send: sa, take: sb},
			&way{l: l, from: l.b, to: l.a, space: s.ID, send: sb, take: sa})
	}
}

// down ends a connection. What is on the way is lost.
func (l *link) down() {
	if !l.up {
		return
	}
	l.up = false
	lost := 0
	for _, w := range l.ways {
		lost += len(w.carried)
		w.send.Close()
	}
	if lost > 0 {
		l.a.w.result.Faults.Cuts++
		l.a.w.result.Faults.Dropped += lost
	}
	l.ways = nil
}

// fill takes what a session has to say, at most so many messages.
func (y *way) fill(most int) {
	for range most {
		m, err := y.send.Next()
		if err != nil {
			failf("device %d to %d: %w", y.from.i, y.to.i, err)
		}
		if m == nil {
			return
		}
		y.carried = append(y.carried, wire.Append(nil, m))
	}
}

// deliver hands over messages in their order, at most so many. It reports whether there was any.
func (y *way) deliver(most int) bool {
	w := y.from.w
	any := false
	for range most {
		if len(y.carried) == 0 {
			y.fill(4)
		}
		if len(y.carried) == 0 {
			return any
		}
		b := y.carried[0]
		y.carried = y.carried[1:]
		if y.skipped {
			w.result.Faults.Late++
			y.skipped = false
		}
		any = true
		w.sum.Write(b)
		r := wire.NewReader(bytes.NewReader(b))
		r.Limit = wire.MaxBody
		m := must2(r.Read())
		w.mayHave(y.from.i, y.to.i)
		if err := y.take.Receive(m); err != nil {
			failf("device %d takes %T from %d: %w", y.to.i, m, y.from.i, err)
		}
		y.to.pump()
	}
	return any
}

// pump hands what is new to a node's sessions.
func (n *node) pump() {
	for _, s := range n.spaces {
		if s.woken {
			s.woken = false
			must2(s.ex.Step())
		}
	}
}

func (n *node) settle() {
	for _, s := range n.spaces {
		must(s.ex.Settle())
	}
}

// mayHave notes that one node may have now what another has.
func (w *World) mayHave(from, to int) {
	for i := range w.values {
		if w.values[i].may[from] {
			w.values[i].may[to] = true
		}
	}
}

// rest connects all, and lets them agree.
func (w *World) rest() {
	for _, n := range w.nodes {
		if n.home == nil {
			n.start()
			n.attach()
		}
	}
	for _, l := range w.links {
		l.connect()
	}
	same := 0
	for round := 1; ; round++ {
		if round > MaxRounds {
			failf("after %d rounds the devices do not agree: %s", MaxRounds, w.unequal())
		}
		before := w.state()
		w.now = w.now.Add(time.Second)
		for _, n := range w.nodes {
			must(n.home.Arrive(ctx))
			must(n.home.Flush(ctx))
			n.synced = len(w.values)
			must(n.home.Arrive(ctx))
			n.pump()
			n.settle()
		}
		for _, l := range w.links {
			for _, y := range l.ways {
				y.send.Tick()
			}
		}
		for busy, times := true, 0; busy; times++ {
			if times > 10_000 {
				failf("the sessions go on without end")
			}
			busy = false
			for _, l := range w.links {
				for _, y := range l.ways {
					busy = y.deliver(64) || busy
				}
			}
			for _, n := range w.nodes {
				n.pump()
				n.settle()
			}
		}
		if after := w.state(); after != before || w.unequal() != "" {
			same = 0
			continue
		}
		if same++; same == 1 {
			w.result.Rounds = round - 1 // this one changed nothing
			return
		}
	}
}

// state is what all nodes have published and taken in.
func (w *World) state() string {
	h := sha256.New()
	for _, n := range w.nodes {
		for _, s := range n.spaces {
			for _, id := range s.Files.Heads() {
				h.Write(id[:])
			}
		}
		io.WriteString(h, n.tree())
	}
	return string(h.Sum(nil))
}

// unequal says in what the nodes differ.
func (w *World) unequal() string {
	first := w.nodes[0]
	for _, n := range w.nodes[1:] {
		for k, s := range n.spaces {
			if !slices.Equal(s.Files.Heads(), first.spaces[k].Files.Heads()) {
				return fmt.Sprintf("device %d has other heads than device 0", n.i)
			}
		}
		if a, b := first.tree(), n.tree(); a != b {
			return fmt.Sprintf("device 0 shows\n%s\ndevice %d shows\n%s", a, n.i, b)
		}
	}
	return ""
}

// judge looks for what was written, and takes the end into the digest.
func (w *World) judge() {
	tree := w.nodes[0].tree()
	io.WriteString(w.sum, tree)
	for _, s := range w.nodes[0].spaces {
		for _, id := range s.Files.Heads() {
			w.sum.Write(id[:])
		}
	}
	w.result.Copies = bytes.Count([]byte(tree), []byte("(conflict "))
	for i, v := range w.values {
		if v.maybe || bytes.Contains([]byte(tree), []byte(v.text)) {
			continue
		}
		if !slices.ContainsFunc(w.losses, func(l loss) bool { return l.had[i] && w.group(l.name) == w.group(v.name) }) {
			failf("%s, which device %d wrote to %s, is lost: nobody who may have had it took it away\n%s", v.text, v.node, v.name, tree)
		}
	}
	if w.seed%16 == 0 {
		for _, n := range w.nodes {
			for _, p := range must2(n.home.Verify(ctx, nil)).Problems {
				if !strings.Contains(p.Text, "is not here") { // what nobody has read was not fetched
					failf("device %d: verify: %+v", n.i, p)
				}
			}
		}
	}
}

// group gives the name that stands for all between which files were moved or linked.
func (w *World) group(name string) string {
	for w.groups[name] != "" {
		name = w.groups[name]
	}
	return name
}

func (w *World) join(a, b string) {
	if a, b = w.group(a), w.group(b); a != b {
		w.groups[a] = b
	}
}

// power ends a node as a power loss does: what was not synced may be gone.
func (n *node) power() {
	w := n.w
	n.close()
	n.disk = n.disk.CrashClone(w.rnd)
	for i := n.synced; i < len(w.values); i++ {
		if w.values[i].node == n.i {
			w.values[i].maybe = true
		}
	}
	w.result.Faults.Losses++
	n.start()
	n.attach()
}

// kill ends a node as SIGKILL does: what the kernel had stays.
func (n *node) kill() {
	w := n.w
	n.close()
	n.disk = n.disk.Crash(func() disk.Keep { return disk.Whole })
	for i := n.synced; i < len(w.values); i++ {
		if w.values[i].node == n.i {
			w.values[i].maybe = true // the last second of data is in the daemon's memory alone
		}
	}
	w.result.Faults.Kills++
	n.start()
	n.attach()
}

// tree is what a node shows in Personal.
func (n *node) tree() string {
	var out []string
	var walk func(dir fs.Ino, at string)
	walk = func(dir fs.Ino, at string) {
		var names []string
		must(n.home.ReadDir(dir, 0, func(e fs.Dirent) bool {
			names = append(names, e.Name)
			return true
		}))
		slices.Sort(names)
		for _, name := range names {
			a := must2(n.home.Lookup(dir, name))
			ino := handle(&a)
			line := fmt.Sprintf("%s%s %o %d", at, name, a.Mode, a.Nlink)
			switch a.Mode & 0o170000 {
			case 0o100000:
				line += fmt.Sprintf(" %q", n.read(ino))
			case 0o120000:
				line += " -> " + must2(n.home.Readlink(ino))
			}
			xattrs := must2(n.home.Listxattr(ino))
			slices.Sort(xattrs)
			for _, x := range xattrs {
				line += fmt.Sprintf(" %s=%q", x, must2(n.home.Getxattr(ino, x)))
			}
			out = append(out, line)
			if a.Mode&0o170000 == 0o040000 {
				if len(at) > 500 {
					failf("a directory below itself: %s", at)
				}
				walk(ino, at+name+"/")
			}
		}
	}
	walk(n.root, "")
	var b bytes.Buffer
	for _, l := range out {
		b.WriteString(l + "\n")
	}
	return b.String()
}

func handle(a *fs.Attr) fs.Ino {
	if a.Handle != 0 {
		return a.Handle
	}
	return a.Ino
}

// line is what value writes.
var line = regexp.MustCompile(`<\d+ by \d+>`)

// read gives a file's content: where it is long, the lines that were written and a sum.
func (n *node) read(ino fs.Ino) []byte {
	a := must2(n.home.Getattr(ino))
	b := make([]byte, a.Size)
	for off := 0; off < len(b); {
		k, err := n.home.Read(ctx, ino, b[off:], int64(off))
		if k == 0 && (err == nil || errors.Is(err, io.EOF)) {
			failf("a read ends at %d of %d", off, len(b))
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return []byte("cannot be read: " + err.Error())
		}
		off += k
	}
	if len(b) > 4096 {
		sum := sha256.Sum256(b)
		return append(bytes.Join(line.FindAll(b, -1), []byte(" ")), fmt.Sprintf(" in %d bytes %x", len(b), sum[:8])...)
	}
	return b
}

// mayBe is the values that a node may have.
func (w *World) mayBe(i int) map[int]bool {
	out := map[int]bool{}
	for k := range w.values {
		if w.values[k].may[i] {
			out[k] = true
		}
	}
	return out
}

func (w *World) mayList(i int) []int { return slices.Sorted(maps.Keys(w.mayBe(i))) }
