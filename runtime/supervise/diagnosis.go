package supervise

// Diagnosis is what one needs to know to run the same thing by hand.
type Diagnosis struct {
	// Argv is the whole command line, Dir its working directory.
	Argv []string
	Dir  string
	// Env is the environment with the key left out; Scrubbed names what was
	// taken from ours.
	Env        []string
	RemovedEnv []string
	// Adapted says which arguments were dropped or renamed, and why.
	FlagNotes []string
	State     State
	Pid       int
	Attempt   int
	Addr      string
	Log       []string
}
