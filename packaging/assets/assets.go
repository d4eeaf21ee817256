// Package assets embeds the files of the Debian packages other than the program: the
// systemd unit with its user and directories, the configuration file, the maintainer
// scripts, and a dashboard and alert rules for monitoring.
//
// They are plain files, so that the usual tools can read, check and change them.
// Package packaging/deb determines their name, mode and owner in a package.
package assets

import "embed"

// Debian contains the files of the Debian packages below "debian/".
//
//go:embed debian
var Debian embed.FS

// Monitoring contains a dashboard for Grafana and rules for Prometheus below
// "monitoring/".
//
//go:embed monitoring/dashboard.json monitoring/alerts.yml
var Monitoring embed.FS
