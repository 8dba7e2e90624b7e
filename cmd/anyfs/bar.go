package main

import (
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// barAfter is how long work goes on in silence.
const barAfter = time.Second

// bar shows on the terminal how far an operation has come, once it has taken a second. Without a terminal it shows nothing.
// Its methods are called by one goroutine.
type bar struct {
	e     *env
	name  string
	began time.Time
	all   *mpb.Progress
	one   *mpb.Bar
}

func newBar(e *env, name string) *bar { return &bar{e: e, name: name, began: time.Now()} }

// event is a sink that takes the progress of an operation.
func (b *bar) event(ev event) error {
	if !b.e.progress || ev.Done == 0 && ev.Total == 0 {
		return nil
	}
	if b.one == nil {
		if time.Since(b.began) < barAfter {
			return nil
		}
		b.all = mpb.New(mpb.WithOutput(b.e.stderr), mpb.WithWidth(60))
		b.one = b.all.AddBar(ev.Total,
			mpb.PrependDecorators(decor.Name(b.name+" ")),
			mpb.AppendDecorators(decor.Percentage(), decor.AverageETA(decor.ET_STYLE_GO, decor.WCSyncSpace)),
			mpb.BarRemoveOnComplete())
	}
	b.one.SetTotal(ev.Total, false)
	b.one.SetCurrent(ev.Done)
	return nil
}

// end takes the bar away.
func (b *bar) end(ok bool) {
	if b.one == nil {
		return
	}
	if ok {
		b.one.SetTotal(-1, true)
	} else {
		b.one.Abort(true)
	}
	b.all.Wait()
}
