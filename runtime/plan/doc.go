// Package plan decides how a model runs on the devices of a machine, and
// explains the decision: the GPU and its masks, the arguments for llama-server,
// the use of memory, and the expected number of layers on the GPU.
//
// llama.cpp's own --fit decides the number of layers and the context, since it
// measures real allocations. The plan adds the choice of the device and the
// correct margin: HIP does not see the memory of graphics programs, sysfs does.
// The estimate shows in advance whether a model can be loaded, alone or beside
// others, and explains the plan.
//
// The package reads no files and starts no programs: its input is the facts about
// the model and the devices, its output is arguments and reasons.
package plan
