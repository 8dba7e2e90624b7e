package main

import (
	"io"
	"os"
	"strings"

	"golang.org/x/term"
	"rsc.io/qr"
)

// quietZone is how many light modules stand around a QR code. The standard has 4; readers do with 2, and terminals are narrow.
const quietZone = 2

// qrCode draws text as a QR code, two modules above each other in a character. Light modules are drawn, dark ones left out: with colour the two are
// white and black whatever the terminal's are. columns is how wide it is. It fails for texts beyond about 2,900 characters.
func qrCode(text string, colour bool) (drawing string, columns int, err error) {
	c, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", 0, err
	}
	columns = c.Size + 2*quietZone
	light := func(x, y int) bool { return !c.Black(x-quietZone, y-quietZone) } // outside of it nothing is black
	var b strings.Builder
	for y := 0; y < columns; y += 2 {
		if colour {
			b.WriteString("\x1b[97;40m")
		}
		for x := range columns {
			switch above, below := light(x, y), y+1 < columns && light(x, y+1); {
			case above && below:
				b.WriteRune('█')
			case above:
				b.WriteRune('▀')
			case below:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		if colour {
			b.WriteString("\x1b[0m")
		}
		b.WriteByte('\n')
	}
	return b.String(), columns, nil
}

// showQR draws one of some texts, which say the same with ever less beside it, on stderr: the first that the terminal is wide enough for. On anything
// but a terminal it does so only where it was asked for, with the first text.
func (e *env) showQR(asked bool, texts ...string) error {
	if e.json || !asked && e.columns == 0 {
		return nil
	}
	for _, text := range texts {
		drawing, columns, err := qrCode(text, e.columns > 0)
		if err != nil || e.columns > 0 && columns > e.columns {
			continue
		}
		_, err = io.WriteString(e.stderr, "\n"+drawing)
		return err
	}
	if asked {
		e.say("The terminal is too narrow for the QR code; make it wider, or its letters smaller.")
	}
	return nil
}

// shorter gives text with all of a list, and with ever fewer of it, one at last.
func shorter(list []string, text func([]string) string) []string {
	out := []string{text(list)}
	for n := len(list) - 1; n > 0; n-- {
		out = append(out, text(list[:n]))
	}
	return out
}

// terminalColumns is how wide the terminal is that both stdout and stderr are; 0 where they are none.
func terminalColumns() int {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return 0
	}
	columns, _, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0
	}
	return columns
}
