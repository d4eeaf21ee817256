// Package core is a stand-in for dappco.re/go. It has only the type that the adapter uses,
// Result, in a new implementation.
package core

// Result is the result of an operation. A failed one has the error as its Value, which
// callers read with a type assertion.
type Result struct {
	Value any
	OK    bool
}

// Error returns the text of a failure, or "" for a success.
func (r Result) Error() string {
	if r.OK {
		return ""
	}
	if err, ok := r.Value.(error); ok {
		return err.Error()
	}
	return "unknown error"
}
