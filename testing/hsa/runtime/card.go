//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// envCards names the variable with the targets of the cards, each with a colon and the size of its memory in MiB if that
// is another than the model's.
const envCards = "GOROCM_EMULATED_CARDS"

// A model is what the kernel and the ROCm runtime report of a card.
type model struct {
	target                              string
	name                                string
	uuid                                string
	chip                                uint32
	units                               uint32 // compute units
	engines                             uint32 // shader engines
	megahertz, memoryMegahertz, busBits uint32
	caches                              [4]uint32
	vram                                uint64
}

// A card is a GPU agent.
type card struct {
	model
	index  int // among the cards that the process may use
	node   int // of the machine; the host is 0
	memory rdna3.Memory

	mu      sync.Mutex // guards what follows
	used    uint64
	kernels map[uint64]*kernel // by the address of the descriptor
}

// models are the cards that can be emulated.
var models = map[string]model{
	"gfx1100": {
		target: "gfx1100", name: "AMD Radeon RX 7900 XTX", uuid: "GPU-b85e402c0fb3757f", chip: 0x744c,
		units: 96, engines: 6, megahertz: 2371, memoryMegahertz: 1249, busBits: 384,
		caches: [4]uint32{32 << 10, 6 << 20, 96 << 20}, vram: 25753026560,
	},
	"gfx1101": {
		target: "gfx1101", name: "AMD Radeon RX 7800 XT", uuid: "GPU-398a3f843a146602", chip: 0x747e,
		units: 60, engines: 3, megahertz: 2169, memoryMegahertz: 1219, busBits: 256,
		caches: [4]uint32{32 << 10, 4 << 20, 64 << 20}, vram: 17163091968,
	},
}

// Handles of agents and of their memory pools. The cards follow the host.
const (
	hostAgent  = 1
	firstAgent = 2

	poolsPerAgent = 4
	poolFine      = 0 // of the host: seen by the cards at once
	poolKernarg   = 1
	poolCoarse    = 2
	poolGroup     = 3 // LDS, of cards only
)

// cards returns the cards of the machine.
var cards = sync.OnceValues(func() ([]*card, error) {
	wanted := os.Getenv(envCards)
	if wanted == "" {
		wanted = "gfx1100"
	}
	var all []*card
	for entry := range strings.SplitSeq(wanted, ",") {
		m, err := modelOf(entry)
		if err != nil {
			return nil, err
		}
		c := &card{model: m, node: 1 + len(all), kernels: map[uint64]*kernel{}}
		if err := c.override(); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	out := all
	if list, ok := os.LookupEnv(envVisible); ok {
		out = visible(all, list)
	}
	for n, c := range out {
		c.index = n
	}
	return out, nil
})

// modelOf returns the model of an entry of envCards.
func modelOf(entry string) (model, error) {
	target, size, sized := strings.Cut(entry, ":")
	m, ok := models[target]
	if !ok {
		return m, fmt.Errorf("%s has %q: use gfx1100, gfx1101 or both with a comma", envCards, target)
	}
	if sized {
		n, err := strconv.ParseUint(size, 10, 24)
		if err != nil {
			return m, fmt.Errorf("%s has the size %q: use a number of MiB: %w", envCards, size, err)
		}
		m.vram = n << 20
	}
	return m, nil
}

// envOverride names the variable with the version of the target that the ROCm runtime reports in place of a card's own,
// such as 11.0.0 for gfx1100. With an underscore and the number of a node it is for that node, and takes precedence.
const envOverride = "HSA_OVERRIDE_GFX_VERSION"

// override changes the target of a card as the environment says.
func (c *card) override() error {
	version := os.Getenv(fmt.Sprintf("%s_%d", envOverride, c.node))
	if version == "" {
		version = os.Getenv(envOverride)
	}
	if version == "" {
		return nil
	}
	var major, minor, stepping uint
	if n, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &stepping); n != 3 {
		return fmt.Errorf("%s has %q: %w", envOverride, version, err)
	}
	c.target = fmt.Sprintf("gfx%d%d%x", major, minor, stepping)
	return nil
}

// envVisible names the variable with the cards that the process may use, by their numbers or the beginnings of
// their UUIDs, in its own order.
const envVisible = "ROCR_VISIBLE_DEVICES"

// visible returns the cards of a list, up to its first entry that is no card or is there twice.
func visible(all []*card, list string) (out []*card) {
	for entry := range strings.SplitSeq(list, ",") {
		at := slices.IndexFunc(all, func(c *card) bool {
			return strconv.Itoa(c.node-1) == entry || strings.HasPrefix(entry, "GPU-") && strings.HasPrefix(c.uuid, entry)
		})
		if at < 0 || slices.Contains(out, all[at]) {
			return out
		}
		out = append(out, all[at])
	}
	return out
}

func (c *card) agent() uint64 { return firstAgent + uint64(c.index) }

// cardOf returns the card with the handle of an agent, or nil.
func cardOf(agent uint64) *card {
	all, _ := cards()
	if i := agent - firstAgent; agent >= firstAgent && i < uint64(len(all)) {
		return all[i]
	}
	return nil
}

// available returns the bytes of VRAM that are free.
func (c *card) available() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.vram - c.used
}

// take reserves VRAM, and reports whether there is enough.
func (c *card) take(n uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.vram-c.used {
		return false
	}
	c.used += n
	return true
}

func (c *card) give(n uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used -= n
}
