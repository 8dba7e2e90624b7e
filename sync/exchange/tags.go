package exchange

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"

	"github.com/anyfs/anyfs/sync/session"
	"github.com/anyfs/anyfs/sync/wire"
)

func (e *Engine) hearTags(r *remote, m *wire.Tags) error {
	e.mu.Lock()
	if len(r.theirs)+len(m.Tags) > maxPeerTags {
		e.mu.Unlock()
		return fmt.Errorf("%w: more than %d tags", session.ErrPeer, maxPeerTags)
	}
	for _, t := range m.Tags {
		r.theirs[t] = struct{}{}
	}
	e.mu.Unlock()
	e.match(r)
	return nil
}

// match finds the spaces that the peer has proved to be in.
func (e *Engine) match(r *remote) {
	e.mu.Lock()
	var todo []*space
	for id, sp := range e.spaces {
		if !r.common[id] && sp.r.Tags != nil {
			todo = append(todo, sp)
		}
	}
	e.mu.Unlock()
	for _, sp := range todo {
		tags := sp.r.Tags(r.toUs)
		e.mu.Lock()
		for _, t := range tags {
			if _, ok := r.theirs[t]; ok && e.spaces[sp.id] == sp {
				r.common[sp.id] = true
			}
		}
		e.mu.Unlock()
	}
	r.wakeTags()
	e.meet(r)
}

// sendTags sends the tags of all spaces, and of others as they come; after a match, who this device is.
func (e *Engine) sendTags(ctx context.Context, t *stream, r *remote) error {
	proved, first := false, true
	for {
		if ms := e.newGuests(r); len(ms) > 0 {
			if err := t.write(ms...); err != nil {
				return err
			}
		}
		ms, err := e.newTags(r, first)
		if err != nil {
			return err
		}
		if len(ms) > 0 {
			if err := t.write(ms...); err != nil {
				return err
			}
			if !first {
				e.match(r) // its tags may have been waiting for this
			}
			first = false
		}
		if !proved && e.shares(r) {
			p := &wire.Proof{Certificate: e.opt.Certificate.Encode()}
			copy(p.Signature[:], ed25519.Sign(e.opt.Key, proofText(r.toThem, p.Certificate)))
			if err := t.write(p); err != nil {
				return err
			}
			proved = true
		}
		if err := e.sendNews(t, r); err != nil {
			return err
		}
		if err := e.sendSealed(t, r); err != nil {
			return err
		}
		select {
		case <-r.tags:
		case <-ctx.Done():
			return nil
		}
	}
}

// newTags is the tags that were not sent yet. Each message has some that prove nothing, up to a power of two. A peer takes so many on a connection: where there are more
// spaces or keys at first, each space has as many as there is room for, and where more come later errTags says that it is to be greeted anew.
func (e *Engine) newTags(r *remote, first bool) ([]wire.Message, error) {
	e.mu.Lock()
	var todo []*space
	for id, sp := range e.spaces {
		if !r.common[id] || r.said[id] == 0 {
			todo = append(todo, sp)
		}
	}
	e.mu.Unlock()
	if r.tagged == nil {
		r.tagged = make(map[wire.Tag]struct{})
	}
	var fresh [][]wire.Tag
	for _, sp := range todo {
		all := sp.r.Tags(r.toThem)
		e.mu.Lock()
		some := r.said[sp.id] < len(all)
		r.said[sp.id] = max(r.said[sp.id], len(all))
		e.mu.Unlock()
		var mine []wire.Tag
		for _, t := range all {
			if _, sent := r.tagged[t]; some && !sent {
				mine = append(mine, t)
			}
		}
		if len(mine) > 0 {
			fresh = append(fresh, mine)
		}
	}
	tags := level(fresh, firstTags)
	if len(tags) == 0 && !first {
		return nil, nil
	}
	for _, t := range tags {
		r.tagged[t] = struct{}{}
	}
	mrand.Shuffle(len(tags), func(i, j int) { tags[i], tags[j] = tags[j], tags[i] })
	var out []wire.Message
	for {
		n := wire.MinTags
		for n < len(tags) && n < wire.MaxTags {
			n *= 2
		}
		if r.filled += n; r.filled > maxPeerTags {
			return nil, errTags
		}
		m := &wire.Tags{Tags: make([]wire.Tag, n)}
		for i := range m.Tags {
			_, _ = rand.Read(m.Tags[i][:])
		}
		k := min(n, len(tags))
		for i, at := range mrand.Perm(n)[:k] {
			m.Tags[at] = tags[i]
		}
		tags = tags[k:]
		if out = append(out, m); len(tags) == 0 {
			return out, nil
		}
	}
}

// level takes at most so many of several lists, of each the first ones: of all as many, where they have them.
func level(lists [][]wire.Tag, most int) (out []wire.Tag) {
	for i := 0; len(out) < most; i++ {
		before := len(out)
		for _, l := range lists {
			if i < len(l) && len(out) < most {
				out = append(out, l[i])
			}
		}
		if len(out) == before {
			break
		}
	}
	return out
}
