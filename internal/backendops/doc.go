// Package backendops runs llama.cpp's test-backend-ops: the program computes operations with one
// backend and with the CPU's reference, and compares the results. The package lists the cases,
// continues after a case that crashed the driver, keeps the results of an interrupted run and writes
// them as a table.
//
// A case of which the program compares a whole graph, because a backend may fuse its operations,
// belongs to one of [FusedOperations]. The program does not list these cases, so they are run by the
// name of the operation.
package backendops
