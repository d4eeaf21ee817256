//go:build !unix

package download

import "os"

// checkSpace does nothing: writing tells.
func checkSpace(*os.File, int64) error { return nil }
