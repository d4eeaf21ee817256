//go:build !unix

package bench

import "time"

// cpuTime is unknown on this platform; the table shows 0.
func cpuTime() (time.Duration, error) { return 0, nil }
