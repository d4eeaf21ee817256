package fakellama

import (
	"errors"
	"fmt"
	"syscall"
)

// Validate returns an error for an invalid script, including faults that could
// never happen.
func (s Script) Validate() error {
	errs := []error{
		noneNegative(
			number{"slots", int64(s.Slots)}, number{"context_len", int64(s.ContextLen)}, number{"ping_every", int64(s.PingEvery)},
			number{"token_delay", int64(s.TokenDelay)}, number{"prompt_delay", int64(s.PromptDelay)}, number{"load_time", int64(s.LoadTime)},
		),
		s.Process.validate(),
	}
	switch s.Health {
	case HealthOK, HealthWrong, HealthError, HealthHang, HealthLoading:
	default:
		errs = append(errs, fmt.Errorf("unknown health %q", s.Health))
	}
	for i, f := range s.Faults {
		if err := f.validate(); err != nil {
			errs = append(errs, fmt.Errorf("fault %d (%s): %w", i, f.Kind, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("fakellama script: %w", err)
	}
	return nil
}

func (f Fault) validate() error {
	errs := []error{noneNegative(
		number{"request", int64(f.Request)}, number{"after_tokens", int64(f.AfterTokens)},
		number{"after_bytes", int64(f.AfterBytes)}, number{"bytes", int64(f.Bytes)},
	)}
	reject := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	reject(f.AfterBytes > 0 && !f.Kind.atAnyByte(), "after_bytes is for cut, crash, stall and wedge: use after_tokens")
	reject(f.Signal != 0 && f.Kind != KindCrash, "signal is for crash")
	switch f.Kind {
	case KindStall, KindWedge, KindCut, KindCutRune, KindNoFinal, KindGarbage:
	case KindCrash:
		reject(f.Signal != 0 && !deadly(syscall.Signal(f.Signal)), "signal %d ends no process", f.Signal)
	case KindStatus, KindHangEnd, KindTrickle, KindNoAnswer, KindFlood:
		reject(f.AfterTokens > 0, "it has no place: leave after_tokens out")
		reject(f.Kind == KindFlood && f.Bytes == 0, "set its bytes")
		reject(f.Kind == KindStatus && !isError(f.Status), "%d is no error status", f.Status)
	case KindOversize:
		reject(f.Bytes == 0, "set its bytes")
	case KindError:
		reject(f.Status != 0 && !isError(f.Status), "%d is no error status", f.Status)
	default:
		reject(true, "unknown kind")
	}
	return errors.Join(errs...)
}

// atAnyByte reports whether the fault can happen at any byte.
func (k Kind) atAnyByte() bool {
	return k == KindCut || k == KindCrash || k == KindStall || k == KindWedge
}

func isError(status int) bool { return status >= 400 && status <= 599 }

func (p Process) validate() error {
	errs := []error{noneNegative(number{"flood_bytes", p.FloodBytes})}
	if p.ExitCode < 0 || p.ExitCode > 255 {
		errs = append(errs, fmt.Errorf("exit_code %d is not within 0 and 255", p.ExitCode))
	}
	if p.ExitSignal != 0 && !deadly(syscall.Signal(p.ExitSignal)) {
		errs = append(errs, fmt.Errorf("exit_signal: signal %d ends no process", p.ExitSignal))
	}
	if (p.ExitCode != 0 || p.ExitSignal != 0) && !p.ExitEarly && !p.ExitAfterLoad {
		errs = append(errs, errors.New("exit_code and exit_signal need a time: set exit_early or exit_after_load"))
	}
	return errors.Join(errs...)
}

// number is a member of a script.
type number struct {
	name  string
	value int64
}

func noneNegative(numbers ...number) error {
	var errs []error
	for _, n := range numbers {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", n.name))
		}
	}
	return errors.Join(errs...)
}
