package cases

import (
	"flag"
	"testing"
)

func TestOfFollowsTheRun(t *testing.T) {
	for _, tt := range []struct {
		short, env string
		want       int
	}{{"true", "", 1}, {"true", "all", 1}, {"false", "", 2}, {"false", "some", 2}, {"false", "all", 3}} {
		was := flag.Lookup("test.short").Value.String()
		t.Setenv(Env, tt.env)
		if err := flag.Set("test.short", tt.short); err != nil {
			t.Fatal(err)
		}
		got := Of(1, 2, 3)
		if err := flag.Set("test.short", was); err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("-short=%s, %s=%q: %d, want %d", tt.short, Env, tt.env, got, tt.want)
		}
	}
}
