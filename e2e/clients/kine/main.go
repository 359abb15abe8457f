// Command kine is k3s-io/kine with its PostgreSQL driver alone: the etcd API on
// top of a database. Of kine's own command it leaves out the other databases
// (SQLite, MySQL, NATS, an embedded etcd), which take minutes to build; what it
// runs is kine's, and set as that command sets it.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/k3s-io/kine/pkg/drivers"
	"github.com/k3s-io/kine/pkg/drivers/generic"
	_ "github.com/k3s-io/kine/pkg/drivers/pgsql"
	"github.com/k3s-io/kine/pkg/metrics"
	"github.com/k3s-io/kine/pkg/server"
	"google.golang.org/grpc"
)

func main() {
	listen := flag.String("listen-address", "127.0.0.1:2379", "where etcd's clients connect")
	endpoint := flag.String("endpoint", "", "the database, postgres://…")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, *endpoint); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// The settings are the defaults of kine's pkg/app/app.go.
func run(ctx context.Context, listen, endpoint string) error {
	metrics.SlowSQLThreshold, metrics.SlowSQLWarningThreshold = time.Second, 5*time.Second
	_, backend, err := drivers.New(ctx, &sync.WaitGroup{}, &drivers.Config{
		Endpoint:             endpoint,
		ConnectionPoolConfig: generic.ConnectionPoolConfig{MaxIdle: 20, MaxIdleTime: 2 * time.Minute},
		CompactTimeout:       5 * time.Second,
		CompactMinRetain:     1000,
		CompactBatchSize:     1000,
		PollBatchSize:        500,
		PollInterval:         time.Second,
	})
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	if err := backend.Start(ctx); err != nil {
		return fmt.Errorf("starting the backend: %w", err)
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	server.New(backend, "http", 5*time.Second, "3.6.11").Register(s)
	context.AfterFunc(ctx, s.Stop)
	fmt.Println("serving on", listener.Addr())
	return s.Serve(listener)
}
