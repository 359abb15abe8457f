package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// patroni plays the REST API of a cluster's nodes, one port each: one leads,
// and answers 200 to /primary, the others 503.
type patroni struct {
	mu       sync.Mutex
	leader   int // index of a node
	timeline int
}

// servePatroni runs the API of args[1] nodes from the address args[0] upwards,
// until the process is ended. A GET of /switch makes the next node the leader.
func servePatroni(args []string) error {
	at, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	nodes, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	p := &patroni{timeline: 1}
	ended := make(chan error)
	for i := range nodes {
		l, err := net.Listen("tcp4", netip.AddrPortFrom(at.Addr(), at.Port()+uint16(i)).String())
		if err != nil {
			return err
		}
		go func() {
			ended <- http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.answer(i, nodes, w, r) }))
		}()
	}
	return <-ended
}

func (p *patroni) answer(node, nodes int, w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	if r.URL.Path == "/switch" {
		p.leader = (p.leader + 1) % nodes
		p.timeline++
	}
	leads, timeline := node == p.leader, p.timeline
	p.mu.Unlock()
	w.Header().Set("Connection", "close") // as Patroni's HTTP/1.0 does
	w.Header().Set("Content-Type", "application/json")
	role := "primary"
	if !leads {
		role = "replica"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	fmt.Fprintf(w, `{"state": "running", "role": %q, "server_version": 150000, "timeline": %d}`, role, timeline)
}

// switchLeader asks the nodes at addr for another leader.
func switchLeader(addr string) error {
	c := http.Client{Timeout: 3 * time.Second}
	answer, err := c.Get("http://" + addr + "/switch")
	if err != nil {
		return fmt.Errorf("asking for another leader: %w", err)
	}
	return answer.Body.Close()
}
