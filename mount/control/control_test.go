package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs a server for a home until the returned function stops it.
func serve(t testing.TB, home string, s *Server) (stop func()) {
	t.Helper()
	l, err := Listen(home)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dial(t testing.TB, home string) *Client {
	t.Helper()
	c, err := Dial(context.Background(), home)
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

type failure struct{ code int }

func (f failure) Error() string { return "it went wrong" }
func (f failure) ExitCode() int { return f.code }

func TestCall(t *testing.T) {
	home := t.TempDir()
	s := New(nil)
	s.Handle("double", func(_ context.Context, params json.RawMessage, out *Stream) (any, error) {
		var n int
		if err := json.Unmarshal(params, &n); err != nil {
			return nil, err
		}
		for i := range n {
			if err := out.Send(i); err != nil {
				return nil, err
			}
		}
		return 2 * n, nil
	})
	s.Handle("fail", func(context.Context, json.RawMessage, *Stream) (any, error) {
		return nil, fmt.Errorf("sorry: %w", failure{3})
	})
	s.Handle("panic", func(context.Context, json.RawMessage, *Stream) (any, error) { panic("a bug") })
	s.Handle("nothing", func(context.Context, json.RawMessage, *Stream) (any, error) { return nil, nil })
	s.Handle("long", func(context.Context, json.RawMessage, *Stream) (any, error) { return strings.Repeat("x", 5<<20), nil })
	s.Handle("too long", func(context.Context, json.RawMessage, *Stream) (any, error) {
		return strings.Repeat("x", maxResultBytes), nil
	})
	serve(t, home, s)
	c := dial(t, home)
	ctx := context.Background()

	var got, events int
	must(t, c.Call(ctx, "double", 21, &got, func(b json.RawMessage) error {
		if string(b) != fmt.Sprint(events) {
			return fmt.Errorf("event %s", b)
		}
		events++
		return nil
	}))
	if got != 42 || events != 21 {
		t.Errorf("%d after %d events", got, events)
	}
	must(t, c.Call(ctx, "nothing", nil, nil, nil))
	var long string
	must(t, c.Call(ctx, "long", nil, &long, nil))
	if len(long) != 5<<20 {
		t.Errorf("%d bytes", len(long))
	}
	var e *Error
	if err := c.Call(ctx, "fail", nil, nil, nil); !errors.As(err, &e) || e.Exit != 3 || e.Text != "sorry: it went wrong" {
		t.Errorf("%#v", err)
	}
	for _, name := range []string{"panic", "too long", "unknown"} {
		if err := c.Call(ctx, name, nil, nil, nil); !errors.As(err, &e) || e.Exit != 1 {
			t.Errorf("%s: %#v", name, err)
		}
	}
	stop := errors.New("enough")
	if err := c.Call(ctx, "double", 5, nil, func(json.RawMessage) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
	if err := c.Call(ctx, "double", strings.Repeat("x", maxParamsBytes), nil, nil); !errors.As(err, &e) {
		t.Errorf("too many parameters: %v", err)
	}
	must(t, c.Call(ctx, "double", 1, &got, nil))
}

// TestCallerGoesAway holds that a call's context ends with its caller.
func TestCallerGoesAway(t *testing.T) {
	home := t.TempDir()
	s := New(nil)
	begun, ended := make(chan struct{}), make(chan struct{})
	s.Handle("wait", func(ctx context.Context, _ json.RawMessage, out *Stream) (any, error) {
		close(begun)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	})
	serve(t, home, s)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-begun
		cancel()
	}()
	if err := dial(t, home).Call(ctx, "wait", nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the call goes on without its caller")
	}
}

// TestStop holds that a stopping server lets short calls end, ends the long ones, and takes its socket away.
func TestStop(t *testing.T) {
	home := t.TempDir()
	s := New(nil)
	begun := make(chan struct{}, 2)
	s.Handle("short", func(context.Context, json.RawMessage, *Stream) (any, error) {
		begun <- struct{}{}
		time.Sleep(100 * time.Millisecond)
		return "done", nil
	})
	s.Handle("endless", func(ctx context.Context, _ json.RawMessage, _ *Stream) (any, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, errors.New("ended")
	})
	stop := serve(t, home, s)
	results := make(chan error, 2)
	var result string
	go func() { results <- dial(t, home).Call(context.Background(), "short", nil, &result, nil) }()
	go func() { results <- dial(t, home).Call(context.Background(), "endless", nil, nil, nil) }()
	<-begun
	<-begun
	start := time.Now()
	stop()
	if took := time.Since(start); took > graceful+forced {
		t.Errorf("it took %v", took)
	}
	if err := <-results; err != nil || result != "done" {
		t.Errorf("the short call: %q, %v", result, err)
	}
	var e *Error
	if err := <-results; !errors.As(err, &e) || e.Text != "ended" {
		t.Errorf("the endless call: %v", err)
	}
	if _, err := Dial(context.Background(), home); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("after the end: %v", err)
	}
}

// TestManyCalls holds that calls beyond the limit are refused, and that the others are answered.
func TestManyCalls(t *testing.T) {
	home := t.TempDir()
	s := New(nil)
	release := make(chan struct{})
	s.Handle("wait", func(context.Context, json.RawMessage, *Stream) (any, error) {
		<-release
		return nil, nil
	})
	serve(t, home, s)
	c := dial(t, home)
	results := make(chan error, maxCalls+10)
	for range cap(results) {
		go func() { results <- c.Call(context.Background(), "wait", nil, nil, nil) }()
	}
	refused := 0
	for range 10 {
		if err := <-results; err != nil {
			refused++
		}
	}
	close(release)
	for range maxCalls {
		must(t, <-results)
	}
	if refused != 10 {
		t.Errorf("%d were refused, want 10", refused)
	}
}

// TestLongHome holds that a home may have a path of any length, a stale socket is replaced, and the socket is private.
func TestLongHome(t *testing.T) {
	home := filepath.Join(t.TempDir(), strings.Repeat("long/", 40), strings.Repeat("x", 250))
	must(t, os.MkdirAll(home, 0o700))
	if _, err := Dial(context.Background(), home); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("a home with no daemon: %v", err)
	}
	if _, err := Dial(context.Background(), home+"/none"); !errors.Is(err, ErrNoDaemon) {
		t.Errorf("no home: %v", err)
	}
	for range 2 {
		l, err := Listen(home)
		must(t, err)
		l.(*ownersListener).UnixListener.Close() // as if killed: the socket stays
		if _, err := Dial(context.Background(), home); !errors.Is(err, ErrNoDaemon) {
			t.Errorf("a stale socket: %v", err)
		}
	}
	s := New(nil)
	s.Handle("hello", func(context.Context, json.RawMessage, *Stream) (any, error) { return "hello", nil })
	serve(t, home, s)
	var got string
	must(t, dial(t, home).Call(context.Background(), "hello", nil, &got, nil))
	st, err := os.Stat(filepath.Join(home, socketName))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", st.Mode(), err)
	}
}

