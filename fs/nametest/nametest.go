// Package nametest holds names that trip programs: those that lead out of a folder, that another system reads as something else, that a terminal
// obeys, and that no file can have. Tests take all of them through every edge at which names come in or go out.
//
// No build of the product links it.
package nametest

import (
	"fmt"
	"strings"
)

// Name is one name of the corpus.
type Name struct {
	Text string
	Why  string
}

// max is the longest name in bytes, as on Linux.
const max = 255

// Valid are the names that a file may have: as on any disk of Linux, whatever they look like.
func Valid() []Name {
	var c corpus
	c.add("leads up or away where it is taken for a path", "...", "....", "..a", "a..", ".. ", " ..", "..\\..\\etc", "..\\", "C:\\x", "c:", "\\\\host\\share", "~", "~root",
		"..;", "..\u2215etc", "..\u2044etc", "..\uff0fetc", "%2e%2e", "%2e%2e%2fetc", "%00", "..%c0%af", ". .", "..\t", "\u2024\u2024", "\u2025", "file:x", ".\u200b.", "..\u200b")
	for _, b := range []string{"CON", "PRN", "AUX", "NUL", "COM1", "COM9", "COM\u00b9", "LPT1", "LPT9", "CONIN$", "CONOUT$", "CLOCK$"} {
		c.add("a device of Windows", b, strings.ToLower(b), b+".txt", b+" ", b+".", b+".tar.gz", b+":x")
	}
	c.add("a stream of NTFS", "a:b", "a::$DATA", ".git::$INDEX_ALLOCATION", "a:b:$DATA", "x:$I30:$INDEX_ALLOCATION", ":stream")
	c.add("not kept as it is by Windows", "trailing.", "trailing ", "trailing. .", " leading", "a<b", "a>b", "a|b", "a?b", "a*b", "a\"b", "PROGRA~1", "GIT~1", "a~1.txt", "desktop.ini",
		"Thumbs.db", "autorun.inf", "x.lnk", "x.url", "x.pif", "x.scr", "folder.{20D04FE0-3AEA-1069-A2D8-08002B30309D}")
	c.add("anyfs's own, nearly", ".anyfsignore", ".anyfs ", ".anyfs.", ".ANYFS", ".Anyfs", ".anyfs-mount-probe", ".anyfs~", ".anyfs-123", "anyfs", ".anyfs\u200b", ".any\u200bfs", "..anyfs", ".anyfs\\versions", ".anyfs.json",
		".anyfs-local", "x.anyfs-local", "versions", "trash", "at", "a (conflict b 2026-01-31 ABCD).txt", "a (deleted 2026-01-31T12:00:00.000Z).txt", ".Trash-1000", "lost+found")
	c.add("git's own, as some disk reads it", ".git", ".GIT", ".Git", ".gIt", ".git ", ".git.", ".git . ", ".git\\hooks", "git~1", ".gitmodules", ".gitattributes", ".gitignore", ".g\u200cit", ".g\u200dit", ".gi\u200et",
		".g\u200fit", ".\u202agit", ".g\u202eit", ".gi\u2060t", "\ufeff.git", ".git\u200c", "GITMOD~1", ".hg", ".svn", ".bzr")
	c.add("read by a shell or a program from where it is", ".bashrc", ".profile", ".ssh", "authorized_keys", ".netrc", ".npmrc", ".envrc", ".vimrc", ".exrc", "Makefile", ".gdbinit", "conftest.py", ".htaccess", "core", "a.out")
	c.add("an option", "-rf", "--help", "-", "--", "--home=x", "-o allow_other", "--checkpoint-action=exec=sh", "--to", "--version", "-T", "@file", "+x", "--no-preserve-root")
	c.add("more than a word to a shell", "*", "?", "[a-z]", "[!a]", "{a,b}", "$(touch pwned)", "`touch pwned`", "$HOME", "${IFS}", ";ls", "&", "&& ls", "|sh", "> x", "< x", "'", "\"", "'\"'\"", "!", "!!", "#", "# x",
		"=x", "a=b", "(x)", "a b", "a  b", " ", "  ", "\\", "\\\\", "\\n", "\\x2e\\x2e", "%s%s%n", "%x", "{{.}}", "{}", "$'\\n'", "*?[]{}")
	c.add("markup, a query or a formula", "<script>alert(1)", "<img src=x onerror=x>", "a&b", "&lt;", "' OR 1=1 --", "=cmd|' ", "+1", "@SUM(A1)", "javascript:x", "data:text,x", "null", "undefined", "true", "0", "-1", "NaN", "1e309", "[]", "\u2029")
	for b := byte(1); b < 0x20; b++ {
		c.add("a control character", "c"+string(rune(b))+"x")
	}
	c.add("a control character", "\x7f", "a\u0085b", "a\u009b31mb", "\n", "\r", "\t", "\x1b", "a\r\nb", "a\nroot::0:0::", "line one\nanyfs: all is well")
	c.add("an order to a terminal", "\x1b[31mred", "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]8;;file:x\x1b\\link\x1b]8;;\x1b\\", "\x1bP$q\x1b\\", "\x1b[6n", "\x1b]52;c;eA==\x07", "\u009b2J", "x\b\b\b\by", "good\rbad", "\x1b[1A\x1b[2K", "\x1b#8", "\x1bc", "\x0e\x0f")
	for _, r := range []rune{0x061c, 0x200e, 0x200f, 0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069} {
		c.add("turns the direction of text", "photo"+string(r)+"gpj.exe", string(r)+"x")
	}
	for _, r := range []rune{0x00a0, 0x00ad, 0x034f, 0x115f, 0x1680, 0x180e, 0x2000, 0x200b, 0x200c, 0x200d, 0x2028, 0x2060, 0x2061, 0x2064, 0x2800, 0x3000, 0x3164, 0xfe0f, 0xfeff, 0xffa0, 0xfff9, 0xe0001, 0xe0041} {
		c.add("shows as nothing, or as a space", string(r), "a"+string(r)+"b")
	}
	c.add("looks like another, or is one to another disk", "Case", "case", "CASE", "\u00e9", "e\u0301", "\u00c5", "A\u030a", "\u212b", "\u1e9b\u0323", "\u1e9b\u0323x", "ſ", "ß", "SS", "ss", "İ", "ı", "i\u0307", "ﬁ", "fi", "\u03c2", "\u03c3", "Σ", "раypal", "paypal",
		"\uac00", "\u1100\u1161", "\u0344", "\u0308\u0301", "\u2126", "\u03a9", "K", "\u212a", "ｆｕｌｌ", "full", "x\u0338", "x", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "z\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308")
	c.add("not UTF-8", "\xff", "\xff\xfe", "\xc0\xaf", "\xc0\xae\xc0\xae", "\xc0\x80", "\xe0\x80\xaf", "\xed\xa0\x80", "\xed\xb2\x80x", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\x80", "a\xe9b", "\xe2\x82", "caf\xe9", "\xef\xbf\xbd", "\xef\xbf\xbf", "\xef\xb7\x90")
	c.add("as long as can be", strings.Repeat("n", max), strings.Repeat("n", max-1), strings.Repeat("é", 127), strings.Repeat("é", 127)+"n", strings.Repeat("€", 85), strings.Repeat("😀", 63)+"abc", strings.Repeat("\xff", max),
		strings.Repeat(".", max), strings.Repeat(" ", max), strings.Repeat("a.", 127)+"b", "."+strings.Repeat("x", 254), strings.Repeat("\x1b", max), strings.Repeat("\n", max))
	for i := range 12 {
		c.add("a number that a program may count on", fmt.Sprintf("%d", 1<<(5*i)))
	}
	return c.names
}

// Void are the names that no file has: each edge refuses them, and no tree shows one, whoever wrote it.
func Void() []Name {
	var c corpus
	c.add("no name", "")
	c.add("the folder itself, or the one above", ".", "..")
	c.add("a path", "/", "//", "/etc/passwd", "a/b", "../x", "../../x", "x/..", "./x", "a/", "/a", "../../../../../../etc/cron.d/x", ".git/hooks/post-checkout", "a/../../b", ".anyfs/versions", "\xff/x", "a/\x00")
	c.add("ends before its end", "\x00", "a\x00", "\x00a", "a\x00.txt", "..\x00", "x\x00/../y")
	c.add("shows the past", ".anyfs")
	c.add("too long", strings.Repeat("n", max+1), strings.Repeat("é", 128), strings.Repeat("n", 4096), strings.Repeat("../", 1000), strings.Repeat("\xff", max+1))
	return c.names
}

// All are the names of both kinds.
func All() []Name { return append(Valid(), Void()...) }

// Targets are what a symbolic link may say. out stands for a folder that nobody is to write to: absolute, up out of where the link is, over links, and in
// circles.
func Targets(out string) []string {
	return []string{
		out, out + "/canary", out + "/new", out + "/../" + out, "/", "/..", "//", "/etc/passwd", "/proc/self/fd/1", "/dev/null", "/proc/self/root" + out + "/canary",
		"..", "../", "../..", "../../../../../../../../../../../.." + out + "/new", ".", "./.", "x/../..", "loop", "loop/loop", "chain1", "chain2", "chain3", "nowhere", "nowhere/else", "\xff\xfe",
		"\x1b[2Jtarget", "line\nbreak", " ", "-rf", "~", "$HOME", "C:\\x", ".anyfs", ".anyfs/at", "..\\..", strings.Repeat("../", 1000) + "x", strings.Repeat("t", 4095),
	}
}

type corpus struct{ names []Name }

func (c *corpus) add(why string, texts ...string) {
	for _, t := range texts {
		c.names = append(c.names, Name{t, why})
	}
}
