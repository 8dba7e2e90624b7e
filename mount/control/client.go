package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// Client calls the daemon of one home. It is safe for concurrent use.
type Client struct {
	http *http.Client
}

// Dial finds the daemon of a home. It is ErrNoDaemon when none listens.
func Dial(ctx context.Context, home string) (*Client, error) {
	c, err := connect(ctx, home)
	if err != nil {
		return nil, err
	}
	first := make(chan net.Conn, 1)
	first <- c
	t := &http.Transport{
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return connect(ctx, home)
			}
		},
	}
	return &Client{http: &http.Client{Transport: t}}, nil
}

func connect(ctx context.Context, home string) (net.Conn, error) {
	var c net.Conn
	err := inHome(home, func(path string) error {
		var d net.Dialer
		var err error
		c, err = d.DialContext(ctx, "unix", path)
		return err
	})
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, ErrNoDaemon
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return c, nil
}

// Close lets go of connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Call makes a call with params as JSON, gives event each event of it in order (nil: they are skipped), and decodes the
// result into result (nil: it is dropped). It returns *Error for what the handler returned, the error
// of event, or one of the connection. When ctx ends, the call does, on both sides.
func (c *Client) Call(ctx context.Context, name string, params, result any, event func(json.RawMessage) error) error {
	body, err := json.Marshal(params)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://anyfs"+pathPrefix+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, ErrNoDaemon) {
			return ErrNoDaemon
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("the daemon does not answer: %w", err)
	}
	defer resp.Body.Close()
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		l, err := readLine(in)
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("the daemon stopped answering: %w", err)
		case l.Error != nil:
			return l.Error
		case l.Event == nil:
			if result == nil || l.Result == nil {
				return nil
			}
			return json.Unmarshal(l.Result, result)
		case event != nil:
			if err := event(l.Event); err != nil {
				return err
			}
		}
	}
}

// readLine reads one line of an answer.
func readLine(in *bufio.Reader) (line, error) {
	var long []byte
	for {
		part, err := in.ReadSlice('\n')
		if err == nil && long == nil {
			return parseLine(part)
		}
		long = append(long, part...)
		switch {
		case err == nil:
			return parseLine(long)
		case len(long) > maxResultBytes+1:
			return line{}, errTooLong
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return line{}, io.ErrUnexpectedEOF
		default:
			return line{}, err
		}
	}
}

func parseLine(b []byte) (line, error) {
	var l line
	err := json.Unmarshal(b, &l)
	if err == nil && l.Error != nil && l.Error.Exit < 1 {
		l.Error.Exit = 1
	}
	return l, err
}
