// Package torture repeats a fault and proves after every round that nothing of
// it is left: no process, no open file, no goroutine, no temporary file and no
// mount.
//
//	func TestMain(m *testing.M) { os.Exit(torture.Main(m)) }
//
//	func TestFault(t *testing.T) {
//		torture.Rounds(t, func(t *testing.T) { ... })
//	}
//
// GOROCM_TORTURE says how many rounds there are, one by default. What a round
// may leave is compared with what was there before the first of them, so that a
// leak too small to be seen in one round is seen in a hundred.
//
// It needs /proc and is for this project's tests alone.
package torture
