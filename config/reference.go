package config

// Key is one option: its name, what it may hold, its default, and what it does.
type Key struct {
	Name     string
	List     bool   // given as a list; each value is set in turn
	Required bool   // has no default, and must be given
	Default  string // as a user would write it; "" = unset
	Allowed  string // what a value may be, with its unit and range
	Doc      string // one or two sentences

	// set parses text into the field of the section that dst points to.
	set func(dst any, text string) error
	// get returns what the field of the section that src points to holds.
	get func(src any) []any
}

// SectionRef describes one type of section and all of its keys.
type SectionRef struct {
	Type string
	Doc  string
	Keys []Key
}

// Reference is every section and option that exists, in the order of the
// documentation. docs/configuration.md is generated from it.
var Reference = []SectionRef{
	{Type: "global", Doc: "The process itself. One section, usually named `global`; all of it may be left out.", Keys: globalKeys},
	{Type: "frontend", Doc: "Addresses to listen on, and the backend that serves them.", Keys: frontendKeys},
	{Type: "backend", Doc: "A group of servers: how they are checked, and how one is chosen for a new session.", Keys: backendKeys},
	{Type: "server", Doc: "One PostgreSQL node of a backend.", Keys: serverKeys},
	{Type: "dcs", Doc: "The etcd cluster in which Patroni keeps who leads. Where that changes, the servers are asked at once.", Keys: dcsKeys},
}

// Lookup returns the description of a section type, or nil.
func Lookup(sectionType string) *SectionRef {
	for i := range Reference {
		if Reference[i].Type == sectionType {
			return &Reference[i]
		}
	}
	return nil
}

// Key returns the option of that name, or nil.
func (s *SectionRef) Key(name string) *Key {
	for i := range s.Keys {
		if s.Keys[i].Name == name {
			return &s.Keys[i]
		}
	}
	return nil
}

// Names returns the names of all options, in the order of the documentation.
func (s *SectionRef) Names() []string {
	names := make([]string, len(s.Keys))
	for i := range s.Keys {
		names[i] = s.Keys[i].Name
	}
	return names
}

// SectionTypes returns the types of all sections.
func SectionTypes() []string {
	types := make([]string, len(Reference))
	for i := range Reference {
		types[i] = Reference[i].Type
	}
	return types
}

// Set parses text and stores it in dst, a *Global, *Frontend, *Backend,
// *Server or *DCS to which the key belongs. Of a list it adds one value. The error is a
// phrase to stand behind the value ("lacks `:PORT`", "is not allowed");
// Allowed says what would be right.
func (k *Key) Set(dst any, text string) error { return k.set(dst, text) }

// Values is the inverse of Set: what src, a pointer as for Set, holds of this
// key, as a user would write it. Nothing is returned for what is unset.
func (k *Key) Values(src any) []string {
	var texts []string
	for _, v := range k.get(src) {
		if text := textOf(v); text != "" {
			texts = append(texts, text)
		}
	}
	if texts == nil && k.Name == "control" {
		return []string{"none"} // see socketPath
	}
	return texts
}

// NewGlobal, NewFrontend, NewBackend and NewServer return sections that hold
// every default. The name is the section's, and so the default of `name`.

func NewGlobal() Global { return withDefaults(Global{}, globalKeys) }

func NewFrontend(name string) Frontend { return withDefaults(Frontend{Name: name}, frontendKeys) }

func NewBackend(name string) Backend { return withDefaults(Backend{Name: name}, backendKeys) }

func NewServer(name string) Server { return withDefaults(Server{Name: name}, serverKeys) }

func withDefaults[S any](section S, keys []Key) S {
	for i := range keys {
		if keys[i].Default == "" {
			continue
		}
		if err := keys[i].set(&section, keys[i].Default); err != nil {
			panic("default of " + keys[i].Name + ": " + err.Error())
		}
	}
	return section
}

var globalKeys = []Key{
	key("enabled", "1", boolean, "Whether the service starts at boot and runs.",
		func(g *Global) *bool { return &g.Enabled }),
	key("log_level", "info", oneOf(LogError, LogWarning, LogInfo, LogDebug), "The least severity that is logged. `debug` adds a line per session.",
		func(g *Global) *LogLevel { return &g.LogLevel }),
	key("control", "/var/run/pointsman/control.sock", socketPath, "Unix socket on which `pointsman status` asks the daemon. `none`: no socket. Read at the start only.",
		func(g *Global) *string { return &g.Control }),
	key("loops", "0", integer(0, 4), "Event loops, each on a thread of its own. `0`: one per core, at most 4. Read at the start only.",
		func(g *Global) *int { return &g.Loops }),
	key("stop_grace", "0", duration(0, hour), "How long a stop lets sessions end by themselves before it closes them. OpenWrt's procd ends the daemon after 60 s in any case.",
		func(g *Global) *dur { return &g.StopGrace }),
}

