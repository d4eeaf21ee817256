package backendops

import (
	"slices"
	"strings"
	"testing"
)

// TestShortReportsWhatIsNotKnown runs the smallest case of each kind, and the fused cases. What is not equal has to be
// known; with that, nothing is wrong.
func TestShortReportsWhatIsNotKnown(t *testing.T) {
	t.Parallel()
	choose := func(listed []Case) []Case { return Sample(listed, 0, 1, 2) }
	short := Short{Processes: 2, Choose: choose, Fused: []Unit{{Operation: "FUSED"}}, Required: []string{"ADD", "FUSED"}}
	results, err := short.Run(t.Context(), fakeProgram(t))
	var got []string
	for _, r := range results {
		got = append(got, r.String()+" "+string(r.Outcome))
	}
	want := []string{
		"ADD(type=f32,n=1) equal", "FUSED(n=1) equal", "FUSED(n=2) equal", "MUL(type=f16,unallocated=1) different",
		"MUL(type=f32,nan=1) different", "SQR(type=f32,hang=1) crashed",
	}
	if !slices.Equal(got, want) {
		t.Errorf("ran %q", got)
	}
	wrong := []string{
		"MUL(type=f16,unallocated=1) different: not reported: its tensors were not allocated",
		"MUL(type=f32,nan=1) different: [MUL] NaN at index 3 (Vulkan0=nan CPU=0.5)", "SQR(type=f32,hang=1) crashed: it had no result after 3s",
	}
	if err == nil || !slices.Equal(strings.Split(err.Error(), "\n"), wrong) {
		t.Errorf("it reports %v", err)
	}
	short.Known = []Known{
		{Case{"MUL", "type=f16,unallocated=1"}, Different, "there is no memory"},
		{Case{"MUL", "type=f32,nan=1"}, Different, "by the driver"},
		{Case{"SQR", "type=f32,hang=1"}, Crashed, "by the driver"},
	}
	if _, err := short.Run(t.Context(), fakeProgram(t)); err != nil {
		t.Errorf("with what is known: %v", err)
	}
}

// TestShortChecksWhatIsKnown reports each result that is neither equal nor known, and each known or required case that
// does not occur: a list of exceptions that no longer hold would hide others.
func TestShortChecksWhatIsKnown(t *testing.T) {
	t.Parallel()
	short := Short{
		Required: []string{"ADD", "MUL", "ROPE"},
		Known: []Known{
			{Case{"MUL", "n=1"}, Different, "it rounds twice"},
			{Case{"MUL", "n=2"}, Different, "it rounds twice"},
			{Case{"MUL", "n=3"}, Different, "it rounds twice"},
			{Case{"MUL", "n=4"}, Different, "it rounds twice"},
		},
	}
	err := short.check([]Result{
		{Case{"ADD", "n=1"}, Equal, ""},
		{Case{"ADD", "n=2"}, Unsupported, "by CPU"},
		{Case{"ADD", "n=3"}, Different, "ERR = 2"},
		{Case{"ADD", "n=4"}, TooSlow, "it had no result"},
		{Case{"MUL", "n=1"}, Different, "ERR = 1"},
		{Case{"MUL", "n=2"}, Crashed, "signal: aborted"},
		{Case{"MUL", "n=3"}, Equal, ""},
		{Case{"ROPE", "n=1"}, Unsupported, "by Vulkan0"},
	})
	want := []string{
		"ADD(n=3) different: ERR = 2", "ADD(n=4) too slow: it had no result", "MUL(n=2) crashed: signal: aborted",
		"MUL(n=3) is equal: remove it from the cases that are known not to be", "MUL(n=4), whose difference is known, was not run",
		"no case of ROPE is equal",
	}
	if err == nil || !slices.Equal(strings.Split(err.Error(), "\n"), want) {
		t.Errorf("reports:\n%v", err)
	}
}

// TestFusedShortHasEachOperation checks that each fused operation is in the short form, once.
func TestFusedShortHasEachOperation(t *testing.T) {
	t.Parallel()
	var names []string
	for _, u := range FusedShort {
		names = append(names, strings.Split(u.Operation, ",")...)
	}
	slices.Sort(names)
	if want := slices.Sorted(slices.Values(FusedOperations)); !slices.Equal(names, want) {
		t.Errorf("it has %q, want %q", names, want)
	}
}
