package haproxy

const (
	httpOnly   = "it is about HTTP, and only TCP sessions are carried over"
	noNeed     = "there is nothing to set here"
	logsOnly   = "what is logged, and how, is fixed; see `log_level` and `tcplog`"
	keepalives = "keepalive is always on, on both sides"
	tuning     = "the system does this here, or it is not needed"
	ruled      = "rules on sessions have no counterpart; use the router's firewall"
	matched    = "a choice by content or condition has no counterpart; give each backend a frontend and a port of its own"
	cookies    = "cookies are HTTP"
	sticky     = "stick tables have no counterpart; 'balance source' keeps a client on one server"
	otherCheck = "this check has no counterpart; use 'option tcp-check', or for PostgreSQL 'option pgsql-check user NAME' or Patroni's REST API by 'option httpchk'"
	tlsThrough = "pointsman does not encrypt: PostgreSQL's own TLS goes through as it is; leave 'ssl' and what belongs to it out"
	proxied    = "the PROXY protocol has no counterpart; leave it out on both sides"
	sourced    = "the source address is the router's choice; leave it out"
)

// otherSections are sections that carry no sessions. "" = no harm.
var otherSections = map[string]string{
	"peers": "", "resolvers": "", "mailers": "", "userlist": "", "cache": "", "ring": "", "http-errors": "",
	"program":     "let procd start the program",
	"log-forward": "use a syslog daemon",
	"fcgi-app":    httpOnly,
}

// half says which half of a proxy a keyword or timeout belongs to. The others
// belong to both.
var half = map[string]string{
	"bind": "frontend", "default_backend": "frontend", "use_backend": "frontend", "maxconn": "frontend",
	"balance": "backend", "retries": "backend", "default-server": "backend", "server": "backend",
	"http-check": "backend", "tcp-check": "backend",

	"timeout client": "frontend", "timeout client-fin": "frontend",
	"timeout connect": "backend", "timeout server": "backend", "timeout server-fin": "backend",
	"timeout queue": "backend", "timeout check": "backend", "timeout tunnel": "backend",

	"option tcplog": "frontend", "option httplog": "frontend",
	"option httpchk": "backend", "option pgsql-check": "backend", "option tcp-check": "backend",
	"option redispatch": "backend",
}

// harmless are keywords of a proxy that can be left out, and why.
var harmless = map[string]string{
	"log": logsOnly, "log-format": logsOnly, "log-format-sd": logsOnly, "error-log-format": logsOnly, "log-tag": logsOnly,
	"log-steps": logsOnly, "unique-id-format": logsOnly, "unique-id-header": logsOnly,
	"backlog": tuning, "fullconn": tuning, "hash-type": "the hash of 'balance source' is pointsman's own",
	"hash-balance-factor": "the hash of 'balance source' is pointsman's own",
	"description":         noNeed, "id": noNeed, "guid": noNeed, "bind-process": noNeed, "grace": noNeed, "enabled": noNeed,
	"load-server-state-from-file": "a reload keeps the state of what stays",
	"email-alert":                 "no mail is sent; the log and `pointsman events` tell",
	"stats":                       "`pointsman status` shows what the page did",
	"retry-on":                    httpOnly, "errorfile": httpOnly, "errorfiles": httpOnly, "errorloc": httpOnly, "errorloc302": httpOnly,
	"errorloc303": httpOnly, "http-reuse": httpOnly, "http-error": httpOnly, "max-keep-alive-queue": httpOnly,
	"monitor-uri": httpOnly, "http-send-name-header": httpOnly, "compression": httpOnly,
}

// refused are keywords of a proxy that would be missed, and what to do.
var refused = map[string]string{
	"acl": matched, "use-server": matched, "monitor": matched, "force-persist": matched, "ignore-persist": matched,
	"tcp-request": ruled, "tcp-response": ruled, "filter": ruled, "rate-limit": ruled, "declare": ruled, "capture": ruled,
	"http-request": httpOnly, "http-response": httpOnly, "http-after-response": httpOnly, "redirect": httpOnly,
	"cookie": cookies, "dynamic-cookie-key": cookies, "persist": cookies,
	"stick": sticky, "stick-table": sticky,
	"server-template":        "write a 'server' line for each server",
	"dispatch":               "write a 'server' line without 'check'",
	"source":                 sourced,
	"transparent":            sourced,
	"external-check":         otherCheck,
	"server-state-file-name": "leave it out: a reload keeps the state of what stays",
}

