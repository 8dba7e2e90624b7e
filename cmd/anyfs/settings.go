package main

import (
	"encoding/json"
	"errors"
	"fmt"
	iofs "io/fs"

	"github.com/anyfs/anyfs/sync/exchange"
)

// settingsName is the file of a home with what a person set of its exchange, sealed.
const settingsName = "settings"

// settings are what a person set, and what holds across restarts.
type settings struct {
	Paused bool     `json:"paused,omitempty"`
	Limits limits   `json:"limits"`
	Hosts  []string `json:"hosts,omitempty"`  // peer IDs of other accounts' devices, whose addresses came with invitations
	Joined bool     `json:"joined,omitempty"` // the device was made for an account that there was: others have it

	// KnowsHome: of such a device, it had all of the account's home space once.
	KnowsHome bool `json:"knows_home,omitempty"`
}

// limits bound the exchange with peers, in bytes per second; 0 is no limit.
type limits struct {
	Up   int64 `json:"up"`
	Down int64 `json:"down"`
	LAN  bool  `json:"lan"` // for peers of the local network too
}

// readSettings reads the settings; without any, they are zero.
func (h *home) readSettings() (s settings, err error) {
	sealed, err := h.disk.ReadFile(settingsName)
	if errors.Is(err, iofs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		var b []byte
		if b, err = h.keys.Local.OpenLocal(nil, sealed, []byte(settingsName)); err == nil {
			err = json.Unmarshal(b, &s)
		}
	}
	if err != nil {
		return settings{}, fmt.Errorf("read the settings: %w", err)
	}
	return s, nil
}

// changeSettings changes the settings, and has apply carry out the new ones while nobody else changes them.
func (h *home) changeSettings(change func(*settings), apply func(settings)) (settings, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s, err := h.readSettings()
	if err != nil {
		return s, err
	}
	change(&s)
	b, err := json.Marshal(s)
	if err != nil {
		return s, err
	}
	if err := h.disk.WriteFileAtomic(settingsName, h.keys.Local.SealLocal(nil, b, []byte(settingsName))); err != nil {
		return s, fmt.Errorf("keep the settings: %w", err)
	}
	apply(s)
	return s, nil
}

// applySettings has the exchange, where there is one, go by the settings.
func (h *home) applySettings(s settings) {
	if h.network == nil {
		return
	}
	e := h.network.engine
	e.SetLimits(exchange.Limits{Up: s.Limits.Up, Down: s.Limits.Down, LAN: s.Limits.LAN})
	if paused := e.Status().Paused; s.Paused && !paused {
		e.Pause()
	} else if !s.Paused && paused {
		e.Resume()
	}
}
