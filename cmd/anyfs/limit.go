package main

import (
	"context"
	"math"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/anyfs/anyfs/sync/exchange"
)

func limitCommand(e *env) *cli.Command {
	return &cli.Command{
		Name:  "limit",
		Usage: "limit the bandwidth that the exchange with other devices takes",
		Description: `Without flags it shows the limits. A RATE is in bytes per second: 500k, 2M, 1.5MiB (k, M, G count by 1000, KiB, MiB, GiB by
1024), or in bits: 10Mbit; none takes a limit away. The lowest is 10k. Limits hold for all peers together, across restarts, and
not for peers on the local network unless --lan is given (--lan=false takes that back).

Examples:
  anyfs limit
  anyfs limit --up 500k --down 2M
  anyfs limit --up none
  anyfs limit --lan`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "up", Usage: "send at most `RATE`"},
			&cli.StringFlag{Name: "down", Usage: "receive at most `RATE`"},
			&cli.BoolFlag{Name: "lan", Usage: "limit what goes over the local network too"},
		},
		Action: func(c *cli.Context) error {
			if _, err := args(c, 0, 0); err != nil {
				return err
			}
			var p limitParams
			for _, f := range []struct {
				name string
				to   **int64
			}{{"up", &p.Up}, {"down", &p.Down}} {
				if c.IsSet(f.name) {
					r, err := parseRate(c.String(f.name))
					if err != nil {
						return err
					}
					*f.to = &r
				}
			}
			if c.IsSet("lan") {
				lan := c.Bool("lan")
				p.LAN = &lan
			}
			return runLimit(c.Context, e, p)
		},
	}
}

// limitParams are the limits to change; what is nil stays.
type limitParams struct {
	Up   *int64 `json:"up"`
	Down *int64 `json:"down"`
	LAN  *bool  `json:"lan"`
}

var opLimit = operation[limitParams, limits]{"limit", func(_ context.Context, h *home, p limitParams, _ sink) (limits, error) {
	if p == (limitParams{}) {
		s, err := h.readSettings()
		return s.Limits, err
	}
	s, err := h.changeSettings(func(s *settings) {
		if p.Up != nil {
			s.Limits.Up = *p.Up
		}
		if p.Down != nil {
			s.Limits.Down = *p.Down
		}
		if p.LAN != nil {
			s.Limits.LAN = *p.LAN
		}
	}, h.applySettings)
	return s.Limits, err
}}

// rateUnits are what may stand behind the number of a rate, without a "B" or "/s", and how many bytes per second it means.
var rateUnits = map[string]float64{
	"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30,
	"bit": 1. / 8, "kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8,
}

// parseRate reads a rate, in bytes per second; 0 is none.
func parseRate(given string) (int64, error) {
	bad := failf(exitUsage, "%q is no rate; give bytes per second as in 500k, 2M or 1.5MiB, bits as in 10Mbit, or none", given)
	s := strings.ToLower(strings.TrimSpace(given))
	if s == "none" || s == "off" {
		return 0, nil
	}
	s = strings.TrimSuffix(s, "/s")
	i := strings.LastIndexAny(s, "0123456789.") + 1
	unit, ok := rateUnits[strings.TrimSuffix(strings.TrimSpace(s[i:]), "b")]
	n, err := strconv.ParseFloat(s[:i], 64)
	if !ok || err != nil || n < 0 || math.IsNaN(n) || n*unit > 1<<50 {
		return 0, bad
	}
	r := int64(n * unit)
	if r > 0 && r < exchange.MinLimit {
		return 0, failf(exitUsage, "%s is below the lowest limit, 10k; 'anyfs pause' stops the exchange", given)
	}
	return r, nil
}

func formatRate(r int64) string {
	if r == 0 {
		return "no limit"
	}
	v, unit := float64(r)/1000, "kB/s"
	for _, u := range []string{"MB/s", "GB/s"} {
		if v >= 1000 {
			v, unit = v/1000, u
		}
	}
	return strconv.FormatFloat(math.Round(v*100)/100, 'f', -1, 64) + " " + unit
}

// text tells limits in few words; empty where there are none.
func (l limits) text() string {
	var parts []string
	if l.Up > 0 {
		parts = append(parts, "up "+formatRate(l.Up))
	}
	if l.Down > 0 {
		parts = append(parts, "down "+formatRate(l.Down))
	}
	if len(parts) > 0 && l.LAN {
		parts = append(parts, "on the local network too")
	}
	return strings.Join(parts, ", ")
}

func runLimit(ctx context.Context, e *env, p limitParams) error {
	l, err := opLimit.call(ctx, e, p)
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(l)
	}
	lan := "free"
	if l.LAN {
		lan = "limited too"
	}
	return e.table([][]string{{"up", formatRate(l.Up)}, {"down", formatRate(l.Down)}, {"local network", lan}})
}
