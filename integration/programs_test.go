package integration

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestNPM installs a tree of local packages, with no network, and runs what it installed.
func TestNPM(t *testing.T) {
	Need(t, "npm", "node")
	packages := t.TempDir()
	Sh(t, packages, `
for p in leaf middle tool; do mkdir -p $p/lib; for i in $(seq 1 60); do echo "module.exports = $i" > $p/lib/$i.js; done; done
echo '{"name":"leaf","version":"1.0.0","main":"index.js"}' > leaf/package.json
echo 'module.exports = () => require("./lib/42.js")' > leaf/index.js
(cd leaf && npm pack --silent --pack-destination .. >/dev/null)
echo '{"name":"middle","version":"1.0.0","main":"index.js","dependencies":{"leaf":"file:'$PWD'/leaf-1.0.0.tgz"}}' > middle/package.json
echo 'module.exports = () => require("leaf")()' > middle/index.js
(cd middle && npm pack --silent --pack-destination .. >/dev/null)
echo '{"name":"tool","version":"1.0.0","bin":{"tool":"cli.js"}}' > tool/package.json
printf '#!/usr/bin/env node\nconsole.log("tool", require("middle")())\n' > tool/cli.js
(cd tool && npm pack --silent --pack-destination .. >/dev/null)`, "HOME="+t.TempDir())
	skip := func(p string) bool { return p == "cache" || strings.HasSuffix(p, "package-lock.json") } // holds paths relative to app
	_, dir := SameAsLocal(t, TreeOptions{NoTimes: true, Skip: skip}, func(t *testing.T, dir string) {
		Sh(t, dir, fmt.Sprintf(`
mkdir app && cd app
echo '{"name":"app","version":"1.0.0","dependencies":{"middle":"file:%[1]s/middle-1.0.0.tgz","tool":"file:%[1]s/tool-1.0.0.tgz","leaf":"file:%[1]s/leaf-1.0.0.tgz"}}' > package.json
npm install --offline --no-audit --no-fund --silent --cache ../cache
test "$(NODE_PATH=node_modules node_modules/.bin/tool)" = "tool 42"
npm ls --offline --silent >/dev/null
rm -rf node_modules && npm ci --offline --no-audit --no-fund --silent --cache ../cache
npm run --silent env >/dev/null`, packages), "HOME="+t.TempDir())
	})
	Sh(t, dir+"/app", `test "$(NODE_PATH=node_modules node_modules/.bin/tool)" = "tool 42" && npm ls --offline --silent >/dev/null`, "HOME="+t.TempDir())
}

// TestFio writes with fio in several ways and lets it verify what it reads, again after a remount.
func TestFio(t *testing.T) {
	Need(t, "fio")
	h := Mounted(t)
	dir := h.Personal("fio")
	check(t, os.Mkdir(dir, 0o755))
	size := "24m"
	if Long() {
		size = "512m"
	}
	jobs := []string{
		"--name=sequential --rw=write --bs=128k",
		"--name=random --rw=randwrite --bs=4k",
		"--name=mixed --rw=randrw --bsrange=512-64k --bs_unaligned=1",
		"--name=mapped --rw=randwrite --bs=4k --ioengine=mmap",
		"--name=synced --rw=randwrite --bs=4k --fsync=32 --io_size=2m",
	}
	for _, j := range jobs {
		Sh(t, dir, "fio --minimal --ioengine=psync --size="+size+" --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7 "+j)
	}
	h.Remount()
	for _, j := range jobs[:2] {
		Sh(t, dir, "fio --minimal --ioengine=psync --size="+size+" --verify=crc32c --verify_fatal=1 --verify_only=1 --randseed=7 "+j)
	}
}

// TestShell runs small things that people do all day, on both sides.
func TestShell(t *testing.T) {
	SameAsLocal(t, TreeOptions{NoTimes: true}, func(t *testing.T, dir string) {
		Sh(t, dir, `
for i in $(seq 1 200); do echo line $i >> log; done
sort -R log | sort -k2n > sorted && cmp log sorted
cat log log > twice && split -l 100 twice part. && cat part.* | cmp - twice
gzip -nk log && zcat log.gz | cmp - log
mkdir -p a/b/c && mv a/b d && rmdir a && find . -type d | sort > dirs
( exec 9> lock; flock -n 9; ! flock -n lock true )
( exec 8< log; rm log; test "$(head -1 <&8)" = "line 1" ) && mv sorted log
mkfifo pipe && (echo through > pipe &) && test "$(cat pipe)" = through
printf '#!/bin/sh\nexit 7\n' > run && chmod +x run && { ./run && false || test $? = 7; }
install -D -m 750 run bin/tool && cp -al bin hard && test "$(stat -c %h bin/tool)" = 2
ln -s bin sym && test -x sym/tool && touch -d '2001-02-03 04:05:06.789' run && test "$(stat -c %Y run)" = 981173106
: > empty && truncate -s 100K grown && test "$(stat -c %s grown)" = 102400
umask 077; echo private > private; test "$(stat -c %a private)" = 600`)
	})
}
