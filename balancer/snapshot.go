package balancer

import "time"

// Snapshot is all that can be seen of the balancer at one moment. It is a
// value that nobody changes any more; its JSON is what `pointsman status
// --json` prints.
type Snapshot struct {
	Version   string           `json:"version"`
	PID       int              `json:"pid"`
	Started   time.Time        `json:"started"`
	Taken     time.Time        `json:"taken"`
	Config    string           `json:"config"`       // path of the file it runs with
	Reloaded  time.Time        `json:"reloaded"`     // when that was read last
	ReloadErr string           `json:"reload_error"` // why the newest file was not taken; "" = it was
	Frontends []FrontendStatus `json:"frontends"`
	Backends  []BackendStatus  `json:"backends"`
	DCS       []DCSStatus      `json:"dcs"`
}

// FrontendStatus is one frontend. Bytes are counted from the clients' view:
// in from clients, out to clients.
type FrontendStatus struct {
	Name     string       `json:"name"`
	Backend  string       `json:"backend"`
	Binds    []BindStatus `json:"binds"`
	MaxConn  int          `json:"maxconn"`
	Current  int64        `json:"current"` // clients now, held ones included
	Max      int64        `json:"max"`     // the most at once
	Total    uint64       `json:"total"`
	Refused  uint64       `json:"refused"`
	BytesIn  uint64       `json:"bytes_in"`
	BytesOut uint64       `json:"bytes_out"`
}

// BindStatus is one listening address.
type BindStatus struct {
	Address string `json:"address"`
	Error   string `json:"error"` // why it does not listen; "" = it does
}

// BackendStatus is one backend.
type BackendStatus struct {
	Name       string         `json:"name"`
	Policy     string         `json:"policy"`
	Leader     string         `json:"leader"`     // server's name; "" = none, or a policy without
	Accepting  bool           `json:"accepting"`  // a new session would be connected now
	Epoch      uint32         `json:"epoch"`      // of the leader's reign; 0 = none
	Timeline   uint32         `json:"timeline"`   // the highest that was accepted
	Since      time.Time      `json:"since"`      // of this leader, or of having none
	Reason     string         `json:"reason"`     // why it is so
	Transition bool           `json:"transition"` // checks run at fastinter
	Changes    uint64         `json:"changes"`    // leaders confirmed since the start
	Held       int64          `json:"held"`       // clients that wait for a server
	Queued     int64          `json:"queued"`     // clients that wait for a slot
	Current    int64          `json:"current"`    // sessions now
	Servers    []ServerStatus `json:"servers"`
}

// ServerStatus is one server.
type ServerStatus struct {
	Name     string    `json:"name"`
	Address  string    `json:"address"`  // where sessions go
	Check    string    `json:"check"`    // where checks go
	State    string    `json:"state"`    // UP, DOWN, "UP 1/3", "DOWN 1/2" as in HAProxy; "no check"
	Up       bool      `json:"up"`       // by the counter
	Since    time.Time `json:"since"`    // of Up
	Role     string    `json:"role"`     // by Patroni; "" = not told
	Timeline uint32    `json:"timeline"` // by Patroni; 0 = not told
	Checked  time.Time `json:"checked"`  // end of the last check
	Result   string    `json:"result"`   // of the last check, for people
	CheckMS  float64   `json:"check_ms"` // its duration
	Current  int64     `json:"current"`  // sessions now
	Max      int64     `json:"max"`      // the most at once
	Total    uint64    `json:"total"`
	BytesIn  uint64    `json:"bytes_in"`
	BytesOut uint64    `json:"bytes_out"`
	Refused  uint64    `json:"refused"`    // connects that failed
	CheckBad uint64    `json:"checks_bad"` // checks that failed
	Downs    uint64    `json:"times_down"` // UP -> DOWN
}

// DCSStatus is one store that is watched for changes of the leader's key.
type DCSStatus struct {
	Name     string    `json:"name"`
	Key      string    `json:"key"`
	Endpoint string    `json:"endpoint"` // URL of the member that is watched; "" = none
	Since    time.Time `json:"since"`    // of Endpoint, or of having none
	Known    bool      `json:"known"`    // the key was read
	Exists   bool      `json:"exists"`   // the key was there when last seen
	Leader   string    `json:"leader"`   // its value
	Changed  time.Time `json:"changed"`  // when it was last seen to change; zero = not yet
	Changes  uint64    `json:"changes"`  // how often it was, each of them a hint
	Error    string    `json:"error"`    // what last went wrong; "" = nothing yet
	Failed   time.Time `json:"failed"`   // when that was
}
