package integration

import (
	"strings"
	"testing"
)

// makeRepository makes a bare repository with history in dir/origin.git: commits, branches, merges, tags, renames, an
// executable and a symlink.
func makeRepository(t *testing.T, dir string) {
	Sh(t, dir, `
git init -q -b main seed && cd seed
for i in $(seq 1 12); do
  mkdir -p "pkg$((i % 4))/deep"
  seq 1 $((i * 40)) > "pkg$((i % 4))/file$i.txt"
  echo "change $i" >> README
  git add -A && git commit -qm "commit $i"
done
printf '#!/bin/sh\necho hi\n' > run.sh && chmod +x run.sh && ln -s run.sh link && git add -A && git commit -qm tools
git checkout -qb feature HEAD~6 && git mv pkg1 moved && git commit -qm move && echo more >> moved/deep.txt && git add -A && git commit -qm more
git checkout -q main && git merge -q --no-ff -m 'merge feature' feature && git tag -a v1 -m one
head -c 300000 /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2>/dev/null > big.bin || seq 1 60000 > big.bin
git add -A && git commit -qm big && git gc -q
cd .. && git clone -q --bare seed origin.git`)
}

func TestGit(t *testing.T) {
	Need(t, "git")
	origin := t.TempDir()
	makeRepository(t, origin)
	var said []string
	skip := func(p string) bool { // stat data and time stamps of the index, names that git makes up
		return p == "repo/.git/index" || strings.HasPrefix(p, "repo/.git/objects") || strings.HasPrefix(p, "repo/.git/logs")
	}
	h, dir := SameAsLocal(t, TreeOptions{NoTimes: true, Skip: skip}, func(t *testing.T, dir string) {
		said = append(said, Sh(t, dir, `
git clone -q "file://$ORIGIN/origin.git" repo && cd repo
git fsck --full --strict 2>&1
git status --porcelain
git checkout -qb topic
sed -i 's/change 3/changed 3/' README && echo new > pkg2/new.txt && git rm -q pkg3/file3.txt && git add -A && git commit -qm topic
git checkout -q main && echo other >> pkg0/file4.txt && git commit -qam other
git merge -q --no-ff -m 'merge topic' topic
git stash list; echo dirty >> README; git stash -q; git stash pop -q; git checkout -q README
git worktree add -q ../tree topic && git worktree remove ../tree
git rebase -q --onto main~1 main~1 topic 2>&1 || git rebase --abort; git checkout -q main
git repack -adq && git gc -q --prune=now
git fsck --full --strict 2>&1
git status --porcelain
git log --format='%H %s' --all
git rev-list --objects --all | sort | sha256sum`, "ORIGIN="+origin))
	})
	if said[0] != said[1] {
		t.Fatalf("git says on the local disk:\n%s\non the mount:\n%s", said[0], said[1])
	}
	after := `cd repo && git fsck --full --strict 2>&1; git status --porcelain; git rev-list --objects --all | sort | sha256sum`
	if out := Sh(t, dir, after); !strings.HasSuffix(said[1], out) {
		t.Fatalf("after the remount git says:\n%s\nbefore:\n%s", out, said[1])
	}
	Sh(t, dir, `cd repo && echo again >> README && git commit -qam again && git fsck --full --strict && test -z "$(git status --porcelain)"`)
	h.Kill()
	h.Mount()
	Sh(t, dir, `cd repo && git fsck --full --strict && test -z "$(git status --porcelain)"`)
}

// TestGitStatusStaysClean holds that what stat shows does not change by itself: git would see every file as touched.
func TestGitStatusStaysClean(t *testing.T) {
	Need(t, "git", "strace")
	origin := t.TempDir()
	makeRepository(t, origin)
	h := Mounted(t)
	dir := h.Personal()
	Sh(t, dir, `git clone -q "$ORIGIN/origin.git" repo && cd repo && sleep 1.1 && git update-index -q --refresh && git status --porcelain`, "ORIGIN="+origin)
	h.Remount()
	// With --refresh and an index that is right, git opens no file of the worktree: it trusts stat.
	out := Sh(t, dir, `cd repo && strace -f -e trace=openat -o "$LOG" git status --porcelain && grep -c 'pkg[0-9].*txt.*O_RDONLY' "$LOG" || true`, "LOG="+t.TempDir()+"/strace")
	if strings.TrimSpace(out) != "0" {
		t.Fatalf("after a remount git status reads files again, so their stat changed: %s", out)
	}
}