// harmlessOptions are options of a proxy that can be left out, and why.
var harmlessOptions = map[string]string{
	"tcpka": keepalives, "clitcpka": keepalives, "srvtcpka": keepalives,
	"dontlognull": logsOnly, "dontlog-normal": logsOnly, "log-separate-errors": logsOnly, "logasap": logsOnly,
	"log-health-checks": "changes of health are always logged", "socket-stats": noNeed, "contstats": noNeed,
	"splice-auto": tuning, "splice-request": tuning, "splice-response": tuning, "tcp-smart-accept": tuning,
	"tcp-smart-connect": tuning, "nolinger": tuning, "independent-streams": tuning, "idle-close-on-response": tuning,
	"abortonclose": "a client that gives up while it waits is always forgotten", "allbackups": "the first backup server that is UP serves",
	"redispatch":             "a client whose server cannot be reached always goes to whichever is right next",
	"forwardfor":             httpOnly,
	"forwarded":              httpOnly,
	"originalto":             httpOnly,
	"httpclose":              httpOnly,
	"checkcache":             httpOnly,
	"persist":                httpOnly,
	"forceclose":             httpOnly,
	"httpslog":               logsOnly,
	"restrict-req-hdr-names": httpOnly, "prefer-last-server": httpOnly, "accept-invalid-http-request": httpOnly,
	"accept-invalid-http-response": httpOnly, "http-server-close": httpOnly, "http-keep-alive": httpOnly,
	"http-ignore-probes": httpOnly, "http-no-delay": httpOnly, "http-pretend-keepalive": httpOnly,
	"http-use-proxy-header": httpOnly, "http-buffer-request": httpOnly, "http-restrict-req-hdr-names": httpOnly,
	"h1-case-adjust-bogus-client": httpOnly, "h1-case-adjust-bogus-server": httpOnly, "disable-h2-upgrade": httpOnly,
}

// refusedOptions are options of a proxy that would be missed, and what to do.
var refusedOptions = map[string]string{
	"mysql-check": otherCheck, "redis-check": otherCheck, "smtpchk": otherCheck, "ldap-check": otherCheck,
	"ssl-hello-chk": otherCheck, "spop-check": otherCheck, "external-check": otherCheck,
	"transparent": sourced, "http_proxy": httpOnly,
}

// harmlessTimeouts concern HTTP, TLS and rules alone.
var harmlessTimeouts = map[string]bool{"http-request": true, "http-keep-alive": true, "tarpit": true, "client-hs": true}

// param is a word of a `server` or `default-server` line, or of a `bind` line.
type param struct {
	args    int    // how many words belong to it
	ignored string // why it can be left out; "" = it is carried over
	refused string // what to do instead
}

const (
	hinted   = "a session that breaks always has its server asked at once"
	resolved = "names are looked up by the system; see `resolve`"
)

