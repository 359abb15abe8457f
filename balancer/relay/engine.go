package relay

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// maxLoops is enough to fill the network cards that routers have.
const maxLoops = 4

// Options are what an Engine needs.
type Options struct {
	Loops    int // event loops; 0 = one per core, at most 4. GOMAXPROCS should be larger, as busy loops keep theirs
	Director Director
	Log      *slog.Logger
	Silence  time.Duration // a peer that leaves data unacknowledged for so long is gone; 0 = 15 s

	tune *tuning // nil = chosen by the machine's memory
}

// Engine runs the loops. Its methods may be called from any goroutine, from
// the Director's methods too, except where they wait for the loops: Unlisten,
// Close, and the functions that Fence and the Kill methods return.
type Engine struct {
	director  Director
	log       *slog.Logger
	started   time.Time
	silence   time.Duration
	tune      tuning
	ceiling   int32 // descriptors from here on are not the loops' to use
	loopCount int
	loops     []*loop
	running   sync.WaitGroup
	working   atomic.Int32  // so many loops, the first ones, get sessions
	spreading chan struct{} // a loop would have that number looked at
	ending    sync.Mutex    // makes orders to end sessions reach all loops in one sequence

	mu            sync.Mutex // guards what follows, and the tables' growth
	lastListener  ListenerID
	addrs         map[ListenerID]netip.AddrPort
	frontendTable atomic.Pointer[[]*frontend]
	backendTable  atomic.Pointer[[]BackendOptions]
	serverTable   atomic.Pointer[[]*gauge]
}

// New starts the loops. They have nothing to do until Listen and Assign.
func New(o Options) (*Engine, error) {
	e, err := prepare(o)
	if err != nil {
		return nil, err
	}
	for _, l := range e.loops {
		e.running.Go(l.run)
	}
	if e.tune.working == 0 {
		go (&spreader{engine: e, idle: machineIdle}).run()
	}
	return e, nil
}

// prepare makes an engine whose loops do not run yet.
func prepare(o Options) (*Engine, error) {
	e := &Engine{
		director: o.Director, log: o.Log, silence: o.Silence, ceiling: descriptorCeiling(), loopCount: o.Loops,
		// Never 0 in the loops' clocks, as there 0 means not yet.
		started: time.Now().Add(-time.Second),
		addrs:   map[ListenerID]netip.AddrPort{},
	}
	if e.loopCount <= 0 {
		e.loopCount = min(runtime.NumCPU(), maxLoops)
	}
	if e.silence <= 0 {
		e.silence = defaultSilence
	}
	if o.tune == nil {
		o.tune = machineTuning()
	}
	e.tune = *o.tune
	e.working.Store(max(1, int32(e.tune.working)))
	e.spreading = make(chan struct{}, 1)
	e.frontendTable.Store(&[]*frontend{})
	e.backendTable.Store(&[]BackendOptions{})
	e.serverTable.Store(&[]*gauge{})
	for i := range e.loopCount {
		l, err := newLoop(e, i)
		if err != nil {
			for _, l := range e.loops {
				l.close()
			}
			return nil, err
		}
		e.loops = append(e.loops, l)
	}
	return e, nil
}

// Close ends every session with cause Killed, and the loops. Nothing is left open.
func (e *Engine) Close() error {
	e.toAll(order{kind: orderStop})
	e.running.Wait()
	close(e.spreading) // the loops alone write to it
	return nil
}

// SetFrontend sets a frontend's options, for its present clients too.
func (e *Engine) SetFrontend(id int32, o FrontendOptions) {
	e.frontend(id).options.Store(&o)
	e.toAll(order{kind: orderOptions})
}

// SetBackend sets a backend's options, for its present sessions too.
func (e *Engine) SetBackend(id int32, o BackendOptions) {
	e.mu.Lock()
	table := grown(*e.backendTable.Load(), id)
	table[id] = o
	e.backendTable.Store(&table)
	e.mu.Unlock()
	e.toAll(order{kind: orderOptions})
}

// Listen opens a listener on addr. With frontend -1 its clients wait in the
// backlog until Assign. The error wraps the errno and names the address.
func (e *Engine) Listen(frontend int32, addr netip.AddrPort) (ListenerID, error) {
	fd, err := listenTCP(addr)
	if err != nil {
		return 0, fmt.Errorf("listening on %s: %w", addr, err)
	}
	at, err := localAddr(fd)
	if err != nil {
		closeFD(fd)
		return 0, fmt.Errorf("listening on %s: %w", addr, err)
	}
	e.mu.Lock()
	e.lastListener++
	id := e.lastListener
	e.addrs[id] = at
	e.mu.Unlock()
	ln := &listener{id: id, fd: fd, frontend: frontend, addr: at.String()}
	if !e.listening().mail.post(order{kind: orderListen, listener: ln}) {
		closeFD(fd)
		return 0, fmt.Errorf("listening on %s: %w", addr, net.ErrClosed)
	}
	return id, nil
}

