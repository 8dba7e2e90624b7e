package integration

import (
	"fmt"
	"strings"
	"sync"
	"testing"
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
