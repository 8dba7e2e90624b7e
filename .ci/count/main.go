// Command count reads what go test -json wrote into the named files and says how many tests there were.
//
// It prints the output of every test and package that failed, what was skipped and why, the first lines of each failure again, then one line "N passed, N failed, N skipped". A test that
// stands in several files counts once: it failed when it failed in any, and passed when it passed in any other case. A
// package that does not build, or ends without a result, counts as a failure. The exit code is 1 when anything failed or
// when no test passed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// event is a line of go test -json, as go doc test2json describes it.
type event struct {
	Action, Package, ImportPath, Test, Output string
	Elapsed                                   float64
}

type key struct{ pkg, test string }

type tally struct {
	result map[key]string // pass, fail or skip
	output map[key][]string
	failed []string
	causes []string       // of these, a line or a few each
	why    map[key]string // of what was skipped
	stray  []string       // lines that are no events
}

func main() {
	t := &tally{result: map[key]string{}, why: map[key]string{}}
	for _, name := range os.Args[1:] {
		f, err := os.Open(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		err = t.read(f)
		f.Close()
		if err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
			os.Exit(1)
		}
	}
	os.Exit(t.report(os.Stdout))
}

// read takes one file of events.
func (t *tally) read(r io.Reader) error {
	t.output = map[key][]string{}
	open := map[string]bool{} // packages that have begun and not ended
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				t.stray = append(t.stray, line)
			} else {
				t.take(e, open)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	for pkg := range open {
		t.fail(key{pkg: pkg}, pkg+" ended without a result")
	}
	return nil
}

func (t *tally) take(e event, open map[string]bool) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "start":
		open[e.Package] = true
	case "output":
		t.output[k] = append(t.output[k], e.Output)
	case "build-output":
		k = key{pkg: e.ImportPath}
		t.output[k] = append(t.output[k], e.Output)
	case "build-fail":
		t.fail(key{pkg: e.ImportPath}, e.ImportPath+" does not build")
	case "pass", "fail", "skip":
		if e.Test == "" {
			delete(open, e.Package)
			if e.Action == "fail" {
				t.fail(k, e.Package)
			}
			return
		}
		if e.Action == "fail" {
			t.fail(k, e.Package+" "+e.Test)
		} else if old := t.result[k]; old != "fail" && old != "pass" {
			t.result[k] = e.Action
			t.why[k] = reason(t.output[k])
		}
		delete(t.output, k)
	}
}

// reason finds what a test that was skipped said.
func reason(output []string) string {
	for _, line := range output {
		if at, said, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && strings.Contains(at, ".go:") {
			return ": " + said
		}
	}
	return ""
}

// fail notes a failure and keeps what was printed. A package fails by itself only where none of its tests did.
func (t *tally) fail(k key, what string) {
	if k.test == "" {
		for other, r := range t.result {
			if other.pkg == k.pkg && r == "fail" {
				return
			}
		}
	}
	t.result[k] = "fail"
	t.failed = append(t.failed, "FAIL "+what+"\n"+strings.Join(t.output[k], ""))
	t.causes = append(t.causes, "FAILED "+what+"\n"+cause(t.output[k]))
}

// cause gives the first that a test said, which is why it failed: what comes after, as logs of daemons, may be long.
func cause(output []string) string {
	const most, wide = 4, 400
	var said strings.Builder
	n := 0
	for _, line := range output {
		if line = strings.TrimRight(line, "\n"); !strings.Contains(line, ".go:") || n == most {
			continue
		}
		n++
		if len(line) > wide {
			line = line[:wide] + "..."
		}
		said.WriteString(line + "\n")
	}
	return said.String()
}

// report prints the failures and the count, and gives the exit code.
func (t *tally) report(w io.Writer) int {
	for _, line := range t.stray {
		fmt.Fprint(w, line)
	}
	slices.Sort(t.failed)
	for _, f := range t.failed {
		fmt.Fprintln(w, f)
	}
	n := map[string]int{}
	var skipped []string
	for k, r := range t.result {
		n[r]++
		if r == "skip" {
			skipped = append(skipped, "SKIP "+k.pkg+" "+k.test+t.why[k])
		}
	}
	slices.Sort(skipped)
	for _, s := range skipped {
		fmt.Fprintln(w, s)
	}
	slices.Sort(t.causes)
	for _, c := range t.causes { // again, since the end is what one sees first
		fmt.Fprint(w, c)
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", n["pass"], n["fail"], n["skip"])
	if n["fail"] > 0 || n["pass"] == 0 {
		return 1
	}
	return 0
}
