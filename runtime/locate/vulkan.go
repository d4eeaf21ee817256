package locate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// VulkanQuery says how Vulkan's devices are asked for.
type VulkanQuery struct {
	// State identifies the machine's drivers and devices; a result is cached for it.
	// Empty: the result is not cached.
	State string
	// Mask is the value of gpu.EnvVulkan in the environment, nil if it is not set.
	Mask *string
	// LibraryDirs and Log are those of UnpackOptions.
	LibraryDirs []string
	Log         *slog.Logger
}

// maxVulkan limits how many physical devices are asked for.
const maxVulkan = 16

var (
	// errNoList reports a llama-server that does not answer --list-devices.
	errNoList = errors.New("llama-server --list-devices printed no list")
	// errDriver reports drivers of which none can be used.
	errDriver = errors.New("no driver can be loaded")
	// errMask reports a mask with a number that is no device's: llama-server then uses none.
	errMask = errors.New("the Vulkan drivers do not offer all of these devices; `go-rocm gpus`, run without the variable, lists their numbers")
)

// Vulkan returns the devices that llama-server can use through the Vulkan drivers of
// this machine. It runs llama-server once for each physical device and twice more, in
// processes of their own, since a driver may crash.
//
// llama-server lists the devices that it uses by itself, and those that the mask names.
// The mask has the numbers of physical devices, which the first list lacks; so each
// number is asked for. What only the second list has is a software driver, or a second
// driver of a card.
func (b *Bundle) Vulkan(ctx context.Context, q VulkanQuery) ([]gpu.Vulkan, error) {
	name := vulkanCache(b.Digest(), q)
	if found, ok := readVulkan(name); ok {
		return found, nil
	}
	p, err := b.Unpack(ctx, UnpackOptions{Targets: []gfx.Target{}, LibraryDirs: q.LibraryDirs, Log: q.Log})
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.Close() }()
	found, problem, err := p.vulkan(ctx, q.Mask)
	if err != nil {
		return nil, fmt.Errorf("list the devices of Vulkan: %w", err)
	}
	if problem != "" && q.Log != nil {
		q.Log.Warn("one of the Vulkan drivers cannot be loaded; the others are used", "cause", problem)
	}
	saveVulkan(name, found)
	return found, nil
}

// KnownVulkan returns what an earlier call of [Bundle.Vulkan] has cached for the bundle
// with this digest. It opens no bundle, which takes milliseconds for a packed one.
func KnownVulkan(digest string, q VulkanQuery) (found []gpu.Vulkan, ok bool) {
	return readVulkan(vulkanCache(digest, q))
}

// vulkan returns the devices, and what the loader says of a driver that it cannot load beside
// those that offer them.
func (p *Program) vulkan(ctx context.Context, mask *string) (out []gpu.Vulkan, problem string, err error) {
	if mask != nil {
		return p.maskedVulkan(ctx, *mask)
	}
	used, problem, err := p.listVulkan(ctx, nil)
	if err != nil {
		return nil, "", err
	}
	for i := range maxVulkan {
		number := strconv.Itoa(i)
		listed, why, err := p.listVulkan(ctx, &number)
		switch {
		case err != nil:
			return nil, "", err
		case len(listed) == 0 && i == 0 && why != "":
			return nil, "", fmt.Errorf("%w: %s", errDriver, why)
		case len(listed) == 0:
			return out, problem, nil
		}
		out = append(out, classifyVulkan(i, listed[0], &used))
	}
	return out, problem, nil
}

// classifyVulkan returns a physical device, and removes it from those that llama-server
// uses by itself.
func classifyVulkan(number int, l gpu.Listed, used *[]gpu.Listed) gpu.Vulkan {
	v := gpu.Vulkan{Index: number, Description: l.Description, Total: l.Total, Free: l.Free, Software: gpu.IsSoftware(l.Description)}
	i := slices.IndexFunc(*used, func(u gpu.Listed) bool { return u.Description == l.Description && u.Total == l.Total })
	switch {
	case i >= 0:
		*used = slices.Delete(*used, i, i+1)
	case v.Software:
		v.Unused = "it computes on the CPU"
	default:
		v.Unused = "llama-server does not use it by itself: its driver lacks a feature, or another driver offers the same device"
	}
	return v
}

