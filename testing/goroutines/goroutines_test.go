package goroutines

import (
	"maps"
	"strings"
	"testing"
)

func TestParseCountsByFunctionAndCreator(t *testing.T) {
	const trace = `goroutine 1 [running]:
main.main()
	/src/main.go:10 +0x1d

goroutine 7 [chan receive, 2 minutes]:
runtime.gopark(...)
	/go/proc.go:1
net/http.(*persistConn).readLoop(0xc0000b2000)
	/go/transport.go:2 +0x9
created by net/http.(*Transport).dialConn in goroutine 5
	/go/transport.go:3 +0x8

goroutine 8 [select]:
net/http.(*persistConn).readLoop(0xc0000b4000)
	/go/transport.go:2 +0x9
created by net/http.(*Transport).dialConn in goroutine 6
	/go/transport.go:3 +0x8
`
	want := Set{"main.main": 1, "net/http.(*persistConn).readLoop, created by net/http.(*Transport).dialConn": 2}
	if got := Parse(trace); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// A goroutine that ends meanwhile does not hide one that stays.
func TestSinceNamesTheLeak(t *testing.T) {
	ending, ended, leaked := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() { <-ending; close(ended) }()
	before := Running()
	gone := make(chan struct{})
	go func() { defer close(gone); wait(leaked) }()
	close(ending)
	<-ended
	if more := strings.Join(Running().Since(before), "\n"); strings.Count(more, "\n") > 0 || !strings.Contains(more, "1 goroutines of") || !strings.Contains(more, "TestSinceNamesTheLeak") {
		t.Errorf("found %q", more)
	}
	close(leaked)
	<-gone
}

func wait(ch <-chan struct{}) { <-ch }
