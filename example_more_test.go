//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// A conversation goes through the model's own template; each answer is added to
// it before the next question.
func ExampleModel_Chat() {
	model, done := loaded(fakellama.Script{Reply: "Rome."}, rocm.Settings{})
	defer done()

	turns := []inference.Message{
		{Role: "system", Content: "Answer in one word."},
		{Role: "user", Content: "What is the capital of Italy?"},
	}
	answer := ""
	for token := range model.Chat(context.Background(), turns, inference.WithMaxTokens(16)) {
		answer += token.Text
	}
	if err := model.Err(); err != nil {
		fmt.Println(err)
		return
	}
	turns = append(turns, inference.Message{Role: "assistant", Content: answer})
	fmt.Println(len(turns), answer)
	// Output: 3 Rome.
}

// A model with a projector goes on from a text with an image in it.
func ExampleModel_GenerateMedia() {
	model, done := loaded(fakellama.Script{Reply: " a cat.", Vision: true}, rocm.Settings{}) // Settings.Projector names the file
	defer done()

	picture := []rocm.Media{{Data: imagegen.PNG(64, 1), Type: "image/png"}}
	for token := range model.GenerateMedia(context.Background(), "The picture "+rocm.MediaMarker+" shows", picture) {
		fmt.Print(token.Text)
	}
	fmt.Println()
	fmt.Println(model.Err())
	// Output:
	//  a cat.
	// <nil>
}

// Ids are those of the model's own vocabulary; others are refused with their place.
func ExampleModel_Detokenize() {
	model, done := loaded(fakellama.Script{}, rocm.Settings{})
	defer done()

	ctx := context.Background()
	ids, err := model.Tokenize(ctx, "a small town")
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := model.Detokenize(ctx, ids[:2])
	fmt.Printf("%q %v\n", text, err)
	_, err = model.Detokenize(ctx, []int32{ids[0], -1})
	fmt.Println(errors.Is(err, rocm.ErrInvalidOption), err)
	// Output:
	// "a small" <nil>
	// true invalid option: id 1 is -1; the vocabulary has the ids from 0 to 49151
}

// Whether a prompt leaves room for its answer in a slot's context.
func ExampleModel_CountTokens() {
	settings := rocm.Settings{}
	settings.Context, settings.Slots = 512, 1
	model, done := loaded(fakellama.Script{}, settings)
	defer done()

	n, err := model.CountTokens(context.Background(), "it is a small green stone")
	if err != nil {
		fmt.Println(err)
		return
	}
	const answer = 256
	fmt.Println(n, n+answer <= settings.Context/model.Slots())
	// Output: 7 true
}

// What a slot has computed of a long prompt is saved to a file of Settings.SlotDir
// and taken back later, by the same model with the same settings.
func ExampleModel_SaveSlot() {
	dir, err := os.MkdirTemp("", "slots-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	settings := rocm.Settings{}
	settings.SlotDir = dir
	model, done := loaded(fakellama.Script{Reply: "ok"}, settings)
	defer done()

	ctx, slot, reuse := context.Background(), 0, true
	config := inference.DefaultGenerateConfig()
	stream := model.Stream(ctx, rocm.Request{Prompt: rocm.TextPrompt("it is a small green stone"), GenerateConfig: config, Slot: &slot, ReuseCache: &reuse})
	for range stream.All() {
	}
	saved, err := model.SaveSlot(ctx, slot, "stone.bin")
	if err = errors.Join(stream.Err(), err); err != nil {
		fmt.Println(err)
		return
	}
	back, err := model.RestoreSlot(ctx, slot, "stone.bin")
	fmt.Println(saved.Name, saved.Tokens > 0, back.Tokens == saved.Tokens, err)
	// Output: stone.bin true true <nil>
}

// An adapter that was loaded with Settings.Adapters is made weaker for all later requests. One request alone takes
// its scales from Request.Adapters.
func ExampleModel_SetAdapters() {
	model, done := loaded(fakellama.Script{Adapters: []string{"formal.gguf"}}, rocm.Settings{})
	defer done()

	ctx := context.Background()
	if err := model.SetAdapters(ctx, []llamaapi.LoRAScale{{ID: 0, Scale: 0.5}}); err != nil {
		fmt.Println(err)
		return
	}
	adapters, err := model.Adapters(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, a := range adapters {
		fmt.Println(a.ID, a.Path, a.Scale)
	}
	// Output: 0 formal.gguf 0.5
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
