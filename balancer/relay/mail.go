package relay

import (
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

type orderKind uint8

const (
	orderAdopt    orderKind = iota // fd, frontend, client, accepted: a new client
	orderListen                    // listener
	orderAssign                    // id, frontend
	orderUnlisten                  // id, count
	orderResume                    // frontend: it is no longer full
	orderOptions                   // settings changed: deadlines may have moved
	orderWake                      // number: a backend, -1 = all
	orderFence                     // epoch, cause, count
	orderRecall                    // epoch
	orderKill                      // frontend, -1 = all; cause, count
	orderShare                     // number: the loop to share with; all
	orderMove                      // session, seen: a session from another loop
	orderStop                      // end the loop
)

// order is a message to a loop. Which fields it uses is said at its kind.
type order struct {
	kind     orderKind
	cause    Cause
	fd       int32
	frontend int32
	number   int32
	epoch    Epoch
	id       ListenerID
	client   endpoint
	accepted time.Duration
	listener *listener
	count    *count
	session  *session
	seen     uint32 // orders to end sessions that it has seen
	all      bool   // busy sessions; else every other one
}

// count gathers what the loops answer to an order.
type count struct {
	sum  atomic.Int32
	left sync.WaitGroup
}

func newCount(loops int) *count {
	c := &count{}
	c.left.Add(loops)
	return c
}

func (c *count) add(n int) {
	c.sum.Add(int32(n))
	c.left.Done()
}

// wait blocks until every loop has answered.
func (c *count) wait() int {
	c.left.Wait()
	return int(c.sum.Load())
}

// mailbox brings orders to a loop, in the order in which they were given. The
// eventfd wakes the loop where it sleeps. It is edge-triggered, so nobody needs
// to read it: each write is an event of its own.
type mailbox struct {
	mu     sync.Mutex
	orders []order
	spare  []order
	closed bool
	wake   int32       // eventfd
	filled atomic.Bool // orders is not empty
}

func (m *mailbox) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	m.wake = int32(fd)
	return err
}

// post reports false if the loop has ended, and nobody will obey.
func (m *mailbox) post(orders ...order) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	first := len(m.orders) == 0
	m.orders = append(m.orders, orders...)
	m.filled.Store(true)
	if first {
		// Under the lock, because the descriptor must not be closed meanwhile.
		one := uint64(1)
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(m.wake), uintptr(unsafe.Pointer(&one)), 8)
	}
	return true
}

// take returns the orders so far. It returns none while somebody posts: a loop
// waits for nobody, and filled brings it back here before it sleeps.
func (m *mailbox) take() []order {
	if !m.mu.TryLock() {
		return nil
	}
	defer m.mu.Unlock()
	orders := m.orders
	clear(m.spare) // lets go of listeners, counts and sessions
	m.orders, m.spare = m.spare[:0], orders
	m.filled.Store(false)
	return orders
}

// close returns the orders that will not be obeyed.
func (m *mailbox) close() []order {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	closeFD(m.wake)
	return m.orders
}

// obey carries out what is in the mailbox.
func (l *loop) obey() (stop bool) {
	for _, o := range l.mail.take() {
		switch o.kind {
		case orderAdopt:
			l.adopt(o)
		case orderListen:
			l.addListener(o.listener)
		case orderAssign:
			l.assign(o.id, o.frontend)
		case orderUnlisten:
			l.removeListener(o.id)
			o.count.add(0)
		case orderResume:
			l.resume(o.frontend)
		case orderOptions:
			l.rearm()
		case orderWake:
			l.wake(o.number)
		case orderFence:
			l.ends.add(o)
			o.count.add(l.fence(o.epoch, o.cause))
		case orderRecall:
			l.recall(o.epoch)
		case orderKill:
			l.ends.add(o)
			o.count.add(l.killFrontend(o.frontend, o.cause))
		case orderShare:
			l.giveSessions(l.engine.loops[o.number], o.all)
		case orderMove:
			l.take(o)
		case orderStop:
			stop = true
		}
	}
	return stop
}

// rearm fits the deadlines of all sessions to changed settings.
func (l *loop) rearm() {
	for s := range l.each {
		if s.state != free {
			l.arm(s)
		}
	}
	for _, ln := range l.listeners {
		if ln != nil && ln.ready {
			l.acceptFrom(ln)
		}
	}
}
