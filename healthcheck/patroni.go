package healthcheck

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// member is what Patroni's REST API tells about its node in the body of an
// answer to GET. Fields that are not told, or not of their type, are empty.
type member struct {
	role, state string
	timeline    uint32
}

// maxWord bounds role and state: Patroni's longest is "in archive recovery".
const maxWord = 32

var errBrokenJSON = errors.New("broken JSON")

// readMember finds Patroni's JSON object in a body. A body that does not begin
// as an object is not Patroni's, and no error.
func readMember(body []byte) (member, error) {
	body = bytes.TrimLeft(body, " \t\r\n")
	if len(body) == 0 || body[0] != '{' {
		return member{}, nil
	}
	var fields struct {
		Role     json.RawMessage `json:"role"`
		State    json.RawMessage `json:"state"`
		Timeline json.RawMessage `json:"timeline"`
	}
	if json.Unmarshal(body, &fields) != nil {
		return member{}, errBrokenJSON
	}
	// A field of another type than expected is left alone, and so is its zero.
	var role, state string
	var m member
	_ = json.Unmarshal(fields.Role, &role)
	_ = json.Unmarshal(fields.State, &state)
	_ = json.Unmarshal(fields.Timeline, &m.timeline)
	m.role, m.state = printable(role, maxWord), printable(state, maxWord)
	return m, nil
}

// leaderRoles returns the roles that fit a URI by which Patroni tells who
// leads (do_GET in patroni/api.py), or nil for any other URI. Up to Patroni 3
// the primary's role is "master".
func leaderRoles(uri string) []string {
	path, _, _ := strings.Cut(uri, "?")
	switch strings.TrimRight(path, "/") {
	case "", "/primary", "/master", "/read-write":
		return []string{"primary", "master"}
	case "/standby-leader", "/standby_leader":
		return []string{"standby_leader"}
	case "/leader":
		return []string{"primary", "master", "standby_leader"}
	}
	return nil
}

// AsksForPrimary reports whether a URI of Patroni's asks for a leader that can
// be written to: then its PostgreSQL is not in recovery.
func AsksForPrimary(uri string) bool {
	roles := leaderRoles(uri)
	return roles != nil && !slices.Contains(roles, "standby_leader")
}

// doubt says why a member cannot be what its status claims, or "". Patroni
// answers 200 from the moment that it holds the lock, which is before
// PostgreSQL is promoted, and even if it cannot start (patroni#2972, #2756).
func (m member) doubt(roles []string) string {
	switch {
	case m.role != "" && !slices.Contains(roles, m.role):
		text := "wrong role: " + m.role
		if m.state != "" {
			text += ", state: " + m.state
		}
		return text
	case m.state != "" && m.state != "running":
		text := "wrong state: " + m.state
		if m.role != "" {
			text += ", role: " + m.role
		}
		return text
	}
	return ""
}

// promoting reports whether a member that holds the lock may be a leader at any
// moment, by these roles. States that end in "failed", and those of a stop,
// last (patroni/postgresql/misc.py, PostgresqlState); so does the role of a
// standby cluster's leader.
func (m member) promoting(roles []string) bool {
	if m.role == "standby_leader" && !slices.Contains(roles, m.role) {
		return false
	}
	switch m.state {
	case "", "running", "starting", "restarting":
		return true
	}
	return false
}
