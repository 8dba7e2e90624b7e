package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long a stopping server waits for calls to end by themselves, and then for those whose context has ended.
const (
	graceful = 2 * time.Second
	forced   = 3 * time.Second
)

// Handler answers one call. ctx ends when the caller goes away or the server stops. The result is sent as JSON.
type Handler func(ctx context.Context, params json.RawMessage, out *Stream) (any, error)

// Server answers calls by the handlers that were registered before it serves.
type Server struct {
	log      *slog.Logger
	handlers map[string]Handler
	slots    chan struct{}
}

// New makes a server with no handlers; log may be nil.
func New(log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{log: log, handlers: make(map[string]Handler), slots: make(chan struct{}, maxCalls)}
}

// Handle registers the handler of a name. It panics when the name is taken.
func (s *Server) Handle(name string, h Handler) {
	if name == "" || strings.Contains(name, "/") || s.handlers[name] != nil {
		panic("control: bad or second handler " + name)
	}
	s.handlers[name] = h
}

// Listen makes the socket in the home, in place of one that a killed daemon left: the caller holds the home's lock.
// Who connects is checked. Closing the listener removes the socket.
func Listen(home string) (net.Listener, error) {
	var l *net.UnixListener
	err := inHome(home, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		var err error
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // by a name that will mean nothing then
		return os.Chmod(path, 0o600)
	})
	if err != nil {
		if l != nil {
			l.Close()
		}
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &ownersListener{UnixListener: l, path: filepath.Join(home, socketName)}, nil
}

// ownersListener accepts the owner of this process, and root.
type ownersListener struct {
	*net.UnixListener
	path string
	once sync.Once
}

func (l *ownersListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && (uid == 0 || int(uid) == os.Geteuid()) {
			return c, nil
		}
		c.Close()
	}
}

func (l *ownersListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() { _ = os.Remove(l.path) })
	return err
}

// peer returns the account of who is at the other end.
func peer(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var inner error
	if err := raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if inner != nil {
		return 0, inner
	}
	return cred.Uid, nil
}

// Serve answers calls that come to l until ctx ends, and closes l. Calls under way then have a moment to end by
// themselves before their contexts end. When it returns, they all have ended, but for one that heeds no context.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return calls },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	served := make(chan error, 1)
	wg.Go(func() { served <- h.Serve(l) })
	select {
	case err := <-served:
		cancel()
		h.Close()
		return fmt.Errorf("control socket: %w", err)
	case <-ctx.Done():
	}
	if !shut(h, graceful) {
		cancel()
		if !shut(h, forced) {
			s.log.Error("a call did not end")
			h.Close()
		}
	}
	return nil
}

func shut(h *http.Server, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return h.Shutdown(ctx) == nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
	h := s.handlers[name]
	switch {
	case !ok || h == nil:
		refuse(w, http.StatusNotFound, "this daemon does not know that call; it may be of another version")
		return
	case r.Method != http.MethodPost:
		refuse(w, http.StatusMethodNotAllowed, "calls are made by POST")
		return
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		refuse(w, http.StatusServiceUnavailable, "the daemon has too many calls to answer")
		return
	}
	params, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxParamsBytes))
	if err != nil || len(params) > 0 && !json.Valid(params) {
		refuse(w, http.StatusBadRequest, "the parameters are no JSON, or too many")
		return
	}
	w.Header().Set("Content-Type", contentType)
	out := &Stream{w: w, flush: http.NewResponseController(w)}
	result, err := s.call(r.Context(), name, h, params, out)
	if err != nil {
		_ = out.send(line{Error: asError(err)}, maxEventBytes)
		return
	}
	b, err := json.Marshal(result)
	if err != nil {
		_ = out.send(line{Error: asError(err)}, maxEventBytes)
		return
	}
	if err := out.send(line{Result: b}, maxResultBytes); errors.Is(err, errTooLong) {
		_ = out.send(line{Error: asError(err)}, maxEventBytes)
	}
}

// call runs a handler; a panic is an error of that call alone.
func (s *Server) call(ctx context.Context, name string, h Handler, params json.RawMessage, out *Stream) (result any, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("panic in a call", "call", name, "value", fmt.Sprint(v), "stack", string(debug.Stack()))
			err = syscall.EFAULT
		}
	}()
	return h(ctx, params, out)
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(line{Error: &Error{Text: text, Exit: 1}})
}

var errTooLong = errors.New("the answer is too long")

// Stream takes the events of a call on their way to the caller. It is safe for concurrent use.
type Stream struct {
	mu    sync.Mutex
	w     io.Writer
	flush *http.ResponseController
}

// Send sends an event, as JSON of at most 1 MiB, and returns when it is on its way. It fails when the caller is gone.
func (o *Stream) Send(event any) error {
	b, err := json.Marshal(event)
	if err != nil {
		return err
	}
	return o.send(line{Event: b}, maxEventBytes)
}

func (o *Stream) send(l line, limit int) error {
	b, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if len(b) > limit {
		return errTooLong
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := o.w.Write(append(b, '\n')); err != nil {
		return err
	}
	return o.flush.Flush()
}
