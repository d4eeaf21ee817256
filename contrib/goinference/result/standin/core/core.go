// Package core stands in for dappco.re/go as far as the adapter meets it: the
// type Result, written anew.
package core

// Result is the outcome of an operation. A failed one carries its error in
// Value, where callers take it by a type assertion.
type Result struct {
	Value any
	OK    bool
}

// Error is the text of a failure, empty for a success.
func (r Result) Error() string {
	if r.OK {
		return ""
	}
	if err, ok := r.Value.(error); ok {
		return err.Error()
	}
	return "unknown error"
}
