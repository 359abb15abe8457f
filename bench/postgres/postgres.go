// Package postgres lets a real PostgreSQL be the server, and pgbench and psql
// the clients, of a measurement: it starts a server in memory, loads it, and
// runs pgbench and COPY at any address that leads to it, be it the server's own
// or a proxy's.
//
// It measures proxies and not disks: nothing is made durable. What the proxy
// used is read by the caller, at the edges that Meter tells. Where processes
// run (in which network namespace, say) is the caller's choice too; see Place.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Place makes a command that will run where the caller wants it to. The command
// must become the program itself, as `ip netns exec` does, so that its process
// id is the program's. Commands are started on the caller's thread.
type Place func(name string, args ...string) *exec.Cmd

// Scale is pgbench's scale factor: 50 branches, 5 million accounts, 720 MB,
// loaded in 4 s. In TPC-B each transaction holds the lock of one branch; with
// 64 clients 6 to 10 of them waited for one at a time, and with fewer branches
// the locks would be what is measured.
const Scale = 50

// Config says how a server shall run.
type Config struct {
	Place   Place
	Listen  netip.AddrPort // its port must be free
	Clients netip.Prefix   // may connect without a password; nobody else may
	Scale   int            // 0 = Scale
}

// Server is a running PostgreSQL.
type Server struct {
	bin   string // folder of PostgreSQL's programs
	dir   string // removed by Stop
	place Place
	at    netip.AddrPort
	main  *process // the postmaster
	owner *owner   // nil = whoever we are
}

// roomNeeded is what the data of Scale, its log, and the file that CopyIn reads
// come to.
const roomNeeded = 3 << 30

// settings are for a server that forgets everything, on a machine where it
// shall need little. Nothing may start by itself during a measurement.
const settings = `
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 1GB
checkpoint_timeout = 1h
autovacuum = off
shared_buffers = 256MB
dynamic_shared_memory_type = mmap
max_connections = 200
`

// Start makes a database in a folder of its own, starts a server on it and
// loads it: about 7 s. Without a PostgreSQL on this machine the error is
// fs.ErrNotExist.
func Start(ctx context.Context, c Config) (*Server, error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, place: c.Place, at: c.Listen}
	if err := s.make(ctx, c); err != nil {
		return nil, errors.Join(fmt.Errorf("starting PostgreSQL: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Server) make(ctx context.Context, c Config) (err error) {
	if s.owner, err = serverOwner(); err != nil {
		return err
	}
	if s.dir, err = folder(s.owner); err != nil {
		return err
	}
	if err := s.initialise(ctx, c.Clients); err != nil {
		return err
	}
	if s.main, err = begin(s.asOwner("postgres", "-D", s.data())); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	scale := c.Scale
	if scale == 0 {
		scale = Scale
	}
	return s.load(ctx, scale)
}

// Address is where the server listens.
func (s *Server) Address() netip.AddrPort { return s.at }

// Stop ends the server, with its sessions, and removes its data.
func (s *Server) Stop() error {
	var failed error
	if s.main != nil {
		// Fast, immediate shutdown, as PostgreSQL's manual calls them.
		if !s.main.end(syscall.SIGINT, 10*time.Second) && !s.main.end(syscall.SIGQUIT, 6*time.Second) {
			s.main.kill()
			failed = errors.New("stopping PostgreSQL: it had to be killed")
		}
		s.main = nil
	}
	if s.dir == "" {
		return failed
	}
	return errors.Join(failed, os.RemoveAll(s.dir))
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// programs returns the folder of the newest PostgreSQL, as Debian installs it.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	newest, dir := 0, ""
	for _, path := range found {
		bin := filepath.Dir(path)
		version, err := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		if _, noServer := os.Stat(filepath.Join(bin, "initdb")); err == nil && noServer == nil && version > newest {
			newest, dir = version, bin
		}
	}
	if dir == "" {
		return "", fmt.Errorf("looking for PostgreSQL in /usr/lib/postgresql: %w", fs.ErrNotExist)
	}
	return dir, nil
}

// owner is a user that PostgreSQL runs as.
type owner struct{ uid, gid string }

// serverOwner is the user postgres if we are root, whom PostgreSQL refuses to
// serve.
func serverOwner() (*owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("choosing who PostgreSQL runs as: %w", err)
	}
	return &owner{u.Uid, u.Gid}, nil
}

// asOwner places one of PostgreSQL's programs. It does not outlive us: a
// parent-death signal is forgotten when the user changes (prctl(2)), so it is
// set anew, to what ends a server in order.
func (s *Server) asOwner(program string, args ...string) *exec.Cmd {
	args = append([]string{filepath.Join(s.bin, program)}, args...)
	if s.owner != nil {
		args = append([]string{"setpriv", "--reuid=" + s.owner.uid, "--regid=" + s.owner.gid, "--clear-groups", "--pdeathsig=INT", "--"}, args...)
	}
	cmd := s.place(args[0], args[1:]...)
	cmd.Dir = s.dir
	return cmd
}

// folderName begins the name of a server's folder; the pid of its maker follows.
const folderName = "pointsman-bench-postgres-"

// folder makes the folder that a server lives in, in memory if there is room.
func folder(o *owner) (string, error) {
	parent := os.TempDir()
	var st syscall.Statfs_t
	if err := syscall.Statfs("/dev/shm", &st); err == nil && uint64(st.Bavail)*uint64(st.Bsize) >= roomNeeded {
		parent = "/dev/shm"
	}
	removeLeftovers(parent)
	dir, err := os.MkdirTemp(parent, folderName+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return "", err
	}
	if o == nil {
		return dir, nil
	}
	uid, err1 := strconv.Atoi(o.uid)
	gid, err2 := strconv.Atoi(o.gid)
	return dir, errors.Join(err1, err2, os.Chown(dir, uid, gid))
}

// removeLeftovers removes the folders of runs that were killed: in memory, they
// would stay there until the machine is restarted.
func removeLeftovers(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, folderName+"*"))
	for _, dir := range dirs {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), folderName), "-")
		if pid, err := strconv.Atoi(name); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			os.RemoveAll(dir)
		}
	}
}

