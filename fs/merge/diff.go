package merge

import (
	"slices"
	"sort"
)

// Bounds of the work, fixed by the definition.
const (
	maxDepth = 32      // ranges within ranges that are cut at unique lines
	maxEdits = 2048    // single-line insertions and deletions that are searched for in a range
	maxWork  = 1 << 24 // lines of a range times such edits
)

// hunk says that the lines from..to of the old text are replaced by others.
type hunk struct {
	from, to int
	lines    []int32
}

// pair is a line that stands in both texts: old[a] == new[b].
type pair struct{ a, b int }

// diff returns what to replace in a to get b, ascending, with at least one kept line between two hunks. The numbers of the
// lines are below kinds.
func diff(a, b []int32, kinds int) []hunk {
	d := &differ{a: a, b: b, inA: make([]int32, kinds), inB: make([]int32, kinds)}
	d.match(0, len(a), 0, len(b), 0)
	var out []hunk
	x, y := 0, 0
	d.keep = append(d.keep, pair{len(a), len(b)})
	for _, p := range d.keep {
		if p.a > x || p.b > y {
			out = append(out, hunk{x, p.a, b[y:p.b]})
		}
		x, y = p.a+1, p.b+1
	}
	return out
}

type differ struct {
	a, b     []int32
	keep     []pair  // ascending
	inA, inB []int32 // scratch by line: 0 unseen, -1 seen again, else the position and 1
}

// match appends the lines that are kept between the ranges a[al:ah] and b[bl:bh].
func (d *differ) match(al, ah, bl, bh, depth int) {
	for al < ah && bl < bh && d.a[al] == d.b[bl] {
		d.keep = append(d.keep, pair{al, bl})
		al, bl = al+1, bl+1
	}
	tail := 0
	for al < ah-tail && bl < bh-tail && d.a[ah-1-tail] == d.b[bh-1-tail] {
		tail++
	}
	ah, bh = ah-tail, bh-tail
	if al < ah && bl < bh {
		if anchors := d.anchors(al, ah, bl, bh); depth < maxDepth && len(anchors) > 0 {
			x, y := al, bl
			for _, p := range anchors {
				d.match(x, p.a, y, p.b, depth+1)
				d.keep = append(d.keep, p)
				x, y = p.a+1, p.b+1
			}
			d.match(x, ah, y, bh, depth+1)
		} else {
			d.myers(al, ah, bl, bh)
		}
	}
	for i := range tail {
		d.keep = append(d.keep, pair{ah + i, bh + i})
	}
}

// anchors returns a longest ascending chain of the lines that stand exactly once in either range (patience diff).
func (d *differ) anchors(al, ah, bl, bh int) []pair {
	mark := func(seen, lines []int32, lo int) {
		for i, l := range lines {
			switch seen[l] {
			case 0:
				seen[l] = int32(lo + i + 1)
			default:
				seen[l] = -1
			}
		}
	}
	mark(d.inA, d.a[al:ah], al)
	mark(d.inB, d.b[bl:bh], bl)
	var common []pair
	for i, l := range d.a[al:ah] {
		if d.inA[l] > 0 && d.inB[l] > 0 {
			common = append(common, pair{al + i, int(d.inB[l]) - 1})
		}
	}
	for _, l := range d.a[al:ah] {
		d.inA[l] = 0
	}
	for _, l := range d.b[bl:bh] {
		d.inB[l] = 0
	}
	return longest(common)
}

// longest returns a longest part of pairs, ascending in a, that ascends in b too: the one that a patience sort gives.
func longest(pairs []pair) []pair {
	if len(pairs) == 0 {
		return nil
	}
	before := make([]int, len(pairs))
	var tops []int // the last pair put on each pile
	for i, p := range pairs {
		n := sort.Search(len(tops), func(j int) bool { return pairs[tops[j]].b > p.b })
		before[i] = -1
		if n > 0 {
			before[i] = tops[n-1]
		}
		if n == len(tops) {
			tops = append(tops, i)
		} else {
			tops[n] = i
		}
	}
	out := make([]pair, 0, len(tops))
	for i := tops[len(tops)-1]; i >= 0; i = before[i] {
		out = append(out, pairs[i])
	}
	slices.Reverse(out)
	return out
}

// myers appends the kept lines of a shortest way from a[al:ah] to b[bl:bh], by the greedy algorithm of Myers (1986). Past the
// bounds it appends nothing: then the whole range is one hunk.
func (d *differ) myers(al, ah, bl, bh int) {
	a, b := d.a[al:ah], d.b[bl:bh]
	n, m := len(a), len(b)
	limit := min(maxEdits, maxWork/(n+m), n+m)
	// far[e][i] is the x that e edits reach on the diagonal low(e)+2i, where x-y is the diagonal.
	low := func(e int) int {
		if e <= m {
			return -e
		}
		return e - 2*m
	}
	high := func(e int) int {
		if e <= n {
			return e
		}
		return 2*n - e
	}
	var far [][]int32
	reached := func(e, k int) int {
		if e < 0 || k < low(e) || k > high(e) {
			return -1
		}
		return int(far[e][(k-low(e))/2])
	}
	for e := 0; e <= limit; e++ {
		row := make([]int32, 0, (high(e)-low(e))/2+1)
		for k := low(e); k <= high(e); k += 2 {
			x := 0
			if e > 0 {
				x, _ = step(reached(e-1, k-1), reached(e-1, k+1), k, n, m)
			}
			for x >= 0 && x < n && x-k < m && a[x] == b[x-k] {
				x++
			}
			row = append(row, int32(x))
			if x == n && x-k == m {
				far = append(far, row)
				d.back(al, bl, e, k, n, m, reached)
				return
			}
		}
		far = append(far, row)
	}
}

// step takes one edit onto diagonal k: a deletion from left, the x reached on diagonal k-1, or an insertion from right,
// the x reached on k+1; -1 where nothing was reached. It returns the new x, and whether it was an insertion. The way
// that came farther is taken, a deletion if they came equally far; where there is none, x is -1.
func step(left, right, k, n, m int) (x int, insert bool) {
	if left >= n {
		left = -1 // nothing is left to delete
	}
	if right-(k+1) >= m {
		right = -1 // or to insert
	}
	switch {
	case right > left:
		return right, true
	case left >= 0:
		return left + 1, false
	}
	return -1, false
}

// back walks from the end to the start and appends the kept lines in ascending order.
func (d *differ) back(al, bl, e, k, n, m int, reached func(e, k int) int) {
	at := len(d.keep)
	x := n
	for {
		start, insert := 0, false
		if e > 0 {
			start, insert = step(reached(e-1, k-1), reached(e-1, k+1), k, n, m)
		}
		for x > start {
			x--
			d.keep = append(d.keep, pair{al + x, bl + x - k})
		}
		if e == 0 {
			break
		}
		e--
		if insert {
			k++
		} else {
			k--
			x--
		}
	}
	slices.Reverse(d.keep[at:])
}
