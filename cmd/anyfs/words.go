package main

import (
	"bytes"
	"encoding/json"
	"errors"
	iofs "io/fs"
	"maps"
)

// wordsName is the file of a home with what nodes signed of themselves, by space, sealed.
const wordsName = "words"

// wordsOfNodes reads what nodes had signed. What can't be read is as if nothing had been.
func (h *home) wordsOfNodes() map[string][]byte {
	words := map[string][]byte{}
	sealed, err := h.disk.ReadFile(wordsName)
	if err == nil {
		var b []byte
		if b, err = h.keys.Local.OpenLocal(nil, sealed, []byte(wordsName)); err == nil {
			err = json.Unmarshal(b, &words)
		}
	}
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		h.log.Warn("what nodes had signed can't be read; they are trusted anew", "err", err)
		return nil
	}
	return words
}

// keepWords writes what nodes signed, where that is new.
func (n *network) keepWords() {
	words := map[string][]byte{}
	for _, r := range n.h.fs.Replicas() {
		id := r.ID.String()
		if w := n.engine.Words(r.ID); w != nil {
			words[id] = w
		} else if w := n.words[id]; w != nil {
			words[id] = w
		}
	}
	if len(words) == 0 || maps.EqualFunc(words, n.words, bytes.Equal) {
		return
	}
	b, err := json.Marshal(words)
	if err == nil {
		err = n.h.disk.WriteFileAtomic(wordsName, n.h.keys.Local.SealLocal(nil, b, []byte(wordsName)))
	}
	if err != nil {
		n.h.log.Warn("what nodes signed can't be written", "err", err)
		return
	}
	n.words = words
}

// doubt is a node that did not keep its word, as status shows it.
type doubt struct {
	Node string `json:"node"`
	// Split: it signed statements that exclude each other; else it did not show what it had signed that it holds.
	Split bool `json:"split"`
}

func (d doubt) String() string {
	if d.Split {
		return "the node " + d.Node + " signed two states that exclude each other: it was put back to an earlier one, or shows its users different things"
	}
	return "the node " + d.Node + " signed that it holds changes which it then did not show: it was put back to an earlier state, or keeps changes from some of its users"
}
