// Package facts is how the clients tell what they see: one line of JSON on
// stdout for each fact, as client.py does.
package facts

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// Fact is one of them. Times are in seconds since 1970.
type Fact struct {
	Event    string  `json:"event"`
	Who      string  `json:"who"`
	Began    float64 `json:"began,omitempty"` // when the attempt began
	At       float64 `json:"at"`              // when it was known; set by Tell
	Seq      int     `json:"seq,omitempty"`
	Node     string  `json:"node,omitempty"`     // the address of the PostgreSQL that answered
	Stage    string  `json:"stage,omitempty"`    // of a failure: connect or write
	Code     string  `json:"code,omitempty"`     // of a failure: SQLSTATE, or gRPC's code
	Text     string  `json:"text,omitempty"`     // of a failure: its message
	Revision int64   `json:"revision,omitempty"` // of an object in kine
}

var mu sync.Mutex

// Tell writes the fact, as of now.
func Tell(f Fact) {
	mu.Lock()
	defer mu.Unlock()
	f.At = Seconds(time.Now())
	if json.NewEncoder(os.Stdout).Encode(f) != nil {
		os.Exit(1) // nobody listens
	}
}

// Seconds is the moment as a Fact has it.
func Seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }
