package balancer

import (
	"fmt"
	"strings"
	"time"
)

// restoredAfter is how long a claimant below the highest timeline seen must
// have been the only one before it is believed. A cluster restored from a
// backup starts at timeline 1 again; a leader back from the dead is demoted
// by Patroni within its ttl, 30 s by default.
const restoredAfter = 30 * time.Second

// view is what elect sees of one server.
type view struct {
	name     string
	asked    bool   // at least one probe has ended
	claims   bool   // the latest probe is a claim to lead
	up       bool   // by the rise/fall counter: the claim is confirmed
	timeline uint32 // as told by the latest probe that told one; 0 = never told
	why      string // the latest probe's outcome, for people
}

// standing is what elect knows of the past.
type standing struct {
	leader    int       // index of the current leader, or -1
	timeline  uint32    // the highest timeline seen on any server, 0 = none
	loneSince time.Time // since when a claimant below timeline is the only one; zero = it is not
}

// decision is what elect makes of it.
type decision struct {
	leader    int    // index, or -1
	accepting bool   // new sessions may be opened to it
	reason    string // for people
	loud      bool   // something is wrong with the cluster, and a person should know
	// lone is set while a claimant below the highest timeline is refused, but
	// is the only one: it will be believed restoredAfter its loneSince.
	lone bool
}

// elect says who leads. It is a pure function: the same past and the same
// answers give the same leader. It never names two, and it prefers nobody to
// a guess; but a leader that is merely silent keeps its place until its
// counter gives it up.
func elect(now time.Time, past standing, servers []view) decision {
	believed, refused := sift(now, past, servers)
	d := decision{leader: -1, lone: len(believed) == 0 && len(refused) == 1}
	if past.leader < 0 {
		return d.fill(past, servers, believed, refused)
	}
	return d.succeed(past, servers, believed, refused)
}

// sift parts the claimants into those that may lead and those whose timeline
// is below the highest seen. The current leader is never refused for that:
// only a rival's confirmed claim deposes it.
func sift(now time.Time, past standing, servers []view) (believed, refused []int) {
	for i, s := range servers {
		switch {
		case !s.claims:
		case i != past.leader && s.timeline != 0 && s.timeline < past.timeline && !highestNow(servers, s.timeline):
			refused = append(refused, i)
		default:
			believed = append(believed, i)
		}
	}
	lone := len(believed) == 0 && len(refused) == 1
	if lone && !past.loneSince.IsZero() && now.Sub(past.loneSince) >= restoredAfter {
		return refused, nil
	}
	return believed, refused
}

// highestNow reports whether every server has told a timeline, and by its latest
// word none is above t: what was above is gone. A leader that was frozen past
// its ttl, and then takes its place back, has the rival that was promoted
// meanwhile rewound onto its own, older timeline.
func highestNow(servers []view, t uint32) bool {
	for _, s := range servers {
		if s.timeline == 0 || s.timeline > t {
			return false
		}
	}
	return true
}

// fill decides who takes an empty place.
func (d decision) fill(past standing, servers []view, believed, refused []int) decision {
	for _, s := range servers {
		if !s.asked {
			d.reason = "waiting for the first answer of " + s.name
			return d
		}
	}
	if len(believed) == 0 {
		d.reason, d.loud = nobody(past, servers, refused)
		return d
	}
	// A claim that is not confirmed yet counts against the others: two nodes
	// that both claim must not be told apart by whose answer came first.
	best, tie := highest(servers, believed)
	if tie {
		d.reason = "no leader is chosen: " + claims(servers, believed)
		d.loud = true
		return d
	}
	if !servers[best].up {
		d.reason = servers[best].name + " claims to lead, not confirmed yet"
		return d
	}
	d.leader, d.accepting = best, true
	d.reason = "confirmed"
	if t := servers[best].timeline; t != 0 && t < past.timeline {
		d.loud = true
		d.reason = fmt.Sprintf("the only claimant for %v, though its timeline %d is below %d: restored from a backup?", restoredAfter, t, past.timeline)
		if highestNow(servers, t) {
			d.reason = fmt.Sprintf("confirmed, though its timeline %d is below %d: no server is on that any more", t, past.timeline)
		}
	}
	return d
}

// succeed decides whether the current leader stays.
func (d decision) succeed(past standing, servers []view, believed, refused []int) decision {
	current := servers[past.leader]
	if current.up {
		d.leader = past.leader
	}
	var rivals []int
	deposed := false
	for _, i := range believed {
		if i != past.leader && (!current.claims || above(servers[i], current)) {
			rivals = append(rivals, i)
			deposed = deposed || (servers[i].up && above(servers[i], current))
		}
	}
	if len(rivals) > 0 {
		best, tie := highest(servers, rivals)
		switch {
		case tie:
			d.reason, d.loud = "no leader is chosen: "+claims(servers, rivals), true
			if deposed { // by one of them, whichever it is
				d.leader = -1
			}
		case servers[best].up:
			d.leader, d.accepting, d.reason = best, true, "rival confirmed"
		default:
			// Most likely the new leader: nobody is sent to the old one any more.
			d.reason = servers[best].name + " claims to lead, not confirmed yet"
		}
		return d
	}
	switch {
	case current.claims && current.up:
		d.accepting, d.reason = true, "confirmed"
		if len(believed) > 1 {
			d.reason, d.loud = "stays: "+claims(servers, believed), true
		} else if len(refused) > 0 {
			d.reason, d.loud = "stays: "+below(past, servers, refused), true
		}
	case current.up:
		d.reason = "in doubt: " + current.why
	default:
		d.reason, d.loud = nobody(past, servers, refused)
	}
	return d
}

// above reports whether a's timeline is known to be higher than b's.
func above(a, b view) bool { return a.timeline != 0 && b.timeline != 0 && a.timeline > b.timeline }

// highest returns the one of these whose timeline is above all others', or a
// tie: two are equal, or one did not tell its own.
func highest(servers []view, these []int) (best int, tie bool) {
	best = these[0]
	for _, i := range these[1:] {
		switch {
		case above(servers[i], servers[best]):
			best, tie = i, false
		case !above(servers[best], servers[i]):
			tie = true
		}
	}
	// A claimant without a timeline ties with everybody, whatever the order.
	if len(these) > 1 {
		for _, i := range these {
			tie = tie || servers[i].timeline == 0
		}
	}
	return best, tie
}

func nobody(past standing, servers []view, refused []int) (reason string, loud bool) {
	if len(refused) > 0 {
		return below(past, servers, refused), true
	}
	return "no server claims to lead", false
}

// claims lists who claims what: "a (timeline 5) and b (timeline 5) claim to lead".
func claims(servers []view, these []int) string {
	parts := make([]string, len(these))
	for n, i := range these {
		parts[n] = servers[i].name + " (timeline unknown)"
		if t := servers[i].timeline; t != 0 {
			parts[n] = fmt.Sprintf("%s (timeline %d)", servers[i].name, t)
		}
	}
	verb := " claim to lead"
	if len(these) == 1 {
		verb = " claims to lead"
	}
	return strings.Join(parts, " and ") + verb
}

func below(past standing, servers []view, refused []int) string {
	return fmt.Sprintf("%s; refused, because timeline %d was seen", claims(servers, refused), past.timeline)
}
