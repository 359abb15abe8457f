// Command pool is an application with a pool of connections, as many writers as
// connections, all of which insert rows until the process is killed. It tells
// facts (client.py's "ack" and "fail"), and on SIGUSR1 lets the writers end and
// looks at every connection that is in the pool, as it is:
//
//	whole    it works, and is on the primary Node
//	replica  it works, but on a replica
//	zombie   it does not work
//	looked   these were all
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"pointsman/e2e/clients/facts"
)

// patience is how long an application waits for an insert.
const patience = 60 * time.Second

// pool is one of the two kinds.
type pool interface {
	insert(ctx context.Context, writer string, seq int) (node string, err error)
	// look asks all connections of the pool at once, so each is asked once.
	look(ctx context.Context, tell func(node string, replica bool, err error)) error
}

func main() {
	driver := flag.String("driver", "pgx", "pgx (pgxpool) or pq (database/sql)")
	dsn := flag.String("dsn", "", "as libpq has it")
	size := flag.Int("size", 10, "connections, and writers")
	run := flag.String("run", "", "begins the writers' names in the table")
	pause := flag.Duration("pause", 200*time.Millisecond, "between two rows of a writer")
	flag.Parse()
	var p pool
	var err error
	switch *driver {
	case "pgx":
		p, err = newPgx(*dsn, *size)
	case "pq":
		p, err = newPq(*dsn, *size)
	default:
		err = fmt.Errorf("no driver %q", *driver)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	look := make(chan os.Signal, 1)
	signal.Notify(look, syscall.SIGUSR1)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range *size {
		writers.Go(func() { write(p, fmt.Sprintf("%s/%d", *run, i), *pause, stop) })
	}
	<-look
	close(stop)
	writers.Wait()
	inspect(p)
	select {} // with all connections, until we are killed
}

// write inserts numbered rows until stop is closed.
func write(p pool, writer string, pause time.Duration, stop <-chan struct{}) {
	for seq := 1; ; seq++ {
		f := facts.Fact{Event: "ack", Who: writer, Seq: seq, Began: facts.Seconds(time.Now())}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		node, err := p.insert(ctx, writer, seq)
		cancel()
		if f.Node = node; err != nil {
			f.Event, f.Text = "fail", err.Error()
			f.Stage, f.Code = kind(err)
		}
		facts.Tell(f)
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
	}
}

// kind says whether an error came from connecting, and its SQLSTATE if it has one.
func kind(err error) (stage, code string) {
	stage = "write"
	var dial *net.OpError
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) || errors.As(err, &dial) && dial.Op == "dial" {
		stage = "connect"
	}
	var ofPgx *pgconn.PgError
	var ofPq *pq.Error
	switch {
	case errors.As(err, &ofPgx):
		code = ofPgx.Code
	case errors.As(err, &ofPq):
		code = string(ofPq.Code)
	}
	if code == "57P03" { // cannot_connect_now: only a login is answered so
		stage = "connect"
	}
	return stage, code
}

func inspect(p pool) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	number := 0
	err := p.look(ctx, func(node string, replica bool, err error) {
		number++
		f := facts.Fact{Event: "whole", Who: "look", Node: node}
		switch {
		case err != nil:
			f.Event, f.Text = "zombie", err.Error()
		case replica:
			f.Event = "replica"
		}
		facts.Tell(f)
	})
	f := facts.Fact{Event: "looked", Who: "look", Seq: number}
	if err != nil {
		f.Text = err.Error()
	}
	facts.Tell(f)
}
