package main

import (
	"encoding/json"
	"errors"
	iofs "io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// place is where a home is mounted, and which space is shown there ("" for all).
type place struct {
	Dir   string `json:"dir"`
	Space string `json:"space,omitempty"`
}

// readPlace reads where the home was mounted last. What cannot be read is no place: paths then begin with a space.
func (h *home) readPlace() place {
	p, err := h.openPlace()
	if err != nil {
		return place{}
	}
	return p
}

// openPlace is readPlace that tells damage.
func (h *home) openPlace() (p place, err error) {
	sealed, err := h.disk.ReadFile(placeName)
	if errors.Is(err, iofs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	b, err := h.keys.Local.OpenLocal(nil, sealed, []byte(placeName))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(b, &p)
}

// setPlace notes where the home is mounted. That it cannot be written down is no reason not to mount.
func (h *home) setPlace(p place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.place = p
	b, err := json.Marshal(p)
	if err == nil {
		err = h.disk.WriteFileAtomic(placeName, h.keys.Local.SealLocal(nil, b, []byte(placeName)))
	}
	if err != nil {
		h.log.Warn("the mountpoint is not noted", "err", err)
	}
}

// spaceRenamed keeps the place right where one space is shown alone.
func (h *home) spaceRenamed(old, name string) {
	h.mu.Lock()
	p := h.place
	h.mu.Unlock()
	if p.Space == old && old != "" {
		p.Space = name
		h.setPlace(p)
	}
}

// pathParam is a path as a person gave it: below the mountpoint, or beginning with a space's name.
type pathParam struct {
	Given string `json:"given"`
	Abs   string `json:"abs"` // made absolute by who gave it, with the symbolic links of its folder followed

	Through []string `json:"through,omitempty"` // the folders on the way there, where it is to be written to
}

// rawPath is a pathParam in bytes: a name need not be UTF-8, and a string of JSON is.
type rawPath struct{ Given, Abs []byte }

// MarshalJSON writes a path so that each of its bytes arrives.
func (p pathParam) MarshalJSON() ([]byte, error) {
	type plain pathParam
	out := struct {
		plain
		Raw *rawPath `json:"raw,omitempty"`
	}{plain: plain(p)}
	if !utf8.ValidString(p.Given) || !utf8.ValidString(p.Abs) {
		out.Raw = &rawPath{[]byte(p.Given), []byte(p.Abs)}
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *pathParam) UnmarshalJSON(b []byte) error {
	type plain pathParam
	in := struct {
		*plain
		Raw *rawPath `json:"raw"`
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	if in.Raw != nil {
		p.Given, p.Abs = string(in.Raw.Given), string(in.Raw.Abs)
	}
	return nil
}

// pathParam prepares a path for an operation.
func (e *env) pathParam(given string) (pathParam, error) {
	abs, err := e.abs(given)
	if err != nil {
		return pathParam{}, err
	}
	return pathParam{Given: given, Abs: realParent(abs)}, nil
}

// passes gives the folders that a path leads through, without symbolic links, as far as they are there.
func passes(abs string) (out []string) {
	for dir := filepath.Dir(abs); ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			out = append(out, real)
		}
		if dir == "/" || dir == "." {
			return out
		}
	}
}

// ledOut reports whether a path that is outside leads there through the mount: by a symbolic link in it, which another member may have made.
func (h *home) ledOut(p pathParam) bool {
	h.mu.Lock()
	at := h.place
	h.mu.Unlock()
	return slices.ContainsFunc(p.Through, func(dir string) bool { _, in := below(at.Dir, dir); return in })
}

// realParent follows the symbolic links in all but the last part of a path, as far as it is there.
func realParent(abs string) string {
	dir, rest := filepath.Dir(abs), filepath.Base(abs)
	for {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			return filepath.Join(real, rest)
		}
		if dir == "/" || dir == "." {
			return abs
		}
		dir, rest = filepath.Dir(dir), filepath.Join(filepath.Base(dir), rest)
	}
}

// resolve gives the path from the root of the home, such as "Personal/a/b"; "" is the root itself. In a folder below the
// mountpoint a relative path is one from there, unless it is not known there and is from the root.
func (h *home) resolve(p pathParam) (string, error) { return h.find(p, h.fs.Known) }

// resolveNew is resolve for a path at which something is to be made: it goes by the folder above.
func (h *home) resolveNew(p pathParam) (string, error) {
	return h.find(p, func(path string) bool {
		dir, _, ok := cutLast(path)
		if !ok {
			return false
		}
		ino, err := h.fs.PathIno(dir)
		if err != nil {
			return false
		}
		a, err := h.fs.Getattr(ino)
		return err == nil && a.IsDir()
	})
}

// cutLast gives a path's folder and name; ok is false where it has no folder.
func cutLast(p string) (dir, name string, ok bool) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return "", p, false
	}
	return p[:i], p[i+1:], true
}

func (h *home) find(p pathParam, known func(string) bool) (string, error) {
	h.mu.Lock()
	at := h.place
	h.mu.Unlock()
	if rel, ok := below(at.Dir, p.Abs); ok {
		here := path.Join(at.Space, rel)
		other := path.Clean(p.Given)
		if filepath.IsAbs(other) || other == "." || other == ".." || strings.HasPrefix(other, "../") || other == here {
			return here, nil
		}
		if !known(here) && known(other) {
			return other, nil
		}
		return here, nil
	}
	if filepath.IsAbs(p.Given) {
		if at.Dir == "" {
			return "", failf(exitNotFound, "%s is in no mount of this home; begin with a space, as in Personal/FILE", p.Given)
		}
		return "", failf(exitNotFound, "%s is not below %s, where this home is mounted; a path may also begin with a space, as in Personal/FILE", p.Given, at.Dir)
	}
	return strings.TrimPrefix(path.Clean("/"+p.Given), "/"), nil
}

// outside reports whether a path that was given is none of this home: absolute and not below the mountpoint. A relative one
// is outside when it does not begin with a space that is there.
func (h *home) outside(p pathParam) bool {
	h.mu.Lock()
	at := h.place
	h.mu.Unlock()
	if _, ok := below(at.Dir, p.Abs); ok {
		return false
	}
	if filepath.IsAbs(p.Given) {
		return true
	}
	first, _, _ := strings.Cut(path.Clean(p.Given), "/")
	_, err := h.fs.Space(first)
	return err != nil
}

// below gives path relative to dir, where it is dir or lies in it.
func below(dir, path string) (string, bool) {
	if dir == "" {
		return "", false
	}
	if path == dir {
		return "", true
	}
	if !strings.HasSuffix(dir, "/") {
		dir += "/"
	}
	return strings.CutPrefix(path, dir)
}