var serverParams = map[string]param{
	"check": {}, "backup": {}, "check-ssl": {}, "disabled": {},
	"no-check": {}, "no-backup": {}, "no-check-ssl": {}, "enabled": {},
	"port": {args: 1}, "addr": {args: 1}, "inter": {args: 1}, "fastinter": {args: 1}, "downinter": {args: 1},
	"rise": {args: 1}, "fall": {args: 1}, "weight": {args: 1}, "maxconn": {args: 1}, "on-marked-down": {args: 1},
	"check-sni": {args: 1}, "verify": {args: 1}, "verifyhost": {args: 1}, "ca-file": {args: 1}, "crt": {args: 1},

	"id": {args: 1, ignored: noNeed}, "guid": {args: 1, ignored: noNeed}, "cookie": {refused: cookies},
	"minconn":   {args: 1, ignored: "'maxconn' alone is the limit"},
	"maxqueue":  {args: 1, ignored: "`timeout_queue` alone ends the wait"},
	"slowstart": {args: 1, ignored: "a server that is UP gets its whole share at once"},
	"observe":   {args: 1, ignored: hinted}, "error-limit": {args: 1, ignored: hinted}, "on-error": {args: 1, ignored: hinted},
	"resolvers": {args: 1, ignored: resolved}, "init-addr": {args: 1, ignored: resolved}, "resolve-prefer": {args: 1, ignored: resolved},
	"resolve-net": {args: 1, ignored: resolved}, "resolve-opts": {args: 1, ignored: resolved},
	"sni":          {args: 1, ignored: "without 'ssl' it has no effect; 'check-sni' is for checks"},
	"force-tlsv12": {ignored: tuning}, "force-tlsv13": {ignored: tuning}, "ssl-min-ver": {args: 1, ignored: tuning},
	"ssl-max-ver": {args: 1, ignored: tuning}, "ciphers": {args: 1, ignored: tuning}, "ciphersuites": {args: 1, ignored: tuning},
	"no-sslv3": {ignored: tuning}, "no-tlsv10": {ignored: tuning}, "no-tlsv11": {ignored: tuning}, "no-ssl": {ignored: noNeed},
	"tfo": {ignored: tuning}, "no-tfo": {ignored: tuning}, "tcp-ut": {args: 1, ignored: "dead peers are always found"},
	"pool-max-conn": {args: 1, ignored: httpOnly}, "pool-low-conn": {args: 1, ignored: httpOnly},
	"pool-purge-delay": {args: 1, ignored: httpOnly}, "max-reuse": {args: 1, ignored: httpOnly}, "non-stick": {ignored: noNeed},
	"no-send-proxy": {ignored: noNeed}, "no-send-proxy-v2": {ignored: noNeed}, "no-agent-check": {ignored: noNeed},

	"ssl": {refused: tlsThrough + "; for checks over HTTPS there is 'check-ssl'"}, "alpn": {refused: tlsThrough}, "npn": {refused: tlsThrough},
	"ca-sign-file": {refused: tlsThrough}, "crl-file": {refused: "revoked certificates cannot be named; leave it out"},
	"send-proxy": {refused: proxied}, "send-proxy-v2": {refused: proxied}, "send-proxy-v2-ssl": {refused: proxied},
	"send-proxy-v2-ssl-cn": {refused: proxied}, "proxy-v2-options": {refused: proxied}, "check-send-proxy": {refused: proxied},
	"source": {refused: sourced}, "usesrc": {refused: sourced}, "interface": {refused: sourced}, "namespace": {refused: sourced},
	"agent-check": {refused: "agents have no counterpart; leave 'agent-…' out"}, "agent-port": {refused: "agents have no counterpart; leave 'agent-…' out"},
	"agent-inter": {refused: "agents have no counterpart; leave 'agent-…' out"}, "agent-addr": {refused: "agents have no counterpart; leave 'agent-…' out"},
	"agent-send":   {refused: "agents have no counterpart; leave 'agent-…' out"},
	"track":        {refused: "give this server a 'check' of its own"},
	"on-marked-up": {refused: "sessions on a backup server stay there until they end; leave it out"},
	"redir":        {refused: httpOnly}, "proto": {refused: httpOnly}, "check-proto": {refused: httpOnly}, "ws": {refused: httpOnly},
	"check-alpn": {refused: "checks speak HTTP/1.1; leave it out"}, "socks4": {refused: sourced}, "check-via-socks4": {refused: sourced},
	"stick": {refused: sticky}, "shard": {refused: sticky}, "log-proto": {refused: "use a syslog daemon"}, "set-proxy-v2-tlv-fmt": {refused: proxied},
}

var bindParams = map[string]param{
	"v4v6": {}, "v6only": {},
	"name": {args: 1, ignored: noNeed}, "id": {args: 1, ignored: noNeed}, "nice": {args: 1, ignored: tuning},
	"process": {args: 1, ignored: tuning}, "thread": {args: 1, ignored: tuning}, "shards": {args: 1, ignored: tuning},
	"tfo": {ignored: tuning}, "defer-accept": {ignored: tuning}, "backlog": {args: 1, ignored: tuning}, "mss": {args: 1, ignored: tuning},
	"tcp-ut": {args: 1, ignored: "dead peers are always found"}, "level": {args: 1, ignored: noNeed},
	"maxconn":     {refused: "write it as the frontend's 'maxconn'"},
	"transparent": {refused: "an address that the router does not have yet is taken up when it appears; leave it out"},
	"interface":   {refused: "name an address of that interface instead"}, "namespace": {refused: sourced},
	"accept-proxy": {refused: proxied}, "accept-netscaler-cip": {refused: proxied},
	"ssl": {refused: tlsThrough}, "crt": {refused: tlsThrough}, "ca-file": {refused: tlsThrough}, "crt-list": {refused: tlsThrough},
	"verify": {refused: tlsThrough}, "alpn": {refused: tlsThrough}, "proto": {refused: httpOnly},
}
