package main

import (
	"context"
	"runtime"
	"time"
)

// disturbed is the share of the machine that other programs may use before a
// measurement is thought to be theirs too. With one session the waking of cores
// alone, which is nobody's time, looks like 10 %.
const disturbed = 0.15

// patience is the time that a whole bench may lose by waiting for other
// programs to be quiet, and by measuring again where they were not.
type patience struct{ left time.Duration }

// quiet waits until the machine has little to do, or patience is at its end.
func (p *patience) quiet(ctx context.Context) error {
	for ctx.Err() == nil {
		begin := time.Now()
		busy, err := machineBusy(150 * time.Millisecond)
		if err != nil || busy <= disturbed || p.left <= 0 {
			return err
		}
		p.left -= time.Since(begin)
	}
	return ctx.Err()
}

// calmest takes samples until one is not disturbed, or patience is at its end,
// and returns the least disturbed. It gives up at the first error.
func (p *patience) calmest(take func() (sample, error)) (sample, error) {
	best := sample{}
	for tries := 0; ; tries++ {
		begin := time.Now()
		s, err := take()
		if err != nil {
			return s, err
		}
		if tries == 0 || s.OtherShare < best.OtherShare {
			best = s
		}
		if s.OtherShare <= disturbed || p.left <= 0 {
			return best, nil
		}
		p.left -= time.Since(begin)
	}
}

// machineBusy returns the share of all cores, 0 to 1, that was in use for a while.
func machineBusy(during time.Duration) (float64, error) {
	begin := time.Now()
	from, _, err := machineTimes()
	if err != nil {
		return 0, err
	}
	time.Sleep(during)
	to, _, err := machineTimes()
	if err != nil {
		return 0, err
	}
	all := time.Since(begin).Seconds() * float64(runtime.NumCPU())
	return max(1-(to-from).Seconds()/all, 0), nil
}
