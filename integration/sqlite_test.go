package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSQLite lets several processes write to one database in each journal mode and looks whether every row that was
// committed is there: before and after a remount, and after a kill.
func TestSQLite(t *testing.T) {
	Need(t, "sqlite3")
	const writers, rows = 4, 60
	h := Mounted(t)
	dir := h.Personal("db")
	Sh(t, h.Personal(), "mkdir db")
	verify := func(t *testing.T, mode string, want int) {
		t.Helper()
		out := Sh(t, dir, `sqlite3 -cmd '.timeout 30000' "$F" 'pragma integrity_check; select count(*) from t; select count(distinct v) from t;'`, "F="+mode+".db")
		if out != fmt.Sprintf("ok\n%d\n%d\n", want, want) {
			t.Fatalf("%s: integrity_check and counts say %q, want %d rows", mode, out, want)
		}
	}
	modes := []string{"wal", "delete", "truncate", "persist"}
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			Sh(t, dir, `sqlite3 "$M.db" "pragma journal_mode=$M; create table t(id integer primary key, v text, pad text);"`, "M="+mode)
			var wg sync.WaitGroup
			failed := make([]string, writers)
			for w := range writers {
				wg.Go(func() {
					var script strings.Builder
					for i := range rows {
						fmt.Fprintf(&script, "begin immediate; insert into t(v,pad) values('w%d-%d', hex(randomblob(500))); commit;\n", w, i)
					}
					cmd := fmt.Sprintf("sqlite3 -bail -cmd '.timeout 60000' %s.db <<'END'\n%sEND\n", mode, script.String())
					failed[w] = trySh(dir, cmd)
				})
			}
			wg.Wait()
			for w, f := range failed {
				if f != "" {
					t.Errorf("writer %d: %s", w, f)
				}
			}
			verify(t, mode, writers*rows)
		})
	}
	h.Remount()
	for _, mode := range modes {
		verify(t, mode, writers*rows)
		Sh(t, dir, `sqlite3 "$M.db" "insert into t(v) values('after'); vacuum;"`, "M="+mode)
	}
	h.Kill()
	h.Mount()
	for _, mode := range modes {
		verify(t, mode, writers*rows+1)
	}
}

// trySh runs a script and gives what went wrong, or nothing. It may be called from any goroutine.
func trySh(dir, script string) string {
	cmd := shell(dir, script)
	r, err := run(cmd)
	if err != nil || r.Code != 0 {
		return fmt.Sprintf("exit %d, %v: %s", r.Code, err, tail(r.Stderr))
	}
	return ""
}

// TestSQLiteVersions looks at the versions that were published of databases while they were written without end: each is one that the
// program could have left, with its journal beside it.
func TestSQLiteVersions(t *testing.T) {
	Need(t, "sqlite3")
	h := Mounted(t)
	dir := h.Personal("db")
	Sh(t, h.Personal(), "mkdir db")
	busy := 14 // seconds: a file that is being written is published after ten
	if Long() {
		busy = 120
	}
	modes := []string{"wal", "delete", "persist"}
	for _, mode := range modes {
		Sh(t, dir, `sqlite3 "$M.db" "pragma journal_mode=$M; create table t(id integer primary key, n int); create table log(v blob);
			with recursive k(i) as (select 1 union all select i+1 from k where i<2000) insert into t select i, 0 from k;"`, "M="+mode)
	}
	h.Settle()
	start := time.Now()
	var wg sync.WaitGroup
	failed := make([]string, len(modes))
	for i, mode := range modes {
		// Each transaction moves something from one row to another.
		wg.Go(func() {
			failed[i] = trySh(dir, fmt.Sprintf(`end=$(($(date +%%s)+%[1]d)); i=0
while [ "$(date +%%s)" -lt $end ]; do for k in 1 2 3 4 5 6 7 8 9 10; do i=$((i+1))
echo "begin immediate; update t set n=n-$i where id=$((i*7919%%2000+1)); insert into log values(randomblob(300)); update t set n=n+$i where id=$((i*104729%%2000+1)); commit;"
done; done | sqlite3 -bail -cmd '.timeout 60000' -cmd '.output /dev/null' -cmd 'pragma journal_mode=%[2]s' -cmd 'pragma wal_autocheckpoint=100' %[2]s.db`, busy, mode))
		})
	}
	wg.Wait()
	for i, f := range failed {
		if f != "" {
			t.Errorf("%s: %s", modes[i], f)
		}
	}
	h.Settle()
	for _, mode := range modes {
		var versions []struct {
			Time    time.Time `json:"time"`
			Content bool      `json:"content"`
		}
		if err := json.Unmarshal([]byte(h.Must("--json", "log", "Personal/db/"+mode+".db")), &versions); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, v := range versions {
			if !v.Content || v.Time.Before(start) {
				continue
			}
			at := v.Time.UTC().Format(time.RFC3339Nano)
			copied := t.TempDir()
			Sh(t, h.Personal(), `cp .anyfs/at/"$AT"/db/"$M".db* "$TO" && chmod u+w "$TO"/*`, "AT="+at, "M="+mode, "TO="+copied)
			files := Sh(t, copied, "ls")
			if out := Sh(t, copied, `sqlite3 "$M.db" "pragma integrity_check; select count(*), sum(n) from t;"`, "M="+mode); out != "ok\n2000|0\n" {
				t.Errorf("%s at %s (%s): %q", mode, at, strings.Fields(files), out)
			}
			seen++
		}
		t.Logf("%s: %d versions", mode, seen)
		if seen < 2 {
			t.Errorf("%s: %d versions, so none while it was written", mode, seen)
		}
	}
}
