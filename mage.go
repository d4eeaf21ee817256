//go:build ignore

// Command mage runs the targets of magefiles/ without an installed mage:
//
//	go run mage.go TARGET
package main

import (
	"os"

	"github.com/magefile/mage/mage"
)

func main() { os.Exit(mage.Main()) }
