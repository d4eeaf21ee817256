//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import "unsafe"

// pool returns the owner and the kind of a memory pool.
func pool(handle uint64) (owner *card, kind uint64, ok bool) {
	agent, kind := handle/poolsPerAgent, handle%poolsPerAgent
	if agent == hostAgent {
		return nil, kind, kind != poolGroup
	}
	c := cardOf(agent)
	return c, kind, c != nil && (kind == poolCoarse || kind == poolGroup)
}

//export hsa_amd_agent_iterate_memory_pools
func hsa_amd_agent_iterate_memory_pools(agent uint64, callback, data unsafe.Pointer) status {
	kinds := []uint64{poolFine, poolKernarg, poolCoarse}
	if agent != hostAgent {
		if cardOf(agent) == nil {
			return errAgent
		}
		kinds = []uint64{poolCoarse, poolGroup}
	}
	for _, kind := range kinds {
		if s := status(C.call_handle(callback, C.uint64_t(agent*poolsPerAgent+kind), data)); s != success {
			return s
		}
	}
	return success
}

// Segments and flags of memory.
const (
	segmentGlobal = 0
	segmentGroup  = 3

	flagKernarg = 1
	flagFine    = 2
	flagCoarse  = 4
)

func flags(kind uint64) uint32 {
	return [...]uint32{poolFine: flagFine, poolKernarg: flagFine | flagKernarg, poolCoarse: flagCoarse, poolGroup: 0}[kind]
}

const pageSize = 4096

//export hsa_amd_memory_pool_get_info
func hsa_amd_memory_pool_get_info(handle uint64, attribute uint32, value unsafe.Pointer) status {
	owner, kind, ok := pool(handle)
	if !ok {
		return errPool
	}
	size := uint64(64 << 30)
	if owner != nil {
		size = owner.vram
	}
	segment := uint32(segmentGlobal)
	if kind == poolGroup {
		size, segment = ldsBytes, segmentGroup
	}
	switch attribute {
	case 0:
		return put(value, segment)
	case 1:
		return put(value, flags(kind))
	case 2, 16:
		return put(value, size)
	case 5:
		return put(value, kind != poolGroup)
	case 6, 7, 18:
		return put(value, uint64(pageSize))
	case 15: // accessible by all agents
		return put(value, owner == nil)
	case 17: // 0 for the host's, 1 for a card's
		where := uint32(0)
		if owner != nil {
			where = 1
		}
		return put(value, where)
	}
	return errArgument
}

// How an agent may access a pool.
const (
	accessNever   = 0
	accessDefault = 1
	accessOnAsk   = 2
)

// A link connects an agent and a pool.
type link struct {
	minLatency, maxLatency, minBandwidth, maxBandwidth uint32
	atomics32, atomics64, coherent                     bool
	kind, distance                                     uint32
}

//export hsa_amd_agent_memory_pool_get_info
func hsa_amd_agent_memory_pool_get_info(agent, handle uint64, attribute uint32, value unsafe.Pointer) status {
	owner, kind, ok := pool(handle)
	if !ok {
		return errPool
	}
	c := cardOf(agent)
	if c == nil && agent != hostAgent {
		return errAgent
	}
	own := owner == c
	switch attribute {
	case 0:
		access := uint32(accessOnAsk)
		switch {
		case own:
			access = accessDefault
		case kind == poolGroup || owner != nil && c != nil: // no card reaches another one's memory
			access = accessNever
		}
		return put(value, access)
	case 1:
		hops := uint32(1)
		if own {
			hops = 0
		}
		return put(value, hops)
	case 2:
		const pcie, distance = 2, 20
		if !own {
			*(*link)(value) = link{atomics32: true, atomics64: true, coherent: true, kind: pcie, distance: distance}
		}
		return success
	}
	return errArgument
}
