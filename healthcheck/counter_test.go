package healthcheck

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// Results are written as + and -; the wanted health follows each of them.
func TestCounter(t *testing.T) {
	tests := []struct {
		name       string
		rise, fall int
		results    string
		health     []int
		changes    string // c where the result before it marked UP or DOWN
	}{
		{"starts DOWN, rises, jumps to the top", 2, 3, "++", []int{1, 4}, ".c"},
		{"stays at the top", 2, 3, "+++", []int{1, 4, 4}, ".c."},
		{"falls step by step, and then to 0", 2, 3, "++---", []int{1, 4, 3, 2, 0}, ".c..c"},
		{"one success resets the fall", 2, 3, "++--+--", []int{1, 4, 3, 2, 4, 3, 2}, ".c....."},
		{"one failure resets the rise", 2, 3, "+-+-", []int{1, 0, 1, 0}, "...."},
		{"failures below 0 are not remembered", 2, 3, "-----++", []int{0, 0, 0, 0, 0, 1, 4}, "......c"},
		{"rise 1, fall 1", 1, 1, "+-+-", []int{1, 0, 1, 0}, "cccc"},
		{"rise 3, fall 1", 3, 1, "+++-", []int{1, 2, 3, 0}, "..cc"},
		{"nonsense counts as 1", 0, -5, "+-", []int{1, 0}, "cc"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCounter(tt.rise, tt.fall)
			if c.Up() || c.Health() != 0 {
				t.Fatalf("starts at %d", c.Health())
			}
			for i, r := range tt.results {
				changed := c.Add(r == '+')
				if c.Health() != tt.health[i] || changed != (tt.changes[i] == 'c') {
					t.Errorf("after %s: health %d, changed %v; want %d, %v", tt.results[:i+1],
						c.Health(), changed, tt.health[i], tt.changes[i] == 'c')
				}
			}
		})
	}
}

// The integer must say the same as the plain words: UP after rise successes in
// a row, DOWN after fall failures in a row, and nothing else changes it.
func TestCounterCountsResultsInARow(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		rise, fall := 1+rnd.IntN(6), 1+rnd.IntN(6)
		c := NewCounter(rise, fall)
		up, ran := false, 0 // ran: results in a row against the state
		var past strings.Builder
		for range 200 {
			ok := rnd.IntN(2) == 0
			past.WriteByte("-+"[map[bool]int{true: 1}[ok]])
			if ok == up {
				ran = 0
			} else {
				ran++
			}
			needed := rise
			if up {
				needed = fall
			}
			want := ran == needed
			if want {
				up, ran = !up, 0
			}
			if changed := c.Add(ok); changed != want || c.Up() != up {
				t.Fatalf("rise %d fall %d %s: up %v changed %v, want %v %v", rise, fall, &past, c.Up(), changed, up, want)
			}
			if n, _ := c.Streak(); n != ran {
				t.Fatalf("rise %d fall %d %s: streak %d, want %d", rise, fall, &past, n, ran)
			}
			if c.Health() < 0 || c.Health() > rise+fall-1 {
				t.Fatalf("health %d of rise %d fall %d", c.Health(), rise, fall)
			}
		}
	}
}

func TestCounterResize(t *testing.T) {
	tests := []struct {
		name       string
		results    string // at rise 2, fall 3
		rise, fall int
		up         bool
		n, needed  int
	}{
		{"UP at the top", "++", 5, 7, true, 0, 7},
		{"UP with failures", "++--", 1, 5, true, 2, 5},
		{"UP, more failures than the new fall allows", "++--", 2, 2, true, 1, 2},
		{"UP, new fall 1", "++--", 4, 1, true, 0, 1},
		{"DOWN", "", 3, 3, false, 0, 3},
		{"DOWN and rising", "+", 4, 1, false, 1, 4},
		{"DOWN and rising, new rise 1", "+", 1, 1, false, 0, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCounter(2, 3)
			for _, r := range tt.results {
				c.Add(r == '+')
			}
			c.Resize(tt.rise, tt.fall)
			n, needed := c.Streak()
			if c.Up() != tt.up || n != tt.n || needed != tt.needed {
				t.Errorf("up %v, streak %d/%d; want %v, %d/%d", c.Up(), n, needed, tt.up, tt.n, tt.needed)
			}
		})
	}
}
