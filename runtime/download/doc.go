// Package download fetches large files over HTTP, and continues after cuts.
//
// A file is fetched in ranges, several at once, and written at its place. What came
// is noted in chunks beside the file, so that a download continues in another
// process. Memory is bounded: a buffer for each connection. The digest is computed
// while the bytes come.
//
// The server is not trusted. Each answer must have the range that was asked for, the
// size that the other answers had, no content encoding, and an unchanged ETag; then
// the digest of the whole decides. A caller can check the beginning of the file
// before the rest comes.
//
// Credentials belong to a host. They are added to requests to that host alone, over
// TLS or to this machine, so no redirect takes them elsewhere. Errors contain no
// query of a URL, since redirects of hubs have signatures there.
//
// The HTTP semantics are those of RFC 9110: ranges in section 14, If-Range in 13.1.5,
// Retry-After in 10.2.3.
package download
