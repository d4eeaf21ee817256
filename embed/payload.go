//go:build !nopayload

package payload

import "embed"

// The pattern is the directory, so that the program compiles with any number of
// parts in it, even none. Names that begin with a dot or underscore are not embedded.
//
//go:embed payload
var embedded embed.FS
