package main

import (
	"errors"
	"testing"
	"time"
)

func TestCalmest(t *testing.T) {
	const long = time.Hour
	for _, c := range []struct {
		name     string
		patience time.Duration
		others   []float64 // share of other programs, by try
		want     float64
		tries    int
	}{
		{"quiet at once", long, []float64{0.05}, 0.05, 1},
		{"quiet later", long, []float64{0.5, 0.2, 0.01, 0}, 0.01, 3},
		{"never quiet", time.Minute, []float64{0.5, 0.3, 0.4, 0}, 0.3, 3},
		{"no patience", 0, []float64{0.5, 0}, 0.5, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, tries := patience{c.patience}, 0
			s, err := p.calmest(func() (sample, error) {
				tries++
				if tries == 3 {
					p.left -= time.Minute // as if the first ones had taken so long
				}
				return sample{usage: usage{OtherShare: c.others[tries-1]}}, nil
			})
			if err != nil || s.OtherShare != c.want || tries != c.tries {
				t.Errorf("got the sample with %v after %d tries, %v; want %v after %d", s.OtherShare, tries, err, c.want, c.tries)
			}
		})
	}
	p := patience{long}
	if _, err := p.calmest(func() (sample, error) { return sample{}, errors.New("refused") }); err == nil {
		t.Error("an error was tried again")
	}
}
