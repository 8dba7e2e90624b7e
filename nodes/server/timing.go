package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anyfs/anyfs/sync/session"
)

// timing is how long the way of changes through the node takes, as histograms.
type timing struct{ ingest, fanout prometheus.Histogram }

func newTiming() timing {
	histogram := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .2, .5, 1, 2.5, 5, 10},
		})
	}
	return timing{
		histogram("anyfs_node_ingest_seconds", "How long it took to verify and take in a group of changes."),
		histogram("anyfs_node_fanout_seconds", "How long after a change was taken in a connected device was told of it or sent it."),
	}
}

// hear gives what the sessions tell.
func (t timing) hear() *session.Timing {
	return &session.Timing{
		TakenIn:  func(d time.Duration) { t.ingest.Observe(d.Seconds()) },
		PassedOn: func(d time.Duration) { t.fanout.Observe(d.Seconds()) },
	}
}
