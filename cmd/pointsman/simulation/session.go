package simulation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// session is one connection of a client. A nil *session is a dead one.
type session struct {
	conn  *net.TCPConn
	lines *bufio.Reader
}

// Ask opens a connection to addr, sends one statement and returns the answer.
func Ask(ctx context.Context, addr, statement string) (string, error) {
	s, err := open(ctx, addr)
	if err != nil {
		return "", err
	}
	defer s.close()
	return s.ask(ctx, statement)
}

func open(ctx context.Context, addr string) (*session, error) {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", cause(err))
	}
	return &session{conn.(*net.TCPConn), bufio.NewReader(conn)}, nil
}

func (s *session) close() {
	if s != nil {
		s.conn.Close()
	}
}

// ask sends one statement and waits for its answer, a line. ctx ends the
// wait, and the session with it.
func (s *session) ask(ctx context.Context, statement string) (string, error) {
	defer context.AfterFunc(ctx, s.close)()
	s.conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(s.conn, statement); err != nil {
		return "", fmt.Errorf("sending a statement: %w", cause(err))
	}
	answer, err := s.lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("waiting for an answer: %w", cause(err))
	}
	return strings.TrimSpace(answer), nil
}

// cause leaves the addresses out of a network error: the client knows them.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		err = call.Err
	}
	return err
}

// dead reports whether the server ended the session while it was idle. It
// looks without waiting, as drivers do before they use a connection again.
func (s *session) dead() bool {
	if s == nil {
		return true
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return true
	}
	idle := false
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		idle = errors.Is(err, unix.EAGAIN)
		return true
	})
	return err != nil || !idle
}
