package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// textOf writes a field's value as a user would. "" is what is unset.
func textOf(value any) string {
	switch v := value.(type) {
	case bool:
		if v {
			return "1"
		}
		return "0"
	case uint16: // a port, of which 0 is none
		if v == 0 {
			return ""
		}
		return strconv.Itoa(int(v))
	case time.Duration:
		if v < 2*minute && v%second == 0 && v > 0 {
			return strconv.Itoa(int(v/second)) + "s"
		}
		return short(v)
	case netip.AddrPort:
		if v.Addr() == netip.IPv4Unspecified() {
			return ":" + strconv.Itoa(int(v.Port()))
		}
		return v.String()
	case HostPort:
		if v.Host == "" {
			return ""
		}
		return v.String()
	case Header:
		return v.Name + ": " + v.Value
	}
	return fmt.Sprint(value)
}
