//go:build linux && amd64

package rocm_test

import (
	"context"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A pool loads models by name when they are asked for. A lease keeps its model loaded.
func ExamplePool() {
	defer fakebundle.Example(fakellama.Script{Reply: "Hello over there"})()
	ctx := context.Background()

	chat := rocm.PoolModel{Path: os.Getenv(fakebundle.EnvModel), Aliases: []string{"gpt-4o-mini"}}
	chat.Context = 4096
	pool, err := rocm.NewPool(rocm.PoolSettings{Models: map[string]rocm.PoolModel{"chat": chat}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = pool.Close() }()
	lease, err := pool.Acquire(ctx, "gpt-4o-mini")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lease.Release()
	for token := range lease.Model().Generate(ctx, "Hi") {
		fmt.Print(token.Text)
	}
	fmt.Println(" from", lease.Name())
	// Output: Hello over there from chat
}
