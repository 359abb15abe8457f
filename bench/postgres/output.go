package postgres

import (
	"bytes"
	"sync"
)

// output is what a process writes. It keeps the end, for errors, and tells when
// a line comes that somebody waits for.
type output struct {
	mu   sync.Mutex
	text []byte
	line []byte // begun
	want string
	came chan struct{} // closed when the line want has come; nil = nobody waits
}

// outputKept is enough for an error message of PostgreSQL's with its context.
const outputKept = 2000

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, p...)
	o.text = o.text[max(len(o.text)-outputKept, 0):]
	o.line = append(o.line, p...)
	for {
		line, rest, found := bytes.Cut(o.line, []byte("\n"))
		if !found {
			return len(p), nil
		}
		if o.came != nil && string(line) == o.want {
			close(o.came)
			o.came = nil
		}
		o.line = rest
	}
}

// expect returns a channel that is closed when a line comes from now on.
func (o *output) expect(line string) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.want, o.came = line, make(chan struct{})
	return o.came
}

// String is the end of all that came, without the white space around it.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(bytes.TrimSpace(o.text))
}
