// Package openwrt holds the files that the OpenWrt package installs beside the
// program, as they are shipped.
package openwrt

import _ "embed"

// Config is /etc/config/pointsman, in UCI's syntax.
//
//go:embed files/pointsman.config
var Config []byte

// Init is /etc/init.d/pointsman, a script for rc.common and procd.
//
//go:embed files/pointsman.init
var Init []byte
