package main

import (
	"bytes"
	"strings"
	"testing"

	"rsc.io/qr"
)

// TestQRCode: what is drawn has the modules of the code, with a light edge, whichever way it is coloured.
func TestQRCode(t *testing.T) {
	for _, text := range []string{"1", "anyfs-pair:123-4567-8901?at=/ip4/192.0.2.7/tcp/7327/p2p/12D3KooWQ", strings.Repeat("x", 900)} {
		c, err := qr.Encode(text, qr.L)
		if err != nil {
			t.Fatal(err)
		}
		for _, colour := range []bool{false, true} {
			d, columns, err := qrCode(text, colour)
			if err != nil || columns != c.Size+2*quietZone {
				t.Fatal(columns, err)
			}
			d = strings.NewReplacer("\x1b[97;40m", "", "\x1b[0m", "").Replace(d)
			lines := strings.Split(strings.TrimSuffix(d, "\n"), "\n")
			if len(lines) != (columns+1)/2 {
				t.Fatalf("%d lines", len(lines))
			}
			for y, l := range lines {
				r := []rune(l)
				if len(r) != columns {
					t.Fatalf("line %d has %d columns", y, len(r))
				}
				for x := range r {
					above, below := r[x] == '█' || r[x] == '▀', r[x] == '█' || r[x] == '▄'
					mx, my := x-quietZone, 2*y-quietZone
					edge := func(y int) bool { return mx < 0 || y < 0 || mx >= c.Size || y >= c.Size }
					if above != (edge(my) || !c.Black(mx, my)) || 2*y+1 < columns && below != (edge(my+1) || !c.Black(mx, my+1)) {
						t.Fatalf("%q: wrong at %d, %d", text[:1], x, y)
					}
				}
			}
		}
	}
	if _, _, err := qrCode(strings.Repeat("x", 5000), false); err == nil {
		t.Error("a text that is too long is drawn")
	}
}

// TestShowQR: a narrow terminal gets a text with less in it; what is no terminal gets nothing unless it was asked for.
func TestShowQR(t *testing.T) {
	long, short := strings.Repeat("x", 600), "x"
	for _, c := range []struct {
		columns int
		asked   bool
		json    bool
		want    string // what is drawn
		says    string
	}{
		{0, false, false, "", ""},
		{0, true, false, long, ""},
		{200, false, false, long, ""},
		{60, false, false, short, ""},
		{20, false, false, "", ""},
		{20, true, false, "", "too narrow"},
		{200, true, true, "", ""},
	} {
		var out bytes.Buffer
		e := &env{stderr: &out, columns: c.columns, json: c.json}
		if err := e.showQR(c.asked, long, short); err != nil {
			t.Fatal(err)
		}
		want := ""
		if c.want != "" {
			d, _, err := qrCode(c.want, c.columns > 0)
			if err != nil {
				t.Fatal(err)
			}
			want = "\n" + d
		}
		if c.says != "" && !strings.Contains(out.String(), c.says) || c.says == "" && out.String() != want {
			t.Errorf("%+v: it shows %.40q", c, out.String())
		}
	}
	if got := shorter([]string{"a", "b", "c"}, func(l []string) string { return strings.Join(l, "") }); strings.Join(got, " ") != "abc ab a" {
		t.Errorf("%q", got)
	}
}
