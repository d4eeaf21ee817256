// Kernels that take different ways through the code generator: device library
// functions, local memory and barriers, atomics, half precision, wide vectors.
#pragma OPENCL EXTENSION cl_khr_fp16 : enable

__kernel void functions(__global float *out, __global const float *in) {
  size_t i = get_global_id(0);
  out[i] = exp(in[i]) + native_cos(in[i]) * pow(in[i], 3.5f) - log1p(fabs(in[i]));
}

__kernel void reduce(__global float *out, __global const float *in, __local float *part, uint n) {
  uint l = get_local_id(0);
  float sum = 0;
  for (uint i = get_global_id(0); i < n; i += get_global_size(0))
    sum += in[i];
  part[l] = sum;
  for (uint half_ = get_local_size(0) / 2; half_ > 0; half_ /= 2) {
    barrier(CLK_LOCAL_MEM_FENCE);
    if (l < half_)
      part[l] += part[l + half_];
  }
  if (l == 0)
    out[get_group_id(0)] = part[0];
}

__kernel void count(__global uint *bins, __global const uchar *in, ulong n) {
  for (ulong i = get_global_id(0); i < n; i += get_global_size(0))
    atomic_inc(&bins[in[i]]);
}

__kernel void product(__global half8 *out, __global const half8 *a, __global const half8 *b, uint n) {
  half8 sum = (half8)(0);
  for (uint i = 0; i < n; i++)
    sum = fma(a[i], b[i * get_global_size(0) + get_global_id(0)], sum);
  out[get_global_id(0)] = sum;
}
