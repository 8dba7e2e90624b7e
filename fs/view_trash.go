package fs

import (
	"context"
	"time"
)

// trashView is .anyfs/trash of one directory. Of several entries of one name the newest has it, the others are called
// STEM (deleted TIME).EXT.
type trashView struct {
	t *topView
	n *viewNode
}

func (d *trashView) find(ctx context.Context, name string) (*viewNode, error) {
	e, err := d.t.v.entry(ctx, d.n, name)
	if err != nil || e == nil {
		return nil, err
	}
	t := e.what.(trashed)
	if there, err := d.t.s.inTrash(&t); err != nil || !there {
		return nil, err // the listing is older than its return
	}
	p := &pastView{v: d.t.v, d: &pastDir{s: d.t.s}}
	return p.node(&pastNode{name: t.name, object: t.object, ino: t.ino, typ: t.typ, gone: t})
}

func (d *trashView) list(context.Context) ([]viewEntry, error) {
	var out []viewEntry
	seen := map[string]bool{}
	var failed error
	lost := map[goneName]bool{}
	err := d.t.s.scanTrash(d.t.ino, func(t trashed) bool {
		if t.kind != trashRemoved || lost[goneName{t.object, t.name}] {
			return true
		}
		lost[goneName{t.object, t.name}] = true
		back, err := d.t.s.cameBack(d.t.ino, &t)
		if failed = err; back || err != nil {
			return err == nil
		}
		name := t.name
		// By the millisecond, or where that is another's too, by the nanosecond.
		for _, layout := range []string{"2006-01-02T15:04:05.000Z", "2006-01-02T15:04:05.000000000Z"} {
			if seen[name] {
				ext := extension(t.name)
				mark := " (deleted " + time.Unix(0, t.time()).UTC().Format(layout) + ")"
				name = cutName(t.name[:len(t.name)-len(ext)], MaxName-len(mark)-len(ext)) + mark + ext
			}
		}
		if seen[name] {
			return true
		}
		seen[name] = true
		k := &viewKey{what: keyTrash, slot: d.t.s.slot, ino: t.dir, time: int64(t.at), name: t.name}
		if t.typ == typeDir {
			k = (&pastDir{s: d.t.s, ino: t.ino, died: t.time()}).key()
		}
		out = append(out, viewEntry{name: name, typ: t.typ, ino: d.t.v.number(k), what: t})
		return len(out) < maxViewList
	})
	if failed != nil {
		err = failed
	}
	return out, err
}

func (d *trashView) stamp() uint64 { return d.t.stampNow() }

// cutName cuts a name to at most n bytes, at a character.
func cutName(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
