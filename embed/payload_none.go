//go:build nopayload

package payload

import "embed"

// embedded is empty in a program that is installed beside its bundle.
var embedded embed.FS
