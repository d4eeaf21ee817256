package fakellama_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A test of a client gets a server that breaks off after two tokens.
func ExampleNew() {
	fake := fakellama.New(fakellama.Script{
		Reply:  "one two three",
		Faults: []fakellama.Fault{{Kind: fakellama.KindCut, AfterTokens: 2}},
	})
	srv := httptest.NewServer(fake)
	defer srv.Close()
	defer fake.Close() // what hangs, if something does

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

// A test of a supervisor passes the script to the program in the environment.
func ExampleScript_Env() {
	entry, err := fakellama.Script{Process: fakellama.Process{IgnoreSIGTERM: true}}.Env()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(entry)
	// Output: FAKELLAMA_SCRIPT={"process":{"ignore_sigterm":true}}
}

// A test's own binary can be the server process, so that nothing needs to be built: the test
// starts itself, and its TestMain calls Main.
//
//	func TestMain(m *testing.M) {
//		if os.Getenv("FAKELLAMA_TEST_RUN") != "" {
//			os.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
//		}
//		os.Exit(m.Run())
//	}
func ExampleMain() {
	entry, err := fakellama.Script{Process: fakellama.Process{ExitAfterLoad: true, ExitCode: 1, Log: "out of memory"}}.Env()
	if err != nil {
		fmt.Println(err)
		return
	}
	cmd := exec.Command(os.Args[0], "--port", "0", "--parallel", "2")
	cmd.Env = append(os.Environ(), "FAKELLAMA_TEST_RUN=1", entry)
	log, err := cmd.CombinedOutput()
	fmt.Println(err, strings.Contains(string(log), "out of memory"))
	// Output: exit status 1 true
}
