package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/lib/pq"
)

const (
	insertSQL = "INSERT INTO writes (writer, seq) VALUES ($1, $2) RETURNING host(inet_server_addr())"
	lookSQL   = "SELECT host(inet_server_addr()), pg_is_in_recovery()"
)

type pgxPool struct{ pool *pgxpool.Pool }

func newPgx(dsn string, size int) (*pgxPool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("reading the DSN: %w", err)
	}
	config.MaxConns, config.MinConns = int32(size), int32(size)
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("making the pool: %w", err)
	}
	return &pgxPool{pool}, nil
}

func (p *pgxPool) insert(ctx context.Context, writer string, seq int) (node string, err error) {
	err = p.pool.QueryRow(ctx, insertSQL, writer, seq).Scan(&node)
	return node, err
}

func (p *pgxPool) look(ctx context.Context, tell func(string, bool, error)) error {
	for _, conn := range p.pool.AcquireAllIdle(ctx) {
		var node string
		var replica bool
		err := conn.QueryRow(ctx, lookSQL).Scan(&node, &replica)
		conn.Release()
		tell(node, replica, err)
	}
	return nil
}

type pqPool struct{ db *sql.DB }

func newPq(dsn string, size int) (*pqPool, error) {
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		return nil, fmt.Errorf("making the pool: %w", err)
	}
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	return &pqPool{db}, nil
}

func (p *pqPool) insert(ctx context.Context, writer string, seq int) (node string, err error) {
	err = p.db.QueryRowContext(ctx, insertSQL, writer, seq).Scan(&node)
	return node, err
}

func (p *pqPool) look(ctx context.Context, tell func(string, bool, error)) error {
	var conns []*sql.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for range p.db.Stats().Idle { // held all at once, so that each is another
		conn, err := p.db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("taking a connection: %w", err)
		}
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		var node string
		var replica bool
		err := conn.QueryRowContext(ctx, lookSQL).Scan(&node, &replica)
		tell(node, replica, err)
	}
	return nil
}
