package main

import "testing"

func TestParseRate(t *testing.T) {
	for given, want := range map[string]int64{
		"none": 0, "off": 0, "0": 0, "10000": 10000, "500k": 500_000, "500 kB/s": 500_000, "2M": 2_000_000, "1.5MiB": 3 << 19, "1G": 1e9,
		"10Mbit": 1_250_000, "10Mbit/s": 1_250_000, "64KiB/s": 64 << 10,
		"": -1, "fast": -1, "-1k": -1, "1k": -1, "9999": -1, "1x": -1, "k": -1, "1e300": -1, "NaN": -1, "9999999G": -1,
	} {
		got, err := parseRate(given)
		if err != nil {
			got = -1
			if exitCode(err) != exitUsage {
				t.Errorf("%q: %v", given, err)
			}
		}
		if got != want {
			t.Errorf("%q is %d, want %d", given, got, want)
		}
	}
	for rate, want := range map[int64]string{0: "no limit", 10_000: "10 kB/s", 1_500_000: "1.5 MB/s", 2_500_000_000: "2.5 GB/s"} {
		if got := formatRate(rate); got != want {
			t.Errorf("%d is shown as %q, want %q", rate, got, want)
		}
	}
}
