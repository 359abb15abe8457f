package relay

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
)

// noise is what streams are made of. Its length is prime, so a shift by any
// buffer's size shows.
var noise = func() []byte {
	b := make([]byte, 65521)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}()

// source is an endless stream of bytes, different for each seed.
type source struct{ at int }

func newSource(seed uint64) *source { return &source{int(seed % uint64(len(noise)))} }

// next returns up to n bytes of the stream.
func (s *source) next(n int) []byte {
	b := noise[s.at:min(len(noise), s.at+n)]
	s.at = (s.at + len(b)) % len(noise)
	return b
}

func (s *source) Read(b []byte) (int, error) { return copy(b, s.next(len(b))), nil }

// sink checks that what is written to it is the stream of a source.
type sink struct {
	source
	n int64
}

func newSink(seed uint64) *sink { return &sink{source: *newSource(seed)} }

func (s *sink) Write(b []byte) (n int, err error) {
	for n < len(b) {
		want := s.next(len(b) - n)
		if !bytes.Equal(want, b[n:n+len(want)]) {
			return n, fmt.Errorf("wrong byte near offset %d", s.n)
		}
		n += len(want)
		s.n += int64(len(want))
	}
	return n, nil
}

// sendStream writes n bytes of a source.
func sendStream(c io.Writer, seed uint64, n int64) error {
	_, err := io.Copy(struct{ io.Writer }{c}, io.LimitReader(newSource(seed), n))
	return err
}

// wantStream reads n bytes of a source and then EOF.
func wantStream(c io.Reader, seed uint64, n int64) error {
	s := newSink(seed)
	if _, err := io.Copy(s, struct{ io.Reader }{c}); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", s.n, n, err)
	}
	if s.n != n {
		return fmt.Errorf("got %d bytes, want %d", s.n, n)
	}
	return nil
}
