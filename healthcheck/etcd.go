package healthcheck

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"pointsman/config"
)

// Etcd watches the key in which Patroni keeps the leader's name. What it sees
// are hints: that the servers should be asked now, and never who leads.
//
// One member is watched at a time. Patroni writes the key once and keeps it
// alive by its lease alone, so a watch says nothing while all is well, and
// nothing when it died. Therefore the key is read besides, every now and then.
type Etcd struct {
	cfg      config.DCS
	key      string
	members  []*etcdMember
	password string
	files    [sha256.Size]byte // of all that was read from files
	pace     etcdPace
	log      *slog.Logger
	out      func(ctx context.Context, what string)

	mu     sync.Mutex
	view   keyView
	status EtcdStatus
	said   logged
}

// etcdPace holds the times of an Etcd.
type etcdPace struct {
	question time.Duration // limit of one question, or of opening a watch
	reread   time.Duration // from one read of the key to the next
	grace    time.Duration // by how much a watch may be later than a read
	settle   time.Duration // a connection that lasted so long is one
	first    time.Duration // wait after no member was of use, doubled by each further time
	most     time.Duration // of that wait
}

// A question has less time than etcd itself gives a read that finds no
// majority, 7 s: the next member may have one.
var defaultEtcdPace = etcdPace{
	question: 3 * time.Second, reread: 10 * time.Second, grace: time.Second, settle: 2 * time.Second,
	first: 100 * time.Millisecond, most: 5 * time.Second,
}

// EtcdStatus is what can be seen of an Etcd.
type EtcdStatus struct {
	Endpoint string    // URL of the member that is watched; "" = none
	Since    time.Time // of Endpoint, or of having none
	Known    bool      // the key was read at least once
	There    bool      // the key exists, as far as is known
	Leader   string    // its value
	Changed  time.Time // when it was last seen to change; zero = not yet
	Changes  uint64    // how often it was
	Error    string    // what last went wrong; "" = nothing yet
	Failed   time.Time // when that was
}

// logged is what the log was told last, so that it is told changes only.
type logged struct {
	endpoint string    // watched there; "" = not watched
	trouble  bool      // no member is of use
	since    time.Time // of the trouble
	cause    string    // of the failures since endpoint was told; "" = none
	missing  bool      // there is no key, and never was
}

// NewEtcd returns a watch that does nothing until Run. out is called, on
// goroutines of Run's and with its context, when the key was seen to change. An
// error names the option and the file
// that are to blame.
func NewEtcd(c *config.DCS, log *slog.Logger, out func(ctx context.Context, what string)) (*Etcd, error) {
	e := &Etcd{cfg: *c, key: c.LeaderKey(), pace: defaultEtcdPace, log: log, out: out}
	files := tlsFiles{"", c.CA, c.Cert, c.Key, c.SNI, c.Insecure}
	for _, ep := range c.Endpoints {
		name, _, _ := strings.Cut(ep.Address.Host, "%") // a zone means nothing to the other side
		m := &etcdMember{url: ep.String(), addr: ep.Address.String(), host: config.HostPort{Host: name, Port: ep.Address.Port}.String()}
		if ep.TLS {
			var err error
			if m.tls, err = files.client(name); err != nil {
				return nil, err
			}
			m.tls.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		}
		e.members = append(e.members, m)
	}
	return e, e.readFiles()
}

// readFiles takes the password, and a sum of all files.
func (e *Etcd) readFiles() error {
	sum := sha256.New()
	for _, file := range []string{e.cfg.PasswordFile, e.cfg.CA, e.cfg.Cert, e.cfg.Key} {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		switch {
		case err != nil && file == e.cfg.PasswordFile:
			return fmt.Errorf("password_file: %w", err)
		case err != nil:
			return err
		case file == e.cfg.PasswordFile:
			e.password = string(bytes.TrimRight(text, "\r\n"))
			if e.password == "" {
				return fmt.Errorf("password_file: %s is empty", file)
			}
		}
		fmt.Fprintf(sum, "%d\n%s", len(text), text)
	}
	sum.Sum(e.files[:0])
	return nil
}

// SameFiles reports whether the files of both held the same when they were read.
func (e *Etcd) SameFiles(other *Etcd) bool { return e.files == other.files }