// maskedVulkan returns the devices that a mask names.
func (p *Program) maskedVulkan(ctx context.Context, mask string) (out []gpu.Vulkan, problem string, err error) {
	listed, problem, err := p.listVulkan(ctx, &mask)
	switch {
	case err != nil:
		return nil, "", err
	case len(listed) == 0 && mask != "" && problem != "":
		return nil, "", fmt.Errorf("%w: %s", errDriver, problem)
	case len(listed) == 0 && strings.Trim(mask, ", ") != "":
		return nil, "", fmt.Errorf("%s is %q: %w", gpu.EnvVulkan, mask, errMask)
	}
	numbers := strings.Fields(strings.ReplaceAll(mask, ",", " "))
	for i, l := range listed {
		n := -1
		if i < len(numbers) {
			n, _ = strconv.Atoi(numbers[i]) // llama-server accepted it
		}
		out = append(out, gpu.Vulkan{Index: n, Description: l.Description, Total: l.Total, Free: l.Free, Software: gpu.IsSoftware(l.Description), Requested: true})
	}
	return out, problem, nil
}

// listVulkan runs llama-server --list-devices under a mask; without one if it is nil.
// problem is what the Vulkan loader says of a driver that it cannot load, or that the
// process crashed: a driver that crashes offers no device.
func (p *Program) listVulkan(ctx context.Context, mask *string) (listed []gpu.Listed, problem string, err error) {
	env := append(gpu.VulkanListEnv(), "VK_LOADER_DEBUG=error")
	if mask != nil {
		env = append(env, gpu.EnvVulkan+"="+*mask)
	}
	stdout, stderr, err := supervise.Output(ctx, supervise.Probe{Argv: p.Argv, Dir: p.Dir}, env, "--list-devices")
	var exit *supervise.ExitError
	switch {
	case errors.As(err, &exit) && exit.Signal != 0 && mask != nil:
		return nil, fmt.Sprintf("llama-server crashed while it asked the driver (%s)", exit.Signal), nil
	case err != nil:
		return nil, "", err
	}
	all, ok := gpu.ParseList(stdout)
	if !ok {
		return nil, "", errNoList
	}
	return slices.DeleteFunc(all, func(l gpu.Listed) bool { return l.Backend() != "Vulkan" }), loaderError(stderr), nil
}

// loaderError returns the first error of the Vulkan loader that says why it cannot open
// a library, such as one that needs a newer C library than the bundle's; else its first
// error, and empty if there is none. The loader writes a line in parts, between which
// there may be a line of llama-server's log.
func loaderError(stderr []byte) string {
	first := ""
	for line := range strings.Lines(string(stderr)) {
		_, text, ok := strings.Cut(strings.TrimSpace(line), "ERROR")
		if !ok {
			continue
		}
		cause := strings.HasPrefix(text, ":") && strings.Contains(text, ".so")
		text = strings.TrimLeft(text, ": |")
		if cause {
			return text
		}
		if first == "" {
			first = text
		}
	}
	return first
}

// vulkanCache returns the file for the result of the bundle with a digest, empty if it is
// not cached.
func vulkanCache(digest string, q VulkanQuery) string {
	if digest == "" || q.State == "" {
		return ""
	}
	dir, err := userdirs.Writable()
	if err != nil {
		return ""
	}
	mask := "not set"
	if q.Mask != nil {
		mask = "=" + *q.Mask
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", digest, q.State, mask))
	return filepath.Join(dir, "vulkan-"+hex.EncodeToString(key[:12])+".json")
}

func readVulkan(name string) ([]gpu.Vulkan, bool) {
	if name == "" {
		return nil, false
	}
	raw, err := os.ReadFile(name)
	var found []gpu.Vulkan
	if err != nil || json.Unmarshal(raw, &found) != nil {
		return nil, false
	}
	for i := range found {
		found[i].Free = found[i].Total // what was free then says nothing of now
	}
	return found, true
}

// saveVulkan caches a result. If that fails, the next start asks again.
func saveVulkan(name string, found []gpu.Vulkan) {
	if name == "" {
		return
	}
	raw, err := json.Marshal(found)
	if err != nil {
		return
	}
	_ = userdirs.WriteFile(name, raw)
}
