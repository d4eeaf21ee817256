// Package assets holds the files that packages ship or run beside the program:
// the systemd unit with its user and directories, the settings file and the
// maintainer scripts.
//
// They are plain files, so that each is read, checked and changed with the tools
// of its own kind. What they become in a package (name, mode, owner) is the
// business of packaging/deb.
package assets

import "embed"

// Debian holds the files of the Debian packages under "debian/".
//
//go:embed debian
var Debian embed.FS
