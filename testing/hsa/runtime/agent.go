//go:build linux && amd64

package main

// #include "runtime.h"
import "C"

import "unsafe"

//export hsa_init
func hsa_init() status {
	if _, err := cards(); err != nil {
		logf("%v", err)
		return errArgument
	}
	return success
}

//export hsa_shut_down
func hsa_shut_down() status { return success }

const nanosecondsPerSecond = 1_000_000_000

//export hsa_system_get_info
func hsa_system_get_info(attribute uint32, value unsafe.Pointer) status {
	switch attribute {
	case 0, 1: // version 1.1
		return put(value, uint16(1))
	case 2:
		return put(value, uint64(C.nanoseconds()))
	case 3:
		return put(value, uint64(nanosecondsPerSecond))
	case 4: // the longest wait
		return put(value, ^uint64(0))
	case 5: // little endian
		return put(value, uint32(0))
	case 6: // addresses of 64 bits
		return put(value, uint32(1))
	case 7:
		return put(value, [128]byte{})
	case 0x201, 0x202, 0x203, 0x204, 0x205, 0x206: // shared virtual memory and its kin
		return put(value, false)
	case 0x207, 0x208: // version 1.7 of the extensions
		return put(value, uint16(1+6*(attribute-0x207)))
	}
	return errArgument
}

//export hsa_system_extension_supported
func hsa_system_extension_supported(extension, major, minor uint16, result unsafe.Pointer) status {
	return put(result, false)
}

//export hsa_agent_extension_supported
func hsa_agent_extension_supported(extension uint16, agent uint64, major, minor uint16, result unsafe.Pointer) status {
	return put(result, false)
}

//export hsa_system_get_major_extension_table
func hsa_system_get_major_extension_table(extension, version uint16, size uint64, table unsafe.Pointer) status {
	const loader = 0x201
	if extension != loader {
		return errArgument
	}
	C.fill_loader_table(table, C.size_t(size))
	return success
}

//export hsa_iterate_agents
func hsa_iterate_agents(callback, data unsafe.Pointer) status {
	all, err := cards()
	if err != nil {
		return errNotInitialized
	}
	for n := range 1 + len(all) {
		if s := status(C.call_handle(callback, C.uint64_t(hostAgent+n), data)); s != success {
			return s
		}
	}
	return success
}

//export hsa_agent_get_info
func hsa_agent_get_info(agent uint64, attribute uint32, value unsafe.Pointer) status {
	if agent == hostAgent {
		return hostInfo(attribute, value)
	}
	c := cardOf(agent)
	if c == nil {
		return errAgent
	}
	return c.info(attribute, value)
}

func hostInfo(attribute uint32, value unsafe.Pointer) status {
	switch attribute {
	case 0, 0xa009:
		return putString(value, "emulated host")
	case 1:
		return putString(value, "CPU")
	case 17:
		return put(value, uint32(0))
	case 16, 0xa004:
		return put(value, uint32(0))
	}
	return notImplemented("an attribute of the host")
}

// Sizes that HIP reports and kernels rely on.
const (
	ldsBytes     = 64 << 10
	mostItems    = 1024 // work items of a group
	mostPackets  = 1 << 17
	cacheLine    = 128
	wavesPerUnit = 32
	tickHertz    = 100_000_000
)

func (c *card) info(attribute uint32, value unsafe.Pointer) status {
	switch attribute {
	case 0:
		return putString(value, c.target)
	case 1:
		return putString(value, "AMD")
	case 2: // dispatches kernels
		return put(value, uint32(1))
	case 3: // addresses of 64 bits
		return put(value, uint32(1))
	case 4: // base profile
		return put(value, uint32(0))
	case 5: // rounds to nearest
		return put(value, uint32(2))
	case 6:
		return put(value, uint32(32))
	case 7:
		return put(value, [3]uint16{mostItems, mostItems, mostItems})
	case 8:
		return put(value, uint32(mostItems))
	case 9:
		return put(value, [3]uint32{1<<31 - 1, 1<<16 - 1, 1<<16 - 1})
	case 10:
		return put(value, ^uint32(0))
	case 12: // queues
		return put(value, uint32(128))
	case 13:
		return put(value, uint32(64))
	case 14:
		return put(value, uint32(mostPackets))
	case 15: // queues with several writers
		return put(value, uint32(0))
	case 16, 0xa004: // node, the host is 0
		return put(value, uint32(c.node))
	case 17: // a GPU
		return put(value, uint32(1))
	case 18:
		return put(value, c.caches)
	case 19:
		return put(value, c.agent())
	case 20: // no extension, so no images
		return put(value, [128]byte{})
	case 21, 22: // version 1.1
		return put(value, uint16(1))
	case 23:
		return put(value, uint32(2))
	case 24:
		return put(value, true)
	}
	return c.infoAMD(attribute, value)
}

// infoAMD has the attributes of AMD's extension.
func (c *card) infoAMD(attribute uint32, value unsafe.Pointer) status {
	switch attribute {
	case 0xa000:
		return put(value, c.chip)
	case 0xa001:
		return put(value, uint32(cacheLine))
	case 0xa002, 0xa014:
		return put(value, c.units)
	case 0xa003:
		return put(value, c.megahertz)
	case 0xa005, 0xa00f, 0xa012: // watch points, PCI domain, revision
		return put(value, uint32(0))
	case 0xa006: // bus, device and function
		return put(value, uint32(2+c.node)<<8)
	case 0xa007:
		return put(value, c.busBits)
	case 0xa008:
		return put(value, c.memoryMegahertz)
	case 0xa009:
		return putString(value, c.name)
	case 0xa00a:
		return put(value, uint32(wavesPerUnit))
	case 0xa00b, 0xa00d: // SIMDs of a unit, arrays of an engine
		return put(value, uint32(2))
	case 0xa00c:
		return put(value, c.engines)
	case 0xa00e: // the registers that flush the host's writes
		return put(value, [2]uintptr{})
	case 0xa010: // cooperative queues
		return put(value, true)
	case 0xa011:
		return putString(value, c.uuid)
	case 0xa013: // access to memory of the host without registration
		return put(value, false)
	case 0xa015:
		return put(value, c.available())
	case 0xa016:
		return put(value, uint64(tickHertz))
	case 0xa107, 0xa108, 0xa109, 0xa110: // family, firmware, IOMMU
		return put(value, uint32(0))
	case 0xa10a:
		return put(value, uint32(2))
	case 0xa10b:
		return put(value, uint32(0))
	case 0xa111:
		return put(value, uint32(1))
	case 0xa113:
		return put(value, uint64(hostAgent))
	case 0xa114, 0xa115: // not a part of the CPU; no extension of packets
		return put(value, [8]byte{})
	}
	return errArgument
}

//export hsa_agent_iterate_isas
func hsa_agent_iterate_isas(agent uint64, callback, data unsafe.Pointer) status {
	if cardOf(agent) == nil {
		return errAgent
	}
	return status(C.call_handle(callback, C.uint64_t(agent), data))
}

//export hsa_isa_get_info_alt
func hsa_isa_get_info_alt(isa uint64, attribute uint32, value unsafe.Pointer) status {
	c := cardOf(isa)
	if c == nil {
		return errISA
	}
	name := "amdgcn-amd-amdhsa--" + c.target
	switch attribute {
	case 0:
		return put(value, uint32(len(name)))
	case 1:
		copy(unsafe.Slice((*byte)(value), len(name)), name)
		return success
	}
	return errArgument
}
