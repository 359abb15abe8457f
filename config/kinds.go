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
	return Key{Name: name, Default: def, Allowed: k.allowed, Doc: doc, set: func(dst any, text string) error {
		v, err := k.parse(text)
		if err == nil {
			*field(dst.(*S)) = v
		}
		return err
	}}
}

func required[S, T any](name string, k kind[T], doc string, field func(*S) *T) Key {
	out := key(name, "", k, doc, field)
	out.Required = true
	return out
}

func list[S, T any](name string, k kind[T], doc string, field func(*S) *[]T) Key {
	return Key{Name: name, List: true, Allowed: k.allowed, Doc: doc, set: func(dst any, text string) error {
		v, err := k.parse(text)
		if err == nil {
			values := field(dst.(*S))
			*values = append(*values, v)
		}
		return err
	}}
}

// boolean takes libuci's words for true and false.
var boolean = kind[bool]{"`0` or `1` (also no/yes, off/on, false/true, disabled/enabled)", func(text string) (bool, error) {
	switch text {
	case "1", "on", "true", "yes", "enabled":
		return true, nil
	case "0", "off", "false", "no", "disabled":
		return false, nil
	}
	return false, errors.New("not a boolean")
}}

func integer(min, max int) kind[int] {
	return kind[int]{fmt.Sprintf("a whole number, %d to %d", min, max), func(text string) (int, error) {
		n, err := strconv.Atoi(text)
		if errors.Is(err, strconv.ErrRange) {
			return 0, errors.New("out of range")
		}
		if err != nil {
			return 0, errors.New("not a whole number")
		}
		if n < min || n > max {
			return 0, errors.New("out of range")
		}
		return n, nil
	}}
}

var port = kind[uint16]{"a port, 1 to 65535", func(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("not a port")
	}
	return uint16(n), nil
}}

// duration takes 500ms, 3s, 1m30s, 1d or, as HAProxy, a bare number of milliseconds.
func duration(min, max time.Duration) kind[time.Duration] {
	allowed := fmt.Sprintf("a duration, %s to %s (`500ms`, `3s`, `1m`, `1h`, `1d`; a bare number is milliseconds)", short(min), short(max))
	return kind[time.Duration]{allowed, func(text string) (time.Duration, error) {
		d, err := parseDuration(text)
		if err != nil {
			return 0, errors.New("not a duration")
		}
		if d < min || d > max {
			return 0, errors.New("out of range")
		}
		return d, nil
	}}
}

func parseDuration(text string) (time.Duration, error) {
	if n, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(n) * time.Millisecond, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * day, err
	}
	return time.ParseDuration(text)
}

// short writes a duration without the zero parts that time.Duration adds.
func short(d time.Duration) string {
	switch {
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
		return "", errors.New("unknown value")
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
		return "", errors.New("not a name")
	}
	for _, c := range []byte(text) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			c == '-', c == '_', c == '.', c == ':':
		default:
			return "", errors.New("not a name")
		}
	}
	return text, nil
}}

var path = kind[string]{"an absolute path, at most 107 bytes; empty for none", func(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	// 107 is sun_path less its final NUL (unix(7)); long enough for PEM files too.
	if text[0] != '/' || len(text) > 107 || !printable(text) {
		return "", errors.New("not an absolute path")
	}
	return text, nil
}}

var uri = kind[string]{"a path that begins with `/`, without white space, at most 1024 bytes", func(text string) (string, error) {
	if text == "" || text[0] != '/' || len(text) > 1024 || strings.ContainsAny(text, " \t#") || !printable(text) {
		return "", errors.New("not a path")
	}
	return text, nil
}}

func text(max int) kind[string] {
	return kind[string]{fmt.Sprintf("printable text, at most %d bytes", max), func(text string) (string, error) {
		if len(text) > max || !printable(text) {
			return "", errors.New("not printable text of that length")
		}
		return text, nil
	}}
}

var header = kind[Header]{"`Name: value`", func(line string) (Header, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok || name == "" || !printable(line) || strings.ContainsAny(name, " \t") {
		return Header{}, errors.New("not a header")
	}
	return Header{name, strings.TrimSpace(value)}, nil
}}

var statuses = kind[StatusSet]{"status codes and ranges, 100 to 599: `200`, `200-299,404`", func(text string) (StatusSet, error) {
	var set StatusSet
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || low < 100 || high > 599 || low > high {
			return nil, errors.New("not a list of status codes")
		}
		set = append(set, StatusRange{low, high})
	}
	return set, nil
}}

// address is a listening address; as in HAProxy, no host or `*` is every IPv4 address.
var address = kind[netip.AddrPort]{"`ADDRESS:PORT`, `:PORT`, `*:PORT` or `[IPv6]:PORT`, the port 1 to 65535", func(text string) (netip.AddrPort, error) {
	host, portText, err := splitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	p, err := port.parse(portText)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" || host == "*" {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), p), nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, errors.New("not an IP address")
	}
	return netip.AddrPortFrom(ip.Unmap(), p), nil
}}

// hostPort is a server's address. Link-local IPv6 addresses may carry a zone.
var hostPort = kind[HostPort]{"`HOST:PORT` or `[IPv6]:PORT`, the host an IP address or a name, the port 1 to 65535", func(text string) (HostPort, error) {
	host, portText, err := splitHostPort(text)
	if err != nil {
		return HostPort{}, err
	}
	p, err := port.parse(portText)
	if err != nil {
		return HostPort{}, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return HostPort{}, errors.New("not the address of a host")
		}
		return HostPort{ip.Unmap().String(), p}, nil
	}
	if !isHostname(host) {
		return HostPort{}, errors.New("not a host name")
	}
	return HostPort{host, p}, nil
}}

func splitHostPort(text string) (host, port string, err error) {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return "", "", errors.New("lacks a port")
	}
	host, port = text[:i], text[i+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(inner, ":") {
			return "", "", errors.New("not an IPv6 address in brackets")
		}
		return inner, port, nil
	}
	if strings.Contains(host, ":") {
		return "", "", errors.New("an IPv6 address needs brackets")
	}
	return host, port, nil
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
