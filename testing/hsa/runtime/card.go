//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"forge.lthn.ai/core/go-rocm/testing/rdna3"
)

// envCards names the variable with the targets of the cards.
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
	index  int
	memory rdna3.Memory

	mu      sync.Mutex // guards what follows
	used    uint64
	kernels map[uint64]*rdna3.Kernel // by the address of the descriptor
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
	var out []*card
	for target := range strings.SplitSeq(wanted, ",") {
		m, ok := models[target]
		if !ok {
			return nil, fmt.Errorf("%s has %q: use gfx1100, gfx1101 or both with a comma", envCards, target)
		}
		out = append(out, &card{model: m, index: len(out), kernels: map[uint64]*rdna3.Kernel{}})
	}
	return out, nil
})

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
