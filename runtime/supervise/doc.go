// Package supervise runs one llama-server process for as long as a Go program
// needs it, and tells the truth about it: whether it is ready, why it died,
// whether it still makes tokens.
//
// Why it exists: a GPU server that outlives its parent keeps the GPU's memory,
// one that answers /health may have stopped decoding, and one that listens on a
// TCP port may not be ours at all. The package answers each of these:
//
//   - The child is started from a thread that is locked for the child's whole
//     life, with PR_SET_PDEATHSIG, in a process group of its own, with an open
//     pipe as its standard input (llama-server ends when that closes).
//   - It listens on a unix socket in a folder that only we may enter; each
//     connection's peer is checked with SO_PEERCRED.
//   - Its environment is scrubbed of everything that could change what it does.
//   - Readiness is learned from /health, woken by the child's own log lines.
//   - Life is judged by token progress in /slots and only while requests run,
//     so that a sleeping server is not woken by looking.
//   - Deaths are recognised from real log lines and come with a remedy.
//
// # States
//
// One goroutine owns the state; every change goes to slog and to subscribers.
//
//	Starting  the process runs and its socket does not answer yet
//	Loading   the socket answers 503: the model is being loaded
//	Ready     /health said 200 once; requests are let through
//	Stalled   requests run and no token moved for StallTimeout
//	Stopping  Stop was called: draining, then the ladder of signals
//	Stopped   ended as asked (final)
//	Failed    ended, and the policy does not start it again (final)
//
//	Starting → Loading → Ready ⇄ Stalled
//	any of them → Starting    the process ended and the policy starts another
//	any of them → Stopping → Stopped
//	any of them → Failed
//
// The package knows processes and sockets. It knows neither bundles nor models
// nor what the arguments mean, and speaks no more HTTP than it needs to judge
// the child.
package supervise