// TestRawClients holds what who speaks plain HTTP gets, and that garbage harms nobody.
func TestRawClients(t *testing.T) {
	home := t.TempDir()
	s := New(nil)
	s.Handle("hello", func(context.Context, json.RawMessage, *Stream) (any, error) { return "hello", nil })
	serve(t, home, s)
	for request, want := range map[string]string{
		"POST /v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":          `{"result":"hello"}`,
		"POST /v1/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{]{]":      `"exit":1`,
		"GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n":                                `"exit":1`,
		"POST /v2/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":          `"exit":1`,
		"POST /v1/hello HTTP/1.1\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n": "431",
		"\x00\x01\x02\r\n\r\n": "400",
	} {
		var d net.Dialer
		c, err := d.Dial("unix", filepath.Join(home, socketName))
		must(t, err)
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = c.Write([]byte(request))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%.30q: %v", request, err)
			continue
		}
		body := make([]byte, 4096)
		n, _ := resp.Body.Read(body)
		if got := resp.Status + " " + string(body[:n]); !strings.Contains(got, want) {
			t.Errorf("%.30q: %q, want %q", request, got, want)
		}
		c.Close()
	}
}

// FuzzReadLine holds that any answer is a line or an error, and that what was sent is what is read.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte(`{"result":1}` + "\n"))
	f.Add([]byte(`{"event":{"a":[1,2]}}` + "\n" + `{"error":{"text":"x","exit":0}}` + "\n"))
	f.Add([]byte(`{"error":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(b)), 16)
		for {
			l, err := readLine(in)
			if err != nil {
				return
			}
			if l.Error != nil && l.Error.Exit < 1 {
				t.Errorf("an error with exit code %d", l.Error.Exit)
			}
			again, err := json.Marshal(l)
			must(t, err)
			m, err := parseLine(again)
			if err != nil || string(m.Event) != string(l.Event) && l.Event != nil && !json.Valid(m.Event) {
				t.Errorf("%q came back as %q, %v", l.Event, m.Event, err)
			}
		}
	})
}
