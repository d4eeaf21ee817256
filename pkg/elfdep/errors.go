package elfdep

import "errors"

// joined combines errors of one pass, so that a user sees all of them at once.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
