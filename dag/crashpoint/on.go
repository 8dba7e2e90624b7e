//go:build crashpoints

package crashpoint

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Shrink is by how many powers of two files are begun anew sooner, so that what is done then is done often.
const Shrink = 4

var (
	point Point
	left  atomic.Int64 // passings until the crash
	armed atomic.Bool
)

func init() {
	text, now := os.LookupEnv(Env)
	later := false
	if !now {
		text, later = os.LookupEnv(EnvLater)
	}
	if !now && !later {
		return
	}
	number, name, _ := strings.Cut(text, ":")
	n, err := strconv.Atoi(number)
	if err != nil {
		panic(fmt.Sprintf("crashpoint: %q is no number and point", text))
	}
	point = Point(name)
	left.Store(int64(n))
	armed.Store(now)
	if later {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		go func() {
			<-c
			armed.Store(true)
		}()
	}
}

// Here ends the process when this passing of the point is the one that was asked for.
func Here(p Point) {
	if !armed.Load() || p != point || left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}
