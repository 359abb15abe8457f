package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

type (
	dur      = time.Duration
	addrPort = netip.AddrPort
)

const (
	ms     = time.Millisecond
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
)

// kind is one form of value: how it is parsed, and how it is described.
type kind[T any] struct {
	allowed string
	parse   func(string) (T, error)
}

func key[S, T any](name, def string, k kind[T], doc string, field func(*S) *T) Key {
	set := func(dst any, text string) error {
		v, err := k.parse(text)
		if err == nil {
			*field(dst.(*S)) = v
		}
		return err
	}
	get := func(src any) []any { return []any{*field(src.(*S))} }
	return Key{Name: name, Default: def, Allowed: k.allowed, Doc: doc, set: set, get: get}
}

func required[S, T any](name string, k kind[T], doc string, field func(*S) *T) Key {
	out := key(name, "", k, doc, field)
	out.Required = true
	return out
}

func list[S, T any](name string, k kind[T], doc string, field func(*S) *[]T) Key {
	set := func(dst any, text string) error {
		v, err := k.parse(text)
		if err == nil {
			values := field(dst.(*S))
			*values = append(*values, v)
		}
		return err
	}
	get := func(src any) []any {
		var values []any
		for _, v := range *field(src.(*S)) {
			values = append(values, v)
		}
		return values
	}
	return Key{Name: name, List: true, Allowed: k.allowed, Doc: doc, set: set, get: get}
}

// errNotAllowed is for values whose kind says all there is to say.
var errNotAllowed = errors.New("is not allowed")

// boolean takes libuci's words for true and false.
var boolean = kind[bool]{"`0` or `1` (also no/yes, off/on, false/true, disabled/enabled)", func(text string) (bool, error) {
	switch text {
	case "1", "on", "true", "yes", "enabled":
		return true, nil
	case "0", "off", "false", "no", "disabled":
		return false, nil
	}
	return false, errNotAllowed
}}

func integer(min, max int) kind[int] {
	return kind[int]{fmt.Sprintf("a whole number, %d to %d", min, max), func(text string) (int, error) {
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil || int(n) < min || int(n) > max {
			return 0, errNotAllowed
		}
		return int(n), nil
	}}
}

var port = kind[uint16]{"a port, 1 to 65535", func(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errNotAllowed
	}
	return uint16(n), nil
}}

// duration takes 500ms, 3s, 1m30s, 1d or, as HAProxy, a bare number of milliseconds.
func duration(min, max time.Duration) kind[time.Duration] {
	allowed := fmt.Sprintf("a duration, %s to %s (`500ms`, `3s`, `1m`, `1h`, `1d`; a bare number is milliseconds)", short(min), short(max))
	return kind[time.Duration]{allowed, func(text string) (time.Duration, error) {
		d, err := parseDuration(text)
		if err != nil || d < min || d > max {
			return 0, errNotAllowed
		}
		if d%ms != 0 {
			return 0, errors.New("is finer than a millisecond")
		}
		return d, nil
	}}
}

func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(n) * ms, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * day, err
	}
	if strings.ContainsAny(text, "+-") {
		return 0, errNotAllowed
	}
	return time.ParseDuration(text)
}

// short writes a duration without the zero parts that time.Duration adds.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d >= day && d%day == 0:
		return strconv.Itoa(int(d/day)) + "d"
	case d >= hour && d%hour == 0:
		return strconv.Itoa(int(d/hour)) + "h"
	case d >= minute && d%minute == 0:
		return strconv.Itoa(int(d/minute)) + "m"
	}
	return d.String()
}

func oneOf[T ~string](values ...T) kind[T] {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = "`" + string(v) + "`"
	}
	return kind[T]{"one of " + strings.Join(quoted, ", "), func(text string) (T, error) {
		for _, v := range values {
			if text == string(v) {
				return v, nil
			}
		}
		return "", errNotAllowed
	}}
}

// printable reports whether text can stand in a log line as it is.
func printable(text string) bool {
	for _, r := range text {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return false
		}
	}
	return true
}

// name is what may stand in a log line and in HAProxy's CSV without quoting.
var name = kind[string]{"letters, digits, `-`, `_`, `.` and `:`, at most 63", func(text string) (string, error) {
	if text == "" || len(text) > 63 {
		return "", errNotAllowed
	}
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == ':':
		default:
			return "", errNotAllowed
		}
	}
	return text, nil
}}

// backendName refers to a section; whether it is there is for Check to say.
var backendName = kind[string]{"the name of a backend", name.parse}

