package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Transfer is one COPY.
type Transfer struct {
	Bytes   int64 // of rows, as COPY's binary format has them
	Seconds float64
}

const (
	// rowLength is of the only column. A row of it fills one page, so that the
	// server never has to compress or assemble it (TOAST).
	rowLength = 8000
	// rowOverhead: the number of columns and the length of the one (PostgreSQL's
	// manual, COPY, Binary Format).
	rowOverhead = 2 + 4
	// copyOverhead is the same format's header and trailer.
	copyOverhead = 11 + 4 + 4 + 2
)

// The server shall work as little as it can, so that it does not hide the
// proxy. What it sends is one row that it has in memory, over and over; what it
// gets it reads row by row, and does not store. Then a COPY over loopback moves
// about 1 GB/s either way; from a table, and into one, it was 0.9 and 0.4.
const (
	makeCopyTables = `
		create unlogged table outgoing (d bytea);
		create unlogged table incoming (d bytea);
		alter table outgoing alter d set storage plain;
		alter table incoming alter d set storage plain;
		insert into outgoing select decode(repeat('00112233445566778899aabbccddeeff', 500), 'hex');`
	copyOut = `\copy (select d from outgoing, generate_series(1, %d)) to '%s' (format binary)`
	copyIn  = `\copy incoming from '%s' (format binary) where false`
)

// rows is how many rows come to about so many bytes.
func rows(bytes int64) int64 { return max(bytes/(rowLength+rowOverhead), 1) }

func copied(rows int64) int64 { return rows*(rowLength+rowOverhead) + copyOverhead }

// CopyOut runs psql's \copy ... to '/dev/null' of about so many bytes. psql has
// connected before the measured part begins.
func (s *Server) CopyOut(ctx context.Context, c Client, bytes int64) (Transfer, error) {
	n := rows(bytes)
	seconds, err := s.copy(ctx, c, fmt.Sprintf(copyOut, n, os.DevNull), n)
	return Transfer{copied(n), seconds}, err
}

// CopyIn runs psql's \copy ... from a file, which lies where the server's data
// do and is written beforehand.
func (s *Server) CopyIn(ctx context.Context, c Client, bytes int64) (Transfer, error) {
	n := rows(bytes)
	file, err := s.rowFile(ctx, n)
	if err != nil {
		return Transfer{}, err
	}
	seconds, err := s.copy(ctx, c, fmt.Sprintf(copyIn, file), 0)
	return Transfer{copied(n), seconds}, err
}

// rowFile returns a file with n rows in COPY's binary format, and keeps one.
func (s *Server) rowFile(ctx context.Context, n int64) (string, error) {
	path := filepath.Join(s.dir, "rows")
	if st, err := os.Stat(path); err == nil && st.Size() == copied(n) {
		return path, nil
	}
	if err := run(ctx, s.asOwner("psql", s.locally("-X", "-v", "ON_ERROR_STOP=1", "-c", fmt.Sprintf(copyOut, n, path), "postgres")...)); err != nil {
		return "", fmt.Errorf("writing rows to copy: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("writing rows to copy: %w", err)
	}
	if st.Size() != copied(n) {
		return "", fmt.Errorf("writing rows to copy: %d bytes came, and not %d", st.Size(), copied(n))
	}
	return path, nil
}

// copy hands one command to a psql that is connected, and waits for it.
func (s *Server) copy(ctx context.Context, c Client, command string, want int64) (seconds float64, err error) {
	in, out, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("running psql: %w", err)
	}
	defer out.Close()
	args := append(connection(c.Target), "--no-psqlrc", "--set=ON_ERROR_STOP=1", "postgres")
	cmd := c.Place(filepath.Join(s.bin, "psql"), args...)
	cmd.Stdin = in
	p, err := begin(cmd)
	in.Close()
	if err != nil {
		return 0, err
	}
	defer p.kill()
	if err := p.tell(ctx, out, "", "connected"); err != nil {
		return 0, err
	}
	from, to, err := p.between(c.Meter, func() error { return p.tell(ctx, out, command, "copied") })
	if err != nil {
		return 0, err
	}
	out.Close() // the end of its input, and so its own
	if err := p.wait(ctx); err != nil {
		return 0, err
	}
	if tag := "COPY " + strconv.FormatInt(want, 10); !strings.Contains("\n"+p.said()+"\n", "\n"+tag+"\n") {
		return 0, fmt.Errorf("running psql: it should have said %q, and said %q", tag, p.said())
	}
	return to.Sub(from).Seconds(), nil
}

// tell gives psql a command to carry out, and waits for a word that says that
// it has: \warn writes to standard error, which psql does not buffer.
func (p *process) tell(ctx context.Context, to *os.File, command, word string) error {
	came := p.out.expect(word)
	// If psql has ended, what it said then tells more than a broken pipe.
	if _, err := fmt.Fprintf(to, "%s\n\\warn %s\n", command, word); err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("running psql: %w", err)
	}
	select {
	case <-came:
		return nil
	case <-p.ended:
		return p.tooEarly()
	case <-ctx.Done():
		return ctx.Err()
	}
}
