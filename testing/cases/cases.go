// Package cases says which of many alike cases a test tries: the places of a cut, the
// schedules that are drawn, the types of weights. Each case states the same, so fewer of them
// say it too, and every one is tried somewhere: by `mage test`, which sets the variable Env.
//
// The package is for this project's tests only.
package cases

import (
	"os"
	"testing"
)

// Env is the environment variable that asks for every case with the value "all".
const Env = "GOROCM_CASES"

// Of returns the number, or the list, for this run: all with GOROCM_CASES=all, short with
// -short, and usual otherwise, such as in `mage ci`.
func Of[T any](short, usual, all T) T {
	switch {
	case testing.Short():
		return short
	case os.Getenv(Env) == "all":
		return all
	}
	return usual
}
