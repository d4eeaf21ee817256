//go:build !nopayload

package payload

import "embed"

// The pattern names the folder, so that the program compiles with any number
// of parts in it, none included; embedding leaves out names that begin with a
// dot or underscore.
//
//go:embed payload
var built embed.FS
