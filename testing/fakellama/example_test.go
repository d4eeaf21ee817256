package fakellama_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A test of a client gets a server that breaks off after two tokens.
func ExampleNew() {
	srv := httptest.NewServer(fakellama.New(fakellama.Script{
		Reply:  "one two three",
		Faults: []fakellama.Fault{{Kind: fakellama.KindCut, AfterTokens: 2}},
	}))
	defer srv.Close()

	resp, err := http.Post(srv.URL+"/completion", "application/json", strings.NewReader(`{"prompt":"x","stream":true}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	body, err := io.ReadAll(resp.Body)
	fmt.Println(strings.Count(string(body), "data: "), "events, then:", err)
	_ = resp.Body.Close()
	// Output: 2 events, then: unexpected EOF
}

// A test of a supervisor gives the program its script in the environment.
func ExampleScript_Env() {
	entry, err := fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true}}.Env()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(entry)
	// Output: FAKELLAMA_SCRIPT={"process":{"ignore_sigterm":true}}
}
