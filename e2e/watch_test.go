//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// snapshot is the part of the daemon's own words that is needed here.
type snapshot struct {
	Backends []struct {
		Leader  string
		Servers []struct {
			Name    string
			Current int
		}
	}
}

func (s *snapshot) sessions() (n int) {
	for _, srv := range s.Backends[0].Servers {
		n += srv.Current
	}
	return n
}

// askSnapshot asks the daemon for its backend's sessions.
func askSnapshot(p *proxy) (*snapshot, error) {
	var s snapshot
	if err := p.ask("show pointsman json", &s); err != nil {
		return nil, err
	}
	if len(s.Backends) != 1 {
		return nil, fmt.Errorf("%d backends", len(s.Backends))
	}
	return &s, nil
}

// watcher looks at the daemon's sessions all the time.
type watcher struct {
	mu    sync.Mutex
	found []logLine // sessions on two servers
	end   chan struct{}
	once  sync.Once
	done  sync.WaitGroup
}

func watchSessions(p *proxy) *watcher {
	w := &watcher{end: make(chan struct{})}
	w.done.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.end:
				return
			case <-tick.C:
			}
			if s, err := askSnapshot(p); err == nil {
				w.look(s)
			}
		}
	})
	return w
}

func (w *watcher) look(s *snapshot) {
	var on []string
	for _, b := range s.Backends {
		for _, srv := range b.Servers {
			if srv.Current > 0 {
				on = append(on, fmt.Sprintf("%d on %s", srv.Current, srv.Name))
			}
		}
	}
	if len(on) > 1 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.found = append(w.found, logLine{time.Now(), strings.Join(on, ", ")})
	}
}

// twice is how often sessions were seen on two servers since a moment.
func (w *watcher) twice(since time.Time) (n int, example string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.found {
		if l.at.After(since) {
			n++
			example = l.at.Format("15:04:05.000") + ": " + l.text
		}
	}
	return n, example
}

func (w *watcher) stop() {
	w.once.Do(func() { close(w.end) })
	w.done.Wait()
}
