// Package plan decides how a model is run on the devices of a machine and says
// why: which GPU, with which masks, which arguments for llama-server, what the
// memory will be used for, and how many layers are expected on the GPU.
//
// llama.cpp's own --fit has the last word on layers and context, since it
// measures real allocations. What it lacks is the true margin (HIP does not
// see memory that graphics programs hold; sysfs does) and the choice of the
// device, and both are given to it here. The estimate serves admission before
// anything is started, explanation, and several models side by side.
//
// The package reads no files and starts nothing: model facts and devices come
// in, arguments and reasons go out.
package plan
