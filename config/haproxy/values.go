package haproxy

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pointsman/config"
)

// units are those of HAProxy's durations; a bare number is milliseconds.
var units = map[string]time.Duration{
	"us": time.Microsecond, "": time.Millisecond, "ms": time.Millisecond, "s": time.Second,
	"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// duration reads one of HAProxy's durations. Like HAProxy it rounds
// microseconds up to the millisecond, and takes no more than 2^31-1 ms.
func duration(text string) (time.Duration, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz")
	n, err := strconv.ParseUint(digits, 10, 32)
	unit, known := units[text[len(digits):]]
	if err != nil || !known {
		return 0, errors.New("is no duration; want a whole number and us, ms, s, m, h or d")
	}
	const longest = math.MaxInt32 * time.Millisecond
	if time.Duration(n) > longest/unit {
		return 0, errors.New("is more than HAProxy takes, 24 days")
	}
	d := time.Duration(n) * unit
	return (d + time.Millisecond - 1).Truncate(time.Millisecond), nil
}

// statuses returns the codes for which want is true.
func statuses(want func(code int) bool) config.StatusSet {
	var set config.StatusSet
	for code := 100; code <= 599; code++ {
		switch last := len(set) - 1; {
		case !want(code):
		case last >= 0 && set[last].To == code-1:
			set[last].To = code
		default:
			set = append(set, config.StatusRange{From: code, To: code})
		}
	}
	return set
}

// expected reads the argument of `http-check expect [!] status` or rstatus.
func expected(kind, pattern string, not bool) (config.StatusSet, error) {
	var matches func(code int) bool
	if kind == "rstatus" {
		re, err := regexp.Compile(pattern)
		if err != nil {
			return nil, errors.New("is a regular expression that is not understood here; use 'http-check expect status' and list the codes")
		}
		matches = func(code int) bool { return re.MatchString(strconv.Itoa(code)) }
	} else {
		var b config.Backend
		if err := config.Lookup("backend").Key("check_expect").Set(&b, pattern); err != nil {
			return nil, errors.New("is not allowed; want status codes and ranges, 100 to 599, as 200 or 200-299,404")
		}
		if !not {
			return b.CheckExpect, nil
		}
		matches = b.CheckExpect.Contains
	}
	set := statuses(func(code int) bool { return matches(code) != not })
	if set == nil {
		return nil, errors.New("matches no status code")
	}
	return set, nil
}

// address takes HAProxy's address apart: a host, which may be empty, and a
// port, which may be empty too. The host of IPv6 comes without brackets.
func address(text string) (host, port string, err error) {
	if i := strings.IndexByte(text, '$'); i >= 0 {
		// Of addresses HAProxy expands them also without quotes.
		return "", "", fmt.Errorf("cannot be read: %w", variable(text[i:]))
	}
	for _, family := range []string{"ipv4@", "ipv6@", "tcp4@", "tcp6@", "tcp@"} {
		if rest, ok := strings.CutPrefix(text, family); ok {
			text = rest
			break
		}
	}
	if strings.Contains(text, "@") || strings.HasPrefix(text, "/") {
		return "", "", errors.New("is not a TCP address; only IP addresses and names with a port can be carried over")
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, port, ok = strings.Cut(inner, "]")
		if !ok || port != "" && port[0] != ':' {
			return "", "", errors.New("has a bracket that is not closed")
		}
		return host, strings.TrimPrefix(port, ":"), nil
	}
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		return text[:i], text[i+1:], nil // as HAProxy: the last colon, also of IPv6
	}
	return text, "", nil
}

// hostPort joins what address has taken apart, as config wants it.
func hostPort(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}
