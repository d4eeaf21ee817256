package selftest

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Memory compares the plan's estimate of a model's memory with what is used, in bytes.
// A figure that nobody reports is 0.
type Memory struct {
	Place   string `json:"place"` // the card, or host
	Planned uint64 `json:"planned"`
	Weights uint64 `json:"planned_weights"`
	Margin  uint64 `json:"margin"`
	// Server is the sum of the buffers that llama-server reports.
	Server uint64 `json:"server"`
	// Process is what the kernel counts for llama-server on the card, Growth how much
	// the card's used memory has grown.
	Process uint64 `json:"process"`
	Growth  uint64 `json:"growth"`
}

// bufferLine is a line of llama-server's log about the size of a buffer: the device, a
// suffix of the device, and the size.
var bufferLine = regexp.MustCompile(`\b([A-Za-z]+[0-9]*)(_[A-Za-z]+)? +[A-Za-z]+ +buffer size = +([0-9.]+) MiB`)

// reportedBuffers returns the sum of the buffers of the device with this name, in bytes.
// Weights that the CPU's kernels repack (CPU_REPACK) are copies of those of the mapped file,
// which the plan counts once.
func reportedBuffers(log []string, device string) uint64 {
	var sum float64
	for _, m := range bufferLine.FindAllStringSubmatch(strings.Join(log, "\n"), -1) {
		size, err := strconv.ParseFloat(m[3], 64)
		if err == nil && m[1] == device && (m[2] == "" || m[2] == "_Mapped") {
			sum += size
		}
	}
	return uint64(sum * (1 << 20))
}

// memory compares the estimate with the server's report and the kernel's figures.
func (s *session) memory(context.Context) Result {
	log := s.model.Server().Child.LogTail()
	if !s.plan.GPU {
		host := s.plan.Host
		return compareMemory(Memory{Place: "host", Planned: host.Used(), Weights: host.Weights, Server: reportedBuffers(log, "CPU")})
	}
	d, e := s.plan.Chosen[0], s.plan.Devices[0]
	m := Memory{
		Place: d.Name, Planned: e.Used(), Weights: e.Weights, Margin: e.Margin,
		Server: reportedBuffers(log, deviceName(s.plan)), Process: s.fs.ProcessMemory(s.model.Server().Child.Pid(), s.plan.Chosen)[d.PCI],
	}
	if used, known := s.usedMemory()[d.PCI]; known && used > s.before[d.PCI] {
		m.Growth = used - s.before[d.PCI]
	}
	return compareMemory(m)
}

// deviceName returns llama-server's name of the plan's first device, such as ROCm0.
func deviceName(p *plan.Plan) string {
	for i, arg := range p.Args {
		if arg == "--device" && i+1 < len(p.Args) {
			name, _, _ := strings.Cut(p.Args[i+1], ",")
			return name
		}
	}
	return ""
}

// memorySlack is how much the estimate may differ from the server's report, besides
// 5 %: buffers are rounded up.
const memorySlack = 64 << 20

// compareMemory judges the figures. The kernel's include those of the runtime and the
// driver, which the plan's margin is for.
func compareMemory(m Memory) Result {
	const remedy = "leave more of the card's memory free, with a shorter --context; attach this report to an issue"
	kernel := m.Process
	if kernel == 0 {
		kernel = m.Growth
	}
	var res Result
	figures := fmt.Sprintf("planned %s, llama-server reports %s, the kernel %s", mib(m.Planned), mib(m.Server), mib(kernel))
	switch {
	case m.Server == 0 && kernel == 0:
		res = notPossible("use a bundle of this project and a driver that counts memory", "neither llama-server nor the kernel reports the memory in use")
	case m.Server > 0 && difference(m.Server, m.Planned) > m.Server/20+memorySlack:
		res = failed(remedy, "the estimate is wrong: %s", figures)
	case kernel > m.Planned+m.Margin && kernel > 0 && m.Margin > 0:
		res = failed(remedy, "more is used than the estimate and its margin of %s: %s", mib(m.Margin), figures)
	case kernel > 0 && kernel < m.Weights-m.Weights/10:
		res = failed(remedyDoctor, "the weights of %s are not on the card: %s", mib(m.Weights), figures)
	default:
		res = passed("%s", figures)
	}
	res.Memory = &m
	return res
}

func difference(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// mib formats a number of bytes; 0 is a figure that nobody reports.
func mib(n uint64) string {
	if n == 0 {
		return "nothing"
	}
	return strconv.FormatUint((n+1<<19)>>20, 10) + " MiB"
}