var frontendKeys = []Key{
	key("name", "", name, "The name in log lines and in the status. Default: the section's name.",
		func(f *Frontend) *string { return &f.Name }),
	list("bind", address, "Address and port to listen on: `:5432` (every IPv4 address), `192.168.9.1:5432`, `[::]:5432` (every IPv6 address). May be given several times. An address that the router does not have yet is taken up when it appears.",
		func(f *Frontend) *[]addrPort { return &f.Binds }),
	required("default_backend", backendName, "The backend that serves this frontend.",
		func(f *Frontend) *string { return &f.DefaultBackend }),
	key("protocol", "tcp", oneOf(TCP, PostgreSQL), "`postgresql`: the opening of each session is understood, up to its first ReadyForQuery or to where encryption begins, and nothing after it: a client whose server is just stopping or starting is held instead of refused, one that waited in vain gets an error that says why, and a CancelRequest goes to the leader. `tcp`: bytes are just moved.",
		func(f *Frontend) *Protocol { return &f.Protocol }),
	key("maxconn", "2000", integer(1, 1_000_000), "Sessions at once, held clients included. Beyond it connections wait in the kernel's backlog.",
		func(f *Frontend) *int { return &f.MaxConn }),
	key("timeout_client", "0", duration(0, day), "Ends a session whose client sent and took nothing for so long. `0`: never.",
		func(f *Frontend) *dur { return &f.TimeoutClient }),
	key("timeout_client_fin", "0", duration(0, day), "The same once the client closed its sending side. `0`: as `timeout_client`.",
		func(f *Frontend) *dur { return &f.TimeoutClientFin }),
	key("tcplog", "0", boolean, "Logs one line per session, in the form of HAProxy's `option tcplog`.",
		func(f *Frontend) *bool { return &f.TCPLog }),
}

