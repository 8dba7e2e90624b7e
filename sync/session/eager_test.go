package session_test

import (
	"testing"
)

// counted is what went over a link since it was looked at last.
type counted struct {
	l     *link
	kinds map[string]int
	sent  int // frames
}

func (c *counted) since(kind string) int {
	n := c.l.kinds[kind] - c.kinds[kind]
	c.kinds[kind] = c.l.kinds[kind]
	return n
}

func (c *counted) frames() int {
	all := 0
	for _, n := range c.l.frames {
		all += n
	}
	n := all - c.sent
	c.sent = all
	return n
}

// Who has nobody else to get batches from is sent them after a few that it had to ask for; who comes to have another is soon told of them again, and is not
// sent more and more in vain.
func TestEager(t *testing.T) {
	writer, hub, reader := newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)
	all := []*replica{writer, hub, reader}
	links := []*link{connect(t, writer, hub), connect(t, hub, reader)}
	settle(t, all, links)
	c := &counted{l: links[1], kinds: map[string]int{}}
	write := func(n int) {
		t.Helper()
		for range n {
			writer.write(1)
			settle(t, all, links)
		}
		same(t, all)
	}
	write(2)
	if n, m := c.since("*wire.Want"), c.since("*wire.Have"); n != 2 || m != 2 {
		t.Fatalf("the first two were told of in %d messages, and asked for in %d", m, n)
	}
	write(100)
	if n, m, k := c.since("*wire.Want"), c.since("*wire.Have"), c.frames(); n != 0 || m != 0 || k != 102 {
		t.Errorf("then %d were asked for and %d told of; %d frames of 102 were sent", n, m, k)
	}

	// Now it has them from the writer.
	links = append(links, connect(t, writer, reader))
	settle(t, all, links)
	c.frames()
	write(100)
	if n := c.frames(); n > 3 {
		t.Errorf("%d of 100 were sent to who had them from another", n)
	}

	// And now it has not.
	links[2].close()
	links = links[:2]
	settle(t, all, links)
	c.since("*wire.Want")
	c.frames()
	write(100)
	if n, k := c.since("*wire.Want"), c.frames(); n > 4 || k != 100 {
		t.Errorf("%d were asked for again, in 100; %d frames were sent", n, k)
	}
}

// Who is sent batches from the start asks for none; where it has them from elsewhere, it is sent few in vain.
func TestEagerFromTheStart(t *testing.T) {
	writer, hub, reader := newReplica(t, 0), newReplica(t, 1), newReplica(t, 2)
	all := []*replica{writer, hub, reader}
	links := []*link{connect(t, writer, hub), join(t, hub, reader, true)}
	settle(t, all, links)
	c := &counted{l: links[1], kinds: map[string]int{}}
	write := func(n int) {
		t.Helper()
		for range n {
			writer.write(1)
			settle(t, all, links)
		}
		same(t, all)
	}
	write(100)
	if n, m, k := c.since("*wire.Want"), c.since("*wire.Have"), c.frames(); n != 0 || m != 0 || k != 100 {
		t.Errorf("%d were asked for and %d told of; %d frames of 100 were sent", n, m, k)
	}

	links = append(links, connect(t, writer, reader))
	settle(t, all, links)
	c.frames()
	write(100)
	if n := c.frames(); n > 3 {
		t.Errorf("%d of 100 were sent to who had them from another", n)
	}
}

// Who is connected to several that send it batches from the start is sent a long one once, and few others more often.
func TestEagerFromSeveral(t *testing.T) {
	for _, c := range []struct{ size, twice int }{{100, 2}, {200 << 10, 0}} {
		writer, reader := newReplica(t, 0), newReplica(t, 1)
		all := []*replica{writer, reader}
		var links, ends []*link
		for n := range 3 {
			hub := newReplica(t, 2+n)
			all = append(all, hub)
			links = append(links, connect(t, writer, hub))
			ends = append(ends, join(t, hub, reader, true))
		}
		links = append(links, ends...)
		settle(t, all, links)
		writer.size = c.size
		const many = 30
		for range many {
			writer.write(1)
			settle(t, all, links)
		}
		same(t, all)
		sent := 0
		for _, l := range ends {
			for _, n := range l.frames {
				sent += n
			}
		}
		if sent > many+c.twice {
			t.Errorf("%d batches of %d bytes were sent %d times, not %d more at most", many, c.size, sent, c.twice)
		}
	}
}
