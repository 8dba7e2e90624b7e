package dag_test

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/anyfs/anyfs/dag"
	"github.com/anyfs/anyfs/dag/store"
)

// counter is an object that everybody adds to. A payload is a number, with the sum so far as snapshot now and then.
var counter = dag.Machine[int64, int64]{
	New: func() int64 { return 0 },
	Open: func(e dag.Entry) (add int64, snapshot []byte, err error) {
		add, n := binary.Varint(e.Change.Payload)
		if n <= 0 {
			return 0, nil, dag.ErrEmpty
		}
		if rest := e.Change.Payload[n:]; len(rest) > 0 {
			snapshot = rest
		}
		return add, snapshot, nil
	},
	Apply:  func(sum int64, _ dag.Entry, add int64) int64 { return sum + add },
	Encode: func(sum int64) []byte { return binary.AppendVarint(nil, sum) },
	Decode: func(p []byte) (int64, error) { sum, _ := binary.Varint(p); return sum, nil },
}

// Two devices count at the same time, each on its own; then they exchange what they have, and agree.
func Example_counter() {
	laptop, _ := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
	phone, _ := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
	add := func(g *dag.Graph, a dag.Author, object dag.ID, n int64) dag.ID {
		b, _ := g.Begin(a, nil, dag.ID{})
		id, _ := b.Add(object, func(dag.Header) ([]byte, error) { return binary.AppendVarint(nil, n), nil })
		b.Commit()
		return id
	}
	// What a peer lacks is what follows its tips.
	exchange := func(from, to *dag.Graph) {
		var tips []dag.ID
		for _, t := range to.Tips() {
			tips = append(tips, t.Batch)
		}
		from.FramesSince(tips, func(_ dag.ID, frame []byte) error {
			_, err := to.Ingest(frame)
			return err
		})
	}

	clicks := add(laptop, author(1), dag.ID{}, 5)
	exchange(laptop, phone)
	add(laptop, author(1), clicks, 10)
	add(phone, author(2), clicks, 100)
	fmt.Println("heads of each:", len(laptop.Heads()), len(phone.Heads()))
	exchange(laptop, phone)
	exchange(phone, laptop)
	fmt.Println("heads of both:", len(laptop.Heads()), "equal:", laptop.Heads()[0] == phone.Heads()[0])
	for _, g := range []*dag.Graph{laptop, phone} {
		sum, cost, err := counter.Fold(g, clicks, nil)
		fmt.Println(sum, "from", cost.Changes, "changes", err)
	}
	// Output:
	// heads of each: 1 1
	// heads of both: 2 equal: true
	// 115 from 3 changes <nil>
	// 115 from 3 changes <nil>
}

// A chat log shows messages in an order that is the same for everybody, and in which an answer follows what it answers.
func Example_chat() {
	chat := dag.Machine[[]string, string]{
		New:  func() []string { return nil },
		Open: func(e dag.Entry) (string, []byte, error) { return string(e.Change.Payload), nil, nil },
		Apply: func(log []string, e dag.Entry, line string) []string {
			return append(log, fmt.Sprintf("%d %s", e.Pos.Clock, line))
		},
		Encode: func(log []string) []byte { return []byte(strings.Join(log, "\n")) },
		Decode: func(p []byte) ([]string, error) { return strings.Split(string(p), "\n"), nil },
	}
	alice, _ := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
	bob, _ := dag.Open(space, store.NewMem(), dag.Anyone{}, dag.Options{})
	var room dag.ID
	say := func(g *dag.Graph, a dag.Author, line string) dag.ID {
		b, _ := g.Begin(a, nil, dag.ID{})
		id, _ := b.Add(room, func(dag.Header) ([]byte, error) { return []byte(line), nil })
		b.Commit()
		return id
	}
	// Bob is told of each batch as it begins to count; Alice's reach him at once, his reach her later.
	alice.Subscribe(func(b *dag.Batch) {
		frame, _ := alice.Frame(b.ID())
		bob.Ingest(frame)
	})
	room = say(alice, author(1), "alice opens the room")
	say(alice, author(1), "alice: tea?")
	say(bob, author(2), "bob: yes!")
	bob.FramesSince(nil, func(_ dag.ID, frame []byte) error {
		_, err := alice.Ingest(frame)
		return err
	})
	log, _, _ := chat.Fold(alice, room, nil)
	fmt.Println(strings.Join(log, "\n"))
	// Output:
	// 1 alice opens the room
	// 2 alice: tea?
	// 3 bob: yes!
}
