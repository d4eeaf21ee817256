//go:build nopayload

package payload

import "embed"

// built is empty in a program that is installed beside its bundle.
var built embed.FS
