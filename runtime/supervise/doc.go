// Package supervise runs one llama-server process for as long as a Go program
// needs it, and reports its real state: whether it is ready, why it exited, and
// whether it still produces tokens.
//
// A GPU server that outlives its parent keeps the GPU's memory. A server that
// answers /health may have stopped decoding. A server on a TCP port may not be
// the one that was started. The package handles each of these:
//
//   - The child is started from a thread that stays locked for the child's whole
//     life, with PR_SET_PDEATHSIG, in its own process group. Its standard input
//     is an open pipe; llama-server exits when that pipe closes.
//   - The child listens on a unix socket in a directory that only this user may
//     enter. SO_PEERCRED checks the peer of each connection.
//   - Variables that could change the child's behaviour are removed from its
//     environment.
//   - Readiness is read from /health. The child's own log lines trigger the checks.
//   - Liveness is judged by token progress in /slots, and only while requests run,
//     so that the check does not wake a sleeping server.
//   - Exits are diagnosed from real log lines and carry a remedy.
//
// # States
//
// One goroutine owns the state. Every change goes to slog and to subscribers.
//
//	Starting  the process runs and its socket does not answer yet
//	Loading   the socket answers 503: the model is being loaded
//	Ready     /health answered 200: requests are forwarded
//	Stalled   requests run and no token was produced for StallTimeout
//	Stopping  Stop was called: drain, then increasingly forceful signals
//	Stopped   stopped on request (final)
//	Failed    exited, and the policy does not restart it (final)
//
//	Starting → Loading → Ready ⇄ Stalled
//	any state → Starting    the process exited and the policy restarts it
//	any state → Stopping → Stopped
//	any state → Failed
//
// # Where to read
//
// A start of a child runs through four files: child_linux.go (Start and the
// Child's methods), run_linux.go (the loop that owns the state),
// process_linux.go (one process, from fork to reaping) and startup_linux.go
// (from the fork to Ready).
//
// The package handles processes and sockets. It has no knowledge of bundles,
// models or the meaning of arguments, and uses no more of llama-server's HTTP API
// than /health and /slots.
package supervise
