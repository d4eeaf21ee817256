//go:build ignore

// Command mage runs the targets of magefiles/ without an installed mage:
//
//	go run mage.go TARGET
package main

import (
	"fmt"
	"os"

	"github.com/magefile/mage/mage"
)

func main() { os.Exit(run()) }

// run runs mage. Without HOME, mage would write its cache to .magefile/ in the checkout,
// which would then differ from its commit; a temporary directory is used instead.
func run() int {
	if os.Getenv("HOME") == "" && os.Getenv("MAGEFILE_CACHE") == "" {
		dir, err := os.MkdirTemp("", "magefile-")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			err = os.Setenv("MAGEFILE_CACHE", dir)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "create a cache directory for mage: %v; set HOME or MAGEFILE_CACHE\n", err)
			return 1
		}
	}
	return mage.Main()
}