// Status returns what can be seen now.
func (e *Etcd) Status() EtcdStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.status
	s.Known, s.There, s.Leader = e.view.sure, e.view.known.there, printable(e.view.known.leader, maxText)
	return s
}

// Run watches until ctx is cancelled, and then returns nil. A member that
// fails is followed by the next one at once, and the last by a wait.
func (e *Etcd) Run(ctx context.Context) error {
	e.mu.Lock()
	e.status.Since = time.Now()
	e.mu.Unlock()
	for next, failures := 0, 0; ctx.Err() == nil; next = (next + 1) % len(e.members) {
		settled, err := e.session(ctx, e.members[next])
		if ctx.Err() != nil {
			return nil
		}
		if settled {
			failures = 0
		}
		failures++
		// Trouble is what one round does not mend: a member that ends a watch,
		// or is started again, is there at the next try.
		e.failed(e.members[next], err, failures > len(e.members))
		if failures%len(e.members) == 0 {
			sleep(ctx, e.pause(failures/len(e.members)))
		}
	}
	return nil
}

// pause is the wait after so many rounds of failures, half of it by chance:
// many routers must not come back to an etcd in one moment.
func (e *Etcd) pause(rounds int) time.Duration {
	d := min(e.pace.most, e.pace.first<<min(rounds-1, 16))
	return d/2 + rand.N(d/2+1)
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// failed takes in that a member was of no use, or is no more; all, that none is.
func (e *Etcd) failed(m *etcdMember, err error, all bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	if e.status.Endpoint != "" {
		e.status.Endpoint, e.status.Since = "", now
	}
	e.status.Error, e.status.Failed = m.url+": "+err.Error(), now
	if e.said.cause == "" {
		e.said.cause = e.status.Error // the first of a row, with which it began
	}
	if all && !e.said.trouble {
		e.said.trouble, e.said.since = true, now
		e.log.Warn(fmt.Sprintf("dcs %s: no hints from etcd: %s. Checks go on without; it is tried again every %v at most.",
			e.cfg.Name, e.status.Error, e.pace.most))
	}
}

// watching takes in that a watch is open.
func (e *Etcd) watching(m *etcdMember) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.status.Endpoint, e.status.Since = m.url, time.Now()
}

// settled tells the log of a watch that has lasted.
func (e *Etcd) settled() {
	e.mu.Lock()
	defer e.mu.Unlock()
	url, holds := e.status.Endpoint, "no such key"
	if e.view.known.there {
		holds = "leader " + printable(e.view.known.leader, maxText)
	}
	switch {
	case e.said.trouble:
		e.log.Info(fmt.Sprintf("dcs %s: hints from etcd again, after %v: %s is watched at %s, %s",
			e.cfg.Name, time.Since(e.said.since).Round(time.Second), e.key, url, holds))
	case e.said.endpoint == "":
		e.log.Info(fmt.Sprintf("dcs %s: %s is watched at %s, %s", e.cfg.Name, e.key, url, holds))
	case e.said.endpoint != url:
		e.log.Info(fmt.Sprintf("dcs %s: %s is watched at %s now; %s", e.cfg.Name, e.key, url, e.said.cause))
	default:
		e.log.Debug(fmt.Sprintf("dcs %s: %s is watched at %s again; %s", e.cfg.Name, e.key, url, e.said.cause))
	}
	e.said = logged{endpoint: url, missing: e.said.missing}
	if !e.view.known.there && !e.view.seen && !e.said.missing {
		e.said.missing = true
		e.log.Warn(fmt.Sprintf("dcs %s: etcd has no key %s. If the cluster has a leader, then `scope` or `namespace` is not what Patroni has.",
			e.cfg.Name, e.key))
	}
}

// note lets the view take something in, and passes on the hint that results.
func (e *Etcd) note(ctx context.Context, update func(*keyView) (news string)) {
	e.mu.Lock()
	news := update(&e.view)
	if news != "" {
		e.status.Changed, e.status.Changes = time.Now(), e.status.Changes+1
	}
	if e.said.missing && e.view.known.there {
		e.said.missing = false
		e.log.Info(fmt.Sprintf("dcs %s: the key is there now, leader %s", e.cfg.Name, printable(e.view.known.leader, maxText)))
	}
	e.mu.Unlock()
	if news != "" {
		e.out(ctx, news)
	}
}
