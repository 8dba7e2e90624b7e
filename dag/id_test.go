package dag_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/anyfs/anyfs/dag"
)

// Logs show IDs and keys as people can look for them, and not as lists of numbers.
func TestLogged(t *testing.T) {
	var b bytes.Buffer
	id := dag.Sum([]byte("x"))
	slog.New(slog.NewJSONHandler(&b, nil)).Info("it", "space", id, "device", dag.PublicKey{0xab, 0xcd})
	if s := b.String(); !strings.Contains(s, `"space":"`+id.String()+`"`) || !strings.Contains(s, `"device":"abcd00`) {
		t.Error(s)
	}
}
