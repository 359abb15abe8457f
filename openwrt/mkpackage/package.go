package main

import (
	"fmt"
	"time"

	"pointsman/openwrt"
	"pointsman/openwrt/ipk"
)

// release counts packages of the same version of the program.
const release = 1

// The scripts that OpenWrt's build gives to every package (package-pack.mk):
// functions.sh enables and starts what is in /etc/init.d, and stops it again.
const (
	postinst = `#!/bin/sh
[ "${IPKG_NO_SCRIPT}" = "1" ] && exit 0
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_postinst $0 $@
`
	prerm = `#!/bin/sh
[ -s ${IPKG_INSTROOT}/lib/functions.sh ] || exit 0
. ${IPKG_INSTROOT}/lib/functions.sh
default_prerm $0 $@
`
)

// newPackage is the package of a program for one architecture. Modes are those
// of OpenWrt's INSTALL_BIN and INSTALL_CONF.
func newPackage(architecture, version string, program []byte, when time.Time) *ipk.Package {
	return &ipk.Package{
		Name:         "pointsman",
		Version:      fmt.Sprintf("%s-r%d", version, release),
		Architecture: architecture,
		Depends:      "libc",
		Source:       "feeds/packages/net/pointsman",
		License:      "MIT",
		Section:      "net",
		Maintainer:   "the pointsman authors",
		Description: `Follows the PostgreSQL leader that Patroni elects
Accepts PostgreSQL sessions on the router and sends every one to the leader of
a Patroni cluster. Ends the sessions of a deposed leader at once, and holds new
clients while there is none.`,
		Files: []ipk.File{
			{Path: "/usr/sbin/pointsman", Mode: 0o755, Data: program},
			{Path: "/etc/init.d/pointsman", Mode: 0o755, Data: openwrt.Init},
			{Path: "/etc/config/pointsman", Mode: 0o600, Data: openwrt.Config},
		},
		Conffiles: []string{"/etc/config/pointsman"},
		Scripts:   map[string]string{"postinst": postinst, "prerm": prerm},
		Time:      when,
	}
}
