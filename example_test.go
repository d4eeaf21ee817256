//go:build linux && amd64

package rocm_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// Through the contract, the way that works with any backend.
func Example() {
	defer fakebundle.Example(fakellama.Script{Reply: "It scatters blue light."})() // answers in place of a model

	model, err := inference.LoadModel(os.Getenv("MODEL"), inference.WithContextLen(8192))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = model.Close() }()
	question := []inference.Message{{Role: "user", Content: "Why is the sky blue?"}}
	for token := range model.Chat(context.Background(), question) {
		fmt.Print(token.Text)
	}
	if err := model.Err(); err != nil { // nil when the answer came to its end
		fmt.Println(err)
	}
	// Output: It scatters blue light.
}

// With what the backend offers beyond the contract: a child that is started
// again when it dies, and limits of its own.
func ExampleBackend_Load() {
	defer fakebundle.Example(fakellama.Script{})()

	settings := rocm.Settings{}
	settings.Context, settings.Slots = 8192, 8
	settings.Cache.HostLimit = 1 << 30
	settings.Restart.MaxFailures = 3
	model, err := (&rocm.Backend{}).Load(context.Background(), os.Getenv("MODEL"), settings)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = model.Close() }()
	info := model.Info()
	fmt.Printf("%s, %d layers, %d slots\n", info.Architecture, info.NumLayers, model.Slots())
	// Output: llama, 30 layers, 8 slots
}

// loaded returns a model with scripted answers.
func loaded(script fakellama.Script, settings rocm.Settings) (model *rocm.Model, done func()) {
	restore := fakebundle.Example(script)
	model, err := (&rocm.Backend{}).Load(context.Background(), os.Getenv(fakebundle.EnvModel), settings)
	if err != nil {
		panic(err)
	}
	return model, func() {
		if err := model.Close(); err != nil {
			panic(err)
		}
		restore()
	}
}

// A llama-server without the contract around it, for programs that speak its HTTP.
func ExampleLaunch() {
	defer fakebundle.Example(fakellama.Script{})()

	server, err := rocm.Launch(context.Background(), os.Getenv("MODEL"), rocm.Settings{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = server.Close() }()
	answer, err := server.Child.HTTPClient().Get(server.Child.BaseURL() + "/health")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	fmt.Println(server.Info.Architecture, string(body), err)
	// Output: llama {"status":"ok"} <nil>
}

// noGPU is the root of a machine that has none, in the place of this one.
func noGPU() (settings rocm.Settings, done func()) {
	root, err := os.MkdirTemp("", "machine-")
	if err != nil {
		panic(err)
	}
	settings = rocm.Settings{}
	settings.SysRoot = root
	return settings, func() { _ = os.RemoveAll(root) }
}

// What would become of a model, with nothing started.
func ExamplePlan() {
	defer fakebundle.Example(fakellama.Script{})()
	settings, done := noGPU() // rocm.Settings{} for this machine
	defer done()

	plan, err := rocm.Plan(os.Getenv("MODEL"), settings)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(plan.GPU, plan.TotalLayers)
	fmt.Println(plan.Reasons[0])
	// Output:
	// false 31
	// running on the CPU: no AMD GPU was found
}

// The machine is read once, and every model of a directory planned for it.
func Example_machine() {
	defer fakebundle.Example(fakellama.Script{})()
	settings, done := noGPU()
	defer done()

	m, err := machine.Detect("", machine.Config{SysRoot: settings.SysRoot})
	if err != nil {
		fmt.Println(err)
		return
	}
	for model := range inference.Discover(filepath.Dir(os.Getenv("MODEL"))) {
		p, err := m.Plan(model.Path, plan.Options{})
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(filepath.Base(model.Path), model.ModelType, p.Layers, "layers on GPUs")
	}
	// Output: smollm2-135m.gguf llama 0 layers on GPUs
}

// The GPUs that models could run on, and why others could not.
func Example_devices() {
	devices, err := machine.Devices()
	if err != nil {
		fmt.Println(err) // of one of them; the others are there
	}
	for _, d := range devices {
		if !d.Visible {
			fmt.Println(d.Name, d.UnusableReason)
			continue
		}
		fmt.Println(d.Name, d.Target, d.VRAMFree()>>20, "MiB free")
	}
}

// Memory in use on all GPUs that this process may use; 0 of 0 without one.
func Example_usedMemory() {
	used, err := machine.UsedMemory()
	if err != nil {
		fmt.Println(err)
		return
	}
	total, err := machine.TotalMemory()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(used <= total)
	// Output: true
}

// Where the llama-server would come from.
func Example_locate() {
	defer fakebundle.Example(fakellama.Script{})()

	found, err := locate.Find("")
	if err != nil {
		fmt.Println(err) // it says where was looked, and what to set
		return
	}
	defer func() { _ = found.Close() }()
	fmt.Println(found.Origin)
	// Output: given
}

// Whether a model would fit a card that is not here.
func Example_simulate() {
	defer fakebundle.Example(fakellama.Script{})()

	m, err := machine.Detect("", machine.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	card, err := gfx.Parse("gfx1100")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := m.Simulate(card, 24<<30); err != nil {
		fmt.Println(err)
		return
	}
	p, err := m.Plan(os.Getenv("MODEL"), plan.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Fits, p.Layers == p.TotalLayers)
	// Output: true true
}