// socketPath takes `none`, because an option that is set to nothing is unset in
// UCI, and so has its default.
var socketPath = kind[string]{"an absolute path, at most 107 bytes, or `none`", func(text string) (string, error) {
	if text == "none" {
		return "", nil
	}
	return absolutePath(text, 107) // sun_path less its final NUL (unix(7))
}}

var filePath = kind[string]{"an absolute path", func(text string) (string, error) {
	return absolutePath(text, 4095) // PATH_MAX less its final NUL (limits.h)
}}

func absolutePath(text string, max int) (string, error) {
	switch {
	case text == "" || !printable(text):
		return "", errNotAllowed
	case text[0] != '/':
		return "", errors.New("does not begin with '/'")
	case len(text) > max:
		return "", errors.New("is too long")
	}
	return text, nil
}

var uri = kind[string]{"a path that begins with `/`, in ASCII without blanks and `#`, at most 1024 bytes", func(text string) (string, error) {
	if text == "" || text[0] != '/' || len(text) > 1024 {
		return "", errNotAllowed
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' || c == '#' {
			return "", errNotAllowed
		}
	}
	return text, nil
}}

func text(max int) kind[string] {
	return kind[string]{fmt.Sprintf("printable text, at most %d bytes", max), func(text string) (string, error) {
		if len(text) > max || !printable(text) {
			return "", errNotAllowed
		}
		return text, nil
	}}
}

var header = kind[Header]{"`Name: value`", func(line string) (Header, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) || !printable(line) {
		return Header{}, errNotAllowed
	}
	switch strings.ToLower(name) {
	case "connection", "content-length", "transfer-encoding":
		return Header{}, errors.New("is a header that the check sets itself")
	}
	return Header{name, strings.TrimSpace(value)}, nil
}}

// isToken reports whether name may be the name of a header (RFC 9110, 5.6.2).
func isToken(name string) bool {
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)):
			return false
		}
	}
	return name != ""
}

var statuses = kind[StatusSet]{"status codes and ranges, 100 to 599: `200`, `200-299,404`", func(text string) (StatusSet, error) {
	var set StatusSet
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || low < 100 || high > 599 || low > high {
			return nil, errNotAllowed
		}
		set = append(set, StatusRange{int(low), int(high)})
	}
	return set, nil
}}

// address is a listening address; as in HAProxy, no host or `*` is every IPv4 address.
var address = kind[netip.AddrPort]{"`ADDRESS:PORT`, `:PORT`, `*:PORT` or `[IPv6]:PORT`, the port 1 to 65535", func(text string) (netip.AddrPort, error) {
	host, p, err := splitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" || host == "*" {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), p), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !isUnicast(ip.Unmap()) {
		return netip.AddrPort{}, errors.New("is not an address to listen on")
	}
	return netip.AddrPortFrom(ip.Unmap(), p), nil
}}

// hostPort is a server's address. Link-local IPv6 addresses may carry a zone.
var hostPort = kind[HostPort]{"`HOST:PORT` or `[IPv6]:PORT`, the host an IP address or a name, the port 1 to 65535", func(text string) (HostPort, error) {
	host, p, err := splitHostPort(text)
	if err != nil {
		return HostPort{}, err
	}
	host, err = parseHost(host)
	return HostPort{host, p}, err
}}

var hostName = kind[string]{"a host name or an IP address", parseHost}

func parseHost(host string) (string, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if ip.IsUnspecified() || !isUnicast(ip) {
			return "", errors.New("is not the address of a host")
		}
		return ip.String(), nil
	}
	if !isHostname(host) {
		return "", errors.New("is neither an IP address nor a host name")
	}
	return host, nil
}

func isUnicast(ip netip.Addr) bool {
	return !ip.IsMulticast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func splitHostPort(text string) (host string, p uint16, err error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", 0, errors.New("lacks `:PORT`")
	}
	host = text[:i]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(inner, "]")
		if ip, err := netip.ParseAddr(host); !ok || err != nil || !ip.Is6() {
			return "", 0, errors.New("has no IPv6 address in its brackets, or lacks `:PORT`")
		}
	} else if strings.Contains(host, ":") {
		return "", 0, errors.New("is an IPv6 address without brackets, or has a `:` too many")
	}
	p, err = port.parse(text[i+1:])
	if err != nil {
		return "", 0, errors.New("has a port that is not allowed")
	}
	return host, p, nil
}

// isHostname follows RFC 1123, and lets `_` pass as resolvers do. A name of
// digits and dots alone is a mistyped IPv4 address.
func isHostname(host string) bool {
	if host == "" || len(host) > 253 {
		return false
	}
	digitsOnly := true
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			switch {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '-', c == '_':
				digitsOnly = false
			default:
				return false
			}
		}
	}
	return !digitsOnly
}