var backendKeys = []Key{
	key("name", "", name, "The name in log lines and in the status. Default: the section's name.",
		func(b *Backend) *string { return &b.Name }),
	key("policy", "leader", oneOf(Leader, RoundRobin, LeastConn, First, Source), "`leader`: every session goes to the one confirmed leader. The others choose among all servers that are UP, as in HAProxy.",
		func(b *Backend) *Policy { return &b.Policy }),

	key("check", "http", oneOf(CheckHTTP, CheckTCP, CheckPgSQL, CheckNone), "How a server is probed. `tcp`: a connect. `pgsql`: a startup packet, and any well-formed answer. `none`: a server is always UP.",
		func(b *Backend) *CheckKind { return &b.Check }),
	key("check_method", "GET", oneOf("GET", "HEAD", "OPTIONS"), "HTTP method. Only `GET` brings Patroni's role and timeline.",
		func(b *Backend) *string { return &b.CheckMethod }),
	key("check_uri", "/primary", uri, "HTTP path and query.",
		func(b *Backend) *string { return &b.CheckURI }),
	list("check_header", header, "An extra header, `Name: value`. May be given several times.",
		func(b *Backend) *[]Header { return &b.CheckHeaders }),
	key("check_expect", "200", statuses, "HTTP status codes that count as success.",
		func(b *Backend) *StatusSet { return &b.CheckExpect }),
	key("check_body", "", text(256), "A text that the answer's body must hold.",
		func(b *Backend) *string { return &b.CheckBody }),
	key("check_user", "pointsman", text(63), "User name in the startup packet of a `pgsql` check. The user need not exist.",
		func(b *Backend) *string { return &b.CheckUser }),
	key("check_tls", "0", boolean, "Checks speak HTTPS.",
		func(b *Backend) *bool { return &b.CheckTLS }),
	key("check_ca", "", filePath, "PEM file of the authorities to trust. Default: those of the system.",
		func(b *Backend) *string { return &b.CheckCA }),
	key("check_cert", "", filePath, "PEM file of the client certificate.",
		func(b *Backend) *string { return &b.CheckCert }),
	key("check_key", "", filePath, "PEM file of the client certificate's key.",
		func(b *Backend) *string { return &b.CheckKey }),
	key("check_sni", "", hostName, "Server name to send and to verify. Default: the host of the server's address.",
		func(b *Backend) *string { return &b.CheckSNI }),
	key("check_insecure", "0", boolean, "Accepts any certificate.",
		func(b *Backend) *bool { return &b.CheckInsecure }),

	key("inter", "3s", duration(ms, day), "From the end of one check to the start of the next.",
		func(b *Backend) *dur { return &b.Inter }),
	key("fastinter", "250ms", duration(ms, day), "The same while the backend is in transition: it has no confirmed leader, an answer differs from the last, or a hint arrived.",
		func(b *Backend) *dur { return &b.FastInter }),
	key("downinter", "0", duration(0, day), "The same for a server that is DOWN. `0`: as `inter`.",
		func(b *Backend) *dur { return &b.DownInter }),
	key("fall", "3", integer(1, 255), "Failures in a row that mark an UP server DOWN.",
		func(b *Backend) *int { return &b.Fall }),
	key("rise", "2", integer(1, 255), "Successes in a row that mark a DOWN server UP.",
		func(b *Backend) *int { return &b.Rise }),
	key("timeout_check", "2s", duration(ms, minute), "Hard limit of one check: connect, write and read together. In transition at most 700 ms, or twice what the last answer took if that is more.",
		func(b *Backend) *dur { return &b.TimeoutCheck }),

	key("on_marked_down", "shutdown-sessions", oneOf(ShutdownSessions, KeepSessions, DrainSessions), "What happens to the sessions of a server that is marked DOWN. `drain`: they go on while the server lives (a replica that lags), and end when it shows no sign of life. Not for policy `leader`.",
		func(b *Backend) *MarkedDown { return &b.OnMarkedDown }),
	key("on_removed", "shutdown-sessions", oneOf(RemovedShutdown, RemovedDrain), "What happens to the sessions of a server that a reload removes. `drain`: they go on until they end, or until the next leader is confirmed.",
		func(b *Backend) *Removed { return &b.OnRemoved }),
	key("hold", "60s", duration(0, hour), "How long a client is held, its bytes unread, while no server can take it. `0`: refused at once.",
		func(b *Backend) *dur { return &b.Hold }),
	key("hold_max", "1024", integer(0, 1_000_000), "Clients that are held at once. Further ones are refused.",
		func(b *Backend) *int { return &b.HoldMax }),

	key("timeout_connect", "3s", duration(ms, hour), "Limit of one connect to a server.",
		func(b *Backend) *dur { return &b.TimeoutConnect }),
	key("timeout_queue", "0", duration(0, hour), "How long a client waits for a free slot of a server's `maxconn`. `0`: as `timeout_connect`.",
		func(b *Backend) *dur { return &b.TimeoutQueue }),
	key("timeout_server", "0", duration(0, day), "Ends a session whose server sent and took nothing for so long. `0`: never.",
		func(b *Backend) *dur { return &b.TimeoutServer }),
	key("timeout_server_fin", "0", duration(0, day), "The same once the server closed its sending side. `0`: as `timeout_server`.",
		func(b *Backend) *dur { return &b.TimeoutServerFin }),
	key("resolve", "30s", duration(second, day), "How often server names are looked up again. The last good answer is kept.",
		func(b *Backend) *dur { return &b.Resolve }),
}

var serverKeys = []Key{
	key("name", "", name, "The name in log lines and in the status. Default: the section's name (UCI names cannot hold `-`).",
		func(s *Server) *string { return &s.Name }),
	required("backend", backendName, "The backend that it belongs to.",
		func(s *Server) *string { return &s.Backend }),
	required("address", hostPort, "Where sessions go: `10.100.2.5:5432`, `[fd00::5]:5432` or `db1.lan:5432`.",
		func(s *Server) *HostPort { return &s.Address }),
	key("check_port", "", port, "Where checks go, on the same host. Default: the port of `address`. Patroni's REST API is on 8008.",
		func(s *Server) *uint16 { return &s.CheckPort }),
	key("check_uri", "", uri, "HTTP path and query of this server's checks. Default: the backend's. So can a node be a `backup` as long as it leads. Not for policy `leader`.",
		func(s *Server) *string { return &s.CheckURI }),
	key("maxconn", "0", integer(0, 1_000_000), "Sessions at once; beyond it clients wait, up to `timeout_queue`. `0`: no limit.",
		func(s *Server) *int { return &s.MaxConn }),
	key("weight", "1", integer(0, 256), "Share of new sessions among the servers of a backend that is not `leader`. `0`: none.",
		func(s *Server) *int { return &s.Weight }),
	key("backup", "0", boolean, "Serves only while every other server is down.",
		func(s *Server) *bool { return &s.Backup }),
}
