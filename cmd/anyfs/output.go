package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// say writes a line of talk to stderr.
func (e *env) say(format string, args ...any) {
	io.WriteString(e.stderr, printableLines(fmt.Sprintf(format, args...))+"\n")
}

// table writes rows in aligned columns. Cells are made safe to show on a terminal.
func (e *env) table(rows [][]string) error {
	w := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		io.WriteString(w, strings.Join(row, "\t")+"\n")
	}
	return w.Flush()
}

// printable replaces what would steer a terminal: names come from other people.
func printable(s string) string {
	clean := func(r rune) rune {
		if unicode.IsPrint(r) || r == ' ' {
			return r
		}
		return '\uFFFD'
	}
	return strings.Map(clean, strings.ToValidUTF8(s, "\uFFFD"))
}

// printableLines is printable of a text that may have several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	return strings.Join(lines, "\n")
}

// askLine puts a question on the terminal and reads the shown answer.
func (e *env) askLine(question string) (string, error) {
	io.WriteString(e.stderr, question)
	return e.await(func() (string, error) { return readLine(io.LimitReader(e.stdin, maxSecretBytes)) })
}

// count gives a number with what it counts, in the plural where it is not one.
func count[N int | int64](n N, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// formatBytes shows a number of bytes with three digits.
func formatBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 999.5 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %ciB", v, units[i])
	}
	return fmt.Sprintf("%.0f %ciB", v, units[i])
}

// formatTime shows a moment in local time, to the second.
func formatTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
