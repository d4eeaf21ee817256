// Package torture repeats the injection of a fault and checks for leaks after every
// round: processes, open files, goroutines, temporary files and mounts.
//
//	func TestMain(m *testing.M) { os.Exit(torture.Main(m.Run)) }
//
//	func TestFault(t *testing.T) {
//		torture.Rounds(t, func(t *testing.T) { ... })
//	}
//
// GOROCM_TORTURE is the number of rounds, one by default. Each check compares with the
// state before the first round, so that a leak too small for one round is found in a
// hundred.
//
// The package needs /proc and is for the tests of this project alone.
package torture
