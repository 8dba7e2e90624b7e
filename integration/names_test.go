package integration

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// scripts are file names in the world's writing systems, and names that trip programs.
var scripts = []string{
	"Latin ÀÉÎõü ßøł", "Ελληνικά", "Кириллица", "Հայերեն", "עברית", "العربية", "فارسی", "ܣܘܪܝܝܐ", "ދިވެހި", "हिन्दी", "বাংলা", "ਪੰਜਾਬੀ",
	"ગુજરાતી", "ଓଡ଼ିଆ", "தமிழ்", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "සිංහල", "ไทย", "ລາວ", "བོད་ཡིག", "မြန်မာ", "ქართული", "አማርኛ", "ᏣᎳᎩ", "ᐃᓄᒃᑎᑐᑦ",
	"ខ្មែរ", "ᠮᠣᠩᠭᠣᠯ", "日本語 ひらがな カタカナ", "한국어", "中文简体", "中文繁體", "ⵜⵉⴼⵉⵏⴰⵖ", "ꓡꓲ-ꓢꓳ", "𐌲𐌿𐍄", "𒀀𒁀", "𓀀𓂀", "emoji 🦊👨‍👩‍👧‍👦🏳️‍🌈",
	"e\u0301 decomposed", "\u00e9 composed", "Case", "case", " leading space", "trailing space ", "tab\tinside", "new\nline", "back\\slash", "-rf",
	"--help", "*?[]{}", "'\"`$(x)", "CON", "aux.txt", "...", "..a", "a:b", "\u202egnp.exe", "\u200bzero width", "\xff\xfe not UTF-8", "\x01\x7f control",
	strings.Repeat("n", 255), strings.Repeat("é", 127),
}

// TestNames makes a file, a directory and a symlink for every name, and finds them again by listing and by lookup.
func TestNames(t *testing.T) {
	if len(slices.Compact(slices.Sorted(slices.Values(scripts)))) != len(scripts) {
		t.Fatal("a name stands twice in the table")
	}
	h, dir := SameAsLocal(t, TreeOptions{NoTimes: true}, func(t *testing.T, dir string) {
		for _, sub := range []string{"f", "d", "l"} {
			check(t, os.Mkdir(dir+"/"+sub, 0o755))
		}
		for _, n := range scripts {
			check(t, os.WriteFile(dir+"/f/"+n, []byte(n), 0o644), os.Mkdir(dir+"/d/"+n, 0o755), os.Symlink(n, dir+"/l/"+n))
			check(t, os.Rename(dir+"/f/"+n, dir+"/f/tmp"), os.Rename(dir+"/f/tmp", dir+"/f/"+n))
		}
		listed, err := os.ReadDir(dir + "/f")
		check(t, err)
		var got []string
		for _, e := range listed {
			got = append(got, e.Name())
		}
		if want := slices.Sorted(slices.Values(scripts)); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
			t.Fatalf("listed %q, want %q", got, want)
		}
	})
	if err := os.WriteFile(dir+"/"+strings.Repeat("n", 256), nil, 0o644); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a name of 256 bytes: %v", err)
	}
	h.Kill()
	h.Mount()
	for _, n := range scripts {
		if b, err := os.ReadFile(dir + "/f/" + n); err != nil || string(b) != n {
			t.Errorf("after a kill: %q holds %q, %v", n, b, err)
		}
	}
}