// Addr returns the address that a listener is bound to.
func (e *Engine) Addr(id ListenerID) netip.AddrPort {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addrs[id]
}

// Assign gives a listener's future clients to a frontend.
func (e *Engine) Assign(id ListenerID, frontend int32) {
	e.listening().mail.post(order{kind: orderAssign, id: id, frontend: frontend})
}

// Unlisten closes a listener, and waits for that. Who waits in its backlog is
// accepted first. Sessions go on.
func (e *Engine) Unlisten(id ListenerID) {
	c := newCount(1)
	if e.listening().mail.post(order{kind: orderUnlisten, id: id, count: c}) {
		c.wait()
	}
	e.mu.Lock()
	delete(e.addrs, id)
	e.mu.Unlock()
}

// listening returns the loop that has all listeners: it works whenever any does.
func (e *Engine) listening() *loop { return e.loops[0] }

// Wake has Route asked again for all clients that wait for the backend; -1 is
// every backend. It costs nearly nothing while nobody waits.
func (e *Engine) Wake(backend int32) {
	for _, l := range e.loops {
		if l.wakeable.Load() > 0 {
			l.mail.post(order{kind: orderWake, number: backend})
		}
	}
}

// Fence ends all sessions of an epoch: first the clients, then the servers.
// Connects under way go back to Route, so the state that it reads must be
// published before. wait blocks until all loops have obeyed: from then on no
// byte moves in these sessions, and their sockets are being closed. It returns
// how many they are, but for those that were just moving from loop to loop.
func (e *Engine) Fence(epoch Epoch, c Cause) (wait func() int) {
	return e.count(order{kind: orderFence, epoch: epoch, cause: c})
}

// Recall takes back the connects to an epoch that are under way. They go back
// to Route; established sessions stay.
func (e *Engine) Recall(epoch Epoch) {
	e.toAll(order{kind: orderRecall, epoch: epoch})
}

// KillFrontend ends all sessions of a frontend, waiting clients included. wait
// returns how many of them had a server.
func (e *Engine) KillFrontend(id int32, c Cause) (wait func() int) {
	return e.count(order{kind: orderKill, frontend: id, cause: c})
}

// KillAll ends everything, as KillFrontend does.
func (e *Engine) KillAll(c Cause) (wait func() int) {
	return e.count(order{kind: orderKill, frontend: -1, cause: c})
}

func (e *Engine) count(o order) func() int {
	o.count = newCount(len(e.loops))
	e.ending.Lock()
	defer e.ending.Unlock()
	for _, l := range e.loops {
		if !l.mail.post(o) {
			o.count.add(0)
		}
	}
	return o.count.wait
}

func (e *Engine) toAll(o order) {
	for _, l := range e.loops {
		l.mail.post(o)
	}
}

// frontend returns the frontend of that number, which from then on exists.
func (e *Engine) frontend(id int32) *frontend {
	if table := *e.frontendTable.Load(); int(id) < len(table) {
		return table[id]
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	table := *e.frontendTable.Load()
	for n := int32(len(table)); n <= id; n++ {
		f := &frontend{id: n}
		f.options.Store(&FrontendOptions{})
		table = append(table[:n:n], f)
	}
	e.frontendTable.Store(&table)
	return table[id]
}

// server returns the gauge of that server, which from then on exists.
func (e *Engine) server(id int32) *gauge {
	if table := *e.serverTable.Load(); int(id) < len(table) {
		return table[id]
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	table := *e.serverTable.Load()
	for n := int32(len(table)); n <= id; n++ {
		table = append(table[:n:n], &gauge{})
	}
	e.serverTable.Store(&table)
	return table[id]
}

// backend returns a backend's options; those of an unknown one are all unset.
func (e *Engine) backend(id int32) *BackendOptions {
	if table := *e.backendTable.Load(); id >= 0 && int(id) < len(table) {
		return &table[id]
	}
	return &BackendOptions{}
}

// grown returns a copy of table in which id exists.
func grown[T any](table []T, id int32) []T {
	return append(make([]T, 0, max(len(table), int(id)+1)), table...)[:max(len(table), int(id)+1)]
}
