// Command cancel lets a driver give up a statement that runs too long, as an
// application's deadline does, and fails unless PostgreSQL has canceled it.
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/lib/pq"
)

const (
	slowSQL  = "SELECT pg_sleep(30)"
	deadline = 500 * time.Millisecond
	// canceled is PostgreSQL's query_canceled (errcodes.txt).
	canceled = "57014"
)

func main() {
	driver := flag.String("driver", "pgx", "pgx or pq")
	dsn := flag.String("dsn", "", "as libpq has it")
	flag.Parse()
	run := map[string]func(string) error{"pgx": withPgx, "pq": withPq}[*driver]
	if run == nil {
		fmt.Fprintf(os.Stderr, "no driver %q\n", *driver)
		os.Exit(2)
	}
	if err := run(*dsn); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// withPgx keeps its connection: it sends a CancelRequest and waits for the answer.
func withPgx(dsn string) error {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: 10 * time.Second}
	}
	conn, err := pgx.ConnectConfig(context.Background(), config)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	ctx, stop := context.WithTimeout(context.Background(), deadline)
	defer stop()
	_, err = conn.Exec(ctx, slowSQL)
	var answer *pgconn.PgError
	if !errors.As(err, &answer) || answer.Code != canceled {
		return fmt.Errorf("not canceled: %w", err)
	}
	if _, err := conn.Exec(context.Background(), "SELECT 1"); err != nil {
		return fmt.Errorf("afterwards: %w", err)
	}
	return nil
}

func withPq(dsn string) error {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Ping(); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), deadline)
	defer stop()
	_, err = db.ExecContext(ctx, slowSQL)
	var answer *pq.Error
	if !errors.As(err, &answer) || answer.Code != canceled {
		return fmt.Errorf("not canceled: %w", err)
	}
	return nil
}
