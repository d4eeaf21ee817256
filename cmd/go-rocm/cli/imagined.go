package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// imagined says for what other machine than this one to plan.
type imagined struct{ card, memory string }

func (im *imagined) register(fs *pflag.FlagSet) {
	fs.StringVar(&im.card, "card", "", "plan for a free card that need not be there, by target and memory, such as gfx1101:16GiB")
	fs.StringVar(&im.memory, "memory", "", "plan for so much main memory, such as 64GiB")
}

// machine reads this machine and replaces what is imagined.
func (im *imagined) machine(s rocm.Settings) (*rocm.Machine, error) {
	m, err := rocm.NewMachine(s)
	if err != nil {
		return nil, err
	}
	if im.memory != "" {
		if m.HostMemory, err = parseSize(im.memory); err != nil {
			return nil, fmt.Errorf("%w: --memory: %w", errUsage, err)
		}
	}
	if im.card == "" {
		return m, nil
	}
	target, bytes, err := parseCard(im.card)
	if err != nil {
		return nil, fmt.Errorf("%w: --card %s: %w", errUsage, im.card, err)
	}
	return m, m.Imagine(target, bytes)
}

// parseCard reads TARGET:SIZE.
func parseCard(card string) (gfx.Target, uint64, error) {
	name, amount, ok := strings.Cut(card, ":")
	if !ok {
		return "", 0, errors.New("give a target and a size, such as gfx1101:16GiB")
	}
	target, err := gfx.Parse(name)
	if err != nil {
		return "", 0, err
	}
	n, err := parseSize(amount)
	if err != nil {
		return "", 0, err
	}
	return target, n, nil
}

// parseSize reads "16GiB" or "16384MiB". All units are binary, as the memory of
// machines and cards is.
func parseSize(amount string) (uint64, error) {
	digits := strings.TrimRight(amount, "GMiBgb")
	var shift uint
	switch strings.ToLower(amount[len(digits):]) {
	case "gib", "gb", "g":
		shift = 30
	case "mib", "mb", "m":
		shift = 20
	default:
		return 0, fmt.Errorf("the size %q has no unit; write it as 16GiB or 16384MiB", amount)
	}
	n, err := strconv.ParseUint(digits, 10, 24)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("the size %q is not a number of GiB or MiB", amount)
	}
	return n << shift, nil
}
