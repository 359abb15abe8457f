// Package control is what an operator can ask of the running daemon: a unix
// socket that takes one command a line and ends each answer with an empty
// line, as HAProxy's stats socket does.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"pointsman/balancer"
)

const (
	// maxClients bounds what operators can take of the daemon's memory.
	maxClients = 32
	// ioTimeout ends a client that neither asks nor reads.
	ioTimeout = 10 * time.Second
	// maxLine is the longest command.
	maxLine = 4096
)

// The commands.
const (
	ShowJSON       = "show pointsman json"        // the whole Snapshot as one line of JSON
	ShowEventsJSON = "show pointsman events json" // the same for the History
	Reload         = "reload"                     // the daemon reads its file again; an Outcome as JSON
)

// Source is where answers come from. Each function returns nil when the daemon
// is stopping.
type Source struct {
	Snapshot func() *balancer.Snapshot
	History  func() *balancer.History
	Reload   func() *Outcome
}

// Outcome is what came of a reload.
type Outcome struct {
	File  string   `json:"file"`
	Error string   `json:"error"` // why nothing was changed; "" = the file is in force
	Notes []string `json:"notes"` // what does not take effect yet
}

// Server answers on a control socket.
type Server struct {
	listener *net.UnixListener
	source   Source
	log      *slog.Logger
}

// Listen opens the socket at path, for its owner alone; a folder that is
// missing is made. A socket that a dead daemon left behind is replaced, one
// that answers is not.
func Listen(path string, source Source, log *slog.Logger) (*Server, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: making its folder: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("control socket %s: another pointsman answers there; end it first, or set `option control` to another path", path)
	} else if info, statErr := os.Lstat(path); errors.Is(err, syscall.ECONNREFUSED) && statErr == nil && info.Mode().Type() == fs.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replacing the control socket that was left behind: %w", err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &Server{listener: l, source: source, log: log}, nil
}

// Run answers until ctx is done, and removes the socket.
func (s *Server) Run(ctx context.Context) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { s.listener.Close() })()
	free := make(chan struct{}, maxClients)
	lacking := false
	for {
		conn, err := s.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			if !lacking {
				lacking = true
				s.log.Warn("control socket: clients must wait", "error", err)
			}
			select { // no descriptors, most likely
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		lacking = false
		select {
		case free <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		clients.Go(func() {
			defer func() { <-free }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			s.serve(conn)
		})
	}
}

// serve answers each line of a client. As in HAProxy several commands may
// stand on a line, parted by ";", and the connection ends after that line.
func (s *Server) serve(conn net.Conn) {
	conn.SetDeadline(time.Now().Add(ioTimeout))
	line, err := bufio.NewReaderSize(io.LimitReader(conn, maxLine), maxLine).ReadString('\n')
	if err != nil {
		return
	}
	w := bufio.NewWriter(conn)
	for command := range strings.SplitSeq(strings.TrimSpace(line), ";") {
		s.answer(w, strings.Join(strings.Fields(command), " "))
	}
	w.Flush()
}

func (s *Server) answer(w io.Writer, command string) {
	var value any
	switch command {
	case ShowJSON:
		value = s.source.Snapshot()
	case ShowEventsJSON:
		value = s.source.History()
	case Reload:
		value = s.source.Reload()
	default:
		quoted := strconv.Quote(command[:min(len(command), 80)])
		fmt.Fprintf(w, "Unknown command: '%s', but maybe one of the following ones is a better match:\n", quoted[1:len(quoted)-1])
		fmt.Fprintf(w, "  %-28s : everything that `pointsman status` shows, as JSON\n", ShowJSON)
		fmt.Fprintf(w, "  %-28s : everything that `pointsman events` shows, as JSON\n", ShowEventsJSON)
		fmt.Fprintf(w, "  %-28s : read the configuration again, or change nothing and say why\n\n", Reload)
		return
	}
	if err := json.NewEncoder(w).Encode(value); err != nil {
		return
	}
	fmt.Fprintln(w)
}

// Ask returns the Snapshot of the daemon that listens at path.
func Ask(path string) (*balancer.Snapshot, error) { return ask[balancer.Snapshot](path, ShowJSON) }

// AskEvents returns the History of the daemon that listens at path.
func AskEvents(path string) (*balancer.History, error) {
	return ask[balancer.History](path, ShowEventsJSON)
}

// AskReload has the daemon that listens at path read its file again.
func AskReload(path string) (*Outcome, error) { return ask[Outcome](path, Reload) }

func ask[T any](path, command string) (*T, error) {
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no daemon answers at %s: start it with `/etc/init.d/pointsman start` or `pointsman run`", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("asking the daemon at %s: %w: be root, or the user that it runs as", path, err)
	case err != nil:
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(ioTimeout))
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return nil, fmt.Errorf("asking the daemon: %w", err)
	}
	var answer *T
	if err := json.NewDecoder(conn).Decode(&answer); err != nil {
		return nil, fmt.Errorf("reading the daemon's answer: %w", err)
	}
	if answer == nil {
		return nil, errors.New("the daemon is stopping")
	}
	return answer, nil
}
