package cli

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// topExample is a state with one of everything.
func topExample() *topState {
	at := time.Date(2026, 11, 29, 12, 0, 0, 0, time.Local)
	return &topState{
		models: []remoteModel{{ID: "qwen", State: "loaded", Running: 1, Waiting: 1}, {ID: "broken\x1b[31m", State: "failed", Cause: "out of memory"}},
		requests: map[uint64]activity.Record{
			1: {
				Seq: 1, Time: at, Model: "qwen", Route: "/v1/chat/completions", Key: "alice", Stage: activity.Done, Outcome: activity.OK, Status: 200,
				PromptTokens: 12, CachedTokens: 7, GeneratedTokens: 30, WaitSeconds: 0.01, FirstTokenSeconds: 0.25, TokensPerSecond: 41.5,
			},
			2: {Seq: 2, Time: at, Model: "qwen", Route: "/completion", Stage: activity.Generating, Status: 200, GeneratedTokens: 5, FirstTokenSeconds: 1, TokensPerSecond: 40},
			3: {Seq: 3, Time: at, Model: "qwen", Route: "/completion", Stage: activity.Waiting},
			4: {Seq: 4, Time: at, Model: "qwen", Route: "/completion", Stage: activity.Done, Outcome: activity.Limited, Status: 429, Why: "too many requests wait"},
		},
		sample: activity.Sample{Cards: []activity.Card{
			{
				PCI: "0000:03:00.0", Name: "Radeon RX 7900 XTX", Total: 24 << 30, Used: 18 << 30, Ours: 12 << 30, Known: true,
				Sensors: gpu.Sensors{JunctionCelsius: 61, PowerWatts: 303, BusyPercent: 97, Throttled: []string{"temperature"}},
			},
			{PCI: "0000:0a:00.0", Name: "Radeon", Total: 8 << 30, Known: true, Sensors: gpu.Sensors{Suspended: true}},
		}},
	}
}

func TestTopFrame(t *testing.T) {
	t.Parallel()
	want := `go-rocm  12:00:05  1 running, 1 waiting, 40.0 tokens/s

CARD          NAME                MEMORY                  OURS #    OTHERS +  FREE .   TEMPERATURE  POWER  BUSY  THROTTLED BY
0000:03:00.0  Radeon RX 7900 XTX  [##########+++++.....]  12.0 GiB  6.0 GiB   6.0 GiB  61 °C        303 W  97 %  temperature
0000:0a:00.0  Radeon              [....................]  0 bytes   0 bytes   8.0 GiB  asleep                    

MODEL        STATE   RUNNING  WAITING  NOTE
qwen         loaded  1        1        
broken�[31m  failed  0        0        out of memory

TIME      MODEL  KEY    ROUTE                 STATE        WAIT    FIRST TOKEN  PROMPT (CACHED+NEW)  TOKENS  TOKENS/S  WHY
12:00:00  qwen          /completion           waiting                           0+0                  0                 
12:00:00  qwen          /completion           generating           1.00 s       0+0                  5       40.0      
12:00:00  qwen          /completion           limited 429                       0+0                  0                 too many requests wait
12:00:00  qwen   alice  /v1/chat/completions  ok 200       0.01 s  0.25 s       7+5                  30      41.5      
`
	s := topExample()
	now := time.Date(2026, 11, 29, 12, 0, 5, 0, time.Local)
	if diff := cmp.Diff(want, s.frame(now, 0, 0)); diff != "" {
		t.Errorf("the frame differs (-want +got):\n%s", diff)
	}
	s.failure, s.capture = errors.New("connection refused"), 3
	got := s.frame(now, 40, 5)
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	if len(lines) != 4 || lines[1] != "the service keeps the bodies of the last" || lines[2] != "the service does not answer: connection " {
		t.Errorf("a small frame is\n%s", got)
	}
}

// TestTopForgetsOldRequests applies more events than are kept.
func TestTopForgetsOldRequests(t *testing.T) {
	t.Parallel()
	s := &topState{requests: map[uint64]activity.Record{}}
	s.apply(&activity.Record{Seq: 1, Stage: activity.Generating}, nil)
	for seq := range uint64(5 * topRequests) {
		s.apply(&activity.Record{Seq: 2 + seq, Stage: activity.Done}, nil)
	}
	if _, ok := s.requests[1]; !ok || len(s.requests) > 2*topRequests+1 {
		t.Errorf("%d requests are kept, the running one: %v", len(s.requests), ok)
	}
}
