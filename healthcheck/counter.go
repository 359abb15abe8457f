package healthcheck

// Counter is HAProxy's health integer (include/haproxy/check-t.h): 0 to
// rise+fall-1, and UP from rise on. So rise and fall count results in a row, an
// opposite result starts the count anew, and there is no impossible state.
// Unlike HAProxy's it starts DOWN: a server gets nothing until it is proven.
type Counter struct {
	rise, fall, health int
}

// NewCounter returns a counter that is DOWN. Both numbers are at least 1.
func NewCounter(rise, fall int) *Counter {
	return &Counter{rise: max(rise, 1), fall: max(fall, 1)}
}

// Add counts one result and reports whether that marked the server UP or DOWN.
func (c *Counter) Add(ok bool) (changed bool) {
	wasUp := c.Up()
	switch {
	case ok && c.health+1 >= c.rise:
		c.health = c.top()
	case ok:
		c.health++
	case c.health > c.rise:
		c.health--
	default:
		c.health = 0
	}
	return c.Up() != wasUp
}

// Up reports whether the server is UP.
func (c *Counter) Up() bool { return c.health >= c.rise }

// Health returns the integer itself, as HAProxy's `show servers state` tells it.
func (c *Counter) Health() int { return c.health }

// Streak returns how many results in a row speak for the next change, and how
// many it takes. Right after a change that is none.
func (c *Counter) Streak() (n, needed int) {
	if c.Up() {
		return c.top() - c.health, c.fall
	}
	return c.health, c.rise
}

// Resize takes new settings on. UP stays UP and DOWN stays DOWN: a streak that
// would already be too long for the new settings is cut to one short of a change.
func (c *Counter) Resize(rise, fall int) {
	up := c.Up()
	n, _ := c.Streak()
	*c = *NewCounter(rise, fall)
	if up {
		c.health = c.top() - min(n, c.fall-1)
	} else {
		c.health = min(n, c.rise-1)
	}
}

func (c *Counter) top() int { return c.rise + c.fall - 1 }