func (s *Server) initialise(ctx context.Context, clients netip.Prefix) error {
	if err := run(ctx, s.asOwner("initdb", "-D", s.data(), "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C")); err != nil {
		return err
	}
	conf := settings + fmt.Sprintf("listen_addresses = '%s'\nport = %d\nunix_socket_directories = '%s'\n", s.at.Addr(), s.at.Port(), s.dir)
	hba := fmt.Sprintf("local all all trust\nhost all all %s trust\n", clients)
	// The files are the server's already, and keep their owner.
	return errors.Join(
		os.WriteFile(filepath.Join(s.data(), "postgresql.conf"), []byte(conf), 0o600),
		os.WriteFile(filepath.Join(s.data(), "pg_hba.conf"), []byte(hba), 0o600),
	)
}

// ready waits until the server takes sessions, as pg_ctl does: the eighth line
// of its pid file then says so (LOCK_FILE_LINE_PM_STATUS in utils/pidfile.h).
func (s *Server) ready(ctx context.Context) error {
	limit := time.After(20 * time.Second)
	for {
		text, _ := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
		if lines := strings.Split(string(text), "\n"); len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.main.ended:
			return fmt.Errorf("it ended: %w: %s", s.main.err, s.main.said())
		case <-limit:
			return fmt.Errorf("it was not ready in time: %s", s.main.said())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// load fills the database through the server's Unix socket, which no network
// namespace hides. Unlogged tables spare a log that nobody will read; some room
// in each page keeps TPC-B's updates from growing the tables round by round.
func (s *Server) load(ctx context.Context, scale int) error {
	err := run(ctx, s.asOwner("pgbench", s.locally("-i", "-I", "dtgvp", "--quiet", "--unlogged-tables", "--fillfactor=90", "--scale="+strconv.Itoa(scale), "postgres")...))
	if err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	if err := run(ctx, s.asOwner("psql", s.locally("-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", makeCopyTables, "postgres")...)); err != nil {
		return fmt.Errorf("loading: %w", err)
	}
	return nil
}

func (s *Server) locally(args ...string) []string {
	return append([]string{"--host=" + s.dir, "--port=" + strconv.Itoa(int(s.at.Port())), "--username=postgres"}, args...)
}
