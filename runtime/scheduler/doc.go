// Package scheduler decides which models are loaded, where, and who may use them.
//
// [Decide] is a pure function: it maps a [State] and a time to [Action] values, and
// changes nothing. [State.Apply] changes the state by one action, and the methods of
// State that are named after events change it by what happened. A [Scheduler] is the
// one goroutine that owns a State: it receives requests and events, calls Decide, and
// carries the actions out through the [Effects] interface.
//
// The package knows neither processes nor files. A model is a key, the placements
// that it can have, and what it holds; a place is a memory with a size: a card, or
// the main memory. Package rocm connects it with both in its Pool.
//
// A Scheduler is not a cache of results and not a queue of work: a lease says that a
// model stays loaded, not how many requests the model handles side by side.
package scheduler
