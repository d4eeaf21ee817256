package fakellama

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestInvalidScripts(t *testing.T) {
	fault := func(f Fault) Script { return Script{Faults: []Fault{f}} }
	for name, tc := range map[string]struct {
		script Script
		want   string
	}{
		"slots":                 {Script{Slots: -1}, "slots is negative"},
		"time":                  {Script{TokenDelay: -1}, "token_delay is negative"},
		"health":                {Script{Health: "odd"}, "unknown health"},
		"kind":                  {fault(Fault{Kind: "odd"}), "unknown kind"},
		"no bytes":              {fault(Fault{Kind: KindOversize}), "set its bytes"},
		"bytes":                 {fault(Fault{Kind: KindCut, Bytes: -1}), "fault 0 (cut): bytes is negative"},
		"request":               {fault(Fault{Kind: KindCut, Request: -1}), "request is negative"},
		"after tokens":          {fault(Fault{Kind: KindCut, AfterTokens: -1}), "after_tokens is negative"},
		"after bytes":           {fault(Fault{Kind: KindCut, AfterBytes: -1}), "after_bytes is negative"},
		"success":               {fault(Fault{Kind: KindStatus, Status: 200}), "no error status"},
		"no status":             {fault(Fault{Kind: KindStatus}), "no error status"},
		"success as error":      {fault(Fault{Kind: KindError, Status: 200}), "no error status"},
		"bytes of an error":     {fault(Fault{Kind: KindError, AfterBytes: 9}), "after_bytes is for cut, crash, stall and wedge"},
		"bytes of a rune":       {fault(Fault{Kind: KindCutRune, AfterBytes: 9}), "after_bytes is for"},
		"bytes of a flood":      {fault(Fault{Kind: KindFlood, Bytes: 1, AfterBytes: 9}), "after_bytes is for"},
		"place of a flood":      {fault(Fault{Kind: KindFlood, Bytes: 1, AfterTokens: 9}), "it has no place"},
		"place of a status":     {fault(Fault{Kind: KindStatus, Status: 500, AfterTokens: 9}), "it has no place"},
		"place of no answer":    {fault(Fault{Kind: KindNoAnswer, AfterTokens: 9}), "it has no place"},
		"place of a trickle":    {fault(Fault{Kind: KindTrickle, AfterTokens: 9}), "it has no place"},
		"place of the end":      {fault(Fault{Kind: KindHangEnd, AfterTokens: 9}), "it has no place"},
		"unknown signal":        {fault(Fault{Kind: KindCrash, Signal: 999}), "signal 999 ends no process"},
		"negative signal":       {fault(Fault{Kind: KindCrash, Signal: -9}), "signal -9 ends no process"},
		"harmless signal":       {fault(Fault{Kind: KindCrash, Signal: int(syscall.SIGCHLD)}), "ends no process"},
		"signal of a cut":       {fault(Fault{Kind: KindCut, Signal: 9}), "signal is for crash"},
		"unknown exit signal":   {Script{Process: Process{ExitEarly: true, ExitSignal: 999}}, "exit_signal: signal 999 ends no process"},
		"harmless exit signal":  {Script{Process: Process{ExitEarly: true, ExitSignal: int(syscall.SIGCHLD)}}, "ends no process"},
		"stopping exit signal":  {Script{Process: Process{ExitEarly: true, ExitSignal: int(syscall.SIGSTOP)}}, "ends no process"},
		"exit code":             {Script{Process: Process{ExitEarly: true, ExitCode: 256}}, "exit_code 256 is not within 0 and 255"},
		"exit without its time": {Script{Process: Process{ExitSignal: 9}}, "set exit_early or exit_after_load"},
		"flood":                 {Script{Process: Process{FloodBytes: -1}}, "flood_bytes is negative"},
	} {
		if err := tc.script.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q, got %v", name, tc.want, err)
		}
		if _, err := tc.script.Env(); err == nil {
			t.Errorf("%s: it can be given to a process", name)
		}
	}
	entry, err := Script{Slots: 2, LoadTime: time.Second, Process: Process{IgnoreSIGTERM: true}}.Env()
	if want := EnvScript + `={"slots":2,"load_time":1000000000,"process":{"ignore_sigterm":true}}`; err != nil || entry != want {
		t.Errorf("%s, %v", entry, err)
	}
}
